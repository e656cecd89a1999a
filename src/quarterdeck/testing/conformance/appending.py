"""Appending: every guard by its name, repetition, atomicity, isolation, the chain."""

from __future__ import annotations

import asyncio

import msgspec

from quarterdeck.core.commit import (
    MAX_RECORD,
    Applied,
    Ask,
    Charge,
    CloseApproval,
    Consume,
    Deliver,
    Head,
    Op,
    Record,
    SetAccount,
    SetFact,
)
from quarterdeck.core.contract import Limits
from quarterdeck.core.events import Move
from quarterdeck.testing.conformance.stand import (
    Hold,
    Stand,
    admit,
    check,
    claim,
    demand,
    done,
    held,
    note,
    refusal,
    refused,
    rows,
    submit,
    take,
    verified,
)
from quarterdeck.testing.samples import DAY_US, T0_US


@check(1, "I7")
async def appends_are_read_back_in_order(stand: Stand) -> None:
    """What was appended is read back, byte for byte, in order and without gaps."""
    hold = await held(stand)
    records = (Record(b'{"kind":"a"}'), Record(b'{"kind":"b"}', b"payload"), Record(b'{"kind":"c"}', b""))
    demand(await hold.append(hold.commit(*records)) == 4, "a commit of three events after one ends at 4")
    events = stand.insights.events("r1")
    demand([event.seq for event in events] == [1, 2, 3, 4], "sequences are 1, 2, 3, 4")
    demand([Record(e.body, e.payload) for e in events[1:]] == list(records), "bodies and payloads are as they were")
    demand([e.seq for e in stand.insights.events("r1", after=2)] == [3, 4], "reading continues after a sequence")
    demand([e.seq for e in stand.insights.events("r1", after=1, limit=2)] == [2, 3], "reading stops at a limit")
    row = stand.insights.run("r1")
    demand(row is not None and (row.seq, row.head) == (4, events[-1].hash), "the run's row names the newest event")


@check(3, "I7")
async def another_sequence_is_refused(stand: Stand) -> None:
    """An append at a sequence that is not the journal's end is refused by `seq` and changes nothing."""
    hold = await held(stand)
    await hold.append()
    before = rows(stand, "r1")
    for seq in (0, 1, 3, 99):
        await refused(stand, msgspec.structs.replace(hold.commit(note("other")), seq=seq), "seq")
    demand(rows(stand, "r1") == before, "a refused append changes nothing")


@check(1, "I7", "I12")
async def one_of_many_appends_at_one_sequence_wins(stand: Stand) -> None:
    """Of different appends at one sequence, sent at once, exactly the first is applied."""
    hold = await held(stand)
    outcomes = await submit(stand, *[hold.commit(note(f"rival {number}")) for number in range(8)])
    demand(outcomes[0] == Applied(2), "the first append at a free sequence is applied")
    for outcome in outcomes[1:]:
        refusal(outcome, "seq")
    demand(stand.insights.events("r1")[1].body == note("rival 0").body, "the winner is what is stored")
    demand(len(stand.insights.events("r1")) == 2, "only one of them is stored")


@check(3, "I11", "I12")
async def a_stale_epoch_appends_nothing(stand: Stand) -> None:
    """Once another holds the run, its former holder is refused by `epoch`, at whatever sequence."""
    former = await held(stand, worker="w1")
    await former.append()
    await former.wait(wake_at_us=T0_US)
    present = await take(stand, "r1", "w2")
    before = rows(stand, "r1")
    for seq in (0, 2, present.seq, 9):
        stale = msgspec.structs.replace(former.commit(note("stale")), seq=seq)
        await refused(stand, stale, "epoch")
    future = msgspec.structs.replace(present.commit(), epoch=present.epoch + 1)
    await refused(stand, future, "epoch")
    demand(rows(stand, "r1") == before, "a stale holder changes nothing")
    await present.append()


