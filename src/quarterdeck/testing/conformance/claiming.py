"""Claims: who holds a run, what is ready, what wakes a waiting one, what a new owner finds."""

from __future__ import annotations

from quarterdeck.core.commit import Applied, Claim, Claimed, Deliver, Head
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
    submit,
    take,
)
from quarterdeck.testing.samples import T0_US


@check(1, "I11", "I12")
async def every_claim_has_a_new_epoch(stand: Stand) -> None:
    """The epoch of a run grows with every claim, and the claimant is told where the journal ends."""
    hold = await held(stand, worker="w1")
    demand((hold.epoch, hold.seq) == (1, 1), "the first claim is epoch 1, after the admission")
    for epoch in (2, 3, 4):
        await hold.wait(wake_at_us=T0_US)
        seq = hold.seq
        hold = await take(stand, "r1", f"w{epoch}")
        demand((hold.epoch, hold.seq) == (epoch, seq), "each claim has the next epoch and the newest sequence")
        row = stand.insights.run("r1")
        demand(row is not None and (row.epoch, row.worker) == (epoch, f"w{epoch}"), "the row names the holder")


@check(1, "I12")
async def a_held_run_is_not_claimed_again(stand: Stand) -> None:
    """A run has one holder: nobody claims it meanwhile, not in the same tick, not later, not after a delivery."""
    await admit(stand, "r1")
    first, second = await submit(stand, Claim("w1", 5, T0_US), Claim("w2", 5, T0_US))
    demand(isinstance(first, Claimed) and len(first.runs) == 1, "the first claim gets the run")
    demand(second == Claimed(()), "the second claim of the same tick gets nothing")
    hold = Hold(stand, "r1", 1, 1)
    demand(await claim(stand, "w2") == (), "nor does a later one")
    await hold.append(hold.commit(head=Head("running", wake_at_us=T0_US)))
    demand(await claim(stand, "w2", now_us=T0_US + 9) == (), "nor one after a time that the holder wrote down")
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    demand(await claim(stand, "w2") == (), "nor one after a delivery")
    demand(await claim(stand, "w1") == (), "nor its holder's own")
    await hold.append()


@check(1, "I18")
async def runs_are_claimed_in_order_and_up_to_a_limit(stand: Stand) -> None:
    """Ready runs are given out in the order in which they became ready, no more at once than asked for."""
    for name, at_us in (("late", 30), ("early", 10), ("middle", 20), ("as-late", 30)):
        await admit(stand, name, T0_US + at_us)
    first = await claim(stand, limit=3)
    demand([run.run_id for run in first] == ["early", "middle", "late"], f"three, oldest first, were due: {first}")
    rest = await claim(stand, limit=3)
    demand([run.run_id for run in rest] == ["as-late"], "then the rest")
    demand(await claim(stand) == (), "then none")


@check(1, "I17", "I18")
async def a_timer_fires_at_its_time(stand: Stand) -> None:
    """A waiting run is claimed at its wake time, not before, once, and among others by that time."""
    hold = await held(stand)
    await hold.wait("timer", wake_at_us=T0_US + 100)
    row = stand.insights.run("r1")
    demand(row is not None and (row.status, row.worker) == ("waiting", None), "a waiting run is nobody's")
    demand(row is not None and row.waiting_on == ("timer",), "and names what wakes it")
    demand(await claim(stand, now_us=T0_US + 99) == (), "a timer never fires early")
    await admit(stand, "after", T0_US + 101)
    await admit(stand, "before", T0_US + 99)
    runs = await claim(stand, now_us=T0_US + 102)
    demand([run.run_id for run in runs] == ["before", "r1", "after"], "a due run is ready by its own time")
    demand(await claim(stand, now_us=T0_US + 200) == (), "a timer fires once")


@check(1, "I18")
async def a_run_without_a_timer_waits(stand: Stand) -> None:
    """A waiting run without a wake time is claimed by nobody until something is delivered to it; then once."""
    hold = await held(stand)
    await hold.wait("approval:a1")
    demand(await claim(stand, now_us=T0_US * 2) == (), "nothing wakes it by itself")
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s2"))
    woken = await take(stand, "r1", "w2")
    demand(await claim(stand, "w3") == (), "two deliveries wake it once")
    demand(len(stand.insights.inbox("r1")[1]) == 2, "and both are there to read")
    await woken.append()


