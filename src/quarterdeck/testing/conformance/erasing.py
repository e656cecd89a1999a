"""Erasure, and lists."""

from __future__ import annotations

from quarterdeck.core.commit import Ask, Deliver, Erase, Record
from quarterdeck.core.errors import UsageError
from quarterdeck.testing.conformance.stand import (
    Broken,
    Stand,
    admit,
    check,
    demand,
    done,
    held,
    note,
    refused,
    rows,
    take,
    verified,
)
from quarterdeck.testing.samples import DAY_US, T0_US, admission


@check(4, "I14", "I16")
async def an_erased_run_keeps_its_chain_and_nothing_else(stand: Stand) -> None:
    """Erasing destroys payloads, salt, what was shown and delivered; the chain verifies and repeats are still known."""
    hold = await held(stand)
    ask = Ask("a1", "t1.0", "refund", "d1", "ada", T0_US + DAY_US, b"a secret amount")
    secret = hold.commit(Record(b'{"kind":"x"}', b"a secret"), note("plain"), asks=(ask,))
    await hold.append(secret)
    await done(stand, Deliver("r1", "signal", b"a secret signal", T0_US, "s1"))
    await hold.finish()
    bodies = [event.body for event in stand.insights.events("r1")]
    await done(stand, Erase("r1", T0_US))
    events = stand.insights.events("r1")
    demand([event.body for event in events] == bodies, "bodies stay")
    demand(all(event.payload is None for event in events), "payloads are gone")
    demand([event.payload_digest is not None for event in events] == [True, True, False, False], "digests stay")
    demand(stand.insights.salt("r1") is None, "the key of the digests is gone")
    row = stand.insights.approval("a1")
    demand(row is not None and row.shown == b"", "what a person was shown is gone")
    demand(all(b"secret" not in each.body for each in stand.insights.inbox("r1")[1]), "what was delivered is gone")
    demand(verified(stand, "r1") == 4, "the chain verifies")
    await done(stand, Erase("r1", T0_US + 1))
    demand(await done(stand, secret) == 3, "an append that was applied is still known")
    demand(await done(stand, admission("r1")) == 1, "an admission that was applied is still known")


@check(4, "I14")
async def a_run_that_goes_on_is_not_erased(stand: Stand) -> None:
    """Erasing a queued, held or waiting run is refused by `terminal`, an unknown one by `run`; nothing changes."""
    await admit(stand, "r1")
    before = rows(stand, "r1")
    await refused(stand, Erase("r1", T0_US), "terminal")
    demand(rows(stand, "r1") == before and stand.insights.salt("r1") is not None, "nothing changes")
    hold = await take(stand, "r1")
    await refused(stand, Erase("r1", T0_US), "terminal")
    await hold.wait()
    await refused(stand, Erase("r1", T0_US), "terminal")
    await refused(stand, Erase("nobody", T0_US), "run")
    demand(stand.insights.events("r1")[0].payload is not None, "the payload is there")


@check(4, "I15")
async def erasing_one_run_leaves_the_others(stand: Stand) -> None:
    """Erasing one run touches no other run's payloads."""
    hold = await held(stand, "r1")
    await hold.finish()
    other = await held(stand, "r2")
    await other.finish()
    before = rows(stand, "r2")
    await done(stand, Erase("r1", T0_US))
    demand(rows(stand, "r2")[0] == before[0], "the other run is untouched")
    demand(verified(stand, "r2") == 2, "and verifies with its payloads")


@check(1)
async def runs_are_listed_newest_first_in_pages(stand: Stand) -> None:
    """Lists are newest first, by page, and by status and route."""
    for number in range(7):
        await done(stand, admission(f"n{number}", route="even" if number % 2 == 0 else "odd", at_us=T0_US + number))
    hold_names = [f"n{number}" for number in range(6, -1, -1)]
    first = [row.run_id for row in stand.insights.runs(limit=3)]
    second = [row.run_id for row in stand.insights.runs(limit=3, before=first[-1])]
    rest = [row.run_id for row in stand.insights.runs(limit=3, before=second[-1])]
    demand(first + second + rest == hold_names, "three pages are everything, once, newest first")
    demand([row.run_id for row in stand.insights.runs(route="odd")] == ["n5", "n3", "n1"], "by route")
    demand(len(stand.insights.runs(status="queued")) == 7 and not stand.insights.runs(status="failed"), "by status")
    try:
        stand.insights.runs(before="nobody")
    except UsageError as error:
        demand(error.code == "cursor.unknown", "an unknown place is named so")
    else:
        raise Broken("a page after an unknown run should be refused")


@check(1, "I1")
async def everything_survives_a_new_owner(stand: Stand) -> None:
    """What was answered as applied is there, unchanged, at a new owner."""
    hold = await held(stand)
    await hold.append(hold.commit(Record(b"{}", b"kept")))
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    await hold.wait()
    before = rows(stand, "r1")
    await stand.replace_owner()
    demand(rows(stand, "r1") == before, "nothing is lost and nothing is changed")
