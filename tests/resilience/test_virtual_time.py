"""The virtual loop: time only jumps, the same seed gives the same history, and what would hang says so."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.testing.clock import Deadlock, SeededEntropy, VirtualClock, run, sleep


def history(seed: int | None, *, shuffle: bool = True) -> list[str]:
    seen: list[str] = []

    async def worker(name: str) -> None:
        for step in range(5):
            seen.append(f"{name}{step}")
            await sleep(0 if step % 2 else 1)

    async def main() -> None:
        await asyncio.gather(*(worker(name) for name in "abcd"))

    run(main(), seed, shuffle=shuffle)
    return seen


def test_without_shuffling_it_is_first_in_first_out() -> None:
    assert history(1, shuffle=False) == history(2, shuffle=False) == history(None, shuffle=False)
    assert history(1, shuffle=False)[:4] == ["a0", "b0", "c0", "d0"]


def test_a_seed_repeats_and_seeds_differ() -> None:
    histories = [history(seed) for seed in range(20)]
    assert histories == [history(seed) for seed in range(20)]
    assert len({tuple(seen) for seen in histories}) == 20
    assert {tuple(sorted(seen)) for seen in histories} == {tuple(sorted(history(None, shuffle=False)))}


def test_shuffling_finds_a_race_that_fifo_hides() -> None:
    async def main() -> int:
        balance = 0

        async def deposit() -> None:
            nonlocal balance
            seen = balance
            if seen:  # only in an unlucky order does anyone wait between reading and writing
                await sleep(0)
            balance = seen + 1

        await asyncio.gather(*(deposit() for _ in range(3)))
        return balance

    assert run(main()) == run(main())
    assert len({run(main(), seed, shuffle=True) for seed in range(30)}) > 1


def test_time_jumps_exactly_to_the_next_timer() -> None:
    clock = VirtualClock()

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        for seconds in (0.2, 0.7, 86_400.0 * 30):
            await clock.sleep(seconds)
            seen.append(loop.time())
        return seen

    assert run(main(), clock=clock) == [0.0, 0.2, 0.2 + 0.7, 0.2 + 0.7 + 86_400.0 * 30]


def test_timeouts_are_virtual_too() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main()) == 3_600.0


def test_waiting_for_nothing_is_a_deadlock_at_once() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 0\.0 s"):
        run(main())


def test_spinning_without_time_passing_is_ended() -> None:
    async def main() -> None:
        while True:
            await sleep(0)

    with pytest.raises(RuntimeError, match="100 ticks"):
        run(main(), max_ticks=100)


def test_the_outside_is_not_there() -> None:
    async def main() -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises((NotImplementedError, Deadlock)):
        run(main())


def test_what_is_left_running_is_cancelled() -> None:
    ended: list[str] = []

    async def lasting() -> None:
        try:
            await sleep(1e9)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.create_task(lasting())
        await sleep(1)
        assert not task.done()

    run(main())
    assert ended == ["cancelled"]


def test_suspension_moves_deadlines_but_not_timers() -> None:
    clock = VirtualClock()

    async def main() -> tuple[float, float, int]:
        start_us = clock.now_us()
        clock.suspend(100.0)
        await clock.sleep(1.0)
        return clock.monotonic_s(), clock.boottime_s(), clock.now_us() - start_us

    assert run(main(), clock=clock) == (1.0, 101.0, 101_000_000)


async def test_a_virtual_sleep_on_a_real_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="real time"):
        await VirtualClock().sleep(0.0)


def test_entropy_is_its_seed() -> None:
    first, again, other = SeededEntropy(1), SeededEntropy(1), SeededEntropy(2)
    draws = [entropy.uniform() for entropy in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]
    assert 0.0 <= draws[0] < 1.0 and len(first.token(16)) == 16
