"""Getting leave to call, and giving it back: all guards at once, nothing lost, every call counted once."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.core.breaker import BreakerPolicy, BreakerState, CallOutcome
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import Refused, Unavailable, UsageError
from quarterdeck.core.limits import BulkheadPolicy, RatePolicy
from quarterdeck.core.retry import ErrorClass
from quarterdeck.resilience.dependency import Dependencies, Dependency, Permit
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run

BREAKER = BreakerPolicy(failures=2, open_jitter=0.0)


def dependency(clock: VirtualClock, **policy: object) -> Dependency:
    return Dependency("upstream", DependencyPolicy(**policy), clock, SeededEntropy())  # type: ignore[arg-type]


def acquired(dep: Dependency) -> Permit:
    permit = dep.try_acquire()
    assert permit is not None
    return permit


def trip(dep: Dependency) -> None:
    for _ in range(2):
        dep.settle(acquired(dep), CallOutcome.FAILURE, 0.1, ErrorClass.SERVER)
    assert dep.breaker_state is BreakerState.OPEN


def accounted(dep: Dependency) -> int:
    figures = dep.view().figures
    rejected = figures.rejected_by_breaker + figures.rejected_by_bulkhead + figures.rejected_by_rate
    return figures.success + figures.timeout + figures.error + figures.stopped + rejected


def test_one_call_without_waiting() -> None:
    clock = VirtualClock()
    dep = dependency(clock)
    permit = acquired(dep)
    assert dep.view().figures.in_flight == 1
    dep.settle(permit, CallOutcome.SUCCESS, 0.25)
    dep.settle(permit, CallOutcome.FAILURE, 9.0)
    figures = dep.view().figures
    assert (figures.total, figures.success, figures.error, figures.in_flight) == (1, 1, 0, 0)
    assert (figures.attempts, figures.avg_latency_ms) == (1, 250.0)


def test_try_acquire_says_none_for_each_guard_and_takes_nothing() -> None:
    clock = VirtualClock()
    busy = dependency(clock, concurrency=BulkheadPolicy(slots=1))
    acquired(busy)
    assert busy.try_acquire() is None

    limited = dependency(clock, rate=RatePolicy(rate_per_s=1.0, burst=1))
    limited.settle(acquired(limited), CallOutcome.SUCCESS)
    assert limited.try_acquire() is None
    assert limited.view().figures.in_flight == 0
    clock.advance(1.0)
    acquired(limited)

    open_ = dependency(clock, breaker=BREAKER, rate=RatePolicy(rate_per_s=1.0, burst=3))
    trip(open_)
    assert open_.try_acquire() is None
    assert open_.view().figures.in_flight == 0
    clock.advance(30.0)
    probe = acquired(open_)
    assert open_.try_acquire() is None, "one probe at a time"
    open_.settle(probe, CallOutcome.SUCCESS)
    acquired(open_)
    assert [dep.view().figures.total for dep in (busy, limited, open_)] == [1, 2, 4], "None is not a call"


def test_an_open_breaker_refuses_with_the_time_to_come_back() -> None:
    clock = VirtualClock()
    dep = dependency(clock, breaker=BREAKER)
    trip(dep)
    clock.advance(10.0)
    with pytest.raises(Unavailable) as refusal:
        run(dep.acquire(), clock=clock)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("breaker.open", 20.0)
    assert dep.view().figures.rejected_by_breaker == 1


def test_a_person_isolates_and_resets() -> None:
    clock = VirtualClock()
    dep = dependency(clock)
    dep.isolate()
    with pytest.raises(Unavailable) as refusal:
        run(dep.acquire(), clock=clock)
    assert refusal.value.code == "breaker.isolated"
    dep.reset()
    acquired(dep)


def test_waiting_for_a_slot_is_measured_apart_from_service() -> None:
    clock = VirtualClock()
    dep = dependency(clock, concurrency=BulkheadPolicy(slots=1, max_queue=10, max_wait_s=100.0))

    async def call() -> None:
        permit = dep.try_acquire() or await dep.acquire()
        await clock.sleep(2.0)
        dep.settle(permit, CallOutcome.SUCCESS, 2.0)

    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(4)))

    run(main(), clock=clock)
    figures = dep.view().figures
    assert (figures.avg_latency_ms, figures.success) == (2_000.0, 4)
    assert figures.queue_wait_us_total == (2 + 4 + 6) * 1_000_000
    assert figures.queue_wait_ms(1.0) == pytest.approx(6_000, rel=1 / 16)
    assert figures.queue_wait_ms(0.25) == 0.0


@pytest.mark.parametrize(("deadline_s", "at_s", "limit"), [(float("inf"), 5.0, "too_long"), (3.0, 3.0, "too_long")])
def test_a_full_bulkhead_refuses_after_the_patience_or_the_deadline(deadline_s: float, at_s: float, limit: str) -> None:
    clock = VirtualClock()
    dep = dependency(clock, concurrency=BulkheadPolicy(slots=1, max_queue=10, max_wait_s=5.0))
    acquired(dep)
    with pytest.raises(Unavailable) as refusal:
        run(dep.acquire(deadline_s), clock=clock)
    assert (refusal.value.code, refusal.value.detail["limit"]) == ("bulkhead.full", limit)
    assert clock.monotonic_s() == at_s
    assert dep.view().figures.rejected_by_bulkhead == 1


def test_a_full_queue_refuses_at_once() -> None:
    clock = VirtualClock()
    dep = dependency(clock, concurrency=BulkheadPolicy(slots=1, max_queue=0))
    acquired(dep)
    with pytest.raises(Unavailable, match="queue_full"):
        run(dep.acquire(), clock=clock)
    assert clock.monotonic_s() == 0.0


def test_a_passed_deadline_refuses_before_anything() -> None:
    clock = VirtualClock()
    dep = dependency(clock)
    clock.suspend(10.0)
    with pytest.raises(Refused, match=r"deadline\.exceeded"):
        run(dep.acquire(9.0), clock=clock)
    assert (dep.view().figures.stopped, dep.view().figures.in_flight) == (1, 0)


def test_the_rate_limit_spaces_calls_and_refuses_beyond_its_patience() -> None:
    clock = VirtualClock()
    dep = dependency(clock, rate=RatePolicy(rate_per_s=0.5, burst=1, max_wait_s=4.0))
    starts: list[float] = []

    async def call() -> None:
        permit = dep.try_acquire() or await dep.acquire()
        starts.append(clock.monotonic_s())
        dep.settle(permit, CallOutcome.SUCCESS, 0.0)

    async def main() -> list[BaseException | None]:
        return await asyncio.gather(*(call() for _ in range(4)), return_exceptions=True)

    results = run(main(), clock=clock)
    assert starts == [0.0, 2.0, 4.0]
    assert isinstance(results[3], Unavailable)
    assert (results[3].code, results[3].retry_after_s) == ("rate.limited", 6.0)
    assert dep.view().figures.rejected_by_rate == 1


def test_when_the_breaker_trips_those_in_line_are_sent_away() -> None:
    clock = VirtualClock()
    dep = dependency(clock, breaker=BREAKER, concurrency=BulkheadPolicy(slots=2, max_queue=10, max_wait_s=1_000.0))

    async def main() -> float:
        first, second = acquired(dep), acquired(dep)
        waiting = [asyncio.create_task(dep.acquire()) for _ in range(3)]
        await clock.sleep(1.0)
        dep.settle(first, CallOutcome.CANCELLED)  # one of them gets its slot
        await clock.sleep(1.0)
        dep.settle(await waiting[0], CallOutcome.FAILURE, 0.1)  # and hands it to the next
        await clock.sleep(1.0)
        dep.settle(await waiting[1], CallOutcome.FAILURE, 0.1)  # this one trips the breaker
        with pytest.raises(Unavailable, match=r"breaker\.open"):
            await waiting[2]
        dep.settle(second, CallOutcome.SUCCESS, 3.0)
        return clock.monotonic_s()

    assert run(main(), clock=clock) == 3.0
    assert dep.view().figures.in_flight == 0
    assert accounted(dep) == dep.view().figures.total == 5


def test_an_unused_permit_gives_its_turn_and_its_probe_back() -> None:
    clock = VirtualClock()
    dep = dependency(clock, breaker=BREAKER, rate=RatePolicy(rate_per_s=0.001, burst=3))
    trip(dep)
    clock.advance(30.0)
    for _ in range(5):
        dep.release(acquired(dep))
    dep.settle(acquired(dep), CallOutcome.SUCCESS)
    assert dep.breaker_state is BreakerState.CLOSED
    assert dep.view().figures.stopped == 5


def test_a_probe_may_take_as_long_as_its_own_time_out() -> None:
    clock = VirtualClock()
    dep = dependency(clock, timeout_s=3_600.0, breaker=BREAKER)
    trip(dep)
    clock.advance(30.0)
    probe = acquired(dep)
    clock.advance(3_600.0)
    assert dep.try_acquire() is None, "it is slow, not lost"
    dep.settle(probe, CallOutcome.SUCCESS, 3_600.0)
    assert dep.breaker_state is BreakerState.CLOSED


def test_a_turn_is_given_back_where_the_breaker_says_no_after_the_wait_for_it() -> None:
    clock = VirtualClock()
    dep = dependency(clock, rate=RatePolicy(rate_per_s=0.1, burst=1, max_wait_s=100.0))

    async def main() -> None:
        dep.settle(acquired(dep), CallOutcome.SUCCESS)
        waiting = asyncio.create_task(dep.acquire())
        await clock.sleep(1.0)
        dep.isolate()
        with pytest.raises(Unavailable, match=r"breaker\.isolated"):
            await waiting
        dep.reset()
        assert clock.monotonic_s() == 10.0
        acquired(dep)

    run(main(), clock=clock)


def test_a_cancelled_waiter_holds_nothing() -> None:
    clock = VirtualClock()
    dep = dependency(
        clock,
        rate=RatePolicy(rate_per_s=0.1, burst=1, max_wait_s=100.0),
        concurrency=BulkheadPolicy(slots=1, max_queue=5),
    )

    async def main() -> None:
        dep.settle(acquired(dep), CallOutcome.SUCCESS)
        waiting = asyncio.create_task(dep.acquire())  # has the slot, waits for its turn at second 10
        queued = asyncio.create_task(dep.acquire())  # waits for the slot
        await clock.sleep(1.0)
        for task in (waiting, queued):
            task.cancel()
        await asyncio.wait([waiting, queued])
        figures = dep.view().figures
        assert (figures.in_flight, figures.queued, figures.stopped) == (0, 0, 2)
        assert dep.try_acquire() is None
        await clock.sleep(9.0)
        acquired(dep)

    run(main(), clock=clock)


@pytest.mark.parametrize("seed", range(40))
def test_every_call_is_counted_once_and_nothing_stays_taken(seed: int) -> None:
    """A storm of calls with every outcome, cancellations and a person at the switch, in seeded order."""
    clock, luck = VirtualClock(), SeededEntropy(seed)
    dep = dependency(
        clock,
        breaker=BreakerPolicy(failures=3, open_s=2.0),
        concurrency=BulkheadPolicy(slots=3, max_queue=5, max_wait_s=3.0),
        rate=RatePolicy(rate_per_s=3.0, burst=3, max_wait_s=2.0),
    )

    async def call() -> None:
        permit = dep.try_acquire() or await dep.acquire(clock.boottime_s() + 5 * luck.uniform())
        try:
            assert dep.view().figures.in_flight <= 3
            await clock.sleep(int(luck.uniform() * 3))
            outcome = list(CallOutcome)[int(luck.uniform() * 4)]
            dep.settle(permit, outcome, luck.uniform(), ErrorClass.TIMEOUT if luck.uniform() < 0.5 else None)
        finally:
            dep.release(permit)

    async def main() -> None:
        calls = []
        for _ in range(80):
            calls.append(asyncio.create_task(call()))
            draw = luck.uniform()
            if draw < 0.2:
                calls[int(luck.uniform() * len(calls))].cancel()
            elif draw < 0.24:
                dep.isolate()
            elif draw < 0.3:
                dep.reset()
            await clock.sleep(int(luck.uniform() * 2))
        await asyncio.wait(calls)
        for task in calls:
            assert task.cancelled() or isinstance(task.exception(), Unavailable | Refused | None)

    run(main(), seed, clock=clock, shuffle=True)
    figures = dep.view().figures
    assert (figures.in_flight, figures.queued) == (0, 0)
    started = 80 - (figures.total - accounted(dep))
    assert figures.total == accounted(dep) <= started
    dep.reset()
    clock.advance(100.0)
    for _ in range(3):
        acquired(dep)


def test_one_dependency_per_name_for_all() -> None:
    deps = Dependencies(VirtualClock(), SeededEntropy())
    policy = DependencyPolicy.for_tool(idempotent=True)
    dep = deps.declare("search", policy)
    assert deps.declare("search", DependencyPolicy.for_tool(idempotent=True)) is dep is deps.get("search")
    deps.declare("model", DependencyPolicy.for_model())
    assert [view.name for view in deps.views()] == ["model", "search"]
    with pytest.raises(UsageError, match=r"dependency\.redeclared"):
        deps.declare("search", DependencyPolicy.for_model())
    with pytest.raises(UsageError, match=r"dependency\.unknown"):
        deps.get("nobody")
