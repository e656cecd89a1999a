"""One dependency (a model, a tool): its policy, its figures, and what to check first when they look bad. Pure.

Different dependencies never share one policy, because their stability and cost differ;
:meth:`DependencyPolicy.for_model` and :meth:`DependencyPolicy.for_tool` are the defaults by kind.

How to read the figures: every ratio is of *all* calls, the refused ones included; latency is of the successful attempts
only, so that quick failures do not flatter it; the wait for a slot is kept apart from the service, because one is cured
by capacity and the other by the dependency; an average hides what the p99 shows.

>>> figures = DependencyMetrics()
>>> figures.began()
>>> figures.attempted(1)
>>> figures.succeeded(service_s=0.2)
>>> view = figures.view()
>>> view.avg_latency_ms, view.success_ratio, view.hint(DependencyPolicy())
(200.0, 1.0, 'healthy: nothing to check')
"""

from __future__ import annotations

from typing import Literal, Self, assert_never

import msgspec

from quarterdeck.core.breaker import BreakerPolicy
from quarterdeck.core.errors import UsageError
from quarterdeck.core.limits import BulkheadPolicy, RatePolicy
from quarterdeck.core.retry import MODEL_RETRY, TOOL_RETRY, ErrorClass, RetryBudgetPolicy, RetryPolicy

HIGH_RATIO = 0.05
"""From here on a ratio of time-outs, errors or refusals deserves a look; retries from twice this."""

_TAIL_FACTOR = 10.0
_SUB_BITS = 4
_SUB = 1 << _SUB_BITS
_LAST = (40 - _SUB_BITS) * _SUB + _SUB - 1  # microseconds up to 2**40: twelve days


Refusal = Literal["stopped", "rejected_by_breaker", "rejected_by_bulkhead", "rejected_by_rate"]
"""The counters of calls that were turned away."""


class DependencyPolicy(msgspec.Struct, frozen=True):
    """Everything that protects one dependency, and us from it. ``timeout_s`` bounds each attempt."""

    timeout_s: float = 30.0
    retry: RetryPolicy = TOOL_RETRY
    breaker: BreakerPolicy = BreakerPolicy()
    concurrency: BulkheadPolicy = BulkheadPolicy()
    rate: RatePolicy | None = None
    retry_budget: RetryBudgetPolicy = RetryBudgetPolicy()

    def __post_init__(self) -> None:
        if not 0.0 < self.timeout_s <= 31 * 86_400.0:
            raise UsageError("dependency.policy_invalid", f"timeout_s lies above 0 and within 31 days, not {self.timeout_s}")

    @classmethod
    def for_model(cls) -> Self:
        """A model over the network: 30 s, 5 attempts from 1 s to 60 s, 1,024 at once."""
        return cls(retry=MODEL_RETRY, concurrency=BulkheadPolicy(slots=1_024, max_queue=4_096, max_wait_s=30.0))

    @classmethod
    def for_tool(cls, idempotent: bool) -> Self:
        """A tool: 30 s, 4 attempts from 0.1 s, 1,024 at once. An expensive one deserves its own, far smaller limits.

        The slots are many because a permit is held from before the commit of the intent: fewer slots than runs that
        step together would make commits smaller without protecting a tool that answers in microseconds. An exception
        that nobody classified is transient only where the tool is idempotent.
        """
        retry = msgspec.structs.replace(TOOL_RETRY, unknown_is_transient=idempotent)
        return cls(retry=retry, concurrency=BulkheadPolicy(slots=1_024, max_queue=4_096, max_wait_s=10.0))


