"""Inboxes: how everybody but the holder reaches a run."""

from __future__ import annotations

from quarterdeck.core.commit import Applied, Deliver, InboxRow, Record
from quarterdeck.testing.conformance.stand import (
    Hold,
    Stand,
    admit,
    check,
    claim,
    demand,
    done,
    held,
    refused,
    rows,
    submit,
)
from quarterdeck.testing.samples import T0_US


def _signal(token: str, run_id: str = "r1", body: bytes = b"{}") -> Deliver:
    return Deliver(run_id, "signal", body, T0_US, token)


@check(1, "I9")
async def a_delivery_is_read_with_its_control(stand: Stand) -> None:
    """Each delivery bumps the run's control in the same step as its row appears, in order, to queued and held runs."""
    await admit(stand, "r1")
    demand(stand.insights.inbox("r1") == (0, [], 0), "an inbox begins empty, at control 0")
    first = await done(stand, Deliver("r1", "cancel", b"1", T0_US + 1, "a"))
    demand(stand.insights.inbox("r1") == (1, [InboxRow(first, "cancel", b"1", T0_US + 1)], 0), "row and control together")
    demand(stand.insights.openings(["r1"]) == [], "a run that nobody has claimed is left out of what is read together")
    (run,) = await claim(stand)
    second = await done(stand, Deliver("r1", "signal", b"2", T0_US + 2, "b"))
    control, unread, _ = stand.insights.inbox("r1")
    demand(control == 2 and [row.row for row in unread] == [first, second], "in order of arrival")
    demand(stand.insights.inbox("nobody") == (0, [], 0), "no run has no inbox")
    demand(stand.insights.openings(["r1", "nobody"]) == [], "what is unread is not passed over by who reads many at once")
    hold = Hold(stand, run.run_id, run.seq, run.epoch)
    await hold.append(hold.commit(Record(b'{"kind":"x"}', b"payload"), inbox=(first, second)))
    (opening,) = stand.insights.openings(["nobody", "r1"])
    demand((opening.run_id, opening.epoch, opening.control) == ("r1", run.epoch, 2), "once it is read, its control is")
    demand(opening.salt == stand.insights.salt("r1"), "with the key of its digests")
    demand(opening.events == list(stand.insights.events("r1")), "and its whole journal")


@check(4, "I2")
async def a_delivery_with_a_known_token_changes_nothing(stand: Stand) -> None:
    """A delivery is repeatable by its token: at once, later, once consumed, once the run has ended."""
    hold = await held(stand)
    number = await done(stand, _signal("s1"))
    before = rows(stand, "r1")
    outcomes = await submit(stand, _signal("s1"), _signal("s1", body=b"other"))
    demand(outcomes == [Applied(number)] * 2, "again is success, with the first one's number")
    demand(rows(stand, "r1") == before, "and changes nothing")
    await hold.append(hold.commit(inbox=(number,)))
    demand(await done(stand, _signal("s1")) == number, "again, once consumed, is success")
    demand(stand.insights.inbox("r1")[:2] == (1, []), "and does not come back")
    await hold.finish()
    demand(await done(stand, _signal("s1")) == number, "again, once the run has ended, is success")


@check(1)
async def tokens_are_a_runs_own(stand: Stand) -> None:
    """The same token at two runs is two deliveries."""
    await admit(stand, "r1")
    await admit(stand, "r2")
    await done(stand, _signal("s1", "r1"))
    await done(stand, _signal("s1", "r2"))
    for name in ("r1", "r2"):
        demand(len(stand.insights.inbox(name)[1]) == 1, "each run got its own")


@check(1, "I8")
async def nothing_is_delivered_to_an_ended_run(stand: Stand) -> None:
    """A delivery to a terminal run is refused by `terminal`, one to an unknown run by `run`."""
    hold = await held(stand)
    await hold.finish()
    before = rows(stand, "r1")
    demand((await refused(stand, _signal("s1"), "terminal")).detail == "succeeded", "the refusal names the status")
    demand(rows(stand, "r1") == before, "and nothing changes")
    await refused(stand, _signal("s1", "nobody"), "run")


@check(2, "I9", "I15")
async def only_named_rows_of_the_own_run_are_consumed(stand: Stand) -> None:
    """A commit consumes exactly the rows that it names, of its own run; what came later stays unread."""
    await admit(stand, "r1")
    await admit(stand, "r2")
    held_runs = {run.run_id: Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand)}
    first = await done(stand, _signal("s1"))
    second = await done(stand, _signal("s2"))
    foreign = await done(stand, _signal("s1", "r2"))
    hold = held_runs["r1"]
    await hold.append(hold.commit(inbox=(first, foreign, 10**6)))
    control, unread, _ = stand.insights.inbox("r1")
    demand(control == 2 and [row.row for row in unread] == [second], "one is consumed, the other still there")
    demand([row.row for row in stand.insights.inbox("r2")[1]] == [foreign], "another run's row is untouched")
