"""The SQLite store without its writer process: the same code on the same kind of file, applied on this thread.

For tests that must look inside the writer, plant a bug in it, or make very many small histories. A runtime uses
:class:`~quarterdeck.store.sqlite.journal.SqliteJournal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from quarterdeck.core.commit import Op, Outcome
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import connect, prepare


class InlineJournal:
    """The write side of a file that this process alone uses. Operations of one tick are applied as one batch."""

    def __init__(self, path: Path, incarnation: int = 1) -> None:
        prepare(path, incarnation)
        self._db = connect(path)
        self.applier = Applier(self._db)
        self.quiesced = True
        self.failing = False
        self._queue: list[tuple[Op, asyncio.Future[Outcome]]] = []
        self._callback: Callable[[], None] | None = None

    @property
    def incarnation(self) -> int:
        """The incarnation that commits must name."""
        return self.applier.incarnation

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation with the others of this tick."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._flush)
        self._queue.append((op, future))
        return future

    def hints(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each batch."""
        self._callback = callback

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Nobody else is there."""

    async def close(self) -> None:
        """Apply what was submitted and close the file; harmless when repeated."""
        self._flush()
        self._db.close()

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        if not queue:
            return
        outcomes = self.applier.apply([op for op, _ in queue])
        for (_, future), outcome in zip(queue, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)
        if self._callback is not None:
            self._callback()