class Histogram:
    """Durations in 592 fixed buckets, each at most 1/16 wide of its value; memory does not grow, nothing is sampled
    away.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * (_LAST + 1)

    def add(self, value_us: int) -> None:
        """Count one duration in microseconds; below zero counts as zero, beyond twelve days as twelve days."""
        if value_us < _SUB:
            self.counts[value_us if value_us > 0 else 0] += 1
            return
        shift = value_us.bit_length() - _SUB_BITS - 1
        index = ((shift + 1) << _SUB_BITS) + (value_us >> shift) - _SUB
        self.counts[index if index < _LAST else _LAST] += 1


def quantile_ms(counts: tuple[int, ...], share: float) -> float:
    """The upper edge in milliseconds of the bucket that holds this share (0 to 1) of the durations; 0 where there are
    none.
    """
    total = sum(counts)
    if not total:
        return 0.0
    rank = max(1, -int(-share * total // 1))
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= rank:
            if index < _SUB:
                return index / 1_000.0
            shift = (index >> _SUB_BITS) - 1
            return (((index & (_SUB - 1)) + _SUB + 1 << shift) - 1) / 1_000.0
    return 0.0


class Figures(msgspec.Struct, frozen=True):
    """The counters at one moment, or between two (:meth:`since`). Calls: ``total`` = success + timeout + error +
    stopped + the three kinds of rejected + those still under way. ``stopped`` calls were cancelled or revoked.
    """

    total: int
    success: int
    timeout: int
    error: int
    stopped: int
    rejected_by_breaker: int
    rejected_by_bulkhead: int
    rejected_by_rate: int
    attempts: int
    retry: int
    latency_us_total: int
    service_us_total: int
    queue_wait_us_total: int
    errors_by_class: dict[str, int]
    retries_by_class: dict[str, int]
    latencies: tuple[int, ...]
    queue_waits: tuple[int, ...]
    in_flight: int = 0
    queued: int = 0

    @property
    def success_ratio(self) -> float:
        """Successful calls of all calls."""
        return self._ratio(self.success)

    @property
    def timeout_ratio(self) -> float:
        """Calls that ended in a time-out, of all calls."""
        return self._ratio(self.timeout)

    @property
    def error_ratio(self) -> float:
        """Calls that ended in an error other than a time-out, of all calls."""
        return self._ratio(self.error)

    @property
    def retry_ratio(self) -> float:
        """Retries per call; may exceed 1."""
        return self._ratio(self.retry)

    @property
    def latency_ms_total(self) -> float:
        """Service time of all successful attempts together."""
        return self.latency_us_total / 1_000.0

    @property
    def avg_latency_ms(self) -> float:
        """Average service time of successful attempts."""
        return self.latency_us_total / 1_000.0 / self.success if self.success else 0.0

    @property
    def avg_queue_wait_ms(self) -> float:
        """Average wait of an attempt for its slot and its turn."""
        return self.queue_wait_us_total / 1_000.0 / self.attempts if self.attempts else 0.0

    def latency_ms(self, share: float) -> float:
        """A percentile of the service time of successful attempts: ``latency_ms(0.99)``; at most 1/16 too high."""
        return quantile_ms(self.latencies, share)

    def queue_wait_ms(self, share: float) -> float:
        """A percentile of the wait of all attempts for slot and turn."""
        return quantile_ms(self.queue_waits, share)

    def since(self, earlier: Figures) -> Figures:
        """What happened between two views of the same dependency; ``in_flight`` and ``queued`` stay those of the later
        one.
        """
        changed: dict[str, object] = {}
        for name in _COUNTERS:
            changed[name] = getattr(self, name) - getattr(earlier, name)
        for name in ("errors_by_class", "retries_by_class"):
            now, then = getattr(self, name), getattr(earlier, name)
            changed[name] = {key: count - then.get(key, 0) for key, count in now.items() if count > then.get(key, 0)}
        for name in ("latencies", "queue_waits"):
            pairs = zip(getattr(self, name), getattr(earlier, name), strict=True)
            changed[name] = tuple(after - before for after, before in pairs)
        return msgspec.structs.replace(self, **changed)

    def hint(self, policy: DependencyPolicy) -> str:
        """What to check first, as one sentence; for a person at night. The first symptom of the list speaks."""
        if not self.total:
            return "idle: no calls yet"
        if self.timeout_ratio >= HIGH_RATIO:
            return f"{self.timeout_ratio:.0%} of the calls time out: {self._why_timeouts(policy)}"
        if self._ratio(self.rejected_by_bulkhead + self.rejected_by_rate) >= HIGH_RATIO:
            which = "slots" if self.rejected_by_bulkhead >= self.rejected_by_rate else "rate limit"
            return f"calls are refused by our own {which}: is the limit too small, or is one caller flooding it?"
        if self.retry_ratio >= 2 * HIGH_RATIO:
            return f"{self.retry_ratio:.0%} retries per call: {self._why_retries()}"
        if self.error_ratio >= HIGH_RATIO:
            most = _most(self.errors_by_class)
            return f"{self.error_ratio:.0%} of the calls fail, mostly {most}: look at that class first"
        if self._ratio(self.rejected_by_breaker) >= HIGH_RATIO:
            return "the breaker refuses calls: look at the errors that tripped it, then wait for its probe"
        if self.success >= 100 and self.latency_ms(0.99) >= _TAIL_FACTOR * max(1.0, self.latency_ms(0.5)):
            return "the p99 latency is over ten times the median: the average hides it; which requests are the slow ones?"
        return "healthy: nothing to check"

    def _ratio(self, count: int) -> float:
        return count / self.total if self.total else 0.0

    def _why_timeouts(self, policy: DependencyPolicy) -> str:
        limit_ms = policy.timeout_s * 1_000.0
        if self.queue_wait_ms(0.95) > max(self.latency_ms(0.5), 0.1 * limit_ms):
            return "concurrency is so high that attempts queue (see the queue wait); lower it or add capacity"
        if self.success and self.latency_ms(0.95) >= 0.8 * limit_ms:
            p95_ms = self.latency_ms(0.95)
            return f"the successes need up to {p95_ms:.0f} ms: is the time-out of {limit_ms:.0f} ms too small?"
        return f"the successes are quick, the rest hangs past {limit_ms:.0f} ms: is the upstream slow or stuck?"

    def _why_retries(self) -> str:
        most = _most(self.retries_by_class)
        if most == ErrorClass.UNKNOWN:
            return "mostly unclassified errors: are errors retried that cannot be recovered? classify them"
        return f"mostly {most}: is the upstream unstable?"


_COUNTERS = (
    "total",
    "success",
    "timeout",
    "error",
    "stopped",
    "rejected_by_breaker",
    "rejected_by_bulkhead",
    "rejected_by_rate",
    "attempts",
    "retry",
    "latency_us_total",
    "service_us_total",
    "queue_wait_us_total",
)


def _most(by_class: dict[str, int]) -> str:
    return max(sorted(by_class), key=by_class.__getitem__, default="of no class")


class DependencyMetrics:
    """The counters themselves: mutable, O(1) memory, driven by one event loop. One method per thing that happens."""

    __slots__ = (*_COUNTERS, "_errors_by_class", "_latencies", "_queue_waits", "_retries_by_class")

    def __init__(self) -> None:
        self.total = self.success = self.timeout = self.error = self.stopped = 0
        self.rejected_by_breaker = self.rejected_by_bulkhead = self.rejected_by_rate = 0
        self.attempts = self.retry = 0
        self.latency_us_total = self.service_us_total = self.queue_wait_us_total = 0
        self._errors_by_class: dict[str, int] = {}
        self._retries_by_class: dict[str, int] = {}
        self._latencies = Histogram()
        self._queue_waits = Histogram()

    def began_at_once(self) -> None:
        """A call arrived and its first attempt waited for nothing: :meth:`began` and :meth:`waited` in one."""
        self.total += 1
        self._queue_waits.counts[0] += 1

    def began(self) -> None:
        """A call arrived."""
        self.total += 1

    def waited(self, wait_s: float) -> None:
        """An attempt got its slot and turn after so long."""
        wait_us = round(wait_s * 1_000_000)
        self.queue_wait_us_total += wait_us
        self._queue_waits.add(wait_us)

    def attempted(self, number: int, after: ErrorClass | None = None) -> None:
        """Attempt ``number`` (from 1) of a call begins; from the second on, ``after`` is the class that it follows."""
        self.attempts += 1
        if number > 1:
            self.retry += 1
            if after is not None:
                self._retries_by_class[after] = self._retries_by_class.get(after, 0) + 1

    def succeeded(self, service_s: float) -> None:
        """A call succeeded; its last attempt took so long."""
        service_us = int(service_s * 1_000_000 + 0.5)
        self.success += 1
        self.latency_us_total += service_us
        self.service_us_total += service_us
        self._latencies.add(service_us)

    def served(self, service_s: float) -> None:
        """An attempt that did not succeed took so long."""
        self.service_us_total += round(service_s * 1_000_000)

    def failed(self, error_class: ErrorClass) -> None:
        """A call failed for good, after its retries."""
        if error_class is ErrorClass.TIMEOUT:
            self.timeout += 1
        else:
            self.error += 1
        self._errors_by_class[error_class] = self._errors_by_class.get(error_class, 0) + 1

    def turned_away(self, counter: Refusal) -> None:
        """A call ended without an answer: refused by one of the three guards, or stopped (cancelled, revoked, out of
        time).
        """
        if counter == "stopped":
            self.stopped += 1
        elif counter == "rejected_by_breaker":
            self.rejected_by_breaker += 1
        elif counter == "rejected_by_bulkhead":
            self.rejected_by_bulkhead += 1
        elif counter == "rejected_by_rate":
            self.rejected_by_rate += 1
        else:
            assert_never(counter)

    def view(self, in_flight: int = 0, queued: int = 0) -> Figures:
        """A copy for eyes, metrics and comparison."""
        return Figures(
            **{name: getattr(self, name) for name in _COUNTERS},
            errors_by_class={str(key): count for key, count in self._errors_by_class.items()},
            retries_by_class={str(key): count for key, count in self._retries_by_class.items()},
            latencies=tuple(self._latencies.counts),
            queue_waits=tuple(self._queue_waits.counts),
            in_flight=in_flight,
            queued=queued,
        )
