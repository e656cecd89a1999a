"""The circuit breaker: stop calling what keeps failing, and find out gently when it works again. Pure.

A *call* is counted once, after its retries. :meth:`Breaker.admit` gives a :class:`Permit`, :meth:`Breaker.settle` takes
it back with its outcome. Two promises that are easily broken, and here are tested:

* **Old news changes nothing.** A permit carries the *generation* in which it was given, and every transition starts a
  new one. A success of a call from before the trip cannot close the breaker, a late failure cannot open it again.
* **No probe is lost.** While half open, at most ``probes`` calls are out. A cancelled probe gives its place back; one
  that never reports at all is presumed lost after ``probe_lost_after_s``. So nothing pins the breaker half open.

It trips on either of two rules, and only at a failure: ``failures`` within ``window_s`` (for quiet dependencies), or
``failure_rate`` of at least ``min_calls`` within ``rate_window_s`` (for slow trickles and, with ``failures=0``, busy
ones). Memory is bounded: one timestamp per counted failure and a ring of ten buckets.

>>> breaker = Breaker(BreakerPolicy(failures=2, open_s=30.0, open_jitter=0.0))
>>> for second in (1.0, 2.0):
...     breaker.settle(breaker.admit(second), CallOutcome.FAILURE, second, uniform01=0.5)
>>> breaker.admit(12.0)
Rejection(retry_after_s=20.0, state=<BreakerState.OPEN: 'open'>)
>>> probe = breaker.admit(32.0)
>>> breaker.state, isinstance(breaker.admit(32.0), Rejection)
(<BreakerState.HALF_OPEN: 'half_open'>, True)
>>> breaker.settle(probe, CallOutcome.SUCCESS, 32.5, uniform01=0.5)
>>> breaker.state
<BreakerState.CLOSED: 'closed'>
"""

from __future__ import annotations

import enum
from collections import deque
from typing import assert_never

import msgspec

from quarterdeck.core.errors import UsageError

_BUCKETS = 10


class BreakerState(enum.StrEnum):
    """``isolated`` is a person's word: closed to everyone until a person resets it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    ISOLATED = "isolated"


class Signal(enum.StrEnum):
    """What moves the breaker; past tense."""

    TRIPPED = "tripped"
    RESTED = "rested"
    PROBE_FAILED = "probe_failed"
    PROBES_SUCCEEDED = "probes_succeeded"
    WAS_ISOLATED = "was_isolated"
    WAS_RESET = "was_reset"


TRANSITIONS: dict[tuple[BreakerState, Signal], BreakerState] = {
    (BreakerState.CLOSED, Signal.TRIPPED): BreakerState.OPEN,
    (BreakerState.CLOSED, Signal.WAS_ISOLATED): BreakerState.ISOLATED,
    (BreakerState.CLOSED, Signal.WAS_RESET): BreakerState.CLOSED,
    (BreakerState.OPEN, Signal.RESTED): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Signal.WAS_ISOLATED): BreakerState.ISOLATED,
    (BreakerState.OPEN, Signal.WAS_RESET): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.PROBE_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.PROBES_SUCCEEDED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.WAS_ISOLATED): BreakerState.ISOLATED,
    (BreakerState.HALF_OPEN, Signal.WAS_RESET): BreakerState.CLOSED,
    (BreakerState.ISOLATED, Signal.WAS_ISOLATED): BreakerState.ISOLATED,
    (BreakerState.ISOLATED, Signal.WAS_RESET): BreakerState.CLOSED,
}
"""The literal table; a pair that is not in it cannot happen."""


class CallOutcome(enum.StrEnum):
    """How a call ended, as the breaker sees it; ``ignored``: a failure that says nothing about the dependency."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    IGNORED = "ignored"


class BreakerPolicy(msgspec.Struct, frozen=True):
    """When to trip, how long to rest, how to probe. Seconds; ``open_jitter`` is the fraction by which a rest varies
    either way.

    ``failures=0`` switches the counting rule off, ``min_calls=0`` the rate rule, ``slow_s=None`` the slow-call rule (it
    shares ``min_calls`` and ``rate_window_s``). ``probes`` is both how many may be out at once and how many must
    succeed to close.
    """

    failures: int = 5
    window_s: float = 60.0
    failure_rate: float = 0.5
    min_calls: int = 20
    rate_window_s: float = 600.0
    slow_s: float | None = None
    slow_rate: float = 0.8
    open_s: float = 30.0
    open_jitter: float = 0.2
    probes: int = 1
    probe_lost_after_s: float = 300.0

    def __post_init__(self) -> None:
        if not (0 <= self.failures <= 10_000 and 0 <= self.min_calls <= 1_000_000 and 1 <= self.probes <= 1_000):
            raise UsageError("breaker.policy_invalid", "failures 0-10000, min_calls 0-1000000 and probes 1-1000 are allowed")
        if min(self.window_s, self.rate_window_s, self.open_s, self.probe_lost_after_s) <= 0.0:
            raise UsageError("breaker.policy_invalid", "windows, the open time and the patience with a probe are above 0 s")
        if not (0.0 < self.failure_rate <= 1.0 and 0.0 < self.slow_rate <= 1.0 and 0.0 <= self.open_jitter < 1.0):
            raise UsageError("breaker.policy_invalid", "rates lie in (0, 1], the jitter in [0, 1)")
        if self.slow_s is not None and self.slow_s <= 0.0:
            raise UsageError("breaker.policy_invalid", "slow_s is above 0 s, or None")


