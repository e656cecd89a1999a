"""Commits that only add events are applied together: the same journals, one by one, whatever is wrong with a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest
from msgspec.structs import replace

from quarterdeck.core.commit import Applied, Charge, Deliver, Head, Op, Outcome, Record, Refused, SetAccount, SetFact
from quarterdeck.core.contract import Limits
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.events import Move
from quarterdeck.ports.store import Submitted
from quarterdeck.store.postgres.batch import Batch
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.testing.conformance.stand import Hold, admit, claim, note, verified
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US
from tests.conformance import stands
from tests.store_postgres.sessions import blocked, session


def watched(sent: list[int]) -> AbstractContextManager[object]:
    """Notes how many plain commits each batch has."""
    original = PostgresJournal._applied

    async def applied(self: PostgresJournal, db: object, batch: Batch, *, isolate: bool) -> object:
        sent.append(len(batch.plain))
        return await original(self, db, batch, isolate=isolate)  # type: ignore[arg-type]

    return patched(PostgresJournal, "_applied", applied)


async def _tried(postgres: Server, database: str, *ops_of: str) -> tuple[list[Outcome], list[int]]:
    """Three held runs; operations named by these words, submitted at once: what they were answered, and what was plain."""
    sent: list[int] = []
    async with stands.postgres(postgres, database)() as stand:
        for name in ("r1", "r2", "r3"):
            await admit(stand, name)
        holds = {run.run_id: Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand)}
        ops: list[Op] = []
        for number, word in enumerate(ops_of, 1):
            name, _, what = word.partition(" ")
            ops.append(_op(holds[name], what, number))
        with watched(sent):
            outcomes = list(await asyncio.gather(*[stand.journal.submit(op) for op in ops]))
        assert [verified(stand, name) for name in holds] == [stand.insights.run(name).seq for name in holds]  # type: ignore[union-attr]
    return outcomes, sent


def _op(hold: Hold, what: str, number: int) -> Op:
    match what:
        case "adds":
            return hold.commit(note(f"n{number}"), Record(b'{"kind":"b"}', b"payload"), facts={"never": 0}, control=0)
        case "stale":
            return replace(hold.commit(note("stale")), epoch=hold.epoch + 1)
        case "waits":
            return hold.commit(head=Head("waiting", "blocked", "waiting", ("signal",), release=True))
        case "reads":
            return hold.commit(inbox=(1,))
        case "leases 3" | "leases 4" | "leases 6":
            return hold.commit(charges=(Charge(Move("a", "tokens", leased=int(what[-1])), 10),))
        case "reads and leases 3":
            return hold.commit(inbox=(1,), charges=(Charge(Move("a", "tokens", leased=3), 10),))
        case "spends 12":
            return hold.commit(charges=(Charge(Move("a", "tokens", spent=12), 10),))
        case "limits to 3":
            return SetAccount("a", Limits(tokens=3))
        case "next":
            return replace(hold.commit(note("next")), seq=hold.seq + 2)
        case "is told":
            return Deliver(hold.run_id, "signal", b"{}", T0_US, "s1")
        case "changes":
            return SetFact("never", "v", T0_US)
    raise AssertionError(what)


@pytest.mark.parametrize(
    ("ops", "kinds", "plain"),
    [
        (["r1 adds", "r2 adds", "r3 adds"], "ooo", [3]),
        (["r1 adds", "r2 stale", "r3 adds"], "ono", [3, 0]),
        (["r1 adds", "r1 next", "r2 reads", "r3 adds"], "oooo", [2]),
        (["r1 adds", "r2 waits", "r3 leases 3"], "ooo", [3]),
        (["r1 leases 3", "r2 leases 3", "r3 leases 4"], "ooo", [3]),
        (["r1 leases 4", "r2 leases 6", "r3 leases 3"], "oon", [3, 0]),
        (["r1 reads and leases 3", "r2 leases 6", "r3 leases 3"], "oon", [0]),
        (["r1 leases 6", "r2 spends 12", "r3 adds"], "ooo", [3, 0]),
        (["r1 spends 12", "r2 leases 3", "r3 adds"], "ono", [3, 0]),
        (["r1 limits to 3", "r2 leases 4", "r3 adds"], "ono", [1]),
        (["r1 is told", "r1 adds", "r2 adds"], "ono", [1]),
        (["r1 adds", "r1 is told"], "oo", [1]),
        (["r1 changes", "r1 adds"], "on", [0]),
        (["r1 adds", "r1 changes"], "oo", [1]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
async def test_each_is_answered_as_if_alone(
    postgres: Server, database: str, ops: Sequence[str], kinds: str, plain: list[int]
) -> None:
    outcomes, sent = await _tried(postgres, database, *ops)
    assert "".join("o" if isinstance(one, Applied) else "n" for one in outcomes) == kinds, outcomes
    assert sent == plain
    assert all(isinstance(one, Applied | Refused) for one in outcomes)


async def test_a_writer_that_ends_by_a_fault_of_ours_leaves_nobody_waiting(postgres: Server, database: str) -> None:
    async with stands.postgres(postgres, database)() as stand:
        await admit(stand, "r1")
        (run,) = await claim(stand)
        hold = Hold(stand, run.run_id, run.seq, run.epoch)

        async def broken(*_: object, **__: object) -> object:
            raise ZeroDivisionError

        with patched(PostgresJournal, "_applied", broken):
            under_way = stand.journal.submit(hold.commit())
            with pytest.raises(Unavailable, match="the writer ended"):
                await asyncio.wait_for(under_way, 20)
            with pytest.raises(Unavailable):
                await stand.journal.submit(hold.commit())


async def test_what_is_applied_together_is_written_as_alone(postgres: Server, database: str) -> None:
    async with stands.postgres(postgres, database)() as stand:
        for name in ("r1", "r2"):
            await admit(stand, name)
        first, second = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand)]
        lease, back = Charge(Move("a", "tokens", leased=4), 10), Charge(Move("a", "tokens", returned=1, spent=3), 10)
        ended = Head("failed", "blocked", "c", release=True)
        await asyncio.gather(
            stand.journal.submit(first.commit(head=Head("waiting", "blocked", "c", ("signal",), T0_US + 5), charges=(lease,))),
            stand.journal.submit(second.commit(charges=(lease, replace(lease, move=Move("b", "tokens", leased=2))))),
        )
        (row,) = [row for row in stand.insights.runs() if row.run_id == "r1"]
        assert (row.status, row.reason, row.code, row.waiting_on) == ("waiting", "blocked", "c", ("signal",))
        assert (row.wake_at_us, row.worker) == (T0_US + 5, "w1")
        second.seq += 1
        assert await stand.journal.submit(second.commit(head=ended, charges=(back,))) == Applied(3)
        (row,) = [row for row in stand.insights.runs() if row.run_id == "r2"]
        assert (row.status, row.reason, row.code, row.wake_at_us, row.worker) == ("failed", "blocked", "c", None, None)
        booked = [(row.account, row.limit, row.committed, row.reserved) for row in stand.insights.accounts()]
        assert booked == [("a", 10, 3, 7), ("b", 10, 0, 2)]


async def test_an_answer_says_how_long_its_operation_has_waited_to_be_sent(postgres: Server, database: str) -> None:
    async with stands.postgres(postgres, database)() as stand:
        await admit(stand, "r1")
        with session(database) as other:
            other.execute("SELECT take_accounts(ARRAY['a'])")
            first = stand.journal.submit(SetAccount("a", Limits(tokens=3)))
            await blocked(postgres, database, first)
            second = stand.journal.submit(Deliver("r1", "signal", b"{}", T0_US, "s1"))
            since_s = asyncio.get_running_loop().time()
            await asyncio.to_thread(other.execute, "SELECT 1")
            held_s = asyncio.get_running_loop().time() - since_s
        await asyncio.gather(first, second)
        assert isinstance(first, Submitted)
        assert isinstance(second, Submitted)
        assert second.waited_s >= held_s > 0
