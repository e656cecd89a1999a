"""Errors, sorted by whose move is next.

Every error of Quarterdeck carries a stable dotted ``code``, a sentence that says what to do, and belongs to one of six
classes. One table (:data:`OUTCOMES`) maps the class to an HTTP status, a process exit code and a span status, so that doors
never invent their own. Waiting is an outcome, not an error, and is not here.

>>> error = UsageError("route.unknown", "no route is called 'triage'; `quarterdeck doctor` lists the routes")
>>> error.code, OUTCOMES[type(error)].exit_code
('route.unknown', 2)
"""

from __future__ import annotations

from typing import NamedTuple


class QuarterdeckError(Exception):
    """The root of all errors that Quarterdeck raises on purpose.

    ``code`` is stable and dotted (see the catalogue in the docs); ``message`` says what happened and what to do next;
    ``detail`` holds small JSON values for machines and never holds secrets or payload contents.
    """

    def __init__(self, code: str, message: str, **detail: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.detail = detail


class UsageError(QuarterdeckError):
    """The caller changes something: bad input, unknown name, wrong configuration. Repeating it unchanged cannot help."""


class Unauthenticated(QuarterdeckError):
    """Nobody knows who asks: there are no credentials, or none that hold. Send good ones; repeating these cannot help."""


class Refused(QuarterdeckError):
    """Admission or the gate said no. The request was understood; authority, budget or policy does not cover it."""


class Unavailable(QuarterdeckError):
    """Try again later: a dependency or the store cannot serve now. ``retry_after_s`` says when a retry makes sense."""

    def __init__(self, code: str, message: str, retry_after_s: float = 1.0, **detail: object) -> None:
        super().__init__(code, message, **detail)
        self.retry_after_s = retry_after_s


class OwnershipLost(QuarterdeckError):
    """Someone else holds this run now (or this file). Stop quietly; the other one continues from the journal."""


class Corrupt(QuarterdeckError):
    """What is stored contradicts itself. Stop loudly and touch nothing; a person has to look."""


class Outcome(NamedTuple):
    """What an error class means outside: HTTP status, process exit code, span status."""

    http_status: int
    exit_code: int
    span_status: str


OUTCOMES: dict[type[QuarterdeckError], Outcome] = {
    UsageError: Outcome(422, 2, "ERROR"),
    Unauthenticated: Outcome(401, 3, "OK"),
    Refused: Outcome(403, 3, "OK"),
    Unavailable: Outcome(503, 4, "ERROR"),
    OwnershipLost: Outcome(409, 5, "OK"),
    Corrupt: Outcome(500, 6, "ERROR"),
}