@check(3, "I9")
async def a_stale_control_is_refused(stand: Stand) -> None:
    """What entered the inbox before an intent refuses it by `control`; a commit that only records does not mind."""
    hold = await held(stand)
    await done(stand, Deliver("r1", "cancel", b"{}", T0_US, "c1"))
    before = rows(stand, "r1")
    await refused(stand, hold.commit(control=0), "control")
    await refused(stand, hold.commit(control=2), "control")
    demand(rows(stand, "r1") == before, "a refused append changes nothing")
    await hold.append(hold.commit(control=1))
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    await hold.append(hold.commit(control=None))


@check(3, "I9")
async def a_cancel_in_the_same_tick_stops_the_intent(stand: Stand) -> None:
    """A delivery that was submitted first is committed first: the append behind it in the same tick is refused."""
    hold = await held(stand)
    outcomes = await submit(stand, Deliver("r1", "cancel", b"{}", T0_US, "c1"), hold.commit(control=0))
    refusal(outcomes[1], "control")


@check(3, "I9")
async def a_changed_fact_is_refused(stand: Stand) -> None:
    """A decision under facts that have changed since is refused by `facts`, which names the fact."""
    hold = await held(stand)
    await hold.append(hold.commit(facts={"switches": 0}))
    version = await done(stand, SetFact("switches", "a", T0_US))
    demand(version == 1, "a fact begins at version 1; one that was never set counts as 0")
    before = rows(stand, "r1")
    outcome = await refused(stand, hold.commit(facts={"switches": 0}), "facts")
    demand(outcome.detail == "switches", "the refusal names the fact")
    await refused(stand, hold.commit(facts={"switches": 1, "policy": 4}), "facts")
    demand(rows(stand, "r1") == before, "a refused append changes nothing")
    demand(await done(stand, SetFact("switches", "a", T0_US)) == 1, "setting the same value is no change")
    await hold.append(hold.commit(facts={"switches": 1, "policy": 0}))
    outcomes = await submit(stand, SetFact("switches", "b", T0_US), hold.commit(facts={"switches": 1}))
    demand(outcomes[0] == Applied(2), "setting another value is a change")
    refusal(outcomes[1], "facts")
    demand([fact.version for fact in stand.insights.facts()] == [2], "the version can be read")


@check(10, "I11")
async def another_incarnation_is_refused(stand: Stand) -> None:
    """A commit made before the store was restored is refused by `incarnation`, even where it is stored already."""
    hold = await held(stand)
    commit = hold.commit()
    await hold.append(commit)
    for wrong in (stand.journal.incarnation + 1, stand.journal.incarnation - 1):
        await refused(stand, msgspec.structs.replace(hold.commit(), incarnation=wrong), "incarnation")
        await refused(stand, msgspec.structs.replace(commit, incarnation=wrong), "incarnation")


@check(3, "I1")
async def an_unknown_run_is_refused(stand: Stand) -> None:
    """An append to a run that was never admitted is refused by `run`."""
    hold = await held(stand)
    await refused(stand, msgspec.structs.replace(hold.commit(), run_id="nobody"), "run")
    demand(stand.insights.run("nobody") is None, "no run appears")


@check(4, "I2", "I3", "I7")
async def the_same_append_again_is_success(stand: Stand) -> None:
    """The same bytes at the same sequence are applied once and answered alike: at once, later, after release, after a
    new owner.
    """
    hold = await held(stand)
    lease = Charge(Move("tenant:acme", "tokens", leased=10), limit=100)
    asked = Ask("a1", "t1.0", "refund", "d1", "ada", T0_US + DAY_US, b"{}")
    commit = hold.commit(note("x"), Record(b'{"kind":"y"}', b"result"), charges=(lease,), asks=(asked,), control=0)
    demand(await submit(stand, commit, commit) == [Applied(3), Applied(3)], "twice in one tick is success twice")
    other = await held(stand, "r2")
    plain = other.commit(charges=(lease,), head=Head("running"))
    demand(await submit(stand, plain, plain) == [Applied(2), Applied(2)], "twice in one tick, of one that asks nobody")
    demand(await done(stand, plain) == 2, "again, later")
    demand(await done(stand, commit) == 3, "again, later, is success")
    hold.seq = 3
    await hold.append()
    demand(await done(stand, commit) == 3, "again, after later appends, is success at its own sequence")
    await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    demand(await done(stand, commit) == 3, "again, under a control that has moved, is success")
    last = hold.commit(note("last"), head=Head("waiting", wake_at_us=T0_US, release=True))
    await hold.append(last)
    demand(await done(stand, last) == 5, "again, after the lease was given up with it, is success")
    await take(stand, "r1", "w2")
    demand(await done(stand, last) == 5, "again, after another has taken over, is success")
    await stand.replace_owner()
    demand(await done(stand, commit) == 3, "again, at a new owner, is success")
    demand(len(stand.insights.events("r1")) == 5, "nothing was appended twice")
    demand([row.reserved for row in stand.insights.accounts()] == [20], "nothing was charged twice")


