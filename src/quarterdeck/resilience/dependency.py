"""One dependency and everything that protects it: drives the machines of the core over a clock.

The order for each attempt: slot, turn under the rate limit, breaker, deadline, attempt, classified retry. A slot is
held per attempt, not through a back-off; the breaker counts the call once, at its end. A probe of a half-open breaker
is one attempt: its first failure is the answer. When the breaker trips, whoever waits for a slot is sent away at once,
and a call in back-off ends.

Not thread-safe: one dependency belongs to one event loop, and all runs of the process share it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from math import inf
from typing import TypeVar

import msgspec

from quarterdeck.core.breaker import Breaker, BreakerPolicy, BreakerState, BreakerView, CallOutcome, Rejection
from quarterdeck.core.breaker import Permit as BreakerPermit
from quarterdeck.core.dependency import DependencyMetrics, DependencyPolicy, Figures, Refusal
from quarterdeck.core.errors import Refused, Unavailable, UsageError
from quarterdeck.core.limits import TokenBucket
from quarterdeck.core.overrides import Override, changed
from quarterdeck.core.retry import BLAMELESS, ErrorClass, Failure, RetryBudget, RetryPolicy, is_transient, next_delay_s
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.resilience.contained import Contained
from quarterdeck.resilience.eager import CutOff, Reins, TimedOut, within
from quarterdeck.resilience.failures import (
    CallFailed,
    GaveUp,
    breaker_refusal,
    bulkhead_refusal,
    classify_by_type,
    deadline_refusal,
    rate_refusal,
)
from quarterdeck.resilience.slots import Entry, Slots

T = TypeVar("T")

_TIMED_OUT = Failure(ErrorClass.TIMEOUT)
_REFUSALS: dict[str, Refusal] = {
    "breaker.open": "rejected_by_breaker",
    "breaker.isolated": "rejected_by_breaker",
    "bulkhead.full": "rejected_by_bulkhead",
    "rate.limited": "rejected_by_rate",
}


class Permit:
    """Leave for one call, with a slot for its next attempt. Ends in exactly one ``settle`` or ``release`` (more are
    ignored).
    """

    __slots__ = ("attempts", "call", "holds_slot", "paid", "settled")

    def __init__(self, call: BreakerPermit) -> None:
        self.call = call
        self.attempts = 0
        self.paid = 0.0
        self.holds_slot = True
        self.settled = False


class DependencyView(msgspec.Struct, frozen=True):
    """What operators see of one dependency."""

    name: str
    figures: Figures
    breaker: BreakerView
    retry_tokens: float
    hint: str
    policy: DependencyPolicy
    override: Override | None = None


class Dependency:
    """One model or tool, shared by all runs of the process."""

    __slots__ = (
        "_breaker",
        "_budget",
        "_clock",
        "_entropy",
        "_metrics",
        "_rate",
        "_slots",
        "_watches_slow",
        "declared",
        "name",
        "override",
        "policy",
    )

    def __init__(self, name: str, policy: DependencyPolicy, clock: Clock, entropy: Entropy) -> None:
        self.name = name
        self.policy = self.declared = policy
        self.override: Override | None = None
        self._clock = clock
        self._entropy = entropy
        now_s = clock.boottime_s()
        self._breaker = Breaker(_patient(policy))
        self._budget = RetryBudget(policy.retry_budget, now_s)
        self._rate = None if policy.rate is None else TokenBucket(policy.rate, now_s)
        self._slots = Slots(policy.concurrency)
        self._metrics = DependencyMetrics()
        self._watches_slow = policy.breaker.slow_s is not None

    def try_acquire(self) -> Permit | None:
        """Slot, turn and breaker at once if nothing has to be waited for; ``None``: ask :meth:`acquire`, which waits or
        refuses.
        """
        if not self._slots.try_enter():
            return None
        call = self._breaker.ordinary
        if call is None or self._rate is not None:
            now_s = self._clock.boottime_s()
            if self._rate is not None and self._rate.try_take(now_s) > 0.0:
                self._slots.leave()
                return None
            answer = self._breaker.admit(now_s)
            if isinstance(answer, Rejection):
                self._step_back()
                return None
            call = answer
        self._metrics.began_at_once()
        return Permit(call)

    async def acquire(self, deadline_s: float = inf) -> Permit:
        """Wait for slot and turn, at most as long as the policy and the deadline (on ``Clock.boottime_s``) allow.

        Raises ``Unavailable`` (``breaker.open``, ``breaker.isolated``, ``bulkhead.full``, ``rate.limited``) with
        ``retry_after_s``, or ``Refused`` (``deadline.exceeded``). A cancelled or refused caller holds nothing.
        """
        self._metrics.began()
        fate: Refusal | None = "stopped"
        try:
            rejection = self._breaker.rejection(self._clock.boottime_s())
            if rejection is not None:
                raise breaker_refusal(self.name, rejection)
            await self._enter(deadline_s)
            call = self._breaker.admit(self._clock.boottime_s())
            if isinstance(call, Rejection):
                self._step_back()
                raise breaker_refusal(self.name, call)
            fate = None
            return Permit(call)
        except Unavailable as refusal:
            fate = _REFUSALS[refusal.code]
            raise
        finally:
            if fate is not None:
                self._metrics.turned_away(fate)

    def settle(self, permit: Permit, outcome: CallOutcome, service_s: float = 0.0, error_class: ErrorClass | None = None) -> None:
        """The call is over: free its slot, tell the breaker, count it. Never waits; a second time changes nothing.

        ``service_s`` is how long the last attempt took. ``error_class`` matters for failures (``unknown`` where not
        given).
        """
        if permit.settled:
            return
        permit.settled = True
        if permit.holds_slot:
            permit.holds_slot = False
            self._slots.leave()
        if outcome is not CallOutcome.CANCELLED and not permit.attempts:
            self._metrics.attempted(1)
        luck = self._entropy.uniform() if self._watches_slow or outcome is CallOutcome.FAILURE else 0.5
        self._breaker.settle(permit.call, outcome, self._clock.boottime_s(), luck, service_s)
        if outcome is CallOutcome.SUCCESS:
            self._metrics.succeeded(service_s)
            self._budget.succeed(permit.paid)
        elif outcome is CallOutcome.CANCELLED:
            self._metrics.turned_away("stopped")
        else:
            self._metrics.served(service_s)
            self._metrics.failed(error_class or ErrorClass.UNKNOWN)
        if self._breaker.state is BreakerState.OPEN:
            self._slots.send_away()

    def release(self, permit: Permit) -> None:
        """The call will not be made (its commit was refused, it was revoked): nothing of it stays taken, its turn
        neither.
        """
        if not permit.settled:
            if self._rate is not None and not permit.attempts:
                self._rate.give_back()
            self.settle(permit, CallOutcome.CANCELLED)

    async def run(
        self,
        attempt: Callable[[int, float], Coroutine[object, object, T]],
        *,
        classify: Callable[[Exception], Failure] = classify_by_type,
        may_retry: bool = True,
        deadline_s: float = inf,
        before_attempt: Callable[[], None] | None = None,
        permit: Permit | None = None,
        reins: Reins | None = None,
    ) -> tuple[T, int]:
        """Make one call under the whole policy: the result and how many attempts it took.

        ``attempt(number, timeout_s)`` makes the coroutine of one attempt, ``number`` from 1; it is ended after
        ``timeout_s`` = the smaller of the policy's time-out and what remains until ``deadline_s`` (on
        ``Clock.boottime_s``). ``may_retry``: repeating is harmless; without it only attempts that are known not to have
        started are repeated. ``before_attempt`` runs before each attempt and stops the call by raising (revocations).
        ``permit`` was acquired earlier and is settled here in any case. ``classify`` sorts errors of the attempt; it
        may raise to let one through as it is. ``reins`` can end an attempt that waits; the call is over then.

        Raises :class:`CallFailed` from the last error, :class:`CutOff` where the reins were used, or the refusals of :meth:`acquire`
        where nothing was attempted.
        """
        if permit is None:
            permit = self.try_acquire() or await self.acquire(deadline_s)
        after: ErrorClass | None = None
        policy = self.policy
        try:
            while True:
                if before_attempt is not None:
                    before_attempt()
                timeout_s = self._attempt_limit_s(policy, permit, deadline_s)
                permit.attempts += 1
                self._metrics.attempted(permit.attempts, after)
                started_s = self._clock.monotonic_s()
                try:
                    result = await within(Contained(attempt(permit.attempts, timeout_s)), timeout_s, reins)
                except Exception as error:  # the one broad except of the attempts
                    self._metrics.served(self._clock.monotonic_s() - started_s)
                    if isinstance(error, CutOff):
                        raise
                    failure = _TIMED_OUT if isinstance(error, TimedOut) else classify(error)
                    gave_up = await self._back_off(policy, permit, failure, deadline_s, may_retry)
                    if gave_up is not None:
                        blameless = failure.error_class in BLAMELESS
                        outcome = CallOutcome.IGNORED if blameless else CallOutcome.FAILURE
                        self.settle(permit, outcome, error_class=failure.error_class)
                        raise CallFailed(self.name, error, failure, permit.attempts, gave_up) from error
                    after = failure.error_class
                else:
                    self.settle(permit, CallOutcome.SUCCESS, self._clock.monotonic_s() - started_s)
                    return result, permit.attempts
        finally:
            if not permit.settled:
                self.release(permit)

    def put(self, override: Override | None) -> None:
        """Another policy from now on, or the declared one again. Calls under way finish under what they began with; breaker, counts and
        tokens stay.
        """
        if override == self.override:
            return
        policy = self.declared if override is None else changed(self.declared, override.change)
        was_isolated = self.override is not None and self.override.change.isolated
        if policy.rate != self.policy.rate:
            self._rate = None if policy.rate is None else TokenBucket(policy.rate, self._clock.boottime_s())
        if policy.retry_budget != self.policy.retry_budget:
            self._budget = RetryBudget(policy.retry_budget, self._clock.boottime_s())
        self.policy, self.override = policy, override
        self._breaker.adopt(_patient(policy))
        self._slots.resize(policy.concurrency)
        if override is not None and override.change.isolated:
            self.isolate()
        elif was_isolated:
            self.reset()

    def isolate(self) -> None:
        """A person closes this dependency; everyone who waits for it is sent away."""
        self._breaker.isolate()
        self._slots.send_away()

    def reset(self) -> None:
        """A person opens it again."""
        self._breaker.reset()

    @property
    def breaker_state(self) -> BreakerState:
        """Where the breaker stands."""
        return self._breaker.state

    def view(self) -> DependencyView:
        """Everything that an operator wants to see, at this moment."""
        now_s = self._clock.boottime_s()
        figures = self._metrics.view(self._slots.in_flight, self._slots.queued)
        return DependencyView(
            self.name,
            figures,
            self._breaker.view(now_s),
            self._budget.tokens(now_s),
            figures.hint(self.policy),
            self.policy,
            self.override,
        )

    def _attempt_limit_s(self, policy: DependencyPolicy, permit: Permit, deadline_s: float) -> float:
        if deadline_s == inf:
            return policy.timeout_s
        left_s = deadline_s - self._clock.boottime_s()
        if left_s <= 0.0 and not permit.attempts:
            raise deadline_refusal(self.name)
        return min(policy.timeout_s, max(0.0, left_s))

    async def _back_off(
        self, policy: DependencyPolicy, permit: Permit, failure: Failure, deadline_s: float, may_retry: bool
    ) -> GaveUp | None:
        """Wait for the next attempt without a slot, then take one again; or say why there is none."""
        planned = self._plan_retry(policy.retry, permit, failure, deadline_s, may_retry)
        if isinstance(planned, GaveUp):
            return planned
        permit.holds_slot = False
        self._slots.leave()
        await self._clock.sleep(planned)
        if not self._breaker.current(permit.call):
            return GaveUp.BREAKER
        try:
            await self._enter(deadline_s)
        except Unavailable:
            return GaveUp.CAPACITY if self._breaker.current(permit.call) else GaveUp.BREAKER
        except Refused:
            return GaveUp.DEADLINE
        permit.holds_slot = True
        return None if self._breaker.current(permit.call) else GaveUp.BREAKER

    def _plan_retry(
        self, policy: RetryPolicy, permit: Permit, failure: Failure, deadline_s: float, may_retry: bool
    ) -> float | GaveUp:
        if not is_transient(policy, failure.error_class):
            return GaveUp.PERMANENT
        if failure.started and not may_retry:
            return GaveUp.NOT_REPEATABLE
        if permit.call.probe:
            return GaveUp.PROBE
        if not self._breaker.current(permit.call):
            return GaveUp.BREAKER
        delay_s = next_delay_s(policy, permit.attempts, self._entropy.uniform(), failure.retry_after_s)
        if delay_s is None:
            return GaveUp.ATTEMPTS if permit.attempts >= policy.max_attempts else GaveUp.RETRY_AFTER
        now_s = self._clock.boottime_s()
        if now_s + delay_s >= deadline_s:
            return GaveUp.DEADLINE
        paid = self._budget.spend(failure.error_class, now_s)
        if paid is None:
            return GaveUp.RETRY_BUDGET
        permit.paid = paid
        return delay_s

    async def _enter(self, deadline_s: float) -> None:
        """Slot, then turn; nothing is held if this raises."""
        arrived_s = self._clock.monotonic_s()
        left_s = deadline_s - self._clock.boottime_s()
        if left_s <= 0.0:
            raise deadline_refusal(self.name)
        entry = await self._slots.enter(min(self.policy.concurrency.max_wait_s, left_s))
        if entry is Entry.SENT_AWAY:
            rejection = self._breaker.rejection(self._clock.boottime_s())
            raise breaker_refusal(self.name, rejection or Rejection(1.0, BreakerState.OPEN))
        if entry is not Entry.ENTERED:
            raise bulkhead_refusal(self.name, self._slot_expected_s(), entry.value)
        if self._rate is not None:
            in_turn = False
            try:
                await self._take_turn(self._rate, deadline_s)
                in_turn = True
            finally:
                if not in_turn:
                    self._slots.leave()
        self._metrics.waited(self._clock.monotonic_s() - arrived_s)

    async def _take_turn(self, rate: TokenBucket, deadline_s: float) -> None:
        now_s = self._clock.boottime_s()
        max_wait_s = min(self.policy.rate.max_wait_s if self.policy.rate is not None else 0.0, deadline_s - now_s)
        wait_s = rate.reserve(now_s, max_wait_s)
        if wait_s is None:
            raise rate_refusal(self.name, rate.wait_s(now_s))
        if wait_s > 0.0:
            in_turn = False
            try:
                await self._clock.sleep(wait_s)
                in_turn = True
            finally:
                if not in_turn:
                    rate.give_back()

    def _step_back(self) -> None:
        self._slots.leave()
        if self._rate is not None:
            self._rate.give_back()

    def _slot_expected_s(self) -> float:
        """A guess at when a slot is free: what waits before us, at the pace of the successes so far."""
        pace_s = self._metrics.latency_us_total / 1e6 / max(1, self._metrics.success)
        return min(60.0, max(0.1, pace_s * (self._slots.queued + 1) / self.policy.concurrency.slots))


def _patient(policy: DependencyPolicy) -> BreakerPolicy:
    patience_s = max(policy.breaker.probe_lost_after_s, 2.0 * policy.timeout_s)  # a slow probe is not a lost one
    return msgspec.structs.replace(policy.breaker, probe_lost_after_s=patience_s)


class Dependencies:
    """All dependencies of the process by name, so that every run and every operator sees the same breakers."""

    __slots__ = ("_by_name", "_clock", "_entropy")

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._by_name: dict[str, Dependency] = {}

    def declare(self, name: str, policy: DependencyPolicy) -> Dependency:
        """The one dependency of this name; declaring it again is harmless with the same policy and an error with
        another.
        """
        known = self._by_name.get(name)
        if known is None:
            known = self._by_name[name] = Dependency(name, policy, self._clock, self._entropy)
        elif known.declared != policy:
            raise UsageError("dependency.redeclared", f"{name} has another policy already; declare a dependency once")
        return known

    def get(self, name: str) -> Dependency:
        """The dependency of this name; raises ``UsageError`` (``dependency.unknown``)."""
        known = self._by_name.get(name)
        if known is None:
            raise UsageError("dependency.unknown", f"no dependency is called {name!r}; declare it first")
        return known

    def put(self, overrides: Mapping[str, Override]) -> None:
        """These overrides are in force from now on, and no others; those of dependencies that are not declared here mean nothing."""
        for name, dependency in self._by_name.items():
            dependency.put(overrides.get(name))

    def ends_by(self, now_us: int) -> bool:
        """Whether some override has come to its end."""
        return any(one.override is not None and one.override.until_us <= now_us for one in self._by_name.values())

    def views(self) -> tuple[DependencyView, ...]:
        """All of them, by name."""
        return tuple(self._by_name[name].view() for name in sorted(self._by_name))
