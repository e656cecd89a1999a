"""One call under the whole policy: which errors are retried, when, how often, and what stops it."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.core.breaker import BreakerPolicy, BreakerState, CallOutcome
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import Refused, Unavailable
from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.core.retry import ErrorClass, Failure, Jitter, RetryBudgetPolicy, RetryPolicy
from quarterdeck.resilience.dependency import Dependency
from quarterdeck.resilience.failures import CallFailed, GaveUp, classify_by_type
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run

EXACT = RetryPolicy(max_attempts=4, base_s=1.0, cap_s=60.0, jitter=Jitter.ADDED)


class Fixed(SeededEntropy):
    """No jitter: the delays are exactly 1, 2, 4 s."""

    def __init__(self) -> None:
        super().__init__()
        self.uniform = lambda: 0.0


class Upstream:
    """Answers as scripted: seconds of service, then a result or an error. Records when each attempt began."""

    def __init__(self, clock: VirtualClock, *script: tuple[float, object]) -> None:
        self.clock = clock
        self.script = list(script)
        self.began: list[float] = []
        self.limits: list[float] = []
        self.numbers: list[int] = []

    async def __call__(self, number: int, timeout_s: float) -> object:
        self.began.append(self.clock.monotonic_s())
        self.numbers.append(number)
        self.limits.append(timeout_s)
        seconds, answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if seconds:
            await self.clock.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Http(Exception):
    def __init__(self, error_class: ErrorClass, retry_after_s: float | None = None, started: bool = True) -> None:
        super().__init__(error_class)
        self.failure = Failure(error_class, retry_after_s, started)


def classify(error: Exception) -> Failure:
    return error.failure if isinstance(error, Http) else classify_by_type(error)


def make(clock: VirtualClock, **policy: object) -> Dependency:
    policy.setdefault("retry", EXACT)
    return Dependency("upstream", DependencyPolicy(**policy), clock, Fixed())  # type: ignore[arg-type]


def call(dep: Dependency, upstream: Upstream, **how: object) -> tuple[object, int]:
    return run(dep.run(upstream, classify=classify, **how), clock=upstream.clock)  # type: ignore[arg-type]


def failing(dep: Dependency, upstream: Upstream, **how: object) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        call(dep, upstream, **how)
    assert caught.value.__cause__ is caught.value.error
    return caught.value


def test_a_result_at_the_first_attempt() -> None:
    clock = VirtualClock()
    dep, upstream = make(clock), Upstream(clock, (0.2, "ok"))
    assert call(dep, upstream) == ("ok", 1)
    assert dep.view().figures.avg_latency_ms == 200.0
    assert (upstream.numbers, upstream.limits) == ([1], [30.0])


def test_transient_errors_are_retried_with_growing_pauses() -> None:
    clock = VirtualClock()
    down = Http(ErrorClass.SERVER)
    dep, upstream = make(clock), Upstream(clock, (0.5, down), (0.5, down), (0.5, down), (0.5, "ok"))
    assert call(dep, upstream) == ("ok", 4)
    assert upstream.began == [0.0, 1.5, 4.0, 8.5]
    assert upstream.numbers == [1, 2, 3, 4]
    figures = dep.view().figures
    assert (figures.total, figures.success, figures.error, figures.attempts, figures.retry) == (1, 1, 0, 4, 3)
    assert figures.retries_by_class == {"server": 3}
    assert (figures.latency_us_total, figures.service_us_total) == (500_000, 2_000_000)


def test_after_the_last_attempt_the_last_error_is_raised_and_counted_once() -> None:
    clock = VirtualClock()
    dep, upstream = make(clock), Upstream(clock, (0.0, Http(ErrorClass.SERVER)))
    failed = failing(dep, upstream)
    assert (failed.attempts, failed.gave_up, failed.failure.error_class) == (4, GaveUp.ATTEMPTS, ErrorClass.SERVER)
    assert (dep.view().figures.error, dep.view().breaker.failures) == (1, 1)


@pytest.mark.parametrize(
    "error_class",
    [
        ErrorClass.INVALID,
        ErrorClass.AUTHENTICATION,
        ErrorClass.CLIENT,
        ErrorClass.DECLARED_PERMANENT,
        ErrorClass.UNKNOWN,
    ],
)
def test_permanent_errors_are_never_retried(error_class: ErrorClass) -> None:
    clock = VirtualClock()
    dep, upstream = make(clock), Upstream(clock, (0.0, Http(error_class, retry_after_s=1.0)))
    failed = failing(dep, upstream)
    assert (failed.attempts, failed.gave_up) == (1, GaveUp.PERMANENT)
    assert len(upstream.began) == 1


def test_permanent_errors_do_not_trip_the_breaker() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=1))
    failing(dep, Upstream(clock, (0.0, Http(ErrorClass.INVALID))))
    assert dep.breaker_state is BreakerState.CLOSED
    failing(dep, Upstream(clock, (0.0, Http(ErrorClass.UNKNOWN))))
    assert dep.breaker_state is BreakerState.OPEN


def test_retry_after_is_honoured_and_an_endless_one_ends_the_call() -> None:
    clock = VirtualClock()
    busy = Http(ErrorClass.RATE_LIMITED, retry_after_s=20.0)
    dep, upstream = make(clock), Upstream(clock, (0.0, busy), (0.0, "ok"))
    assert call(dep, upstream) == ("ok", 2)
    assert upstream.began == [0.0, 20.0]
    failed = failing(dep, Upstream(clock, (0.0, Http(ErrorClass.RATE_LIMITED, retry_after_s=3_600.0))))
    assert (failed.attempts, failed.gave_up, failed.failure.retry_after_s) == (1, GaveUp.RETRY_AFTER, 3_600.0)


def test_what_must_not_be_repeated_is_only_repeated_if_it_never_started() -> None:
    clock = VirtualClock()
    dep = make(clock)
    failed = failing(dep, Upstream(clock, (0.0, Http(ErrorClass.SERVER))), may_retry=False)
    assert (failed.attempts, failed.gave_up) == (1, GaveUp.NOT_REPEATABLE)
    unreached = Http(ErrorClass.CONNECTION, started=False)
    assert call(dep, Upstream(clock, (0.0, unreached), (0.0, "ok")), may_retry=False) == ("ok", 2)


def test_each_attempt_has_its_own_time_out() -> None:
    clock = VirtualClock()
    dep = make(clock, timeout_s=0.7, retry=RetryPolicy(max_attempts=2, base_s=1.0))
    failed = failing(dep, Upstream(clock, (1.0, "late")))
    assert (failed.attempts, failed.failure.error_class) == (2, ErrorClass.TIMEOUT)
    figures = dep.view().figures
    assert (figures.timeout, figures.error, figures.retry) == (1, 0, 1)
    assert figures.service_us_total == 1_400_000


def test_the_deadline_cuts_the_attempt_and_forbids_hopeless_pauses() -> None:
    clock = VirtualClock()
    dep = make(clock, timeout_s=10.0)
    upstream = Upstream(clock, (8.0, Http(ErrorClass.SERVER)), (8.0, "late"))
    failed = failing(dep, upstream, deadline_s=12.0)
    assert (failed.attempts, failed.gave_up, failed.failure.error_class) == (2, GaveUp.DEADLINE, ErrorClass.TIMEOUT)
    assert upstream.limits == [10.0, 3.0]
    assert clock.monotonic_s() == 12.0

    soon = Upstream(clock, (0.5, Http(ErrorClass.SERVER)))
    assert failing(dep, soon, deadline_s=13.4).gave_up is GaveUp.DEADLINE
    assert clock.monotonic_s() == 12.5, "it did not sleep towards a deadline that it cannot meet"


def test_a_deadline_that_passed_during_suspension_stops_before_the_attempt() -> None:
    clock = VirtualClock()
    dep, upstream = make(clock), Upstream(clock, (0.0, "ok"))
    permit = dep.try_acquire()
    clock.suspend(100.0)
    with pytest.raises(Refused, match=r"deadline\.exceeded"):
        call(dep, upstream, permit=permit, deadline_s=50.0)
    assert (upstream.began, dep.view().figures.in_flight, dep.view().figures.stopped) == ([], 0, 1)


def test_the_slot_is_free_during_the_back_off() -> None:
    clock = VirtualClock()
    dep = make(clock, concurrency=BulkheadPolicy(slots=1, max_queue=0))
    first = Upstream(clock, (0.0, Http(ErrorClass.SERVER)), (0.0, "first"))
    second = Upstream(clock, (0.4, "second"))

    async def main() -> list[object]:
        one = asyncio.create_task(dep.run(first, classify=classify))
        await clock.sleep(0.1)
        return [await dep.run(second, classify=classify), await one]

    assert run(main(), clock=clock) == [("second", 1), ("first", 2)]
    assert dep.view().figures.rejected_by_bulkhead == 0


def test_a_retry_that_finds_no_slot_raises_the_error_that_it_wanted_to_retry() -> None:
    clock = VirtualClock()
    dep = make(clock, concurrency=BulkheadPolicy(slots=1, max_queue=0))
    upstream = Upstream(clock, (0.0, Http(ErrorClass.SERVER)))

    async def main() -> CallFailed:
        one = asyncio.create_task(dep.run(upstream, classify=classify))
        await clock.sleep(0.5)
        await dep.run(Upstream(clock, (1.0, "long")), classify=classify)
        with pytest.raises(CallFailed) as caught:
            await one
        return caught.value

    failed = run(main(), clock=clock)
    assert (failed.attempts, failed.gave_up) == (1, GaveUp.CAPACITY)
    assert dep.view().figures.in_flight == 0


def test_the_retry_budget_bounds_an_outage() -> None:
    clock = VirtualClock()
    dep = make(
        clock,
        breaker=BreakerPolicy(failures=0, min_calls=0),
        retry_budget=RetryBudgetPolicy(capacity=50.0, refill_per_s=0.0),
    )
    upstream = Upstream(clock, (0.0, Http(ErrorClass.SERVER)))

    async def main() -> list[BaseException]:
        return await asyncio.gather(*(dep.run(upstream, classify=classify) for _ in range(100)), return_exceptions=True)

    results = run(main(), clock=clock)
    assert len(upstream.began) == 100 + 10
    assert sum(isinstance(r, CallFailed) and r.gave_up is GaveUp.RETRY_BUDGET for r in results) == 100


def test_a_success_refills_the_retry_budget_and_a_useful_retry_costs_nothing() -> None:
    clock = VirtualClock()
    dep = make(clock, retry_budget=RetryBudgetPolicy(capacity=20.0, refill_per_s=0.0))
    down = Http(ErrorClass.SERVER)
    assert call(dep, Upstream(clock, (0.0, down), (0.0, "ok"))) == ("ok", 2)
    assert dep.view().retry_tokens == 20.0
    assert call(dep, Upstream(clock, (0.0, down), (0.0, down), (0.0, "ok"))) == ("ok", 3)
    assert dep.view().retry_tokens == 15.0
    call(dep, Upstream(clock, (0.0, "ok")))
    assert dep.view().retry_tokens == 16.0


def test_a_back_off_does_not_queue_for_what_is_closed_by_then() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=1), concurrency=BulkheadPolicy(slots=2, max_queue=5))

    async def main() -> float:
        one = asyncio.create_task(dep.run(Upstream(clock, (0.0, Http(ErrorClass.SERVER))), classify=classify))
        await clock.sleep(0.1)
        long = asyncio.create_task(dep.run(Upstream(clock, (8.0, "long")), classify=classify))
        other = asyncio.create_task(dep.run(Upstream(clock, (8.0, "long")), classify=classify))
        await clock.sleep(0.4)
        dep.isolate()
        with pytest.raises(CallFailed, match="gave up: breaker"):
            await one
        ended_s = clock.monotonic_s()
        await asyncio.wait([long, other])
        return ended_s

    assert run(main(), clock=clock) == 1.0


def test_a_trip_by_a_call_that_holds_no_slot_sends_those_in_line_away_too() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=1), concurrency=BulkheadPolicy(slots=1, max_queue=1, max_wait_s=60.0))

    async def main() -> float:
        one = asyncio.create_task(dep.run(Upstream(clock, (0.0, Http(ErrorClass.SERVER))), classify=classify))
        await clock.sleep(0.1)
        long = asyncio.create_task(dep.run(Upstream(clock, (20.0, "long")), classify=classify))
        queued = asyncio.create_task(dep.run(Upstream(clock, (0.0, "queued")), classify=classify))
        with pytest.raises(CallFailed, match="gave up: capacity"):
            await one
        with pytest.raises(Unavailable, match=r"breaker\.open"):
            await queued
        ended_s = clock.monotonic_s()
        await long
        return ended_s

    assert run(main(), clock=clock) == 1.0


def test_a_call_counts_once_for_the_breaker_and_back_offs_end_when_it_trips() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=2, open_jitter=0.0))
    failing(dep, Upstream(clock, (0.0, Http(ErrorClass.SERVER))))
    assert dep.breaker_state is BreakerState.CLOSED, "four attempts, one call"

    patient = Upstream(clock, (0.0, Http(ErrorClass.SERVER)))

    async def main() -> CallFailed:
        one = asyncio.create_task(dep.run(patient, classify=classify))
        await clock.sleep(0.5)
        permit = dep.try_acquire()
        assert permit is not None
        dep.settle(permit, CallOutcome.FAILURE, 0.0, ErrorClass.SERVER)
        assert dep.breaker_state is BreakerState.OPEN
        with pytest.raises(CallFailed) as caught:
            await one
        return caught.value

    failed = run(main(), clock=clock)
    assert (failed.gave_up, failed.attempts, len(patient.began)) == (GaveUp.BREAKER, 1, 1)


def test_a_probe_is_one_attempt() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=1, open_jitter=0.0))
    failing(dep, Upstream(clock, (0.0, Http(ErrorClass.SERVER))))
    with pytest.raises(Unavailable, match=r"breaker\.open"):
        call(dep, Upstream(clock, (0.0, "not asked")))
    clock.advance(30.0)
    failed = failing(dep, Upstream(clock, (0.0, Http(ErrorClass.SERVER))))
    assert (failed.gave_up, failed.attempts, dep.breaker_state) == (GaveUp.PROBE, 1, BreakerState.OPEN)
    clock.advance(30.0)
    assert call(dep, Upstream(clock, (0.0, "ok"))) == ("ok", 1)
    assert dep.breaker_state is BreakerState.CLOSED


def test_a_cancelled_probe_lets_the_next_one_probe() -> None:
    clock = VirtualClock()
    dep = make(clock, breaker=BreakerPolicy(failures=1, open_jitter=0.0))
    failing(dep, Upstream(clock, (0.0, Http(ErrorClass.SERVER))))
    clock.advance(30.0)

    async def main() -> object:
        probe = asyncio.create_task(dep.run(Upstream(clock, (20.0, "late")), classify=classify))
        await clock.sleep(1.0)
        assert dep.try_acquire() is None
        probe.cancel()
        await asyncio.wait([probe])
        assert dep.breaker_state is BreakerState.HALF_OPEN
        return await dep.run(Upstream(clock, (0.0, "ok")), classify=classify)

    assert run(main(), clock=clock) == ("ok", 1)
    assert dep.breaker_state is BreakerState.CLOSED


class Revoked(Exception):
    """What a revocation check raises."""


def test_before_attempt_stops_a_retry_and_nothing_stays_taken() -> None:
    clock = VirtualClock()
    dep, upstream = make(clock), Upstream(clock, (0.0, Http(ErrorClass.SERVER)))
    asked: list[float] = []

    def check() -> None:
        asked.append(clock.monotonic_s())
        if len(asked) == 3:
            raise Revoked

    with pytest.raises(Revoked):
        call(dep, upstream, before_attempt=check)
    assert (asked, len(upstream.began)) == ([0.0, 1.0, 3.0], 2)
    figures = dep.view().figures
    assert (figures.stopped, figures.error, figures.in_flight, dep.view().breaker.failures) == (1, 0, 0, 0)


def test_the_permit_held_before_the_commit_is_used_for_the_first_attempt() -> None:
    clock = VirtualClock()
    dep = make(clock, concurrency=BulkheadPolicy(slots=1, max_queue=0))
    permit = dep.try_acquire()
    assert call(dep, Upstream(clock, (0.1, "ok")), permit=permit) == ("ok", 1)
    figures = dep.view().figures
    assert (figures.total, figures.success, figures.in_flight) == (1, 1, 0)


@pytest.mark.parametrize("at_s", [0.0, 0.3, 0.5, 0.9, 1.5, 1.7, 3.0])
def test_cancelled_at_any_moment_nothing_stays_taken(at_s: float) -> None:
    clock = VirtualClock()
    dep = make(clock, concurrency=BulkheadPolicy(slots=1, max_queue=3))

    async def main() -> None:
        holder = dep.try_acquire()
        assert holder is not None
        task = asyncio.create_task(dep.run(Upstream(clock, (0.5, Http(ErrorClass.SERVER))), classify=classify))
        asyncio.get_running_loop().call_later(0.2, dep.settle, holder, CallOutcome.SUCCESS)
        await clock.sleep(at_s)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await clock.sleep(1.0)

    run(main(), clock=clock)
    figures = dep.view().figures
    assert (figures.in_flight, figures.queued, figures.stopped, figures.error) == (0, 0, 1, 0)


def test_classify_may_let_an_error_through_as_it_is() -> None:
    clock = VirtualClock()
    dep = make(clock)

    def strict(error: Exception) -> Failure:
        raise error

    with pytest.raises(Revoked):
        run(dep.run(Upstream(clock, (0.0, Revoked())), classify=strict), clock=clock)
    assert (dep.view().figures.stopped, dep.view().figures.in_flight) == (1, 0)


@pytest.mark.parametrize(
    ("error", "error_class", "started"),
    [
        (TimeoutError(), ErrorClass.TIMEOUT, True),
        (ConnectionRefusedError(), ErrorClass.CONNECTION, False),
        (ConnectionResetError(), ErrorClass.CONNECTION, True),
        (ValueError(), ErrorClass.UNKNOWN, True),
    ],
)
def test_errors_without_a_class_are_sorted_by_type(error: Exception, error_class: ErrorClass, started: bool) -> None:
    assert classify_by_type(error) == Failure(error_class, started=started)


def test_quick_calls_need_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(when: float | None) -> asyncio.Timeout:
        raise AssertionError(f"a time-out at {when} was made")

    clock = VirtualClock()
    dep = make(clock)
    monkeypatch.setattr(asyncio, "timeout_at", no_timer)
    assert call(dep, Upstream(clock, (0.0, "ok"))) == ("ok", 1)


def test_the_same_seed_gives_the_same_delays() -> None:
    def begun(seed: int) -> list[float]:
        clock = VirtualClock()
        policy = DependencyPolicy(retry=RetryPolicy(max_attempts=5, base_s=1.0))
        dep = Dependency("upstream", policy, clock, SeededEntropy(seed))
        upstream = Upstream(clock, (0.0, Http(ErrorClass.SERVER)))
        failing(dep, upstream)
        return upstream.began

    assert begun(1) == begun(1) != begun(2)
