"""The owner's side of the write path: collects operations, sends them in groups, resolves their futures.

Operations submitted in one turn of the event loop travel together. When the writer dies, a new one is started and everything that
was not answered is sent again, which is safe because applying is idempotent; a writer that reports a storage fault is not replaced:
every caller gets ``Unavailable`` with the reason, and the runtime stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import apsw

from quarterdeck.core.commit import Op, Outcome, Refused
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.store.sqlite.frames import FAULT, Reply, Request, frame, replies, split
from quarterdeck.store.sqlite.opening import OwnerLock, connect, incarnation_of, leave, prepare

GROUP = 32
"""Operations per request: small enough that the writer works while the event loop prepares the next ones (measured: 16 to 128)."""
MAX_RESTARTS = 3
"""Writers that may die one after the other, without answering anything, before the store gives up."""
POLL_S = 0.05
"""How often the owner looks for rows that other processes put into inboxes."""

_Waiting = list[tuple[Op, asyncio.Future[Outcome]]]


def _framed(number: int, group: _Waiting) -> bytes:
    return frame(Request(number, [op for op, _ in group]))


def _sendable(op: Op, future: asyncio.Future[Outcome]) -> bool:
    """Whether an operation can be written down at all; one that cannot is answered here, so that its neighbours go on."""
    try:
        frame(Request(0, [op]))
    except (OverflowError, TypeError, ValueError) as error:
        if not future.done():
            future.set_result(Refused("poison", str(error)[:200]))
        return False
    return True


class SqliteJournal(asyncio.Protocol):
    """The write side of an owned file; create it with :meth:`open`, on the loop that will use it."""

    def __init__(self, path: Path, lock: OwnerLock, incarnation: int, callback: Callable[[], None] | None = None) -> None:
        self.path = path
        self.incarnation = incarnation
        self.quiesced = True
        self.failing = False  # what fails here has stopped the owner for good
        self._lock = lock
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._queue: _Waiting = []
        self._flushing = False
        self._sent: dict[int, _Waiting] = {}
        self._number = 0
        self._buffer = bytearray()
        self._fault: Unavailable | None = None
        self._closing = False
        self._deaths = 0
        self._restarting: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._ended = self._loop.create_future()
        self._poll: asyncio.TimerHandle | None = None
        self._visitors = connect(path, readonly=True)
        self._seen = self._visitors.pragma("data_version")
        self._path = path
        self._identity = _identity(path)

    @classmethod
    async def open(cls, path: Path, incarnation: int) -> SqliteJournal:
        """Take ownership of ``path`` and start its writer. Raises ``Unavailable`` (``store.owned``) if another process has it."""
        lock = await OwnerLock.take(path)
        try:
            prepare(path, incarnation)
            journal = cls(path, lock, incarnation_of(path))
            await journal._start()
        except BaseException:
            lock.release()
            raise
        journal._poll = journal._loop.call_later(POLL_S, journal._look)
        return journal

    @property
    def writer_pid(self) -> int:
        """The process id of the present writer, for those who watch or kill it."""
        return self._process.pid if self._process is not None else 0

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation durably; see the port for what the future promises."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        if self._fault is not None or self._closing:
            future.set_exception(self._fault or Unavailable("store.closed", "the store is closed; start the runtime again"))
            return future
        self._queue.append((op, future))
        if len(self._queue) >= GROUP:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Nobody has to be told: a file has one owner, and others know it by its lock."""

    def hints(self, callback: Callable[[], None]) -> None:
        """Tell ``callback`` when another process has written to the file."""
        self._callback = callback

    async def close(self, *, give_up: bool = True) -> None:
        """Apply what was submitted, end the writer, give up every run that is still held, give the file free. Without ``give_up``
        the next owner finds these runs as a dead one leaves them.
        """
        if self._closing:
            return
        self._flush()
        if self._sent and self._fault is None:
            await asyncio.wait([future for group in self._sent.values() for _, future in group])
        while self._restarting is not None:
            await self._restarting
        self._closing = True
        if self._poll is not None:
            self._poll.cancel()
        if self._transport is not None:
            self._transport.close()
            await self._ended
        if self._process is not None:
            await self._loop.run_in_executor(None, self._process.wait)
        if give_up and self._fault is None:
            with contextlib.suppress(QuarterdeckError, apsw.Error):
                leave(self.path)  # else the next owner finds it held, and takes it for what a dead one left
        self._visitors.close()
        self._lock.release()

    def data_received(self, data: bytes) -> None:
        """Resolve the futures of every complete reply."""
        if self._fault is not None:
            return
        self._buffer += data
        for body in split(self._buffer):
            reply = replies.decode(body)
            if reply.fault:
                self._stop(reply)
                return
            self._deaths = 0
            for (_, future), outcome in zip(self._sent.pop(reply.number), reply.outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        """The writer is gone: at closing time that is the end, otherwise another one takes over."""
        if self._closing or self._fault is not None:
            if not self._ended.done():
                self._ended.set_result(None)
            return
        self._restarting = self._loop.create_task(self._restart())

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        command = [sys.executable, "-m", "quarterdeck.store.sqlite.writer", str(self.path), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - our own interpreter; starting it does not wait
                command,
                pass_fds=(theirs.fileno(), self._lock.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._buffer.clear()
        self._transport, _ = await self._loop.create_connection(lambda: self, sock=ours)

    async def _restart(self) -> None:
        try:
            reason = await self._replaced()
        except OSError as error:
            reason = f"no writer can be started: {error}"
        if self._restarting is asyncio.current_task():
            self._restarting = None
        if reason:
            self._stop(Reply(0, [], reason))
            self._ended.set_result(None)
            return
        for number, group in self._sent.items():
            self._send(_framed(number, group))

    async def _replaced(self) -> str:
        """Start the next writer once the last one has ended; or say why there must be none."""
        code = await self._loop.run_in_executor(None, self._process.wait) if self._process is not None else 0
        self._deaths += 1
        if code == FAULT:
            return "the writer reported a fault of the storage"
        if self._deaths > MAX_RESTARTS:
            return f"the writer died {self._deaths} times in a row"
        await self._start()
        return ""

    def _flush(self) -> None:
        self._flushing = False
        if not self._queue:
            return
        group, self._queue = self._queue, []
        self._number += 1
        try:
            data = _framed(self._number, group)
        except (OverflowError, TypeError, ValueError):
            group = [pair for pair in group if _sendable(*pair)]
            data = _framed(self._number, group)
        self._sent[self._number] = group
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _stop(self, reply: Reply, advice: str = "see to the storage, then start again: nothing committed is lost") -> None:
        self._fault = Unavailable("store.storage", f"the store stopped ({reply.fault}); {advice}")
        waiting = [pair for group in self._sent.values() for pair in group] + self._queue
        self._sent.clear()
        self._queue = []
        for _, future in waiting:
            if not future.done():
                future.set_exception(self._fault)
        if self._callback is not None:
            self._callback()

    def _look(self) -> None:
        try:
            seen = self._visitors.pragma("data_version")
        except apsw.BusyError:
            seen = self._seen
        except apsw.Error as error:
            self._stop(Reply(0, [], f"{type(error).__name__}: {error}"))
            return
        if _identity(self._path) != self._identity:
            gone = f"{self._path} was removed, moved or replaced while it was in use"
            self._stop(Reply(0, [], gone), "put the file back, with its -wal beside it, then start again")
            return
        if seen != self._seen:
            self._seen = seen
            if self._callback is not None:
                self._callback()
        self._poll = self._loop.call_later(POLL_S, self._look)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; ``None``: none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
