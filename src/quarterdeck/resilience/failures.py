"""How a call to a dependency ends when it does not succeed: refused before it began, or failed after its attempts.

A refusal is an :class:`~quarterdeck.core.errors.Unavailable` with one of the codes ``breaker.open``,
``breaker.isolated``, ``bulkhead.full`` and ``rate.limited``, or a :class:`~quarterdeck.core.errors.Refused` with
``deadline.exceeded``: nothing was attempted. A failure is a :class:`CallFailed`: something was.
"""

from __future__ import annotations

import enum
import ssl
import traceback
from http.client import HTTPException

from quarterdeck.core.breaker import BreakerState, Rejection
from quarterdeck.core.errors import Refused, Unavailable
from quarterdeck.core.retry import ErrorClass, Failure


class GaveUp(enum.StrEnum):
    """Why no further attempt was made; closed."""

    PERMANENT = "permanent"
    NOT_REPEATABLE = "not_repeatable"
    ATTEMPTS = "attempts"
    PROBE = "probe"
    BREAKER = "breaker"
    RETRY_AFTER = "retry_after"
    DEADLINE = "deadline"
    RETRY_BUDGET = "retry_budget"
    CAPACITY = "capacity"


class CallFailed(Exception):
    """A call failed for good. The last error is ``error`` and the ``__cause__``; ``failure`` is its classification.

    For the engine, which makes a receipt of it; it does not leave the runtime as it is.
    """

    def __init__(self, dependency: str, error: Exception, failure: Failure, attempts: int, gave_up: GaveUp) -> None:
        super().__init__(f"{dependency}: {failure.error_class} after {attempts} attempt(s), gave up: {gave_up}: {said(error)}")
        self.dependency = dependency
        self.error = error
        self.failure = failure
        self.attempts = attempts
        self.gave_up = gave_up


def said(error: BaseException) -> str:
    """What an error of somebody else's code says of itself, also where even that fails.

    >>> said(ValueError("no"))
    'no'
    """
    return str(traceback.TracebackException(type(error), error, None))


def breaker_refusal(dependency: str, rejection: Rejection) -> Unavailable:
    """The error for a call that the breaker does not let through."""
    if rejection.state is BreakerState.ISOLATED:
        return Unavailable(
            "breaker.isolated",
            f"{dependency} was isolated by a person; reset its breaker to use it again",
            rejection.retry_after_s,
            dependency=dependency,
        )
    return Unavailable(
        "breaker.open",
        f"{dependency} keeps failing and rests; ask again in {rejection.retry_after_s:.1f} s or use its fallback",
        rejection.retry_after_s,
        dependency=dependency,
        state=rejection.state.value,
    )


def bulkhead_refusal(dependency: str, retry_after_s: float, limit: str) -> Unavailable:
    """The error for a call that found no slot; ``limit`` is what stopped the waiting: queue, wait or deadline."""
    return Unavailable(
        "bulkhead.full",
        f"all slots of {dependency} are taken ({limit}); try later, or raise its concurrency",
        retry_after_s,
        dependency=dependency,
        limit=limit,
    )


def rate_refusal(dependency: str, retry_after_s: float) -> Unavailable:
    """The error for a call whose turn under the rate limit is too far away."""
    return Unavailable(
        "rate.limited",
        f"{dependency} is at its rate limit; the next turn comes in {retry_after_s:.1f} s",
        retry_after_s,
        dependency=dependency,
    )


def deadline_refusal(dependency: str) -> Refused:
    """The error for a call whose deadline had passed before anything was attempted."""
    return Refused("deadline.exceeded", f"the deadline passed before {dependency} was called", dependency=dependency)


def classify_by_type(error: Exception) -> Failure:
    """The class of an error that carries no class of its own: time-outs and connections by type, everything else
    unknown.

    >>> classify_by_type(ConnectionRefusedError()).started
    False
    """
    if isinstance(error, TimeoutError):
        return Failure(ErrorClass.TIMEOUT)
    if isinstance(error, ConnectionRefusedError):
        return Failure(ErrorClass.CONNECTION, started=False)
    if isinstance(error, (ConnectionError, EOFError, ssl.SSLError, HTTPException)):
        return Failure(ErrorClass.CONNECTION)
    return Failure(ErrorClass.UNKNOWN)
