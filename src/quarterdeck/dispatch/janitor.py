"""The janitor: removes what is left of runs that ended longer ago than their route keeps them, a little at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from quarterdeck.core.commit import Purge, Purged
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Journal

EVERY_S = 3_600.0
"""How often each route is gone through."""
PIECE = 200
"""Runs that are looked at in one operation, so that nobody else waits long for the writer."""
PAUSE_S = 0.1
"""The pause between two pieces."""

_log = logging.getLogger(__name__)


class Janitor:
    """Goes through the routes for as long as it runs; ``retention_s`` says how long each keeps its ended runs. Several are harmless."""

    def __init__(self, journal: Journal, clock: Clock, retention_s: Mapping[str, float]) -> None:
        self._journal = journal
        self._clock = clock
        self._retention_s = retention_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, an hour from now: a start is no time to clean up."""
        self._task = asyncio.get_running_loop().create_task(self._clean_for_ever(), name="quarterdeck-janitor")

    async def stop(self) -> None:
        """Stop; what is removed is removed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def clean(self) -> int:
        """Go through every route once; how many runs were removed."""
        removed = 0
        for route, retention_s in self._retention_s.items():
            after = 0
            while True:
                op = Purge(route, self._clock.now_us(), int(retention_s * 1e6), after, PIECE)
                outcome = await self._journal.submit(op)
                if not isinstance(outcome, Purged):
                    break
                removed, after = removed + outcome.removed, outcome.after
                if not after:
                    break
                await self._clock.sleep(PAUSE_S)
        return removed

    async def _clean_for_ever(self) -> None:
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                removed = await self.clean()
            except QuarterdeckError as error:
                _log.warning("nothing was removed for now: %s", error)
            else:
                if removed:
                    _log.info("%d runs that ended long ago were removed", removed)
