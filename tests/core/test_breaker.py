"""The breaker, move by move: when it trips, how long it rests, whom it lets probe, and what it ignores."""

from __future__ import annotations

import itertools

import pytest

from quarterdeck.core.breaker import (
    TRANSITIONS,
    Breaker,
    BreakerPolicy,
    BreakerState,
    CallOutcome,
    Permit,
    Rejection,
    Signal,
)
from quarterdeck.core.errors import UsageError

SUCCESS, FAILURE, CANCELLED, IGNORED = CallOutcome


def admitted(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.admit(now_s)
    assert isinstance(permit, Permit)
    return permit


def call(breaker: Breaker, outcome: CallOutcome, now_s: float, service_s: float = 0.0, luck: float = 0.5) -> None:
    breaker.settle(admitted(breaker, now_s), outcome, now_s, luck, service_s)


def tripped(**policy: object) -> Breaker:
    """Open since t = 0, resting 30 s."""
    breaker = Breaker(BreakerPolicy(failures=1, open_jitter=0.0, **policy))  # type: ignore[arg-type]
    call(breaker, FAILURE, 0.0)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_the_default_trips_at_the_fifth_failure_within_a_minute() -> None:
    breaker = Breaker(BreakerPolicy())
    for second in (0.0, 15.0, 30.0, 45.0):
        call(breaker, FAILURE, second)
        call(breaker, SUCCESS, second)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, FAILURE, 60.0)
    assert breaker.state is BreakerState.OPEN


def test_failures_that_are_further_apart_than_the_window_do_not_add_up() -> None:
    breaker = Breaker(BreakerPolicy(min_calls=0))
    for second in range(0, 1_600, 16):
        call(breaker, FAILURE, float(second))
    assert breaker.state is BreakerState.CLOSED


def test_a_trickle_of_failures_trips_by_rate() -> None:
    breaker = Breaker(BreakerPolicy())
    for number in range(19):
        call(breaker, FAILURE if number % 2 else SUCCESS, number * 20.0)  # 3 failures a minute at most
    assert breaker.state is BreakerState.CLOSED
    call(breaker, FAILURE, 19 * 20.0)
    assert breaker.state is BreakerState.OPEN


def test_a_rate_below_the_limit_or_too_few_calls_do_not_trip() -> None:
    calm = Breaker(BreakerPolicy(failures=0))
    for number in range(300):
        call(calm, FAILURE if number % 3 == 0 else SUCCESS, number * 1.0)
    few = Breaker(BreakerPolicy(failures=0))
    for number in range(19):
        call(few, FAILURE, number * 1.0)
    assert (calm.state, few.state) == (BreakerState.CLOSED, BreakerState.CLOSED)


def test_old_buckets_leave_the_window() -> None:
    breaker = Breaker(BreakerPolicy(failures=0, rate_window_s=100.0))
    for number in range(15):
        call(breaker, FAILURE, number * 1.0)
    assert breaker.view(15.0).failed_calls == 15
    assert breaker.view(99.0).failed_calls == 15
    assert breaker.view(200.0).calls == 0
    for number in range(10):
        call(breaker, FAILURE, 201.0 + number)
    assert breaker.state is BreakerState.CLOSED


def test_a_success_never_trips() -> None:
    breaker = Breaker(BreakerPolicy(failures=0))
    for number in range(10):
        call(breaker, FAILURE, float(number))
    for number in range(10):
        call(breaker, SUCCESS, 10.0 + number)
    assert breaker.view(20.0).calls == 20 and breaker.state is BreakerState.CLOSED


def test_slow_calls_trip_only_where_asked_for() -> None:
    watching = Breaker(BreakerPolicy(slow_s=2.0))
    blind = Breaker(BreakerPolicy())
    for number in range(20):
        for breaker in (watching, blind):
            if breaker.state is BreakerState.CLOSED:
                call(breaker, SUCCESS, float(number), service_s=3.0 if number >= 4 else 1.0)
    assert (watching.state, blind.state) == (BreakerState.OPEN, BreakerState.CLOSED)


def test_neither_cancelled_nor_ignored_calls_count() -> None:
    breaker = Breaker(BreakerPolicy(failures=1))
    for outcome in (CANCELLED, IGNORED) * 50:
        call(breaker, outcome, 1.0)
    assert breaker.state is BreakerState.CLOSED and breaker.view(1.0).calls == 0


@pytest.mark.parametrize(("luck", "rest_s"), [(0.0, 24.0), (0.5, 30.0), (1.0, 36.0)])
def test_it_rests_thirty_seconds_give_or_take_a_fifth(luck: float, rest_s: float) -> None:
    breaker = Breaker(BreakerPolicy(failures=1))
    call(breaker, FAILURE, 100.0, luck=luck)
    assert breaker.admit(100.0) == Rejection(pytest.approx(rest_s), BreakerState.OPEN)
    assert isinstance(breaker.admit(100.0 + rest_s - 0.01), Rejection)
    assert isinstance(breaker.admit(100.0 + rest_s + 0.01), Permit)


def test_a_probe_that_succeeds_closes_and_the_past_is_forgotten() -> None:
    breaker = tripped()
    call(breaker, SUCCESS, 30.0)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.view(30.0).failures == 0


