"""The real clock and the real chance; the only place where either is read."""

from __future__ import annotations

import asyncio
import random
import secrets
import time


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Wall-clock UTC in microseconds since 1970."""
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, not counting suspension."""
        return time.monotonic()

    def boottime_s(self) -> float:
        """Seconds that never go backwards, counting suspension."""
        return time.clock_gettime(_BOOT_CLOCK)

    async def sleep(self, seconds: float) -> None:
        """Let at least so many seconds pass."""
        await asyncio.sleep(seconds)


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemEntropy:
    """Chance from the operating system; ``uniform`` from a generator that it seeds."""

    def __init__(self) -> None:
        self._generator = random.Random(secrets.randbits(128))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return self._generator.random()

    def token(self, nbytes: int) -> bytes:
        """Unguessable bytes."""
        return secrets.token_bytes(nbytes)
