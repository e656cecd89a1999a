"""An answer that never came: whoever submits the same again learns what happened, and nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from quarterdeck.core.commit import Applied, Charge, Claim, Claimed, Deliver, Op, Outcome
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.events import Move
from quarterdeck.store.chain import verify_run
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.conformance.stand import Hold, Stand, admit, claim, done, held, note
from quarterdeck.testing.memory import MemoryStore, Moment, lost_answer
from quarterdeck.testing.samples import T0_US, admission
from tests.conformance.stands import SwappingStand, turn


class Script:
    """A fault hook that does one thing at one moment of the next operation it is armed for."""

    def __init__(self) -> None:
        self.armed: Moment | None = None
        self.fault: asyncio.Future[None] | BaseException | None = None

    def arm(self, moment: Moment, fault: asyncio.Future[None] | BaseException) -> None:
        self.armed, self.fault = moment, fault

    def __call__(self, moment: Moment, op: Op) -> asyncio.Future[None] | None:
        if moment is not self.armed:
            return None
        self.armed = None
        if isinstance(self.fault, BaseException):
            raise self.fault
        return self.fault


class Crash(BaseException):
    """The process ends here."""


def stand_on(store: MemoryStore) -> Stand:
    async def reopen() -> tuple[MemoryStore, MemoryStore]:
        return store, store

    return SwappingStand(store, store, reopen)


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_lost_answer_is_resolved_by_the_same_commit(moment: Moment) -> None:
    script = Script()
    store = MemoryStore(faults=script)
    hold = await held(stand_on(store))
    commit = hold.commit(charges=(Charge(Move("all", "tokens", leased=5), 10),))
    script.arm(moment, lost_answer())
    with pytest.raises(Unavailable, match=r"store\.unknown"):
        await store.submit(commit)
    assert len(store.events("r1")) == (2 if moment is Moment.AFTER else 1)
    assert await store.submit(commit) == Applied(2)
    assert [row.reserved for row in store.accounts()] == [5]
    assert verify_run(store, "r1") == 2


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_crash_at_the_port_leaves_what_was_applied(moment: Moment) -> None:
    script = Script()
    store = MemoryStore("w1", faults=script)
    hold = await held(stand_on(store))
    script.arm(moment, Crash())
    with pytest.raises(Crash):
        store.submit(hold.commit())
    store.crash()
    successor = store.connect("w2")
    assert len(successor.events("r1")) == (2 if moment is Moment.AFTER else 1)
    answer = await successor.submit(Claim("w2", 1, T0_US))
    assert isinstance(answer, Claimed)
    assert [run.epoch for run in answer.runs] == [2]


async def test_no_answer_arrives_after_a_crash() -> None:
    store = MemoryStore()
    answer = store.submit(admission("r1"))
    store.crash()
    await turn()
    await turn()
    assert not answer.done()
    assert store.connect("w2").run("r1") is not None
    with pytest.raises(Unavailable, match=r"store\.closed"):
        await store.submit(admission("r2"))


async def test_a_delay_before_holds_everything_behind_it_in_order() -> None:
    script = Script()
    store = MemoryStore(faults=script)
    hold = await held(stand_on(store))
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    script.arm(Moment.BEFORE, gate)
    first = store.submit(hold.commit(note("first")))
    second = store.submit(hold.commit(note("second")))
    await turn()
    assert len(store.events("r1")) == 1
    gate.set_result(None)
    assert await first == Applied(2)
    assert isinstance(await second, Outcome)
    assert store.events("r1")[1].body == note("first").body


async def test_a_delay_after_holds_only_that_answer() -> None:
    script = Script()
    store = MemoryStore(faults=script)
    await store.submit(admission("r1"))
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    script.arm(Moment.AFTER, gate)
    slow = store.submit(Deliver("r1", "signal", b"{}", T0_US, "s1"))
    assert await store.submit(Deliver("r1", "signal", b"{}", T0_US, "s2")) == Applied(2)
    assert not slow.done()
    gate.set_result(None)
    assert await slow == Applied(1)


async def test_closing_applies_what_was_submitted() -> None:
    script = Script()
    store = MemoryStore(faults=script)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    script.arm(Moment.BEFORE, gate)
    answer = store.submit(admission("r1"))
    closing = asyncio.ensure_future(store.close())
    await turn()
    gate.set_result(None)
    await closing
    await store.close()
    assert await answer == Applied(1)
    assert store.connect("w2").run("r1") is not None


async def test_a_quiesced_store_has_one_owner() -> None:
    store = MemoryStore("w1")
    with pytest.raises(Unavailable, match=r"store\.owned"):
        store.connect("w2")
    await store.close()
    store.connect("w2")


async def test_a_shared_store_adopts_only_from_the_dead() -> None:
    first = MemoryStore("w1", quiesced=False)
    hold = await held(stand_on(first), worker="w1")
    second = first.connect("w2")
    assert await claim(stand_on(second), "w2") == ()
    await hold.append()
    first.crash()
    third = first.connect("w3")
    assert await claim(stand_on(third), "w3") == (), "a crash is not known to others before it is declared"
    third.declare_dead("w1")
    (taken,) = await claim(stand_on(third), "w3")
    assert (taken.seq, taken.epoch) == (2, 2)


async def test_a_worker_that_was_declared_dead_but_lives_is_fenced() -> None:
    first = MemoryStore("w1", quiesced=False)
    stand = stand_on(first)
    hold = await held(stand, worker="w1")
    first.declare_dead("w1")
    outcome = await first.submit(hold.commit())
    assert not isinstance(outcome, Applied)
    await admit(stand, "r2")
    assert len(await claim(stand, "w1")) == 2, "it may claim again"
    first.connect("w2")
    assert await claim(stand, "w2") == (), "and is alive again"


async def test_hints_come_soon_and_once() -> None:
    store = MemoryStore("w1", quiesced=False)
    other = store.connect("w2")
    hinted: list[str] = []
    store.hints(lambda: hinted.append("w1"))
    other.hints(lambda: hinted.append("w2"))
    store.submit(admission("r1"))
    await store.submit(admission("r2"))
    assert hinted == ["w1", "w2"]


async def test_sqlite_loses_and_repeats_nothing_when_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    journal = await SqliteJournal.open(path, incarnation=1)
    insights = SqliteInsights(path)

    async def reopen() -> tuple[SqliteJournal, SqliteInsights]:
        return journal, insights

    stand = SwappingStand(journal, insights, reopen)
    names = [f"n{number}" for number in range(30)]
    for name in names:
        await admit(stand, name)
    held_runs = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=30)]
    lease = Charge(Move("all", "tokens", leased=1), None)
    pids = set()
    for _ in range(4):
        answers = [journal.submit(hold.commit(charges=(lease,))) for hold in held_runs]
        waiting = asyncio.gather(*answers)
        await turn()
        pids.add(journal.writer_pid)
        os.kill(journal.writer_pid, signal.SIGKILL)
        outcomes = await waiting
        for hold, outcome in zip(held_runs, outcomes, strict=True):
            assert outcome == Applied(hold.seq + 1)
            hold.seq += 1
    assert len(pids) == 4
    assert [verify_run(insights, name) for name in names] == [5] * 30
    assert [row.reserved for row in insights.accounts()] == [120]
    await done(stand, Deliver("n0", "signal", b"{}", T0_US, "s1"))
    insights.close()
    await journal.close()