class Permit(msgspec.Struct, frozen=True):
    """Leave to make one call. ``probe`` is 0 for an ordinary call, otherwise the number of the probe."""

    generation: int
    probe: int = 0


class Rejection(msgspec.Struct, frozen=True):
    """No. ``retry_after_s`` is when asking again can make sense: an estimate, never a promise."""

    retry_after_s: float
    state: BreakerState


class BreakerView(msgspec.Struct, frozen=True):
    """What an operator sees. ``failures`` and ``calls`` are those that the rules count at this moment."""

    state: BreakerState
    generation: int
    trips: int
    failures: int
    calls: int
    failed_calls: int
    slow_calls: int
    probes_out: int
    retry_after_s: float


class Breaker:
    """One breaker, mutable, driven by one event loop; all times are readings of one clock that never runs backwards.

    ``ordinary`` is the permit that all get while the breaker is closed, and ``None`` while it is not: the quick way
    of :meth:`admit`.
    """

    __slots__ = (
        "_failed_at_s",
        "_generation",
        "_policy",
        "_probe_serial",
        "_probes",
        "_probes_ok",
        "_reopens_at_s",
        "_state",
        "_trips",
        "_window",
        "ordinary",
    )

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._state = BreakerState.CLOSED
        self._generation = 0
        self.ordinary: Permit | None = Permit(0)
        self._probe_serial = 0
        self._trips = 0
        self._reopens_at_s = 0.0
        self._forget()

    @property
    def state(self) -> BreakerState:
        """The state as last decided; an open breaker turns half open at the first :meth:`admit` after its rest."""
        return self._state

    def current(self, permit: Permit) -> bool:
        """Whether nothing has changed since this permit was given; a call's next attempt asks it."""
        return permit.generation == self._generation

    def rejection(self, now_s: float) -> Rejection | None:
        """What :meth:`admit` would refuse with at this moment; changes nothing."""
        state = self._state
        if state is BreakerState.CLOSED:
            return None
        if state is BreakerState.OPEN:
            return None if now_s >= self._reopens_at_s else Rejection(self._reopens_at_s - now_s, state)
        if state is BreakerState.HALF_OPEN:
            lost_before_s = now_s - self._policy.probe_lost_after_s
            out = sum(1 for since_s in self._probes.values() if since_s > lost_before_s)
            return None if out + self._probes_ok < self._policy.probes else Rejection(1.0, state)
        if state is BreakerState.ISOLATED:
            return Rejection(self._policy.open_s, state)
        assert_never(state)

    def admit(self, now_s: float) -> Permit | Rejection:
        """Leave for one call, to be settled exactly once (a second time is ignored), or the reason why not."""
        if self.ordinary is not None:
            return self.ordinary
        if (rejection := self.rejection(now_s)) is not None:
            return rejection
        if self._state is BreakerState.OPEN:
            self._move(Signal.RESTED)
        for number in [n for n, since_s in self._probes.items() if since_s <= now_s - self._policy.probe_lost_after_s]:
            del self._probes[number]
        self._probe_serial += 1
        self._probes[self._probe_serial] = now_s
        return Permit(self._generation, self._probe_serial)

    def settle(
        self, permit: Permit | Rejection, outcome: CallOutcome, now_s: float, uniform01: float, service_s: float = 0.0
    ) -> None:
        """Take a permit back. ``uniform01`` in [0, 1] varies the rest, should this failure begin one.

        A permit of an earlier generation changes nothing. ``cancelled`` and ``ignored`` free a probe's place without a
        verdict.
        """
        if isinstance(permit, Rejection) or permit.generation != self._generation:
            return
        if permit.probe:
            self._settle_probe(permit, outcome, now_s, uniform01, service_s)
        elif outcome is CallOutcome.SUCCESS and self._policy.slow_s is None:
            self._window.add(now_s)
        elif outcome is CallOutcome.SUCCESS or outcome is CallOutcome.FAILURE:
            self._count(outcome is CallOutcome.FAILURE, now_s, uniform01, service_s)

    def adopt(self, policy: BreakerPolicy) -> None:
        """Another policy from now on; state and counts stay."""
        self._policy = policy

    def isolate(self) -> None:
        """A person closes the dependency to everyone. Calls that are out may end, but count for nothing."""
        self._move(Signal.WAS_ISOLATED)

    def reset(self) -> None:
        """A person opens it again: closed breaker, empty window."""
        self._move(Signal.WAS_RESET)

    def view(self, now_s: float) -> BreakerView:
        """A copy for eyes and metrics."""
        self._window.turn(now_s)
        rejection = self.rejection(now_s)
        horizon_s = now_s - self._policy.window_s
        return BreakerView(
            state=self._state,
            generation=self._generation,
            trips=self._trips,
            failures=sum(1 for at_s in self._failed_at_s if at_s >= horizon_s),
            calls=self._window.calls,
            failed_calls=self._window.failed,
            slow_calls=self._window.slow,
            probes_out=len(self._probes),
            retry_after_s=0.0 if rejection is None else rejection.retry_after_s,
        )

    def _settle_probe(self, permit: Permit, outcome: CallOutcome, now_s: float, uniform01: float, service_s: float) -> None:
        if self._probes.pop(permit.probe, None) is None:
            return
        slow = self._policy.slow_s is not None and service_s >= self._policy.slow_s
        if outcome is CallOutcome.FAILURE or (outcome is CallOutcome.SUCCESS and slow):
            self._rest(Signal.PROBE_FAILED, now_s, uniform01)
        elif outcome is CallOutcome.SUCCESS:
            self._probes_ok += 1
            if self._probes_ok >= self._policy.probes:
                self._move(Signal.PROBES_SUCCEEDED)

    def _count(self, failed: bool, now_s: float, uniform01: float, service_s: float) -> None:
        policy, window = self._policy, self._window
        slow = policy.slow_s is not None and service_s >= policy.slow_s
        window.add(now_s, failed, slow)
        if not failed and not slow:
            return
        if failed and policy.failures:
            self._failed_at_s.append(now_s)
            if len(self._failed_at_s) == policy.failures and now_s - self._failed_at_s[0] <= policy.window_s:
                self._rest(Signal.TRIPPED, now_s, uniform01)
                return
        if policy.min_calls and window.calls >= policy.min_calls:
            too_many = window.failed >= policy.failure_rate * window.calls
            too_slow = policy.slow_s is not None and window.slow >= policy.slow_rate * window.calls
            if too_many or too_slow:
                self._rest(Signal.TRIPPED, now_s, uniform01)

    def _rest(self, signal: Signal, now_s: float, uniform01: float) -> None:
        if not 0.0 <= uniform01 <= 1.0:
            raise UsageError("breaker.argument_invalid", f"uniform01 lies within 0 to 1, not {uniform01}")
        self._trips += 1
        self._reopens_at_s = now_s + self._policy.open_s * (1.0 + self._policy.open_jitter * (2.0 * uniform01 - 1.0))
        self._move(signal)

    def _move(self, signal: Signal) -> None:
        self._state = TRANSITIONS[self._state, signal]
        self._generation += 1
        self.ordinary = Permit(self._generation) if self._state is BreakerState.CLOSED else None
        self._forget()

    def _forget(self) -> None:
        self._failed_at_s: deque[float] = deque(maxlen=max(1, self._policy.failures))
        self._window = _Window(self._policy.rate_window_s / _BUCKETS)
        self._probes: dict[int, float] = {}
        self._probes_ok = 0