def test_a_probe_that_fails_opens_again() -> None:
    breaker = tripped()
    call(breaker, FAILURE, 30.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit(59.0) == Rejection(1.0, BreakerState.OPEN)
    assert breaker.view(59.0).trips == 2


def test_several_probes_must_all_succeed() -> None:
    breaker = tripped(probes=3)
    first, second, third = (admitted(breaker, 30.0) for _ in range(3))
    assert isinstance(breaker.admit(30.0), Rejection)
    breaker.settle(first, SUCCESS, 31.0, 0.5)
    assert isinstance(breaker.admit(31.0), Rejection), "the successes count towards the three"
    breaker.settle(second, SUCCESS, 31.0, 0.5)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.settle(third, SUCCESS, 31.0, 0.5)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("outcome", [CANCELLED, IGNORED])
def test_a_probe_without_a_verdict_gives_its_place_back(outcome: CallOutcome) -> None:
    breaker = tripped()
    for _ in range(5):
        probe = admitted(breaker, 30.0)
        assert isinstance(breaker.admit(30.0), Rejection)
        breaker.settle(probe, outcome, 30.0, 0.5)
    call(breaker, SUCCESS, 31.0)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_never_reports_is_presumed_lost() -> None:
    breaker = tripped(probe_lost_after_s=100.0)
    lost = admitted(breaker, 30.0)
    assert isinstance(breaker.admit(129.0), Rejection)
    second = admitted(breaker, 130.0)
    breaker.settle(lost, FAILURE, 131.0, 0.5)
    assert breaker.state is BreakerState.HALF_OPEN, "the lost one has no say any more"
    breaker.settle(second, SUCCESS, 132.0, 0.5)
    assert breaker.state is BreakerState.CLOSED


def test_a_slow_probe_is_no_recovery() -> None:
    breaker = tripped(slow_s=2.0)
    call(breaker, SUCCESS, 30.0, service_s=2.5)
    assert breaker.state is BreakerState.OPEN


def test_a_stale_success_does_not_close() -> None:
    breaker = Breaker(BreakerPolicy(failures=1, open_jitter=0.0))
    before = admitted(breaker, 0.0)
    call(breaker, FAILURE, 1.0)
    breaker.settle(before, SUCCESS, 2.0, 0.5)
    assert breaker.state is BreakerState.OPEN
    probe = admitted(breaker, 31.0)
    breaker.settle(before, SUCCESS, 32.0, 0.5)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.settle(probe, SUCCESS, 33.0, 0.5)
    assert breaker.state is BreakerState.CLOSED


def test_a_stale_failure_does_not_open_again() -> None:
    breaker = Breaker(BreakerPolicy(failures=1, open_jitter=0.0))
    before = admitted(breaker, 0.0)
    call(breaker, FAILURE, 1.0)
    call(breaker, SUCCESS, 31.0)
    breaker.settle(before, FAILURE, 32.0, 0.5)
    assert breaker.state is BreakerState.CLOSED and breaker.view(32.0).calls == 0


def test_a_permit_tells_whether_it_is_current() -> None:
    breaker = Breaker(BreakerPolicy(failures=1))
    permit = admitted(breaker, 0.0)
    assert breaker.current(permit)
    call(breaker, FAILURE, 1.0)
    assert not breaker.current(permit)


def test_a_probe_is_settled_once() -> None:
    breaker = tripped(probes=2)
    probe = admitted(breaker, 30.0)
    breaker.settle(probe, SUCCESS, 31.0, 0.5)
    breaker.settle(probe, SUCCESS, 31.0, 0.5)
    assert breaker.state is BreakerState.HALF_OPEN


def test_isolation_holds_until_a_person_resets_it() -> None:
    breaker = Breaker(BreakerPolicy(failures=1))
    permit = admitted(breaker, 0.0)
    breaker.isolate()
    breaker.settle(permit, SUCCESS, 1.0, 0.5)
    assert breaker.admit(1_000_000.0) == Rejection(30.0, BreakerState.ISOLATED)
    breaker.reset()
    call(breaker, SUCCESS, 1_000_001.0)
    assert breaker.state is BreakerState.CLOSED


def test_looking_changes_nothing() -> None:
    breaker = tripped()
    assert breaker.rejection(31.0) is None
    assert breaker.view(31.0).state is BreakerState.OPEN
    assert breaker.view(10.0).retry_after_s == 20.0


def test_memory_is_bounded() -> None:
    breaker = Breaker(BreakerPolicy(failures=7, window_s=0.001, min_calls=0))
    for number in range(5_000):
        call(breaker, FAILURE, float(number))
    assert len(breaker._failed_at_s) == 7
    assert len(breaker._window._ring) == 10


def test_the_table_is_whole() -> None:
    """Every state can be left by a person, and only what can happen is in it."""
    for state in BreakerState:
        assert TRANSITIONS[state, Signal.WAS_ISOLATED] is BreakerState.ISOLATED
        assert TRANSITIONS[state, Signal.WAS_RESET] is BreakerState.CLOSED
    automatic = {pair for pair in TRANSITIONS if pair[1] not in (Signal.WAS_ISOLATED, Signal.WAS_RESET)}
    assert automatic == {
        (BreakerState.CLOSED, Signal.TRIPPED),
        (BreakerState.OPEN, Signal.RESTED),
        (BreakerState.HALF_OPEN, Signal.PROBE_FAILED),
        (BreakerState.HALF_OPEN, Signal.PROBES_SUCCEEDED),
    }
    assert len(TRANSITIONS) == len(set(itertools.product(BreakerState, list(Signal)[-2:]))) + len(automatic)


@pytest.mark.parametrize(
    "policy",
    [
        {"failures": -1},
        {"probes": 0},
        {"window_s": 0.0},
        {"open_s": 0.0},
        {"failure_rate": 0.0},
        {"open_jitter": 1.0},
        {"slow_s": 0.0},
    ],
)
def test_nonsense_is_refused(policy: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"breaker\.policy_invalid"):
        BreakerPolicy(**policy)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"breaker\.argument_invalid"):
        call(Breaker(BreakerPolicy(failures=1)), FAILURE, 0.0, luck=2.0)
