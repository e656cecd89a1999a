"""From an error to ``application/problem+json`` (RFC 9457), by one table.

A code's status is looked up by the whole code, then by its family (the first word), then by the error's class in
:data:`~quarterdeck.core.errors.OUTCOMES`. Clients branch on ``code``; the sentence in ``detail`` is for people and may change.

>>> from quarterdeck.core.errors import UsageError
>>> (
...     status_of(UsageError("run.unknown", "")),
...     status_of(UsageError("json.invalid", "")),
...     status_of(UsageError("route.unknown", "")),
... )
(404, 400, 422)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from quarterdeck.core.errors import OUTCOMES, QuarterdeckError, Unauthenticated, Unavailable
from quarterdeck.server.identity import CHALLENGE

PROBLEM = "application/problem+json"

STATUS: Mapping[str, int] = {
    "json": 400,
    "json.too_large": 413,
    "json.unrepresentable": 422,
    "run.unknown": 404,
    "run.ended": 409,
    "approval.unknown": 404,
    "approval.decided": 409,
    "approval.expired": 410,
    "approval.digest_differs": 412,
    "effect.not_unknown": 409,
    "effect.resolved": 409,
    "outbox.unknown": 404,
    "outbox.not_dead": 409,
    "account.unknown": 404,
    "admission.run": 409,
    "requeue.not_failed": 409,
    "requeue.dropped": 409,
    "requeue.erased": 410,
    "fork.under_way": 409,
    "fork.erased": 410,
    "run.no_owner": 409,
    "switch.conflict": 409,
    "auth.no_such_key": 404,
    "http.not_found": 404,
    "http.malformed": 400,
    "http.header": 400,
    "http.timeout": 408,
    "http.method": 405,
    "http.body_too_large": 413,
    "http.media_type": 415,
    "http.host": 421,
    "http.cross_site": 403,
    "http.precondition": 428,
    "http.head_too_large": 431,
    "http.rate": 429,
    "budget.pace": 429,
    "http.streams": 429,
}
"""Codes and families of codes whose status is not that of their class."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as clients read it. ``code`` is stable, ``info`` holds small values for machines, ``retry_after_s`` comes with 429, 503."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    info: dict[str, object] = {}
    retry_after_s: int | None = None


def status_of(error: QuarterdeckError) -> int:
    """The HTTP status of an error."""
    for name in (error.code, error.code.partition(".")[0]):
        if name in STATUS:
            return STATUS[name]
    for kind in type(error).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind].http_status
    return 500


def problem_of(error: QuarterdeckError) -> Problem:
    """An error as a problem."""
    status = status_of(error)
    retry_after_s = max(1, math.ceil(error.retry_after_s)) if isinstance(error, Unavailable) and status in (429, 503) else None
    return Problem(
        f"urn:quarterdeck:code:{error.code}",
        HTTPStatus(status).phrase,
        status,
        error.code,
        error.message,
        {name: value for name, value in error.detail.items() if isinstance(value, str | int | float | bool | None)},
        retry_after_s,
    )


def headers_of(problem: Problem, error: QuarterdeckError | None = None) -> dict[str, str]:
    """The headers that belong to a problem."""
    headers = {"content-type": PROBLEM, "cache-control": "no-store"}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(problem.retry_after_s)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = CHALLENGE
    return headers


def response_of(error: QuarterdeckError, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a response."""
    problem = problem_of(error)
    return Response(encoded(problem), problem.status, {**headers_of(problem, error), **(headers or {})})


def encoded(problem: Problem) -> bytes:
    """A problem's JSON."""
    return msgspec.json.encode(problem)


def fault() -> Problem:
    """What is said about a defect: nothing that could leak. The log has the traceback."""
    return Problem(
        "urn:quarterdeck:code:server.fault",
        "Internal Server Error",
        500,
        "server.fault",
        "a defect of the server; its log has more",
    )
