"""R13: the answer to a commit is lost with its writer; R25: a poisonous commit in a full group."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from proof.unknown import INCARNATION, NeverResends, admission, died_at, killed, poisoned
from proof.writers import POINTS, in_place
from quarterdeck.core.commit import Applied
from quarterdeck.core.errors import Unavailable
from quarterdeck.store.sqlite.journal import MAX_RESTARTS, SqliteJournal


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", [1, 4, 8])
def test_a_writer_that_dies_once_changes_nothing(point: str, nth: int) -> None:
    assert died_at(point, nth) == (True, [])


def test_kills_at_random_moments_under_load_change_nothing() -> None:
    assert killed(5, 7) == (5, [])


def test_one_poisonous_commit_costs_no_other() -> None:
    assert poisoned() == []


def test_a_poison_that_costs_its_group_is_found() -> None:
    assert poisoned("whole") != []


def test_what_is_not_sent_again_is_found() -> None:
    assert died_at("before", 2, journal=NeverResends)[1] != []


@pytest.mark.parametrize(("mutant", "point", "nth"), [("again", "after", 6), ("early", "before", 4)])
def test_a_wrong_writer_is_found(mutant: str, point: str, nth: int) -> None:
    assert died_at(point, nth, mutant)[1] != []


def test_runs_claimed_by_a_forgotten_claim_are_found() -> None:
    assert any(died_at("after", nth, "forgets")[1] for nth in range(2, 12))


async def test_writers_that_keep_dying_end_the_store_and_not_in_a_hang(tmp_path: Path) -> None:
    store = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    starts = 0
    genuine = store._start

    async def stillborn() -> None:
        nonlocal starts
        starts += 1
        await genuine()
        os.kill(store.writer_pid, signal.SIGKILL)

    store._start = stillborn  # type: ignore[method-assign]
    os.kill(store.writer_pid, signal.SIGKILL)
    futures = [store.submit(admission(f"r{number}")) for number in range(5)]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*futures, return_exceptions=True)
        with pytest.raises(Unavailable, match=r"store\.storage"):
            await store.submit(admission("late"))
        await store.close()
    assert {answer.code for answer in answers if isinstance(answer, Unavailable)} == {"store.storage"}
    assert (len(answers), starts) == (5, MAX_RESTARTS)
    again = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    assert await again.submit(admission("r0")) == Applied(1)
    await again.close()


async def test_closing_while_a_writer_is_being_replaced_ends(tmp_path: Path) -> None:
    store = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    assert await store.submit(admission("r0")) == Applied(1)
    lost = asyncio.get_running_loop().create_future()
    genuine = store.connection_lost

    def connection_lost(exc: Exception | None) -> None:
        genuine(exc)
        if not lost.done():
            lost.set_result(None)

    store.connection_lost = connection_lost  # type: ignore[method-assign]
    os.kill(store.writer_pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await lost
        await store.close()
    again = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    assert await again.submit(admission("r0")) == Applied(1)
    await again.close()


async def test_no_writer_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-such-python"))
    os.kill(store.writer_pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable, match="no writer can be started"):
            await store.submit(admission("r0"))
        await store.close()


async def test_a_fault_whose_report_was_lost_is_no_death_to_recover_from(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with in_place("fault", 1):
        store = await SqliteJournal.open(path, INCARNATION)
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable, match="reported a fault"):
                await store.submit(admission("r0"))
            await store.close()
