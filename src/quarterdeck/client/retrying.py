"""When to ask again: full jitter, never before the server's ``Retry-After``, never beyond a total time.

Source of the jitter: "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec

from quarterdeck.client.errors import ClientError
from quarterdeck.client.wire import Answer, Told

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that can pass by themselves."""
_MAX_DOUBLINGS = 40


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How calls that are safe to repeat are repeated.

    A new attempt begins at most ``for_s`` after the first one did; 0 means that there is only one. Before the n-th repetition passes a
    random time of up to ``base_s * 2**(n-1)``, at most ``cap_s``. For a stream the time counts from when it last gave something.
    """

    for_s: float = 60.0
    base_s: float = 0.2
    cap_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0 <= self.for_s < 1e9 and 0 <= self.base_s <= self.cap_s < 1e9):
            raise ClientError("client.setting", "a Retry has 0 <= for_s and 0 <= base_s <= cap_s, in seconds")

    def longest_s(self, repetition: int) -> float:
        """The longest pause before the n-th repetition.

        >>> [Retry().longest_s(n) for n in (1, 2, 3, 100)]
        [0.2, 0.4, 0.8, 10.0]
        """
        return min(self.cap_s, self.base_s * 2.0 ** min(repetition - 1, _MAX_DOUBLINGS))


class Trouble:
    """Attempts that have failed in a row."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._since_s: float | None = None
        self._failures = 0

    def over(self) -> None:
        """Something worked; the next failure is the first again."""
        self._since_s, self._failures = None, 0

    def pause_s(self, told: Told, retry_after_s: float | None = None) -> float | None:
        """How long to wait after a failure; ``None`` if a further attempt would begin too late."""
        if self._since_s is None:
            self._since_s = told.began_s
        self._failures += 1
        pause_s = told.luck * self._retry.longest_s(self._failures)
        if retry_after_s is not None:
            pause_s += retry_after_s
        return pause_s if told.ended_s + pause_s < self._since_s + self._retry.for_s else None


def retry_after_of(answer: Answer) -> float | None:
    """The seconds that a ``Retry-After`` asks for, also where it names a date: that is compared with the answer's own.

    >>> retry_after_of(Answer(503, {"retry-after": "7"}, b""))
    7.0
    >>> date, later = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:01:00 GMT"
    >>> retry_after_of(Answer(503, {"retry-after": later, "date": date}, b""))
    60.0
    """
    said = answer.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    then, now = _date(said), _date(answer.headers.get("date", ""))
    return None if then is None or now is None else max(0.0, (then - now).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