class _Window:
    """Calls of the last ten buckets, the current one included: totals kept as buckets come and go."""

    __slots__ = ("_bucket", "_ends_s", "_index", "_ring", "_width_s", "calls", "failed", "slow")

    def __init__(self, width_s: float) -> None:
        self._width_s = width_s
        self._index = 0
        self._ends_s = width_s
        self._ring: list[list[int]] = [[0, 0, 0] for _ in range(_BUCKETS)]
        self._bucket = self._ring[0]
        self.calls = self.failed = self.slow = 0

    def turn(self, now_s: float) -> None:
        index = int(now_s / self._width_s)
        if index <= self._index:
            return
        for passed in range(max(self._index + 1, index - _BUCKETS + 1), index + 1):
            bucket = self._ring[passed % _BUCKETS]
            self.calls -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._index = index
        self._ends_s = (index + 1) * self._width_s
        self._bucket = self._ring[index % _BUCKETS]

    def add(self, now_s: float, failed: bool = False, slow: bool = False) -> None:
        if now_s >= self._ends_s:
            self.turn(now_s)
        bucket = self._bucket
        self.calls += 1
        bucket[0] += 1
        if failed:
            self.failed += 1
            bucket[1] += 1
        if slow:
            self.slow += 1
            bucket[2] += 1
