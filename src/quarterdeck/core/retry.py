"""When to try again: error classes, back-off and the retry budget. Pure: time, luck and outcomes enter as arguments.

Three questions are answered apart, because mixing them is how retry storms begin:

* *Could it help?* An error has a class (:class:`ErrorClass`); the literal table :data:`NATURE` says which classes pass
  by themselves (transient) and which never do (permanent). "How often" cannot be chosen without "which errors":
  repeating a permanent error only multiplies load and cost.
* *When?* :func:`next_delay_s`: exponential with jitter, never earlier than a server's ``Retry-After``, at most so many
  attempts.
* *May we, with everything else that is failing now?* :class:`RetryBudget`: one token bucket per dependency, so that an
  outage costs a bounded number of extra requests however many runs meet it.

Source of the budget: the standard retry mode of the AWS SDKs (500 tokens, a retry costs 5, after a time-out 10, a
success returns 1 or the price of the retry that led to it); of the jitter: "Exponential Backoff And Jitter", AWS
Architecture Blog.

>>> next_delay_s(RetryPolicy(max_attempts=5, base_s=1.0, cap_s=60.0), attempt=3, uniform01=0.5, retry_after_s=None)
2.0
>>> next_delay_s(RetryPolicy(max_attempts=3), attempt=3, uniform01=0.5, retry_after_s=None) is None
True
"""

from __future__ import annotations

import enum

import msgspec

from quarterdeck.core.errors import UsageError

_MAX_DOUBLINGS = 60  # beyond this every cap is reached, and a float power would only grow towards overflow


class ErrorClass(enum.StrEnum):
    """What kind of failure an attempt ended in; closed, and the key of the metrics "errors and retries by class"."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMITED = "rate_limited"
    SERVER = "server"
    DECLARED_TRANSIENT = "declared_transient"
    INVALID = "invalid"
    AUTHENTICATION = "authentication"
    CLIENT = "client"
    DECLARED_PERMANENT = "declared_permanent"
    UNKNOWN = "unknown"


class Nature(enum.StrEnum):
    """Whether the same call may succeed later without anyone changing anything."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    DEPENDS = "depends"


NATURE: dict[ErrorClass, Nature] = {
    ErrorClass.TIMEOUT: Nature.TRANSIENT,
    ErrorClass.CONNECTION: Nature.TRANSIENT,
    ErrorClass.RATE_LIMITED: Nature.TRANSIENT,
    ErrorClass.SERVER: Nature.TRANSIENT,
    ErrorClass.DECLARED_TRANSIENT: Nature.TRANSIENT,
    ErrorClass.INVALID: Nature.PERMANENT,
    ErrorClass.AUTHENTICATION: Nature.PERMANENT,
    ErrorClass.CLIENT: Nature.PERMANENT,
    ErrorClass.DECLARED_PERMANENT: Nature.PERMANENT,
    ErrorClass.UNKNOWN: Nature.DEPENDS,  # on RetryPolicy.unknown_is_transient: repeating is harmless or it is not
}
"""The literal table. ``DEPENDS`` is decided by the policy of the dependency."""

BLAMELESS: frozenset[ErrorClass] = frozenset(
    {ErrorClass.INVALID, ErrorClass.AUTHENTICATION, ErrorClass.CLIENT, ErrorClass.DECLARED_PERMANENT}
)
"""Failures that say nothing about the dependency's health: the breaker does not count them."""


class Failure(msgspec.Struct, frozen=True):
    """One failed attempt, classified.

    ``retry_after_s`` is the dependency's own wish, where it gave one. ``started`` is false only where it is *known*
    that the attempt did not reach the dependency (a refused connection): then even a call that must not be repeated may
    be tried again.
    """

    error_class: ErrorClass
    retry_after_s: float | None = None
    started: bool = True


