"""Token bucket and bulkhead: never more than the limit, first come first served, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quarterdeck.core.errors import UsageError
from quarterdeck.core.limits import Bulkhead, BulkheadPolicy, RatePolicy, TokenBucket


@given(st.floats(0.1, 100.0), st.integers(1, 20), st.lists(st.floats(0.0, 2.0), max_size=80))
def test_never_more_than_burst_plus_rate(rate: float, burst: int, gaps: list[float]) -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=rate, burst=burst))
    now, taken = 0.0, []
    for gap in gaps:
        now += gap
        if bucket.try_take(now) == 0.0:
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) * rate + 1e-6


@given(st.floats(0.1, 100.0), st.integers(1, 5), st.integers(1, 30))
def test_reserved_turns_are_spaced_by_the_rate(rate: float, burst: int, count: int) -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=rate, burst=burst))
    waits = [bucket.reserve(0.0, 1e9) for _ in range(count)]
    expected = [max(0.0, (number + 1 - burst) / rate) for number in range(count)]
    assert waits == [pytest.approx(wait, abs=1e-6) for wait in expected]


def test_what_it_says_to_wait_is_enough() -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=3.0, burst=1))
    now = 0.0
    for _ in range(1_000):
        wait = bucket.try_take(now)
        if wait:
            now += wait
            assert bucket.try_take(now) == 0.0
    assert now == pytest.approx(999 / 3)


def test_a_turn_too_far_away_takes_nothing() -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=1.0, burst=1))
    assert bucket.try_take(0.0) == 0.0
    assert bucket.reserve(0.0, 0.5) is None
    assert bucket.level(0.0) == 0.0
    assert bucket.reserve(0.0, 1.0) == pytest.approx(1.0)
    assert bucket.try_take(1.0) == pytest.approx(1.0), "the token of second 1 is reserved; nobody may take it first"


def test_time_that_passed_counts_for_a_reservation() -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=1.0, burst=1))
    assert bucket.reserve(0.0, 10.0) == 0.0
    assert bucket.reserve(0.0, 10.0) == pytest.approx(1.0)
    assert bucket.reserve(3.0, 10.0) == 0.0
    assert bucket.reserve(3.0, 10.0) == pytest.approx(1.0)


def test_an_unused_turn_is_given_back() -> None:
    bucket = TokenBucket(RatePolicy(rate_per_s=1.0, burst=2))
    bucket.try_take(0.0)
    bucket.give_back()
    bucket.give_back()
    assert bucket.level(0.0) == 2.0


class BulkheadMachine(RuleBasedStateMachine):
    """Slots never exceed the limit, tickets are served in order, and a slot is never lost."""

    def __init__(self) -> None:
        super().__init__()
        self.bulkhead = Bulkhead(BulkheadPolicy(slots=3, max_queue=4))
        self.inside = 0
        self.waiting: list[int] = []

    @rule()
    def arrive(self) -> None:
        if self.bulkhead.enter():
            assert not self.waiting, "someone got in before those who wait"
            self.inside += 1
            return
        ticket = self.bulkhead.enqueue()
        if ticket is None:
            assert len(self.waiting) == 4
        else:
            self.waiting.append(ticket)

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self) -> None:
        ticket = self.bulkhead.leave()
        if self.waiting:
            assert ticket == self.waiting.pop(0)
        else:
            assert ticket is None
            self.inside -= 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.bulkhead.abandon(ticket)
        assert not self.bulkhead.abandon(ticket)
        self.waiting.remove(ticket)

    @invariant()
    def agrees(self) -> None:
        assert self.bulkhead.in_flight == self.inside <= 3
        assert self.bulkhead.queued == len(self.waiting) <= 4
        assert not self.waiting or self.inside == 3, "a slot is free while someone waits"


TestBulkhead = BulkheadMachine.TestCase
TestBulkhead.settings = settings(max_examples=60, stateful_step_count=40)


def test_leaving_without_entering_is_a_defect_of_the_caller() -> None:
    with pytest.raises(UsageError, match=r"bulkhead\.not_entered"):
        Bulkhead(BulkheadPolicy()).leave()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RatePolicy(rate_per_s=0.0),
        lambda: RatePolicy(rate_per_s=1.0, burst=0),
        lambda: RatePolicy(rate_per_s=1.0, max_wait_s=float("inf")),
        lambda: BulkheadPolicy(slots=0),
        lambda: BulkheadPolicy(max_queue=-1),
        lambda: BulkheadPolicy(max_wait_s=-1.0),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    with pytest.raises(UsageError, match="policy_invalid"):
        make()  # type: ignore[operator]
