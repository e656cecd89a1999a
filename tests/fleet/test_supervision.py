"""The supervisor's rules, and its processes: real ones, small, that die, hang and stop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.core.supervision import PAUSE_CAP_S, Intensity, after_death, is_poison
from quarterdeck.dispatch.supervisor import Supervisor

CHILD = """
import asyncio, os, signal, sys
from quarterdeck.dispatch.lifeline import Lifeline

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    line = Lifeline.of(os.environ, stop.set)
    mode, seen = sys.argv[1], sys.argv[2]
    first = not os.path.exists(seen)
    with open(seen, "a") as file:
        file.write(f"{os.getpid()}\\n")
    if mode == "dies" or (mode == "dies-once" and first):
        os._exit(7)
    if mode == "misled":
        sys.exit(2)
    line.ready()
    if mode == "hangs-once" and first:
        signal.pause()
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await asyncio.Event().wait()
    await stop.wait()

asyncio.run(main())
"""


def supervisor(folder: Path, mode: str, count: int = 1, **rules: float) -> tuple[Supervisor, Path]:
    seen = folder / "seen"
    intensity = Intensity(int(rules.pop("restarts", 5)))
    made = Supervisor((sys.executable, "-c", CHILD, mode, str(seen)), count, rules.pop("grace_s", 10.0), intensity, **rules)
    return made, seen


async def ready(watched: Supervisor, count: int, restarts: int = 0) -> None:
    """Until so many children are ready, after so many restarts."""
    while watched.restarts < restarts or sum([child.ready for child in watched.children.values()]) < count:
        assert watched.failed is None
        await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(int))])


@pytest.mark.parametrize("mode", ["dies-once", "hangs-once"])
async def test_a_child_that_dies_or_hangs_is_started_again(mode: str, tmp_path: Path) -> None:
    watched, seen = supervisor(tmp_path, mode, hung_s=3.0)
    running = asyncio.ensure_future(watched.run())
    async with asyncio.timeout(30):
        await ready(watched, 1, restarts=1)
        assert len(set(seen.read_text().split())) == 2, "another process"
        watched.stop()
        await running


async def test_all_stop_in_order(tmp_path: Path) -> None:
    watched, seen = supervisor(tmp_path, "lives", count=3)
    running = asyncio.ensure_future(watched.run())
    async with asyncio.timeout(30):
        await ready(watched, 3)
        watched.stop()
        await running
    assert len(seen.read_text().split()) == 3
    assert watched.restarts == 0 and not watched.children


async def test_too_many_deaths_end_everything(tmp_path: Path) -> None:
    watched, seen = supervisor(tmp_path, "dies", restarts=2)
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable, match=r"supervisor\.intensity"):
            await watched.run()
    assert len(seen.read_text().split()) == 3, "the first and two more"


async def test_who_cannot_start_is_not_started_again(tmp_path: Path) -> None:
    watched, seen = supervisor(tmp_path, "misled")
    async with asyncio.timeout(30):
        with pytest.raises(UsageError, match=r"supervisor\.refused"):
            await watched.run()
    assert len(seen.read_text().split()) == 1


async def test_who_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.dispatch.supervisor.FORCE_S", 1.0)
    watched, _ = supervisor(tmp_path, "deaf", grace_s=0.2)
    running = asyncio.ensure_future(watched.run())
    async with asyncio.timeout(30):
        await ready(watched, 1)
        (child,) = watched.children.values()
        watched.stop()
        watched.stop()
        with pytest.raises(Unavailable, match=r"supervisor\.stop"):
            await running
    assert child.process.returncode == -9


@given(st.lists(st.floats(0, 1_000), min_size=1, max_size=40), st.integers(0, 6))
def test_never_more_restarts_than_allowed(times: list[float], allowed: int) -> None:
    rules, history = Intensity(allowed, 60.0), ()
    restarted: list[float] = []
    for now_s in sorted(times):
        verdict = after_death(history, now_s, rules, quick=len(restarted))
        history = verdict.history
        if verdict.again_in_s is None:
            break
        assert 0 < verdict.again_in_s <= PAUSE_CAP_S
        restarted.append(now_s)
    for place, start_s in enumerate(restarted):
        assert len([one for one in restarted[place:] if one - start_s < 60.0]) <= max(allowed, 0)


@given(st.lists(st.integers(1, 50), max_size=16), st.integers(0, 60), st.integers(1, 6))
def test_progress_forgives(deaths: list[int], progress: int, limit: int) -> None:
    assert is_poison(deaths, progress, limit) == (len([one for one in deaths if one > progress]) >= limit)
    assert not is_poison(deaths, max(deaths, default=0), limit)


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match=r"supervisor\.intensity"):
        Intensity(-1)
