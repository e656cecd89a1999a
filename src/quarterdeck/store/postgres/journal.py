"""The write side: collects operations, sends them in batches over one connection, resolves their futures.

Operations submitted in one turn of the event loop travel together, and while a batch is under way the next one gathers. What the server
undoes by itself (a deadlock, two admissions of one run at once) is sent again here. When the connection is lost, what was under way is
answered with ``Unavailable`` (``store.unknown``), and the next connection is made under all the checks of the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import psycopg
from psycopg import errors

from quarterdeck.core.commit import Applied, Commit, DecideApproval, DecidePost, Deliver, GiveBack, Op, Outcome, SetFact, audit_of
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.ports.store import Submitted
from quarterdeck.store.postgres import LEASE_S
from quarterdeck.store.postgres.batch import REPEATS, UNDONE, UNSTORABLE, Batch, answers, both_answers, is_text
from quarterdeck.store.postgres.lease import Lease
from quarterdeck.store.postgres.opening import Mark, completed, connect, cut, lost, prepare, reachable
from quarterdeck.store.postgres.statements import load

GROUP = 64
"""Operations in one batch: few enough that the server and this process work side by side, many enough to share a sync."""
GROUP_BYTES = 16 * 1024 * 1024
"""Bytes from which a batch takes no further operation."""
RECONNECT_CAP_S = 2.0
"""The longest pause between attempts to connect again."""
ANSWER_S = 3.0
"""A batch that is under way for longer is not getting through."""
FAILED_S = 10.0
"""For how long a batch that failed, with none since that did not, counts: then it may be tried again."""
CLOSE_S = 2.0
"""How long closing waits for an answer of the database, and once more after its connection was cut."""
SALTS = 50_000
"""Keys of payload digests that are remembered."""

_Waiting = deque[tuple[Op, Submitted, float]]
"""What is to be sent, and since when."""
_Group = list[tuple[Op, "asyncio.Future[Outcome]"]]
_Writer = psycopg.AsyncConnection[tuple[object, ...]]


class _Packed(NamedTuple):
    """A batch, the plain commits in it, and the other operations."""

    batch: Batch
    plain: list[tuple[Commit, asyncio.Future[Outcome]]]
    others: _Group


class PostgresJournal:
    """The write side of a shared database; create it with :meth:`open`, on the loop that will use it."""

    def __init__(self, dsn: str, incarnation: int, renewed: Callable[[], int], owner: int, lease_s: float) -> None:
        self.incarnation = incarnation
        self.quiesced = False
        self.repeats = 0
        self._dsn = dsn
        self._renewed = renewed
        self._lease_s = lease_s
        self._callback: Callable[[], None] | None = None
        self._after: Callable[[], None] = _nothing
        self._loop = asyncio.get_running_loop()
        self._queue: _Waiting = deque()
        self._under_way: _Group = []
        self._wanted = asyncio.Event()
        self._closing = False
        self._ending = asyncio.Event()
        self._fault: QuarterdeckError | None = None
        self._sent_s: float | None = None
        self._failed_s = -FAILED_S
        self._salts: dict[str, bytes | None] = {}
        self._sql = load("write")
        self._db: _Writer | None = None
        self._lease = Lease(dsn, Mark(incarnation, owner), lease_s, self._heard, self._reborn, self._stop, renewed)
        self._task = self._loop.create_task(self._write_for_ever(), name="quarterdeck-writer")
        self._task.add_done_callback(self._ended)

    @classmethod
    async def open(cls, dsn: str, renewed: Callable[[], int], lease_s: float = LEASE_S) -> PostgresJournal:
        """Open the database for one more runtime; ``renewed`` gives an incarnation no one else had, for a new or restored store.

        Raises ``UsageError`` for a server, role or schema that cannot be used, ``Unavailable`` for one that does not answer.
        """
        incarnation, owner = await asyncio.get_running_loop().run_in_executor(None, _enter, dsn, renewed, lease_s)
        return cls(dsn, incarnation, renewed, owner, lease_s)

    @property
    def owner(self) -> int:
        """The number under which this runtime holds its runs."""
        return self._lease.owner

    @property
    def failing(self) -> bool:
        """Whether the newest batch has failed a moment ago, or is not answered."""
        now_s = self._loop.time()
        return now_s - self._failed_s < FAILED_S or (self._sent_s is not None and now_s - self._sent_s > ANSWER_S)

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation durably; see the port for what the future promises."""
        future = Submitted(loop=self._loop)
        if self._fault is not None or self._closing:
            future.set_exception(self._fault or Unavailable("store.closed", "the store is closed; start the runtime again"))
            return future
        self._queue.append((op, future, time.monotonic()))
        self._wanted.set()
        return future

    def hints(self, callback: Callable[[], None]) -> None:
        """Tell ``callback`` when another runtime may have made something ready."""
        self._callback = callback

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Say who this runtime is and which code it has; the others see it with the next heartbeat."""
        self._lease.introduce(about.decode(), None if programs is None else sorted(programs))

    def closed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once this has been closed."""
        self._after = callback

    async def close(self, *, give_up: bool = True) -> None:
        """Apply what was submitted, give up every run that is still held, stop. Without ``give_up`` the lease is left to expire.

        A database that does not answer is not waited for long: then the outcome of what was submitted is unknown, and the lease expires.
        """
        if self._closing:
            return
        self._closing = True
        self._ending.set()
        self._wanted.set()
        await self._answered(self._task)
        self._lease.stop()
        try:
            if give_up and self._db is not None and not self._db.closed:
                await self._answered(self._loop.create_task(self._leave(self._db)))
        finally:
            if self._db is not None:
                await self._db.close()
                self._db = None
            await self._lease.ended()
            self._after()

    async def _leave(self, db: _Writer) -> None:
        with contextlib.suppress(psycopg.Error):  # then the lease expires
            await db.execute(self._sql["leave"], (self.owner,))
            await db.execute(self._sql["notify"])

    async def _answered(self, task: asyncio.Task[None]) -> None:
        """Wait for what waits for the database; if that takes too long, cut the connection, which is an answer."""
        _, waiting = await asyncio.wait([task], timeout=CLOSE_S)
        if waiting and self._db is not None:
            cut(self._db)
            await asyncio.wait([task], timeout=CLOSE_S)

    async def _write_for_ever(self) -> None:
        delay_s = 0.0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._queue:
                try:
                    db = self._db if self._db is not None and not self._db.closed else await self._connected()
                except UsageError as error:
                    self._stop(error)
                    return
                except QuarterdeckError as error:
                    self._lose(self._taken(everything=True), error)
                    if self._closing:
                        return
                    delay_s = min(RECONNECT_CAP_S, 2.0 * delay_s + 0.05)
                    await self._pause(delay_s)
                    continue
                delay_s = 0.0
                self._under_way = self._taken()
                self._sent_s = self._loop.time()
                await self._write(db, self._under_way)
                self._sent_s = None
            if self._closing:
                return

    async def _pause(self, delay_s: float) -> None:
        """Let some time pass; closing ends it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._ending.wait()

    async def _connected(self) -> _Writer:
        """A new connection, to a server that is still safe and still the same store; or its new incarnation is ours from now on."""
        identity = await self._loop.run_in_executor(None, prepare, self._dsn, self._renewed(), self._lease.mark)
        self.incarnation = identity.incarnation
        with reachable():
            db = await psycopg.AsyncConnection.connect(completed(self._dsn), autocommit=True)
            await db.execute(load("open")["session"])
        self._lease.ignore(db.info.backend_pid)
        self._db = db
        return db

    def _taken(self, *, everything: bool = False) -> _Group:
        group: _Group = []
        size = 0
        now_s = time.monotonic()
        while self._queue and (everything or (len(group) < GROUP and size < GROUP_BYTES)):
            op, future, since_s = self._queue.popleft()
            future.waited_s = now_s - since_s
            if isinstance(op, Commit):
                size += sum(len(item.body) + len(item.payload or b"") for item in op.records)
            group.append((op, future))
        return group

    async def _write(self, db: _Writer, group: _Group) -> None:
        try:
            await self._salt(db, group)
            for plainly in (all(audit_of(op) is None for op, _ in group), False):
                try:
                    group = await self._send(db, group, plainly=plainly)
                except UNSTORABLE:
                    group = await self._send(db, group, isolate=True)
                if not group:
                    self._failed_s = -FAILED_S
                    return
        except psycopg.Error as error:
            await db.close()
            self._lose(group, error)

    async def _send(self, db: _Writer, group: _Group, *, plainly: bool = False, isolate: bool = False) -> _Group:
        """Have a group applied, and answer it; returns the plain commits that were left out, which are not answered yet."""
        packed = self._packed(group, plainly=plainly)
        if not packed.plain and not packed.others:
            return []
        appended, outcomes = await self._applied(db, packed.batch, isolate=isolate)
        done = set(appended)
        for place, (op, future) in enumerate(packed.plain, 1):
            if place in done and not future.done():
                future.set_result(Applied(op.seq + len(op.records)))
        for (_, future), outcome in zip(packed.others, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)
        if any(_wakes(op) and isinstance(outcome, Applied) for (op, _), outcome in zip(packed.others, outcomes, strict=True)):
            await self._notify(db)
        return [(op, future) for place, (op, future) in enumerate(packed.plain, 1) if place not in done]

    async def _notify(self, db: _Writer) -> None:
        try:
            await db.execute(self._sql["notify"], prepare=True)
        except psycopg.Error:
            await db.close()

    def _packed(self, group: _Group, *, plainly: bool) -> _Packed:
        packed = _Packed(Batch(), [], [])
        for op, future in group:
            if plainly and isinstance(op, Commit) and packed.batch.add_plain(op, self._salts.get):
                packed.plain.append((op, future))
                continue
            wrong = packed.batch.add(op, self._salts.get)
            if wrong is None:
                packed.others.append((op, future))
            elif not future.done():
                future.set_result(wrong)
        return packed

    async def _salt(self, db: _Writer, group: _Group) -> None:
        """Learn the keys of the runs whose payloads are about to be digested."""
        wanted = {op.run_id for op, _ in group if isinstance(op, Commit) and op.new is None and op.run_id not in self._salts}
        known = [name for name in wanted if is_text(name)]
        if known:
            if len(self._salts) > SALTS:
                self._salts.clear()
            cursor = await db.execute(self._sql["salts"], (known,), prepare=True)
            self._salts.update((str(name), salt if isinstance(salt, bytes) else None) for name, salt in await cursor.fetchall())

    async def _applied(self, db: _Writer, batch: Batch, *, isolate: bool) -> tuple[Sequence[int], Sequence[Outcome]]:
        """The plain commits that were appended, by their places, and what the others are answered."""
        values: tuple[object, ...] = (self.owner, self._lease_s, *batch.arguments(isolate=isolate))
        for _ in range(REPEATS):
            try:
                if batch.plain:
                    cursor = await db.execute(self._sql["apply_all"], (*values, batch.plainly()), prepare=True)
                elif batch.audited:
                    cursor = await db.execute(self._sql["apply_audited"], (*values, batch.audits))
                else:
                    cursor = await db.execute(self._sql["apply"], values, prepare=True)
                row = await cursor.fetchone() or ("[]",)
                return both_answers(str(row[0])) if batch.plain else ((), answers(str(row[0])))
            except UNDONE:
                self.repeats += 1
        raise errors.SerializationFailure("the batch was undone too often")

    def _lose(self, group: _Group, error: Exception) -> None:
        self._failed_s = self._loop.time()
        for _, future in group:
            if not future.done():
                future.set_exception(lost(error))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A writer that has ended by a fault of ours leaves nobody waiting."""
        if task.cancelled() or task.exception() is not None:
            self._stop(
                Unavailable("store.storage", f"the writer ended: {'cancelled' if task.cancelled() else task.exception()!r}")
            )

    def _stop(self, error: QuarterdeckError) -> None:
        self._fault = Unavailable("store.storage", f"the store stopped ({error}); see to it, then start again")
        for _, future in [*self._under_way, *self._taken(everything=True)]:
            if not future.done():
                future.set_exception(self._fault)
        self._heard()

    def _reborn(self, incarnation: int) -> None:
        """The store was put back: what is submitted under the former incarnation is refused, new claims are of this one."""
        self.incarnation = incarnation
        self._heard()

    def _heard(self) -> None:
        if self._callback is not None and not self._closing:
            self._callback()


def _nothing() -> None:
    """What is called where nobody asked."""


def _wakes(op: Op) -> bool:
    """Whether an operation may make a run ready, or change what others judge by."""
    if isinstance(op, Commit):
        return op.new is not None or bool(op.delivers) or bool(op.outbox)
    return isinstance(op, (Deliver, DecideApproval, GiveBack, SetFact, DecidePost))


def _enter(dsn: str, renewed: Callable[[], int], lease_s: float) -> tuple[int, int]:
    """Prepare the schema, begin a lease, adopt what nobody looks after."""
    incarnation = prepare(dsn, renewed()).incarnation
    sql = load("write")
    db = connect(dsn)
    try:
        with reachable():
            (owner,) = db.execute(sql["enter"], (lease_s,)).fetchone() or (0,)
            db.execute(sql["adopt"])
    finally:
        db.close()
    return incarnation, int(str(owner))
