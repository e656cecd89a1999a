"""Admission: a run is one committed row, once, under its idempotency key."""

from __future__ import annotations

import msgspec

from quarterdeck.core.commit import Applied, Charge, SetFact
from quarterdeck.core.events import Move
from quarterdeck.testing.conformance.stand import (
    Broken,
    Stand,
    check,
    demand,
    done,
    note,
    refusal,
    refused,
    rows,
    submit,
    take,
)
from quarterdeck.testing.samples import DAY_US, T0_US, admission, salt


@check(1, "I1", "I8")
async def an_admitted_run_is_queued_with_its_contract(stand: Stand) -> None:
    """An accepted run is there, queued and ready, with its contract as its first event and its salt."""
    await done(stand, admission("r1"))
    row = stand.insights.run("r1")
    if row is None:
        raise Broken("an admitted run can be read")
    demand((row.status, row.seq, row.epoch, row.worker) == ("queued", 1, 0, None), "it is queued and nobody's")
    demand((row.tenant, row.route, row.agent, row.actor) == ("acme", "support", "helpdesk", "ada"), "it says whose")
    demand((row.admitted_at_us, row.correlation_id, row.priority) == (T0_US, "c1", "standard"), "and since when")
    event = stand.insights.events("r1")[0]
    demand(event.body == admission("r1").records[0].body, "its first event is its contract")
    demand(event.payload == b'{"text":"please"}', "with what the caller sent")
    demand(stand.insights.salt("r1") == salt("r1"), "and its salt")
    await take(stand, "r1")
    demand(stand.insights.run("nobody") is None, "a run that was never admitted is not there")


@check(4, "I1")
async def the_same_admission_again_is_success(stand: Stand) -> None:
    """Admission is repeatable: once, however often it is sent, also after the run has moved on."""
    commit = admission("r1", key="k1")
    demand(await submit(stand, commit, commit) == [Applied(1), Applied(1)], "twice in one tick is success twice")
    hold = await take(stand, "r1")
    await hold.append()
    demand(await done(stand, commit) == 1, "again, later, is success")
    demand(len(stand.insights.runs()) == 1, "there is one run")
    demand(len(stand.insights.events("r1")) == 2, "with its own events only")


@check(4, "I1")
async def another_run_under_a_taken_id_is_refused(stand: Stand) -> None:
    """Another admission under the id of a run is refused by `run`; one that does not begin at 0 by `seq`."""
    await done(stand, admission("r1"))
    before = rows(stand, "r1")
    await refused(stand, msgspec.structs.replace(admission("r1"), records=(note("other"),)), "run")
    await refused(stand, msgspec.structs.replace(admission("r2"), seq=3), "seq")
    demand(rows(stand, "r1", "r2")[0] == before[0], "nothing changed")
    demand(stand.insights.run("r2") is None, "nothing was created")


@check(2, "I2")
async def one_key_is_one_run(stand: Stand) -> None:
    """A key with the same body is refused by `key`, naming the run that has it; with another body by `digest`."""
    await done(stand, admission("r1", key="k1"))
    demand((await refused(stand, admission("r2", key="k1"), "key")).detail == "r1", "the refusal names the run")
    other = admission("r2", key="k1", body="digest-2")
    demand((await refused(stand, other, "digest")).detail == "r1", "the refusal names the run")
    demand(stand.insights.run("r2") is None, "no second run was created")
    await done(stand, admission("r2", key="k2"))
    await done(stand, admission("r3"))
    await done(stand, admission("r4"))


@check(2, "I2")
async def a_key_holds_whatever_became_of_its_run(stand: Stand) -> None:
    """A key keeps naming its run when that has ended, and at a new owner."""
    await done(stand, admission("r1", key="k1"))
    await (await take(stand, "r1")).finish("failed")
    await stand.replace_owner()
    demand((await refused(stand, admission("r2", key="k1"), "key")).detail == "r1", "the refusal names the run")


@check(2, "I2")
async def of_two_admissions_under_one_key_one_is_admitted(stand: Stand) -> None:
    """Two admissions under one key, sent at once, make one run."""
    outcomes = await submit(stand, admission("r1", key="k1"), admission("r2", key="k1"))
    demand(outcomes[0] == Applied(1), "the first is admitted")
    refusal(outcomes[1], "key")
    demand([row.run_id for row in stand.insights.runs()] == ["r1"], "one run exists")


@check(2, "I2")
async def a_key_expires(stand: Stand) -> None:
    """Until its expiry a key refuses, at it and later the key is free, and then belongs to the next run."""
    await done(stand, admission("r1", key="k1"))
    await refused(stand, admission("r2", key="k1", at_us=T0_US + DAY_US - 1), "key")
    await done(stand, admission("r2", key="k1", at_us=T0_US + DAY_US, body="digest-2"))
    again = admission("r3", key="k1", at_us=T0_US + DAY_US + 1, body="digest-2")
    demand((await refused(stand, again, "key")).detail == "r2", "the key is the next run's now")


@check(2, "I15")
async def a_key_is_a_tenants_own(stand: Stand) -> None:
    """Two tenants may use the same key and body, and each gets a run of its own."""
    await done(stand, admission("r1", key="k1", tenant="acme"))
    await done(stand, admission("r2", key="k1", tenant="globex"))
    demand((await refused(stand, admission("r3", key="k1", tenant="globex"), "key")).detail == "r2", "each its own")


@check(8, "I1", "I3", "I9")
async def a_refused_admission_leaves_nothing_behind(stand: Stand) -> None:
    """An admission whose facts changed or whose charge does not fit leaves no run, key, account or ready row."""
    charge = Charge(Move("tenant:acme", "tokens", leased=11), limit=10)
    await refused(stand, admission("r1", key="k1", charges=(charge,)), "account")
    await done(stand, SetFact("switches", "stop", T0_US))
    await refused(stand, admission("r1", key="k1", facts={"switches": 0}), "facts")
    demand(stand.insights.run("r1") is None, "no run")
    demand(not stand.insights.runs() and not stand.insights.accounts(), "no run, no account")
    await refused(stand, admission("r1", key="k1", incarnation=stand.journal.incarnation + 1), "incarnation")
    await done(stand, admission("r2", key="k1", body="digest-2"))
    await take(stand, "r2")