@check(1, "I17", "I18")
async def a_delivery_and_a_timer_wake_once(stand: Stand) -> None:
    """A run whose timer is due and that also got a delivery is claimed once; its timer is spent with that."""
    hold = await held(stand)
    await hold.wait(wake_at_us=T0_US + 5)
    await done(stand, Deliver("r1", "signal", b"{}", T0_US + 9, "s1"))
    hold = await take(stand, "r1", now_us=T0_US + 10)
    await hold.wait("signal")
    demand(await claim(stand, now_us=T0_US * 2) == (), "nothing is left to wake it")


@check(2, "I18")
async def a_wait_behind_a_delivery_is_refused(stand: Stand) -> None:
    """A holder that gives a run up without having seen a delivery is refused by `control`, so no wake-up is lost."""
    hold = await held(stand)
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    await refused(stand, hold.commit(control=0, head=Head("waiting", release=True)), "control")
    control, unread, _ = stand.insights.inbox("r1")
    rows = tuple(row.row for row in unread)
    await hold.append(hold.commit(control=control, head=Head("waiting", release=True), inbox=rows))
    demand(await claim(stand) == (), "what was consumed does not wake it")


@check(1, "I11")
async def a_released_run_is_appended_to_by_nobody(stand: Stand) -> None:
    """Once a lease is given up, the former holder's next append is refused by `epoch`, even if nobody else came."""
    hold = await held(stand)
    await hold.wait(wake_at_us=T0_US + 5)
    await refused(stand, hold.commit(), "epoch")
    hold = await take(stand, "r1", now_us=T0_US + 5)
    await hold.append(hold.commit(head=Head("running", wake_at_us=T0_US, release=True)))
    await refused(stand, hold.commit(), "epoch")
    again = await take(stand, "r1", "w2")
    demand(again.epoch == hold.epoch + 1, "a run that was given up while running is claimed at once")


@check(1, "I8")
async def an_ended_run_is_claimed_by_nobody(stand: Stand) -> None:
    """A terminal run is never claimed again: not by time, not at a new owner; and nobody appends to it."""
    hold = await held(stand)
    await hold.append(hold.commit(head=Head("failed", "failed", "x", wake_at_us=T0_US, release=True)))
    demand(await claim(stand, now_us=T0_US + 9) == (), "not by time")
    await refused(stand, hold.commit(), "epoch")
    await stand.replace_owner()
    demand(await claim(stand, now_us=T0_US + 9) == (), "not at a new owner")
    await refused(stand, hold.commit(), "epoch")


@check(1, "I1", "I11", "I18")
async def a_new_owner_adopts_what_the_former_held(stand: Stand) -> None:
    """After an owner's death its runs are ready: queued, running, claimed and not begun; waiting ones keep waiting."""
    names = ("running", "begun-waiting", "timer", "deaf", "queued")
    for place, name in enumerate(names[:4]):
        await admit(stand, name, T0_US + place)
    holds = {run.run_id: Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand)}
    await holds["running"].append(holds["running"].commit(head=Head("running")))
    await holds["begun-waiting"].wait(wake_at_us=T0_US + 10)
    await holds["timer"].wait(wake_at_us=T0_US + 900)
    await holds["deaf"].wait("signal")
    claimed = await claim(stand, "w1", now_us=T0_US + 20)
    demand([run.run_id for run in claimed] == ["begun-waiting"], "its timer is spent, and its holder has not begun")
    await admit(stand, "queued", T0_US + 30)
    await stand.replace_owner()
    runs = await claim(stand, "w2", now_us=T0_US + 40)
    demand({run.run_id for run in runs} == {"running", "begun-waiting", "queued"}, f"adopted: {runs}")
    epochs = {run.run_id: run.epoch for run in runs}
    demand(epochs == {"running": 2, "begun-waiting": 3, "queued": 1}, "each under a new epoch")
    await refused(stand, holds["running"].commit(), "epoch")
    runs = await claim(stand, "w2", now_us=T0_US + 900)
    demand([run.run_id for run in runs] == ["timer"], "a timer survives its owner")
    await done(stand, Deliver("deaf", "signal", b"{}", T0_US, "s1"))
    await take(stand, "deaf", "w2")