class Jitter(enum.StrEnum):
    """``full``: uniform between 0 and the back-off (best under contention). ``added``: the back-off plus up to one
    base.
    """

    FULL = "full"
    ADDED = "added"


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often, how long apart, and what counts as transient. ``max_attempts`` includes the first one.

    ``retry_after_cap_s``: a dependency that asks for longer is not called again within this call.
    ``unknown_is_transient``: an exception that nobody classified may be retried; right only where repeating is
    harmless.
    """

    max_attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 60.0
    jitter: Jitter = Jitter.FULL
    retry_after_cap_s: float = 60.0
    unknown_is_transient: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 100:
            raise UsageError("retry.policy_invalid", f"max_attempts must be 1 to 100, not {self.max_attempts}")
        if not 0.0 < self.base_s <= self.cap_s < float("inf"):
            raise UsageError("retry.policy_invalid", f"0 < base_s <= cap_s is needed, got {self.base_s} and {self.cap_s}")
        if not 0.0 <= self.retry_after_cap_s < float("inf"):
            raise UsageError("retry.policy_invalid", "retry_after_cap_s must be finite and not negative")


MODEL_RETRY = RetryPolicy(max_attempts=5, base_s=1.0, cap_s=60.0)
"""Models: 5 attempts, exponential from 1 s, cap 60 s, full jitter."""

TOOL_RETRY = RetryPolicy(max_attempts=4, base_s=0.1, cap_s=5.0, jitter=Jitter.ADDED)
"""Tools: 4 attempts, 100, 200, 400 ms plus jitter."""


def is_transient(policy: RetryPolicy, error_class: ErrorClass) -> bool:
    """Whether the policy regards this class as passing by itself.

    >>> is_transient(TOOL_RETRY, ErrorClass.TIMEOUT), is_transient(TOOL_RETRY, ErrorClass.INVALID)
    (True, False)
    """
    nature = NATURE[error_class]
    if nature is Nature.DEPENDS:
        return policy.unknown_is_transient
    return nature is Nature.TRANSIENT


def next_delay_s(policy: RetryPolicy, attempt: int, uniform01: float, retry_after_s: float | None) -> float | None:
    """Seconds to wait after failed attempt number ``attempt`` (the first is 1), or ``None``: give up.

    Never earlier than ``retry_after_s``; the jitter is added on top of it, so that those who were told the same moment
    do not all come back in it. The delay without a ``Retry-After`` is at most ``cap_s`` (``added`` jitter: plus one
    base).
    """
    if attempt < 1 or not 0.0 <= uniform01 <= 1.0:
        raise UsageError("retry.argument_invalid", f"attempt {attempt} counts from 1 and {uniform01} lies within 0 to 1")
    if attempt >= policy.max_attempts:
        return None
    backoff_s = min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
    delay_s = uniform01 * backoff_s if policy.jitter is Jitter.FULL else backoff_s + uniform01 * policy.base_s
    if retry_after_s is None or retry_after_s <= 0.0:
        return delay_s
    if retry_after_s > policy.retry_after_cap_s:
        return None
    return max(delay_s, retry_after_s + uniform01 * policy.base_s)


def class_of_status(status: int) -> ErrorClass:
    """The class of an HTTP status that means failure (400 and above); everything else is ``unknown``.

    >>> [class_of_status(s).value for s in (429, 503, 408, 401, 422, 404)]
    ['rate_limited', 'server', 'timeout', 'authentication', 'invalid', 'client']
    """
    exact = _STATUS.get(status)
    if exact is not None:
        return exact
    if 500 <= status <= 599:
        return ErrorClass.SERVER
    return ErrorClass.CLIENT if 400 <= status <= 499 else ErrorClass.UNKNOWN


_STATUS: dict[int, ErrorClass] = {
    400: ErrorClass.INVALID,
    401: ErrorClass.AUTHENTICATION,
    403: ErrorClass.AUTHENTICATION,
    408: ErrorClass.TIMEOUT,
    422: ErrorClass.INVALID,
    429: ErrorClass.RATE_LIMITED,
    504: ErrorClass.TIMEOUT,
}


class RetryBudgetPolicy(msgspec.Struct, frozen=True):
    """Tokens: what a retry costs and what success returns. In the long run retries stay under ``success_credit /
    retry_cost`` of the successes (20 %), plus ``refill_per_s / retry_cost`` per second, so that an outage of yesterday
    denies nothing today.
    """

    capacity: float = 500.0
    retry_cost: float = 5.0
    timeout_cost: float = 10.0
    success_credit: float = 1.0
    refill_per_s: float = 0.5

    def __post_init__(self) -> None:
        if not (0.0 < self.retry_cost <= self.capacity and 0.0 < self.timeout_cost <= self.capacity):
            raise UsageError("retry.policy_invalid", "the cost of a retry must be above 0 and at most the capacity")
        if self.success_credit < 0.0 or self.refill_per_s < 0.0:
            raise UsageError("retry.policy_invalid", "credit and refill must not be negative")


class RetryBudget:
    """One bucket for all calls to one dependency; mutable, not thread-safe, driven by one event loop.

    >>> budget = RetryBudget(RetryBudgetPolicy(capacity=10.0, refill_per_s=0.0))
    >>> budget.spend(ErrorClass.SERVER, 0.0), budget.spend(ErrorClass.SERVER, 0.0), budget.spend(ErrorClass.SERVER, 0.0)
    (5.0, 5.0, None)
    """

    __slots__ = ("_at_s", "_policy", "_tokens")

    def __init__(self, policy: RetryBudgetPolicy, now_s: float = 0.0) -> None:
        self._policy = policy
        self._tokens = policy.capacity
        self._at_s = now_s

    def tokens(self, now_s: float) -> float:
        """What is left at this moment, between 0 and the capacity."""
        gained = max(0.0, now_s - self._at_s) * self._policy.refill_per_s
        return min(self._policy.capacity, self._tokens + gained)

    def spend(self, error_class: ErrorClass, now_s: float) -> float | None:
        """Pay for one retry after an error of this class: its price, or ``None`` where the bucket does not cover it."""
        cost = self._policy.timeout_cost if error_class is ErrorClass.TIMEOUT else self._policy.retry_cost
        left = self.tokens(now_s)
        if left < cost:
            return None
        self._tokens = left - cost
        self._at_s = max(self._at_s, now_s)
        return cost

    def succeed(self, paid: float) -> None:
        """A call succeeded; ``paid`` is what its last retry cost (0 where the first attempt did it) and is returned."""
        if self._tokens < self._policy.capacity:
            self._tokens = min(self._policy.capacity, self._tokens + max(paid, self._policy.success_credit))
