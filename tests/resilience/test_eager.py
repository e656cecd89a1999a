"""``within`` against a plain ``await``: the same to the coroutine in every respect but the cost and the limit."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator

import pytest

from quarterdeck.resilience.eager import Continuation, Reins, TimedOut, within
from quarterdeck.testing.clock import run, sleep

COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


async def never() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_coroutine_that_does_not_suspend_makes_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(when: float | None) -> asyncio.Timeout:
        raise AssertionError(f"a time-out at {when} was made")

    async def quick(answer: str) -> str:
        return answer

    async def slow() -> str:
        await sleep(0)
        return "slow"

    monkeypatch.setattr(asyncio, "timeout_at", no_timer)
    assert run(within(quick("yes"), 1.0)) == "yes"
    with pytest.raises(AssertionError, match="was made"):
        run(within(slow(), 1.0))


def test_a_coroutine_that_suspends_often_gets_every_result() -> None:
    async def work() -> list[object]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.set_result("already")
        later = loop.create_future()
        loop.call_later(1.0, later.set_result, "later")
        return [await done, await later, await sleep(0, "bare"), await sleep(2.0, "slept"), loop.time()]

    assert run(within(work(), 10.0)) == ["already", "later", "bare", "slept", 3.0]


@pytest.mark.parametrize("waits_first", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), KeyboardInterrupt(), SystemExit(3)])
def test_errors_pass_untouched(waits_first: bool, error: BaseException) -> None:
    async def fail() -> None:
        if waits_first:
            await sleep(0)
        raise error

    with pytest.raises(type(error)) as caught:
        run(within(fail(), 5.0))
    assert caught.value is error


def test_the_error_of_the_awaited_future_reaches_the_coroutine() -> None:
    async def work() -> str:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, OSError("down"))
        try:
            await future
        except OSError as error:
            return f"handled {error}"
        return "not raised"

    assert run(within(work(), 1.0)) == "handled down"


def test_the_limit_ends_it_and_its_cleanup_runs() -> None:
    cleaned: list[float] = []

    async def stuck() -> None:
        try:
            await sleep(0.5)
            await never()
        finally:
            cleaned.append(asyncio.get_running_loop().time())

    async def main() -> tuple[float, int]:
        with pytest.raises(TimedOut, match=r"within 0\.7 s") as caught:
            await within(stuck(), 0.7)
        assert isinstance(caught.value.__cause__, TimeoutError)
        task = asyncio.current_task()
        assert task is not None
        await sleep(0)  # the cancellation of the time-out does not stick to the task
        return asyncio.get_running_loop().time(), task.cancelling()

    assert run(main()) == (0.7, 0)
    assert cleaned == [0.7]


def test_no_limit_is_no_limit() -> None:
    assert run(within(sleep(1e6, "done"), float("inf"))) == "done"


def test_a_limit_that_passed_in_the_first_step_ends_it_at_once() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.clock.advance(2.0)  # type: ignore[attr-defined]  # as if it had blocked the thread
        await never()

    async def main() -> float:
        with pytest.raises(TimedOut):
            await within(work(), 1.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 2.0


def test_an_error_made_of_the_time_outs_cancellation_is_still_a_time_out() -> None:
    async def translating() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            raise OSError("query cancelled") from None

    async def main() -> None:
        with pytest.raises(TimedOut) as caught:
            await within(translating(), 1.0)
        assert isinstance(caught.value.__cause__, OSError)

    run(main())


def test_a_result_that_arrives_in_spite_of_the_time_out_is_a_result() -> None:
    async def stubborn() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            return "saved"
        return "not cancelled"

    assert run(within(stubborn(), 1.0)) == "saved"


def test_cancellation_from_outside_stays_one_and_reaches_the_coroutine() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main() -> None:
        task = asyncio.create_task(within(work(), 10.0))
        await sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())
    assert seen == ["cancelled"]


def test_cancelled_before_the_first_wait_was_handed_on() -> None:
    """The task is cancelled from within its own first step: the error is raised where the coroutine waits."""
    seen: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await sleep(5.0)
        except asyncio.CancelledError:
            seen.append("at the wait")
            raise

    async def main() -> None:
        task = asyncio.create_task(within(work(), 10.0))
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert seen == ["at the wait"]


@pytest.mark.parametrize("seed", range(25))
def test_cancelled_in_the_tick_of_the_time_out(seed: int) -> None:
    """Whichever is first, the task ends, and never as a success."""

    async def main() -> bool:
        task = asyncio.create_task(within(never(), 1.0))
        asyncio.get_running_loop().call_at(1.0, task.cancel)
        await asyncio.wait([task])
        return task.cancelled() or isinstance(task.exception(), TimedOut)

    assert run(main(), seed, shuffle=True)


def test_a_cancellation_that_came_before_the_time_out_was_noticed_wins() -> None:
    async def main() -> None:
        task = asyncio.create_task(within(never(), 1.0))
        await sleep(0)
        asyncio.get_running_loop().call_at(1.0, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())


def test_it_runs_in_the_same_task_and_context() -> None:
    async def work() -> list[object]:
        tasks = [asyncio.current_task()]
        COLOUR.set("red")
        await sleep(1.0)
        tasks.append(asyncio.current_task())
        COLOUR.set(COLOUR.get() + " and blue")
        return tasks

    async def main() -> None:
        tasks = await within(work(), 5.0)
        assert tasks == [asyncio.current_task()] * 2
        assert COLOUR.get() == "red and blue"

    run(main())


def test_nested_time_outs_and_task_groups_work_inside() -> None:
    async def work() -> list[object]:
        seen: list[object] = []
        try:
            async with asyncio.timeout(1.0):  # entered in the step that is made by hand
                await never()
        except TimeoutError:
            seen.append(asyncio.get_running_loop().time())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(sleep(1.0))
                group.create_task(fail())
        except* ValueError:
            seen.append("group")
        seen.append(await within(sleep(1.0, "inner"), 5.0))
        return seen

    async def fail() -> None:
        await sleep(0.5)
        raise ValueError

    assert run(within(work(), 20.0)) == [1.0, "group", "inner"]


@pytest.mark.parametrize("inner", [0.5, 1.0, 2.0])
def test_the_outer_limit_is_told_from_the_inner_one(inner: float) -> None:
    async def main() -> str:
        try:
            await within(within(never(), inner), 1.0)
        except TimedOut as error:
            return f"{error.timeout_s:g}"
        return "none"

    assert run(main()) == ("0.5" if inner < 1.0 else "1")


def test_an_error_handled_around_it_is_not_mistaken_for_its_own() -> None:
    async def stubborn() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            await sleep(1.0)  # resumed through every frame again, the one that handles an error included
            return "saved"
        return "not cancelled"

    async def main() -> str:
        try:
            raise ValueError("of before")
        except ValueError:
            return await within(stubborn(), 1.0)

    assert run(main()) == "saved"


@pytest.mark.parametrize("wrap", [lambda coro: coro, lambda coro: within(coro, 100.0)])
def test_shields_and_futures_behave_as_under_a_plain_await(
    wrap: Callable[..., Coroutine[object, object, object]],
) -> None:
    async def work() -> list[object]:
        inner = asyncio.create_task(sleep(2.0, "inner"))
        shielded = await asyncio.shield(inner)
        many = await asyncio.gather(sleep(1.0, 1), sleep(1.0, 2))
        async with asyncio.Lock() as held:
            return [shielded, many, held, asyncio.get_running_loop().time()]

    assert run(wrap(work())) == ["inner", [1, 2], None, 3.0]


def test_closing_an_unfinished_one_runs_its_cleanup() -> None:
    closed: list[str] = []

    async def work() -> None:
        try:
            await sleep(0)
        finally:
            closed.append("closed")

    async def main() -> None:
        coro = work()
        Continuation(coro, coro.send(None)).close()
        assert closed == ["closed"]

    run(main())


def test_everything_passes_through_to_the_coroutine_from_the_first_step_on() -> None:
    @types.coroutine
    def wait(name: str) -> Generator[str, object, object]:
        return (yield name)

    async def work() -> list[object]:
        try:
            await wait("first")
        except ValueError:
            return [await wait("second"), await wait("third")]
        return []

    coro = work()
    continued = Continuation(coro, coro.send(None))
    assert continued.throw(ValueError()) == "second"
    assert continued.send(2) == "third"
    with pytest.raises(StopIteration) as ended:
        continued.send(3)
    assert ended.value.value == [2, 3]


async def test_on_a_real_loop_as_well() -> None:
    async def work() -> str:
        await asyncio.to_thread(lambda: None)
        return "done"

    assert await within(work(), 60.0) == "done"
    with pytest.raises(TimedOut):
        await within(never(), 0.01)


def test_what_is_cut_off_while_its_time_runs_out_has_timed_out() -> None:
    """The limit has passed, and the attempt does not know it yet: cutting it off then changes nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        held: list[Reins] = []
        reins = Reins(held.append, lambda _: None)
        loop.call_at(loop.time() + 1.0, lambda: loop.call_soon(reins.cut, "run.cancelled"))
        with pytest.raises(TimedOut):
            await within(sleep(60.0), 1.0, reins)
        assert reins.code == ""

    run(main())
