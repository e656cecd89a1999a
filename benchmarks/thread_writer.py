"""The same write path with the writer in a thread of the owner's process instead of a process of its own; for comparison only.

It shares the applier, the grouping and the file settings with the product's journal; what differs is where the work is done.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from quarterdeck.core.commit import Op, Outcome
from quarterdeck.ports.clock import Entropy
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import OwnerLock, connect, prepare
from quarterdeck.store.sqlite.reader import SqliteInsights

GROUP = 512


class ThreadJournal:
    """A journal whose writer is a thread."""

    quiesced = True

    def __init__(self, path: Path) -> None:
        self._lock = OwnerLock(path)
        prepare(path, 1)
        self.incarnation = 1
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Op, asyncio.Future[Outcome]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(path,), daemon=True)
        self._thread.start()

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation durably."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._queue.put((op, future))
        return future

    def hints(self, callback: Callable[[], None]) -> None:
        """Nobody else writes here."""

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Nobody else claims here."""

    async def close(self) -> None:
        """Apply what was submitted, then end."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        self._lock.release()

    def _serve(self, path: Path) -> None:
        db = connect(path)
        applier = Applier(db)
        while True:
            group = [self._queue.get()]
            while len(group) < GROUP and group[-1] is not None and not self._queue.empty():
                group.append(self._queue.get())
            ops = [item for item in group if item is not None]
            outcomes = applier.apply([op for op, _ in ops])
            self._loop.call_soon_threadsafe(_resolve, ops, outcomes)
            if group[-1] is None:
                db.close()
                return


def _resolve(ops: list[tuple[Op, asyncio.Future[Outcome]]], outcomes: list[Outcome]) -> None:
    for (_, future), outcome in zip(ops, outcomes, strict=True):
        if not future.done():
            future.set_result(outcome)


async def open_store(path: Path, _entropy: Entropy) -> tuple[ThreadJournal, SqliteInsights]:
    """Both sides of the store, with a writer thread."""
    return ThreadJournal(path), SqliteInsights(path)
