"""The wall around what tools and models do: what is not meant for the caller is a failure, and what goes on for ever is let go of."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.resilience.contained import UNWIND_S, Contained, Severed, Strayed
from quarterdeck.resilience.eager import TimedOut, within
from quarterdeck.testing.clock import run, sleep


class Own(BaseException):
    """An exception of a library that nobody expects."""


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Own(), BaseExceptionGroup("several", [Own()])])
def test_what_is_not_meant_for_the_caller_is_a_failure(waits_first: bool, error: BaseException) -> None:
    async def fail() -> None:
        if waits_first:
            await sleep(0)
        raise error

    with pytest.raises(Strayed) as caught:
        run(within(Contained(fail()), 5.0))
    assert caught.value.__cause__ is error
    assert not isinstance(caught.value, Severed)


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt()])
def test_an_interruption_that_nobody_asked_for_is_like_a_lost_connection(waits_first: bool, error: BaseException) -> None:
    async def fail() -> None:
        if waits_first:
            await sleep(0)
        raise error

    with pytest.raises(Severed) as caught:
        run(within(Contained(fail()), 5.0))
    assert isinstance(caught.value, ConnectionError)


def test_whoever_cancels_its_own_task_ends_only_itself() -> None:
    async def fail() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await sleep(1.0)

    async def work() -> int:
        with pytest.raises(Severed):
            await within(Contained(fail()), 5.0)
        task = asyncio.current_task()
        await sleep(1.0)
        return -1 if task is None else task.cancelling()

    assert run(work()) == 0


@pytest.mark.parametrize("again", [1, 3])
@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("outcome", [7, ValueError("no"), SystemExit(3), asyncio.CancelledError()])
def test_whoever_cancels_its_own_task_and_ends_at_once_ends_as_it_did_and_nobody_else(
    outcome: object, waits_first: bool, again: int
) -> None:
    async def end() -> object:
        if waits_first:
            await sleep(1.0)
        task = asyncio.current_task()
        assert task is not None
        for _ in range(again):
            task.cancel()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def work() -> tuple[object, int]:
        try:
            found: object = await within(Contained(end()), 5.0)
        except Exception as error:
            found = error.__cause__ if isinstance(error, Strayed) else error
        task = asyncio.current_task()
        await sleep(1.0)
        return found, -1 if task is None else task.cancelling()

    assert run(work()) == (outcome, 0)


def test_a_time_out_of_its_own_is_no_cancellation_of_its_task() -> None:
    async def end() -> str:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await sleep(10.0)
        await sleep(1.0)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "ended"

    async def work() -> str:
        found = await within(Contained(end()), 50.0)
        await sleep(1.0)
        return found

    assert run(work()) == "ended"


def test_a_cancellation_of_the_caller_passes_also_where_it_cancels_itself() -> None:
    async def end() -> str:
        try:
            await sleep(100.0)
        finally:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return "never"

    async def work() -> bool:
        task = asyncio.ensure_future(within(Contained(end()), 500.0))
        await sleep(1.0)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled()

    assert run(work())


def test_results_and_ordinary_errors_pass() -> None:
    async def answer() -> int:
        await sleep(1.0)
        return 7

    async def fail() -> None:
        await sleep(1.0)
        raise ValueError("no")

    assert run(within(Contained(answer()), 5.0)) == 7
    with pytest.raises(ValueError, match="no"):
        run(within(Contained(fail()), 5.0))


def test_a_cancellation_of_the_caller_stays_one() -> None:
    async def work() -> bool:
        task = asyncio.ensure_future(within(Contained(sleep(100.0)), 500.0))
        await sleep(1.0)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled()

    assert run(work())


async def _stubborn(seen: list[float]) -> None:
    while True:
        try:
            await sleep(1_000.0)
        except asyncio.CancelledError:
            seen.append(asyncio.get_running_loop().time())


def test_what_swallows_its_time_out_is_let_go_of() -> None:
    async def work() -> tuple[float, list[float]]:
        seen: list[float] = []
        with pytest.raises(TimedOut):
            await within(Contained(_stubborn(seen)), 3.0)
        ended_s = asyncio.get_running_loop().time()
        await sleep(5_000.0)
        return ended_s, seen

    assert run(work()) == (3.0 + UNWIND_S, [3.0])


def test_what_swallows_a_cancellation_of_the_caller_is_let_go_of() -> None:
    async def work() -> tuple[bool, float]:
        task = asyncio.ensure_future(within(Contained(_stubborn([])), 5_000.0))
        await sleep(1.0)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled(), asyncio.get_running_loop().time()

    assert run(work()) == (True, 1.0 + UNWIND_S)


def test_who_cleans_up_in_time_may_still_answer() -> None:
    async def late() -> str:
        try:
            await sleep(1_000.0)
        except asyncio.CancelledError:
            await sleep(UNWIND_S / 2)
        return "just so"

    async def work() -> str:
        answer = await within(Contained(late()), 3.0)
        await sleep(2 * UNWIND_S)
        return answer

    assert run(work()) == "just so"
