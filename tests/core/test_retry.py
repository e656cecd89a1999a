"""Back-off stays within its bounds, honours what servers ask, and the budget bounds the sum of all retries."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import UsageError
from quarterdeck.core.retry import (
    BLAMELESS,
    MODEL_RETRY,
    NATURE,
    TOOL_RETRY,
    ErrorClass,
    Jitter,
    Nature,
    RetryBudget,
    RetryBudgetPolicy,
    RetryPolicy,
    class_of_status,
    is_transient,
    next_delay_s,
)

UNIT = st.floats(0.0, 1.0)
POLICIES = st.builds(
    lambda attempts, base, factor, jitter: RetryPolicy(attempts, base, base * factor, jitter),
    st.integers(1, 20),
    st.floats(0.001, 10.0),
    st.floats(1.0, 1_000.0),
    st.sampled_from(list(Jitter)),
)


@given(POLICIES, st.integers(1, 25), UNIT)
def test_delays_lie_between_zero_and_the_cap(policy: RetryPolicy, attempt: int, luck: float) -> None:
    delay = next_delay_s(policy, attempt, luck, None)
    if attempt >= policy.max_attempts:
        assert delay is None
    elif policy.jitter is Jitter.FULL:
        assert delay is not None and 0.0 <= delay <= min(policy.cap_s, policy.base_s * 2 ** (attempt - 1))
    else:
        floor = min(policy.cap_s, policy.base_s * 2 ** (attempt - 1))
        assert delay is not None and floor <= delay <= floor + policy.base_s


@given(POLICIES, st.integers(1, 25), UNIT, st.floats(0.0, 200.0))
def test_never_earlier_than_the_server_asked_and_never_longer_than_we_are_willing(
    policy: RetryPolicy, attempt: int, luck: float, asked: float
) -> None:
    delay = next_delay_s(policy, attempt, luck, asked)
    if attempt >= policy.max_attempts or asked > policy.retry_after_cap_s:
        assert delay is None
    else:
        assert delay is not None and delay >= asked


def test_the_defaults_are_the_written_ones() -> None:
    assert (MODEL_RETRY.max_attempts, MODEL_RETRY.base_s, MODEL_RETRY.cap_s) == (5, 1.0, 60.0)
    assert [next_delay_s(MODEL_RETRY, n, 1.0, None) for n in range(1, 6)] == [1.0, 2.0, 4.0, 8.0, None]
    assert TOOL_RETRY.max_attempts == 4
    assert [next_delay_s(TOOL_RETRY, n, 0.0, None) for n in range(1, 5)] == [0.1, 0.2, 0.4, None]
    assert next_delay_s(RetryPolicy(max_attempts=100, base_s=1.0, cap_s=60.0), 99, 1.0, None) == 60.0


def test_a_spread_is_added_to_a_retry_after() -> None:
    policy = RetryPolicy(max_attempts=3, base_s=2.0, cap_s=60.0)
    assert next_delay_s(policy, 1, 0.0, 10.0) == 10.0
    assert next_delay_s(policy, 1, 0.5, 10.0) == 11.0
    assert next_delay_s(policy, 1, 0.5, 60.5) is None
    assert next_delay_s(MODEL_RETRY, 4, 1.0, 0.5) == 8.0, "a short Retry-After does not shorten the back-off"


def test_every_class_has_a_nature_and_permanent_ones_are_blameless() -> None:
    assert set(NATURE) == set(ErrorClass)
    permanent = {name for name, nature in NATURE.items() if nature is Nature.PERMANENT}
    assert permanent == BLAMELESS == {e for e in ErrorClass if e in {"invalid", "authentication", "client", "declared_permanent"}}
    assert not any(is_transient(RetryPolicy(unknown_is_transient=True), name) for name in permanent)


def test_unknown_errors_follow_the_policy() -> None:
    assert not is_transient(RetryPolicy(), ErrorClass.UNKNOWN)
    assert is_transient(RetryPolicy(unknown_is_transient=True), ErrorClass.UNKNOWN)


@pytest.mark.parametrize(
    ("status", "nature"),
    [(429, Nature.TRANSIENT), (500, Nature.TRANSIENT), (503, Nature.TRANSIENT), (408, Nature.TRANSIENT)]
    + [(code, Nature.PERMANENT) for code in (400, 401, 403, 404, 409, 418, 422)],
)
def test_statuses(status: int, nature: Nature) -> None:
    assert NATURE[class_of_status(status)] is nature


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_attempts=0),
        lambda: RetryPolicy(base_s=0.0),
        lambda: RetryPolicy(base_s=2.0, cap_s=1.0),
        lambda: RetryPolicy(cap_s=float("inf")),
        lambda: RetryPolicy(retry_after_cap_s=-1.0),
        lambda: RetryBudgetPolicy(capacity=1.0),
        lambda: RetryBudgetPolicy(refill_per_s=-1.0),
        lambda: next_delay_s(RetryPolicy(), 0, 0.5, None),
        lambda: next_delay_s(RetryPolicy(), 1, 1.5, None),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_timeouts_cost_more_and_time_heals() -> None:
    budget = RetryBudget(RetryBudgetPolicy(capacity=20.0, refill_per_s=0.5))
    assert budget.spend(ErrorClass.TIMEOUT, 0.0) == 10.0
    assert budget.spend(ErrorClass.SERVER, 0.0) == 5.0
    assert budget.spend(ErrorClass.TIMEOUT, 0.0) is None
    assert budget.spend(ErrorClass.TIMEOUT, 9.9) is None
    assert budget.spend(ErrorClass.TIMEOUT, 10.0) == 10.0
    assert budget.tokens(1_000.0) == 20.0


def test_a_retry_that_helped_returns_its_price() -> None:
    budget = RetryBudget(RetryBudgetPolicy(capacity=20.0, refill_per_s=0.0))
    paid = budget.spend(ErrorClass.TIMEOUT, 0.0)
    assert paid is not None
    budget.succeed(paid)
    assert budget.tokens(0.0) == 20.0
    budget.spend(ErrorClass.SERVER, 0.0)
    budget.succeed(0.0)
    assert budget.tokens(0.0) == 16.0


STEPS = st.lists(st.tuples(st.sampled_from(["spend", "succeed"]), st.sampled_from(list(ErrorClass)), st.floats(0.0, 5.0)))


@given(STEPS)
def test_retries_are_bounded_by_capacity_success_and_time(steps: list[tuple[str, ErrorClass, float]]) -> None:
    policy = RetryBudgetPolicy(capacity=50.0)
    budget = RetryBudget(policy)
    now, spent, credited = 0.0, 0.0, 0.0
    for action, error_class, passed in steps:
        now += passed
        if action == "spend":
            spent += budget.spend(error_class, now) or 0.0
        else:
            budget.succeed(0.0)
            credited += policy.success_credit
        assert 0.0 <= budget.tokens(now) <= policy.capacity
        assert spent <= policy.capacity + credited + now * policy.refill_per_s + 1e-6


def test_policies_travel_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(TOOL_RETRY), type=RetryPolicy) == TOOL_RETRY
