"""Fair shares of the door: how often each caller may ask, and how many streams are open. Kept in memory, bounded."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.limits import RatePolicy, TokenBucket
from quarterdeck.ports.clock import Clock
from quarterdeck.server.settings import Settings

MAX_CALLERS = 10_000
"""Callers whose rate is remembered; the one that was quiet longest is forgotten, and starts afresh."""


class Callers:
    """One token bucket per caller."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._policy = RatePolicy(settings.rate_per_s, settings.burst)
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, caller: str) -> None:
        """Count one request; raises :class:`Unavailable` (``http.rate``) for a caller that asks too often."""
        now_s = self._clock.boottime_s()
        bucket = self._buckets.get(caller)
        if bucket is None:
            if len(self._buckets) >= MAX_CALLERS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[caller] = TokenBucket(self._policy, now_s)
        else:
            self._buckets.move_to_end(caller)
        wait_s = bucket.try_take(now_s)
        if wait_s > 0:
            raise Unavailable("http.rate", f"more than {self._policy.rate_per_s:g} requests a second; slow down", wait_s)


class Streams:
    """How many event streams are open, altogether and per caller."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Streams that are open."""
        return self._open.total()

    def check(self, caller: str) -> None:
        """Raise :class:`Unavailable` if this caller, or everybody together, has as many as is allowed."""
        if self._open[caller] >= self._settings.max_streams_per_caller:
            raise Unavailable("http.streams", "this caller has as many event streams open as it may; close one", 5.0)
        if self.open >= self._settings.max_streams:
            raise Unavailable("http.busy", "as many event streams are open as this process serves; try again", 5.0)

    @contextmanager
    def opened(self, caller: str) -> Iterator[None]:
        """Count a stream while it is open."""
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