@check(1, "I18")
async def a_new_owner_finds_unread_deliveries(stand: Stand) -> None:
    """A waiting run that has unread deliveries is ready at a new owner, whoever was to read them before."""
    hold = await held(stand)
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    await hold.wait("signal")
    await stand.replace_owner()
    hold = await take(stand, "r1", "w2")
    unread = tuple(row.row for row in stand.insights.inbox("r1")[1])
    await hold.append(hold.commit(head=Head("waiting", release=True), inbox=unread))
    await stand.replace_owner()
    demand(await claim(stand, "w3") == (), "once they are consumed, it waits again")


@check(1, "I18")
async def what_is_due_can_be_claimed(stand: Stand) -> None:
    """`due` says whether a claim at that time would find something, and asking changes nothing."""
    demand(not stand.insights.due(T0_US * 2), "an empty store has nothing due")
    await admit(stand, "r1")
    demand(stand.insights.due(0) and stand.insights.due(0), "a ready run is due at any time")
    hold = await take(stand, "r1")
    demand(not stand.insights.due(T0_US * 2), "a held run is not")
    await hold.append(hold.commit(head=Head("running", wake_at_us=T0_US)))
    demand(not stand.insights.due(T0_US * 2), "whatever its holder wrote down")
    await hold.wait(wake_at_us=T0_US + 5)
    demand(not stand.insights.due(T0_US + 4), "a waiting run is not, before its time")
    demand(stand.insights.due(T0_US + 5), "and is, at its time")
    hold = await take(stand, "r1", now_us=T0_US + 5)
    await hold.wait()
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    demand(stand.insights.due(0), "and once something was delivered")


@check(4, "I12", "I18")
async def a_claim_whose_answer_was_lost_can_be_repeated(stand: Stand) -> None:
    """A claim sent again under its token is answered alike and gives out nothing twice; a new token claims anew."""
    await admit(stand, "r1")
    await admit(stand, "r2", T0_US + 1)
    first = await claim(stand, "w1", limit=1, once="t1")
    demand([run.run_id for run in first] == ["r1"], "the first claim gets the first run")
    demand(await claim(stand, "w1", limit=1, once="t1") == first, "the same token is answered alike")
    demand(await claim(stand, "w2", limit=0, once="t1") == (), "a token is its worker's own")
    second = await claim(stand, "w1", limit=1, once="t2")
    demand([run.run_id for run in second] == ["r2"], "a new token claims anew")
    demand(await claim(stand, "w1", once="t3") == (), "an empty answer is no answer to keep")
    await admit(stand, "r3")
    demand(len(await claim(stand, "w1", once="t3")) == 1, "so the same token may find something later")
    row = stand.insights.run("r1")
    demand(row is not None and row.epoch == 1, "repeating a claim takes no new epoch")
    await stand.replace_owner()
    demand(len(await claim(stand, "w1", once="t3")) == 3, "a new owner's claims are new, whatever their token")


@check(1, "I12")
async def concurrent_claims_share_nothing(stand: Stand) -> None:
    """Many claims and admissions in one tick: every run is held exactly once."""
    for number in range(20):
        await admit(stand, f"n{number}")
    outcomes = await submit(stand, *[Claim(f"w{number}", 3, T0_US) for number in range(10)])
    names = [run.run_id for outcome in outcomes if isinstance(outcome, Claimed) for run in outcome.runs]
    demand(sorted(names) == sorted(f"n{number}" for number in range(20)), "every run once")
    appended = await submit(stand, *[Hold(stand, name, 1, 1).commit() for name in names])
    demand(appended == [Applied(2)] * 20, "and each by its holder")
