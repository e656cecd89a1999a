"""Time and luck of the real world; the only place of the client that touches either."""

from __future__ import annotations

import asyncio
import random
import secrets
import time

_LUCK = random.SystemRandom()


def monotonic_s() -> float:
    """Seconds that never go backwards."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Let some time pass."""
    time.sleep(seconds)


async def sleep_awaiting(seconds: float) -> None:
    """The same, while others work."""
    await asyncio.sleep(seconds)


def luck() -> float:
    """A number in [0, 1)."""
    return _LUCK.random()


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return secrets.token_hex(16)
