"""Starting a runtime: what it says at once, what it waits for, and whom it tells."""

from __future__ import annotations

import asyncio
import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quarterdeck import LocalModel, Quarterdeck, Unavailable, UsageError
from quarterdeck.core.commit import SetFact
from quarterdeck.models import local_engine
from quarterdeck.models.local_engine import HINT
from quarterdeck.store.sqlite.opening import OwnerLock
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from tests.app.desk import desk, starting
from tests.doors.cli_shop import Shop


@pytest.fixture
def dying(tmp_path: Path):
    """A store whose owner is dead while its writer still holds the lock, as after a SIGKILL."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with open(tmp_path / "store.db.lock", "a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(dead.pid))
        file.flush()
        yield file


async def test_waiting_for_a_dying_owner_leaves_the_loop_to_others(tmp_path: Path, dying) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks < 20:
            asyncio.get_running_loop().call_soon(tick)
        else:
            fcntl.flock(dying, fcntl.LOCK_UN)  # the writer has ended, which nobody would see who keeps the loop for himself

    asyncio.get_running_loop().call_soon(tick)
    async with desk().start(tmp_path / "store.db") as runtime:
        assert ticks == 20
        assert (await (await runtime.submit("greets", "please")).result()).ok


async def test_a_wait_for_the_lock_can_be_cancelled_and_leaves_it(tmp_path: Path, dying) -> None:
    taking = asyncio.ensure_future(OwnerLock.take(tmp_path / "store.db"))
    taking.get_loop().call_soon(taking.cancel)
    with pytest.raises(asyncio.CancelledError):
        await taking
    fcntl.flock(dying, fcntl.LOCK_UN)
    lock = await OwnerLock.take(tmp_path / "store.db", wait_s=0.0)
    with pytest.raises(Unavailable, match=r"store\.owned"):
        await OwnerLock.take(tmp_path / "store.db")
    lock.release()


async def test_patience_with_a_dying_owner_ends(tmp_path: Path, dying) -> None:
    with pytest.raises(Unavailable, match=r"store\.owned"):
        await OwnerLock.take(tmp_path / "store.db", wait_s=0.0)
    with pytest.raises(Unavailable, match=r"store\.owned"):
        OwnerLock(tmp_path / "store.db", wait_s=0.0)


def test_the_store_tells_one_listener_which_refreshes_and_claims() -> None:
    clock = VirtualClock()

    class Listening(MemoryStore):
        listeners: list[Callable[[], None]]

        def hints(self, callback: Callable[[], None]) -> None:
            self.listeners = [*getattr(self, "listeners", []), callback]
            super().hints(callback)

    async def main() -> None:
        store = Listening("w1")
        async with starting(desk(), store, clock) as runtime:
            assert len(store.listeners) == 1
            await store.submit(SetFact("switches", '["freeze"]', 1))
            await clock.sleep(0.0)
            assert runtime.parts.gate.controls.frozen

    run(main(), clock=clock)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "find_spec", lambda name: None)


def local() -> Quarterdeck:
    deck = Quarterdeck("local")
    deck.agent("small", model=LocalModel())
    return deck


async def test_a_deck_says_at_once_how_to_install_its_local_model(tmp_path: Path, nothing_installed: None) -> None:
    with pytest.raises(UsageError, match=r"model\.unavailable") as caught:
        async with local().start(tmp_path / "store.db"):
            raise AssertionError("it started")
    assert HINT in caught.value.message
    async with desk().start(tmp_path / "store.db"):
        with pytest.raises(Unavailable, match=r"store\.owned"):
            await local().start(tmp_path / "store.db").__aenter__()


async def test_weights_of_ones_own_that_are_not_there_are_named(tmp_path: Path) -> None:
    deck = Quarterdeck("local")
    deck.agent("small", model=LocalModel(tmp_path / "nowhere.gguf"))
    with pytest.raises(UsageError, match=r"model\.unavailable: model small: .*nowhere\.gguf|xllamacpp"):
        async with deck.start(tmp_path / "store.db"):
            raise AssertionError("it started")


def test_doctor_says_how_to_install_the_local_model(tmp_path: Path, nothing_installed: None) -> None:
    shop = Shop(tmp_path)
    told = shop.read("doctor")
    assert told.returncode == 0, "a deck that needs no local model lacks nothing"
    assert HINT in told.stderr
    (tmp_path / "strict.py").write_text(
        "from quarterdeck import LocalModel, Quarterdeck\ndeck = Quarterdeck('x')\ndeck.agent('small', model=LocalModel())\n"
    )
    ill = shop.read("doctor", "--app", "strict:deck")
    assert ill.returncode == 1
    assert "FAIL  app" in ill.stdout
    assert f"FAIL app: model small: the weights are not installed: {HINT}" in ill.stderr