@check(4, "I7")
async def other_bytes_at_a_taken_sequence_are_refused(stand: Stand) -> None:
    """Other bytes at a taken sequence are refused: another body, another payload, more events, fewer payloads."""
    hold = await held(stand)
    await hold.append(hold.commit(Record(b'{"kind":"a"}', b"one"), note("b")))
    begin = msgspec.structs.replace(hold.commit(), seq=1)
    for records in (
        (note("other"),),
        (Record(b'{"kind":"a"}', b"two"), note("b")),
        (Record(b'{"kind":"a"}'), note("b")),
        (Record(b'{"kind":"a"}', b"one"), note("b"), note("c")),
        (Record(b'{"kind":"a"}', b"one"), Record(note("b").body, b"new")),
    ):
        await refused(stand, msgspec.structs.replace(begin, records=records), "seq")
    demand(len(stand.insights.events("r1")) == 3, "nothing was appended")


async def _everything(stand: Stand) -> tuple[Hold, tuple[Ask, ...], tuple[CloseApproval, ...], tuple[int, ...]]:
    """A held run with something of every kind that a commit may touch."""
    hold = await held(stand)
    await done(stand, SetAccount("tenant:acme", Limits(tokens=100)))
    row = await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
    first = Ask("a1", "t1.0", "refund", "d1", "ada", T0_US + DAY_US, b"{}")
    await hold.append(hold.commit(asks=(first,)))
    second = Ask("a2", "t1.1", "refund", "d2", "ada", T0_US + DAY_US, b"{}")
    return hold, (second,), (CloseApproval("a1", "withdrawn"),), (row,)


@check(8, "I3")
async def a_refused_charge_leaves_nothing_behind(stand: Stand) -> None:
    """If one account of several refuses, no event, row, account or approval of the commit is changed or created."""
    hold, asks, closes, inbox = await _everything(stand)
    before = rows(stand, "r1")
    commit = hold.commit(
        note("x"),
        head=Head("waiting", "blocked", "code", ("x",), T0_US, release=True),
        charges=(
            Charge(Move("all", "tokens", leased=5), limit=None),
            Charge(Move("tenant:acme", "tokens", leased=60)),
            Charge(Move("tenant:acme", "tokens", leased=41)),
        ),
        asks=asks,
        closes=closes,
        inbox=inbox,
    )
    outcome = await refused(stand, commit, "account")
    demand(outcome.detail == "tenant:acme|tokens", "the refusal names the account and the dimension")
    demand(rows(stand, "r1") == before, "a refused commit leaves nothing behind")
    await hold.append(msgspec.structs.replace(commit, charges=commit.charges[:2]))


@check(7, "I5")
async def a_refused_consume_leaves_nothing_behind(stand: Stand) -> None:
    """If an approval cannot be used, no event, row or account of the commit is changed."""
    hold, asks, closes, inbox = await _everything(stand)
    before = rows(stand, "r1")
    commit = hold.commit(
        charges=(Charge(Move("tenant:acme", "tokens", leased=60)),),
        consumes=(Consume("a1", "d1", T0_US),),
        asks=asks,
        closes=closes,
        inbox=inbox,
    )
    demand((await refused(stand, commit, "approval")).detail == "a1", "the refusal names the approval")
    demand(rows(stand, "r1") == before, "a refused commit leaves nothing behind")


