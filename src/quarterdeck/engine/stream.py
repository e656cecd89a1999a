"""Live views of runs: durable events after their commit, and ephemeral deltas.

Each subscriber has a bounded queue. One that does not keep up is cut off with a gap marker, never silently: it resumes from the
journal by the last sequence it saw.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence

import msgspec

from quarterdeck.core.commit import Record

BUFFER = 1_024
"""Entries a subscriber may fall behind before it is cut off."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One thing to show. Durable entries have their journal ``seq`` and body; a delta has text only; a gap has neither."""

    seq: int = 0
    body: bytes = b""
    payload: bytes | None = None
    delta: str = ""


class _Kind(msgspec.Struct):
    kind: str


_kind_of = msgspec.json.Decoder(_Kind).decode


def ends(entry: Entry) -> bool:
    """Whether a durable entry is the last of its run."""
    return _kind_of(entry.body).kind == "run.finished"


class Subscription:
    """The entries of one run for one reader, from the moment of subscribing."""

    def __init__(self, hub: Hub, run_id: str) -> None:
        self._hub = hub
        self._run_id = run_id
        self._queue: asyncio.Queue[Entry] = asyncio.Queue(BUFFER)
        self.cut = False
        self._error: Exception | None = None

    def put(self, entry: Entry) -> None:
        """Add an entry; a full queue cuts the subscriber off, but deltas alone never do."""
        if self.cut:
            return
        try:
            self._queue.put_nowait(entry)
        except asyncio.QueueFull:
            self.cut = bool(entry.seq)

    def fail(self, error: Exception) -> None:
        """Nothing more will come: the reader is told why, after what it has."""
        self._error = error
        if self._queue.full():
            self.cut = True
        else:
            self._queue.put_nowait(Entry())

    async def next(self) -> Entry | None:
        """The next entry; ``None`` once the subscriber was cut off and has read what it had."""
        if self._error is not None and self._queue.qsize() <= 1:
            raise self._error
        if self.cut and self._queue.empty():
            return None
        return await self._queue.get()

    def close(self) -> None:
        """Stop receiving."""
        self._hub.leave(self._run_id, self)


class Hub:
    """Fans out what happens to whoever watches; costs nothing for runs that nobody watches."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[Subscription]] = {}
        self._ends: dict[str, list[asyncio.Future[None]]] = {}
        self._broken: dict[str, Exception] = {}
        self._failed: Exception | None = None

    def subscribe(self, run_id: str) -> Subscription:
        """Watch one run from now on."""
        subscription = Subscription(self, run_id)
        self._watchers.setdefault(run_id, []).append(subscription)
        return subscription

    def leave(self, run_id: str, subscription: Subscription) -> None:
        """Stop watching; harmless when repeated."""
        watchers = self._watchers.get(run_id, [])
        if subscription in watchers:
            watchers.remove(subscription)
        if not watchers:
            self._watchers.pop(run_id, None)

    def rest(self, run_id: str) -> asyncio.Future[None]:
        """A future that is done when the run next comes to rest in this process: it waits, or has ended.

        It fails at once for a run that was quarantined here.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        error = self._failed or self._broken.get(run_id)
        if error is not None:
            future.set_exception(error)
            return future
        self._ends.setdefault(run_id, []).append(future)
        future.add_done_callback(functools.partial(self._forget, run_id))
        return future

    def _forget(self, run_id: str, future: asyncio.Future[None]) -> None:
        waiting = self._ends.get(run_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._ends.pop(run_id, None)

    def fail(self, error: Exception) -> None:
        """Nothing comes to rest any more in this process: tell everybody who waits why."""
        self._failed = error
        for future in [future for futures in self._ends.values() for future in futures]:
            if not future.done():
                future.set_exception(error)
        for watcher in [watcher for watchers in self._watchers.values() for watcher in watchers]:
            watcher.fail(error)

    def quarantine(self, run_id: str, error: Exception) -> None:
        """The run cannot go on in this process: tell everybody who waits for it, now and later."""
        self._broken[run_id] = error
        for future in self._ends.pop(run_id, []):
            if not future.done():
                future.set_exception(error)
        for watcher in self._watchers.get(run_id, []):
            watcher.fail(error)

    def rested(self, run_id: str) -> None:
        """The run has come to rest; its commit is durable."""
        for future in self._ends.pop(run_id, []):
            if not future.done():
                future.set_result(None)

    def committed(self, run_id: str, after: int, records: Sequence[Record]) -> None:
        """Show records that are durable now; the first has sequence ``after + 1``."""
        watchers = self._watchers.get(run_id)
        if watchers:
            for number, record in enumerate(records, after + 1):
                entry = Entry(number, record.body, record.payload)
                for watcher in watchers:
                    watcher.put(entry)

    def delta(self, run_id: str, text: str) -> None:
        """Show a piece of text that a model is writing; it is not durable and may be lost."""
        watchers = self._watchers.get(run_id)
        if watchers:
            entry = Entry(delta=text)
            for watcher in watchers:
                watcher.put(entry)

    def watched(self, run_id: str) -> bool:
        """Whether anybody watches this run."""
        return run_id in self._watchers
