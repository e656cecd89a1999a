"""Retention: what is left of runs that ended long ago is removed, a bounded piece at a time, and nothing else."""

from __future__ import annotations

from quarterdeck.core.commit import Deliver, Erase, Purge, Purged
from quarterdeck.testing.conformance.posting import post
from quarterdeck.testing.conformance.stand import Hold, Stand, check, claim, demand, done, submit
from quarterdeck.testing.samples import DAY_US, T0_US, admission


async def purged(stand: Stand, op: Purge) -> Purged:
    """Purge once; how many were removed, and where to go on."""
    outcome = (await submit(stand, op))[0]
    demand(isinstance(outcome, Purged), f"a purge was answered {outcome}")
    return outcome if isinstance(outcome, Purged) else Purged(0, 0)


async def _runs(stand: Stand, *names: str, at_us: int = T0_US, route: str = "support") -> dict[str, Hold]:
    for name in names:
        await done(stand, admission(name, at_us=at_us, route=route, incarnation=stand.journal.incarnation, key=f"key-{name}"))
    return {run.run_id: Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, now_us=at_us)}


@check(7, "I16")
async def what_ended_long_ago_is_removed(stand: Stand) -> None:
    """A purge removes every trace of runs of its route that ended before the retention time; others stay whole."""
    holds = await _runs(stand, "ended", "open", "posted", "told")
    await _runs(stand, "elsewhere", route="billing")
    await done(stand, Deliver("ended", "signal", b"{}", T0_US, "s"))
    for name in ("ended", "told"):
        await holds[name].finish()
    await holds["posted"].append(holds["posted"].commit(outbox=(post("m1"),)))
    await holds["posted"].finish()
    young = await purged(stand, Purge("support", T0_US + DAY_US, 2 * DAY_US))
    demand(young == Purged(0, 0), f"nothing is old enough yet: {young}")
    gone = await purged(stand, Purge("support", T0_US + 3 * DAY_US, 2 * DAY_US))
    demand(gone.removed == 2, f"the two that ended are removed: {gone}")
    left = sorted(row.run_id for row in stand.insights.runs())
    demand(left == ["elsewhere", "open", "posted"], f"what is open, undelivered or elsewhere stays: {left}")
    demand(not stand.insights.events("ended") and stand.insights.inbox("ended") == (0, [], 0), "nothing of it is left")
    demand(stand.insights.keyed("acme", "key-ended", T0_US) is None, "nor its key")
    await done(stand, admission("ended", at_us=T0_US + DAY_US, incarnation=stand.journal.incarnation))
    demand(len(stand.insights.events("open")) == 1, "others are whole")


@check(7, "I16")
async def a_purge_is_bounded(stand: Stand) -> None:
    """A purge looks at so many runs at most, says where to go on, and ends where runs are too young."""
    holds = await _runs(stand, *[f"n{number}" for number in range(5)])
    for hold in holds.values():
        await hold.finish()
    await _runs(stand, "young", at_us=T0_US + 5 * DAY_US)
    now_us, after, removed = T0_US + 5 * DAY_US, 0, []
    for _ in range(9):
        step = await purged(stand, Purge("support", now_us, DAY_US, after, 2))
        removed.append(step.removed)
        demand(step.removed <= 2, "no more at once than asked for")
        after = step.after
        if not after:
            break
    demand(sum(removed) == 5 and not after, f"all of them in the end: {removed}")
    demand([row.run_id for row in stand.insights.runs()] == ["young"], "and no younger one")


@check(7, "I16")
async def an_erasure_is_recorded(stand: Stand) -> None:
    """What was erased, for whom, by whom and why is kept, once, also after the run itself is gone."""
    holds = await _runs(stand, "r1", "r2")
    await holds["r1"].finish()
    await done(stand, Erase("r1", T0_US + 5, "ada", "request 17"))
    await done(stand, Erase("r1", T0_US + 6, "bob", "again"))
    await purged(stand, Purge("support", T0_US + 3 * DAY_US, DAY_US))
    found = stand.insights.erasures()
    told = [(row.run_id, row.tenant, row.actor, row.by, row.reason, row.at_us) for row in found]
    demand(told == [("r1", "acme", "ada", "ada", "request 17", T0_US + 5)], f"one record, of the first: {told}")
    demand([row.run_id for row in stand.insights.runs(actor="ada")] == ["r2"], "the other is whole")
    demand(list(stand.insights.runs(actor="eve")) == [], "runs can be listed by whom they acted for")
