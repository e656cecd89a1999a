"""The seams to time and chance. Nothing else in Quarterdeck reads a clock or draws a random number.

Three clocks, because one cannot do all: the wall clock dates records and may step; the monotonic clock measures
durations and stands still while the machine sleeps; the boot-time clock is monotonic *and* counts suspension, so
deadlines, perform-by times, breakers and limiters are kept on it. A laptop that slept for an hour must not act on an
intent that expired meanwhile.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time as one process sees it. Reading is cheap (well under a microsecond) and never fails."""

    def now_us(self) -> int:
        """Wall-clock UTC in microseconds since 1970. May step backwards; only for dates that people or other hosts
        read.
        """
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment, never backwards, not counting suspension. For durations."""
        ...

    def boottime_s(self) -> float:
        """Seconds since an arbitrary moment, never backwards, counting suspension. For deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let at least ``seconds`` pass on the monotonic clock; zero or less yields to the loop once."""
        ...


class Entropy(Protocol):
    """Chance. The real one is seeded by the operating system, a simulation's by its seed."""

    def uniform(self) -> float:
        """A number in [0, 1); for jitter and sampling, not for secrets."""
        ...

    def token(self, nbytes: int) -> bytes:
        """``nbytes`` unguessable bytes; for ids and keys."""
        ...
