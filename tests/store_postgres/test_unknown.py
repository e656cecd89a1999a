"""Lost answers: the connection is cut before a batch arrives, or after it was committed; the server ends the session; the server dies."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quarterdeck.core.commit import Applied, Charge, Claim, Claimed, Deliver, Op, Outcome
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.events import Move
from quarterdeck.ports.store import Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.testing.conformance.stand import Hold, admit, claim, held, note
from quarterdeck.testing.mutants_postgres import install, rewritten
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US
from quarterdeck.testing.wire import wire
from tests.store_postgres.sessions import runtime

FORGETFUL = rewritten(("again_or_refused", "AND is_stored(of_run, after, bodies, given)", "AND false"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="qdw-") as name:
        yield Path(name)


async def insisted(journal: Journal, op: Op) -> Outcome:
    """Submit the same operation until its outcome is known."""
    while True:
        try:
            return await journal.submit(op)
        except Unavailable as error:
            assert error.code == "store.unknown"


async def a_lost_answer_is_resolved(database: str, folder: Path, *, arrives: bool) -> None:
    async with wire(database, folder) as cut, runtime(cut.dsn, reads=database) as stand:
        hold = await held(stand)
        commit = hold.commit(note("once"), charges=(Charge(Move("all", "tokens", leased=5), 10),))
        if arrives:
            cut.mute = commit.records[0].body
        else:
            cut.deaf = commit.records[0].body
        with pytest.raises(Unavailable, match=r"store\.unknown"):
            await stand.journal.submit(commit)
        assert cut.cuts == 1
        assert await insisted(stand.journal, commit) == Applied(2)
        assert len(stand.insights.events("r1")) == 2
        assert [row.reserved for row in stand.insights.accounts()] == [5]
        assert verify_run(stand.insights, "r1") == 2
        hold.seq = 2
        await hold.append()


@pytest.mark.parametrize("arrives", [True, False])
async def test_the_same_bytes_again_are_success(arrives: bool, database: str, folder: Path) -> None:
    await a_lost_answer_is_resolved(database, folder, arrives=arrives)


async def test_it_is_noticed_without(database: str, folder: Path) -> None:
    prepare(database, 1)
    with FORGETFUL():
        install(database)
    with pytest.raises(AssertionError):
        await a_lost_answer_is_resolved(database, folder, arrives=True)


async def test_a_claim_whose_answer_was_lost_is_answered_alike(database: str, folder: Path) -> None:
    async with wire(database, folder) as cut, runtime(cut.dsn, reads=database) as stand:
        await admit(stand, "r1")
        order = Claim("w1", 5, T0_US, "the-token")
        cut.mute = b"the-token"
        with pytest.raises(Unavailable, match=r"store\.unknown"):
            await stand.journal.submit(order)
        outcome = await insisted(stand.journal, order)
        assert isinstance(outcome, Claimed)
        assert [(run.run_id, run.epoch) for run in outcome.runs] == [("r1", 1)]


async def test_sessions_that_the_server_ends_lose_and_repeat_nothing(postgres: Server, database: str) -> None:
    async with runtime(database) as stand:
        names = [f"n{number}" for number in range(30)]
        for name in names:
            await admit(stand, name)
        holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=30)]
        lease = Charge(Move("all", "tokens", leased=1), None)
        for _ in range(6):
            waiting = [asyncio.ensure_future(insisted(stand.journal, hold.commit(charges=(lease,)))) for hold in holds]
            await asyncio.to_thread(
                postgres.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%quarterdeck.apply%' AND pid <> pg_backend_pid()",
                database,
            )
            for hold, outcome in zip(holds, await asyncio.gather(*waiting), strict=True):
                assert outcome == Applied(hold.seq + 1)
                hold.seq += 1
        assert [verify_run(stand.insights, name) for name in names] == [7] * 30
        assert [row.reserved for row in stand.insights.accounts()] == [180]


async def test_reads_go_on_after_their_session_was_ended(postgres: Server, database: str) -> None:
    async with runtime(database) as stand:
        await admit(stand, "r1")
        assert stand.insights.run("r1") is not None
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            database,
        )
        assert stand.insights.run("r1") is not None
        assert isinstance(await insisted(stand.journal, Deliver("r1", "signal", b"{}", T0_US, "s1")), Applied)
