"""Heartbeats of long tools: one that has promised them, and falls silent, is abandoned as after a time-out.

A tool that declares ``heartbeat_timeout`` calls ``ctx.heartbeat()`` at least as often, from its coroutine or its thread. Whoever
operates sees how long each has been silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from quarterdeck.resilience.eager import TimedOut

T = TypeVar("T")


class Silent(TimedOut):
    """A tool has given no sign of life for longer than it promised."""


class Pulse:
    """The signs of life of one call. Made on the event loop; :meth:`beat` may be called from any thread, also when all is over."""

    def __init__(self, tool: str, run_id: str, limit_s: float) -> None:
        self.tool = tool
        self.run_id = run_id
        self.limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._limit: asyncio.Timeout | None = None
        self.heard_s = self._loop.time()

    def beat(self) -> None:
        """The tool lives."""
        self.heard_s = self._loop.time()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._extend)

    def silent_s(self) -> float:
        """How long ago the last sign of life was."""
        return self._loop.time() - self.heard_s

    def _extend(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self.heard_s + self.limit_s)

    async def watch(self, performed: Coroutine[object, object, T]) -> T:
        """The result of what is watched; raises :class:`Silent` once it is."""
        self.heard_s = self._loop.time()
        limit = asyncio.timeout(self.limit_s)
        try:
            async with limit:
                self._limit = limit
                try:
                    return await performed
                finally:
                    if not limit.expired():
                        self._limit = None
        except TimeoutError as error:
            if limit.expired():
                raise Silent(self.limit_s) from error
            raise
        finally:
            self._limit = None


class Pulses:
    """Every call of this process that has promised heartbeats and is under way; ``abandoned`` counts those that fell silent."""

    def __init__(self) -> None:
        self._live: set[Pulse] = set()
        self.abandoned: dict[str, int] = {}

    async def watch(self, pulse: Pulse, performed: Coroutine[object, object, T]) -> T:
        """Watch one call; see :meth:`Pulse.watch`."""
        self._live.add(pulse)
        try:
            return await pulse.watch(performed)
        except Silent:
            self.abandoned[pulse.tool] = self.abandoned.get(pulse.tool, 0) + 1
            raise
        finally:
            self._live.discard(pulse)

    def silences(self) -> dict[str, float]:
        """For each tool that is being performed, how long its most silent call has been, in seconds."""
        found: dict[str, float] = {}
        for pulse in self._live:
            found[pulse.tool] = max(found.get(pulse.tool, 0.0), pulse.silent_s())
        return found
