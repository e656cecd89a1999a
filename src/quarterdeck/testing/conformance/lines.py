"""Ordering keys: runs that stand in one line take effect one after the other, in the order of their admission."""

from __future__ import annotations

from quarterdeck.core.commit import Claim, Claimed, Deliver, Head
from quarterdeck.testing.conformance.stand import Hold, Stand, check, claim, demand, done, submit, take
from quarterdeck.testing.samples import T0_US, admission


async def lined(stand: Stand, run_id: str, key: str | None = "k1", *, tenant: str = "acme", route: str = "support") -> None:
    """Admit a run under an ordering key."""
    incarnation = stand.journal.incarnation
    await done(stand, admission(run_id, ordering_key=key, tenant=tenant, route=route, incarnation=incarnation))


@check(1, "I6")
async def a_run_waits_for_the_one_before_it_in_its_line(stand: Stand) -> None:
    """The next run of an ordering key cannot be claimed before the one before it has ended: not while that waits either."""
    for name in ("first", "second", "third"):
        await lined(stand, name)
    hold = await take(stand, "first")
    demand(not stand.insights.due(T0_US * 2), "nothing else of the line is due")
    await hold.wait("signal")
    demand(await claim(stand, now_us=T0_US * 2) == (), "a run that waits keeps its place")
    await done(stand, Deliver("second", "signal", b"{}", T0_US, "s1"))
    demand(await claim(stand, now_us=T0_US * 2) == (), "a message to one behind it does not let that pass")
    await done(stand, Deliver("first", "signal", b"{}", T0_US, "s1"))
    hold = await take(stand, "first")
    await hold.finish()
    hold = await take(stand, "second")
    demand(await claim(stand) == (), "one at a time")
    await hold.finish("failed")
    hold = await take(stand, "third")
    await hold.finish("cancelled")
    demand(await claim(stand) == (), "then the line is empty")
    await lined(stand, "later")
    await take(stand, "later")


@check(1, "I6")
async def lines_do_not_hinder_each_other(stand: Stand) -> None:
    """Other keys, tenants and routes, and runs without a key, do not wait."""
    await lined(stand, "one")
    await lined(stand, "same")
    await lined(stand, "key", "k2")
    await lined(stand, "tenant", tenant="umbra")
    await lined(stand, "route", route="billing")
    await lined(stand, "none", None)
    await lined(stand, "neither", None)
    names = sorted(run.run_id for run in await claim(stand))
    demand(names == ["key", "neither", "none", "one", "route", "tenant"], f"all but the one behind another: {names}")


@check(1, "I6")
async def a_new_owner_keeps_the_line(stand: Stand) -> None:
    """After the death of an owner the line stands as it stood, whether its first run was held or waited."""
    await lined(stand, "first")
    await lined(stand, "second")
    await take(stand, "first")
    await stand.replace_owner()
    hold = await take(stand, "first", "w2")
    await hold.wait("signal")
    await stand.replace_owner()
    demand(await claim(stand, "w3", now_us=T0_US * 2) == (), "the second still waits for the first")
    await done(stand, Deliver("first", "signal", b"{}", T0_US, "s1"))
    hold = await take(stand, "first", "w3")
    await hold.finish()
    await stand.replace_owner()
    await take(stand, "second", "w4")


@check(1, "I6", "I9")
async def a_cancelled_run_may_end_before_its_turn(stand: Stand) -> None:
    """A run behind another that is cancelled can be claimed, to end; that lets nobody pass."""
    for name in ("first", "second", "third"):
        await lined(stand, name)
    first = await take(stand, "first")
    await done(stand, Deliver("second", "cancel", b"{}", T0_US, "cancel"))
    second = await take(stand, "second")
    await second.finish("cancelled")
    demand(await claim(stand) == (), "the third still waits for the first")
    await first.finish()
    await take(stand, "third")


@check(4, "I6")
async def an_end_that_is_repeated_moves_the_line_once(stand: Stand) -> None:
    """The end of a run sent again, after its answer was lost, does not let two runs go at once."""
    for name in ("first", "second", "third"):
        await lined(stand, name)
    hold = await take(stand, "first")
    end = hold.commit(head=Head("succeeded", "completed", "done", release=True))
    await submit(stand, end, end)
    second = await take(stand, "second")
    await done(stand, end)
    demand(await claim(stand) == (), "the third waits for the second")
    await second.finish()
    await take(stand, "third")


@check(1, "I6")
async def many_admissions_at_once_keep_one_order(stand: Stand) -> None:
    """Admitted in one tick, runs of one key are claimed one by one, in one order, and each ends before the next begins."""
    incarnation = stand.journal.incarnation
    await submit(stand, *[admission(f"n{number}", ordering_key="k1", incarnation=incarnation) for number in range(8)])
    seen: list[str] = []
    for _ in range(8):
        outcomes = await submit(stand, Claim("w1", 4, T0_US), Claim("w2", 4, T0_US))
        runs = [run for outcome in outcomes if isinstance(outcome, Claimed) for run in outcome.runs]
        demand(len(runs) == 1, f"one run of the line at a time: {runs}")
        seen.append(runs[0].run_id)
        await Hold(stand, runs[0].run_id, runs[0].seq, runs[0].epoch).finish()
    demand(seen == [f"n{number}" for number in range(8)], f"in the order of admission: {seen}")