@check(3, "I1")
async def a_poisonous_operation_fails_alone(stand: Stand) -> None:
    """One operation that can never be applied is refused by `poison`; all 127 others of its batch land."""
    hold, asks, _, _ = await _everything(stand)
    for number in range(126):
        await admit(stand, f"n{number}")
    neighbours = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, "w1", 126)]
    demand(len(neighbours) == 126, "126 neighbours are claimed")
    late = 2**63
    poisons: list[Op] = [
        hold.commit(note("twice the same approval"), asks=(*asks, *asks)),
        Deliver("r1", "signal", b"{}", late, "too-late"),
        Deliver("r1", "signal", b"{}", T0_US, "surrogate \udc80"),
        msgspec.structs.replace(hold.commit(note("ill-typed")), charges=(_ILL_TYPED,)),
        Deliver("r1", "signal", b"{}", 2**70, "out of all bounds"),
    ]
    expected = len(stand.insights.events("r1"))
    for count, poison in enumerate(poisons, start=1):
        batch: list[Op] = [other.commit() for other in neighbours]
        batch[31:31] = [poison, Deliver("r1", "signal", b"{}", T0_US, f"sound-{count}")]
        outcomes = await submit(stand, *batch)
        refusal(outcomes.pop(31), "poison")
        demand(all(isinstance(outcome, Applied) for outcome in outcomes), "the 127 neighbours of a poison are applied")
        for other in neighbours:
            other.seq += 1
            demand(len(stand.insights.events(other.run_id)) == other.seq, "a neighbour's event is stored, once")
    demand(len(stand.insights.events("r1")) == expected, "nothing of a poison is stored")
    demand(stand.insights.approval("a2") is None, "not even the first half of it")
    await hold.append()


_ILL_TYPED: Charge = msgspec.structs.replace(Charge(Move("tenant:acme", "tokens")), limit="many")


@check(3, "I7")
async def an_oversize_event_is_refused(stand: Stand) -> None:
    """An event beyond the size limit is refused by `poison`; one at the limit is stored."""
    hold = await held(stand)
    await refused(stand, hold.commit(Record(b"{}", bytes(MAX_RECORD + 1))), "poison")
    await refused(stand, hold.commit(Record(bytes(MAX_RECORD + 1))), "poison")
    await hold.append(hold.commit(Record(b"{}", bytes(MAX_RECORD))))
    demand(len(stand.insights.events("r1")) == 2, "only the sound one is stored")


@check(1, "I7")
async def journals_verify(stand: Stand) -> None:
    """Every journal is chained from its first event to the hash in its run's row, across batches and owners."""
    hold = await held(stand)
    for number in range(5):
        await hold.append(hold.commit(note(f"{number}"), Record(b"{}", b"%d" % number)))
    await refused(stand, msgspec.structs.replace(hold.commit(note("other")), seq=2), "seq")
    await stand.replace_owner()
    hold = await take(stand, "r1", "w2")
    await hold.append()
    hashes = {event.hash for event in stand.insights.events("r1")}
    demand(verified(stand, "r1") == len(hashes) == 12, "all twelve events verify, each with its own hash")
    await admit(stand, "r2")
    demand(verified(stand, "r2") == 1, "each journal has a chain of its own")


@check(1, "I7")
async def runs_do_not_disturb_each_other(stand: Stand) -> None:
    """Appends to many runs in one tick keep each journal apart and whole."""
    names = [f"n{number}" for number in range(40)]
    for name in names:
        await admit(stand, name)
    holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, "w1", 40)]
    await asyncio.gather(*[_several(hold) for hold in holds])
    for name in names:
        bodies = [event.body for event in stand.insights.events(name)][1:]
        demand(bodies == [note(f"{name} {step}").body for step in range(5)], "each journal holds its own events")
        demand(verified(stand, name) == 6, "and verifies")


async def _several(hold: Hold) -> None:
    for step in range(5):
        await hold.append(hold.commit(note(f"{hold.run_id} {step}")))
