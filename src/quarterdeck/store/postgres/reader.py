"""The read side of a PostgreSQL store: short queries on a read-only connection; they decide nothing.

Lists for some tenants run under row security, as a role that sees no others' rows; :class:`PostgresInsights` can be bound to tenants as a
whole, and then all its reads do.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import LiteralString

import msgspec
import psycopg

from quarterdeck.core.audit import AuditRow
from quarterdeck.core.commit import InboxRow
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.identity import Grant
from quarterdeck.ports.store import (
    AccountRow,
    ApprovalRow,
    ErasureRow,
    FactRow,
    KeyRow,
    LetterRow,
    Opening,
    PostRow,
    RunPosition,
    RunRow,
    StoredEvent,
    WorkerRow,
    page_size,
    unknown_place,
)
from quarterdeck.store.postgres.opening import Connection, Row, connect, cut, reachable
from quarterdeck.store.postgres.statements import load

ATTEMPTS = 20
"""How often a read whose connection was lost is tried again."""
PATIENCE_S = 3.0
"""How long a runtime's read may go without an answer, on the thread of the event loop; see :class:`PostgresInsights`."""
WATCHED_ATTEMPTS = 3
"""How often a runtime's read is; then a thread goes on with it."""
LOOKS = 6
"""How often it is looked meanwhile."""
RETRY_S = 0.1
"""The pause between these attempts; nothing else goes on in the process meanwhile, except that leases are renewed."""

_OPEN_LETTER: LiteralString = "NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.run = r.id)"


class PostgresInsights:
    """Reads one database. Use it on one thread. With ``tenants`` it sees their rows and no others.

    With ``patience_s`` a read that has no answer for so long raises ``Unavailable`` (``store.unreachable``), and so does every other at
    once, until a thread has connected again: a server that hangs must not hold the event loop.
    """

    def __init__(self, dsn: str, tenants: Collection[str] | None = None, patience_s: float | None = None) -> None:
        self._dsn = dsn
        self._tenants = tenants
        self._sql = load("read")
        self._pinned = False
        self._db = self._connected()
        self._reads = 0
        self._reading = False
        self._away = Event()
        self._watched = patience_s is not None
        self._closed = Event()
        if patience_s is not None:
            watch = (weakref.ref(self), patience_s, self._closed)
            Thread(target=_watch, args=watch, name="quarterdeck-reads", daemon=True).start()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside sees the database at one moment. A lost connection ends it: raises ``Unavailable``."""
        self._rows("SELECT 1")
        with reachable(), self._db.transaction():
            self._db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._pinned = True
            try:
                yield
            finally:
                self._pinned = False

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        return [StoredEvent(*row) for row in self._rows(self._sql["events"], (run_id, after, limit))]  # type: ignore[arg-type]

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        """The run's control counter, its unread inbox rows and its epoch, read in one statement."""
        found = self._rows(self._sql["inbox"], (run_id,))
        if not found:
            return 0, [], 0
        rows = [InboxRow(*rest) for _, _, *rest in found if rest[0] is not None]  # type: ignore[arg-type]
        return int(str(found[0][0])), rows, int(str(found[0][1]))

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        """What driving each of these runs begins with, in one statement."""
        found: dict[str, Opening] = {}
        for run_id, epoch, control, salt, *event in self._rows(self._sql["openings"], (list(run_ids),)):
            name = str(run_id)
            if name not in found:
                found[name] = Opening(name, int(str(epoch)), int(str(control)), salt if isinstance(salt, bytes) else None, [])
            found[name].events.append(StoredEvent(*event))  # type: ignore[arg-type]
        return list(found.values())

    def run(self, run_id: str) -> RunRow | None:
        """One run, or ``None``."""
        found = self._rows(self._sql["run_columns"] + " WHERE r.run_id = %s", (run_id,))
        return _run(found[0]) if found else None

    def runs(
        self,
        *,
        status: str | None = None,
        route: str | None = None,
        tenants: Collection[str] | None = None,
        actor: str | None = None,
        correlation: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Runs, newest first."""
        named: dict[LiteralString, str | None] = {
            "c.actor = %s": actor,
            "r.status = %s": status,
            "c.route = %s": route,
            "c.correlation_id = %s": correlation,
        }
        return self._listed(["true"], [], named, tenants, before, limit)

    def _listed(
        self,
        where: list[LiteralString],
        values: list[object],
        named: Mapping[LiteralString, str | None],
        tenants: Collection[str] | None,
        before: str | None,
        limit: int,
    ) -> Sequence[RunRow]:
        for condition, value in named.items():
            if value is not None:
                where.append(condition)
                values.append(value)
        if tenants is not None:
            where.append("c.tenant = ANY (%s)")
            values.append(sorted(tenants))
        if before is not None:
            position = self._rows(self._sql["run_position"], (before,))
            if not position:
                raise unknown_place("run", before)
            where.append("r.id < %s")
            values.append(position[0][0])
        query = self._sql["run_columns"] + " WHERE " + " AND ".join(where) + " ORDER BY r.id DESC LIMIT %s"
        return [_run(row) for row in self._rows(query, (*values, page_size(limit)), tenants)]

    def positions(self, run_ids: Sequence[str]) -> Sequence[RunPosition]:
        """Where each of these runs stands, in one statement."""
        return [RunPosition(*row) for row in self._rows(self._sql["positions"], (list(run_ids),))]  # type: ignore[arg-type]

    def approval(self, approval: str) -> ApprovalRow | None:
        """One approval, or ``None``."""
        found = self._rows(self._sql["approval_columns"] + " WHERE a.approval = %s", (approval,))
        return ApprovalRow(*found[0]) if found else None  # type: ignore[arg-type]

    def approvals(
        self,
        *,
        status: str | None = "pending",
        tenants: Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[ApprovalRow]:
        """Approvals, the nearest deadline first."""
        where: list[LiteralString] = ["true"]
        values: list[object] = []
        if status is not None:
            where.append("a.status = %s")
            values.append(status)
        if tenants is not None:
            where.append("c.tenant = ANY (%s)")
            values.append(sorted(tenants))
        if after is not None:
            position = self._rows(self._sql["approval_position"], (after,))
            if not position:
                raise unknown_place("approval", after)
            where.append("(a.expires_at_us, a.approval) > (%s, %s)")
            values += position[0]
        order: LiteralString = " ORDER BY a.expires_at_us, a.approval LIMIT %s"
        query = self._sql["approval_columns"] + " WHERE " + " AND ".join(where) + order
        found = self._rows(query, (*values, page_size(limit)), tenants)
        return [ApprovalRow(*row) for row in found]  # type: ignore[arg-type]

    def dead_letters(
        self, *, tenants: Collection[str] | None = None, route: str | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[RunRow]:
        """Runs that could not be done and that nobody has requeued or dropped, the newest first."""
        where: list[LiteralString] = ["r.status = 'failed' AND r.reason = 'blocked'", _OPEN_LETTER]
        return self._listed(where, [], {"c.route = %s": route}, tenants, before, limit)

    def letter(self, run_id: str) -> LetterRow | None:
        """What became of a run that was a dead letter, or ``None``."""
        found = self._rows(self._sql["letter"], (run_id,))
        return LetterRow(*found[0]) if found else None  # type: ignore[arg-type]

    def workers(self) -> Sequence[WorkerRow]:
        """Every runtime that may hold runs here, the oldest first."""
        return [WorkerRow(*row) for row in self._rows(self._sql["workers"])]  # type: ignore[arg-type]

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        found = self._rows(self._sql["keyed"], (tenant, key, now_us))
        return str(found[0][0]) if found else None

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status."""
        return {str(status): int(str(count)) for status, count in self._rows(self._sql["standing"])}

    def accounts(self, name: str | None = None) -> Sequence[AccountRow]:
        """Every shared account, or the one of this name, in every dimension that was ever touched."""
        found = self._rows(self._sql["accounts"]) if name is None else self._rows(self._sql["account"], (name,))
        return [AccountRow(*row) for row in found]  # type: ignore[arg-type]

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        return [FactRow(*row) for row in self._rows(self._sql["facts"])]  # type: ignore[arg-type]

    def due(self, now_us: int, programs: tuple[str, ...] | None = None) -> bool:
        """Whether a claim now would find anything, or has a dead runtime's runs to release first."""
        has = None if programs is None else ["", *programs]
        return bool(self._rows(self._sql["due"], (has, has, now_us))[0][0])

    @property
    def incarnation(self) -> int:
        """The incarnation of this store, part of the guard of every commit."""
        return int(str(self._rows(self._sql["incarnation"])[0][0]))

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        found = self._rows(self._sql["key_columns"] + " WHERE prefix = %s", (prefix,))
        return _key(found[0]) if found else None

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        return [_key(row) for row in self._rows(self._sql["key_columns"] + " ORDER BY id")]

    def audit(self, after: int = 0, limit: int = 1_000) -> Sequence[AuditRow]:
        """The audit log behind a row, in order; it belongs to no tenant."""
        found = self._rows(self._sql["audit"], (after, page_size(limit)))
        return [AuditRow(*row) for row in found]  # type: ignore[arg-type]

    def post(self, message: str) -> PostRow | None:
        """One message of the outbox, or ``None``."""
        found = self._rows(self._sql["post_columns"] + " WHERE o.message = %s", (message,))
        return _post(found[0]) if found else None

    def posts(
        self,
        *,
        status: str | None = None,
        topic: str | None = None,
        run_id: str | None = None,
        tenants: Collection[str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[PostRow]:
        """Messages of the outbox, newest first."""
        where: list[LiteralString] = ["true"]
        values: list[object] = []
        asked: tuple[tuple[LiteralString, str | None], ...] = (
            ("o.status = %s", status),
            ("o.topic = %s", topic),
            ("r.run_id = %s", run_id),
        )
        for condition, value in asked:
            if value is not None:
                where.append(condition)
                values.append(value)
        if tenants is not None:
            where.append("c.tenant = ANY (%s)")
            values.append(sorted(tenants))
        if before is not None:
            position = self._rows(self._sql["post_position"], (before,))
            if not position:
                raise unknown_place("message", before)
            where.append("o.id < %s")
            values.append(position[0][0])
        query = self._sql["post_columns"] + " WHERE " + " AND ".join(where) + " ORDER BY o.id DESC LIMIT %s"
        return [_post(row) for row in self._rows(query, (*values, page_size(limit)), tenants)]

    def posts_due(self, now_us: int) -> bool:
        """Whether taking messages now would find any."""
        return bool(self._rows(self._sql["due_posts"], (now_us,))[0][0])

    def erasures(self, limit: int = 1_000) -> Sequence[ErasureRow]:
        """What was erased, newest first."""
        found = self._rows(self._sql["erasures"], (page_size(limit),))
        return [ErasureRow(*row) for row in found]  # type: ignore[arg-type]

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        found = self._rows(self._sql["salt"], (run_id,))
        salt = found[0][0] if found else None
        return salt if isinstance(salt, bytes) else None

    def close(self) -> None:
        """Close the connection; a later read makes another, which nobody watches."""
        self._closed.set()
        self._away.clear()
        self._db.close()

    def _connected(self) -> Connection:
        db = connect(self._dsn, readonly=True)
        weakref.finalize(self, db.close)  # whoever forgets to close leaves no session behind at the server
        return db

    def _rows(self, query: LiteralString, values: Sequence[object] = (), tenants: Collection[str] | None = None) -> list[Row]:
        """Every row of a statement; on a new connection, if this one was lost. Raises ``Unavailable`` if there is none to be had."""
        tenants = self._tenants if self._tenants is not None else tenants
        self._reads += 1
        self._reading = True
        try:
            return self._tried(query, values, tenants)
        finally:
            self._reading = False

    def _tried(self, query: LiteralString, values: Sequence[object], tenants: Collection[str] | None) -> list[Row]:
        last = WATCHED_ATTEMPTS if self._watched and not self._closed.is_set() else ATTEMPTS
        for attempt in range(last + 1):
            if self._away.is_set():
                raise Unavailable("store.unreachable", "the database does not answer; see to it")
            try:
                if self._db.closed:
                    self._db = self._connected()
                return self._read(query, values, tenants)
            except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
                canceled = isinstance(error, psycopg.errors.QueryCanceled)
                if attempt == last or self._pinned or canceled:
                    if last < ATTEMPTS and not canceled and not self._pinned:
                        self._away.set()
                    with reachable():
                        raise
                if self._away.is_set():
                    continue  # the connection is the watching thread's until it has another
                self._db.close()
                if attempt:
                    Event().wait(RETRY_S)
        return []

    def _under_way(self) -> int:
        """The number of the read that is under way; 0 if none is."""
        return self._reads if self._reading else 0

    def _give_up(self) -> None:
        """On the thread that watches: end the read that waits, and let others fail until there is another connection."""
        self._away.set()
        cut(self._db)

    def _return(self) -> None:
        """On the thread that watches: connect again, if that can be done now."""
        with suppress(QuarterdeckError, psycopg.Error):
            self._db.close()
            self._db = self._connected()
            self._away.clear()

    def _read(self, query: LiteralString, values: Sequence[object], tenants: Collection[str] | None) -> list[Row]:
        if tenants is None:
            return self._db.execute(query, values, prepare=True, binary=True).fetchall()
        with self._db.pipeline(), self._db.transaction():
            self._db.execute(self._sql["as_reader"])
            self._db.execute(self._sql["for_tenants"], (sorted(tenants),))
            cursor = self._db.execute(query, values, binary=True)
            return cursor.fetchall()


def _watch(of: weakref.ref[PostgresInsights], patience_s: float, closed: Event) -> None:
    """Look now and then, for as long as somebody reads there, whether a read is under way that was there at the last few looks."""
    seen, looks = 0, 0
    while not closed.wait(patience_s / LOOKS):
        insights = of()
        if insights is None:
            return
        now = insights._under_way()
        looks = looks + 1 if now == seen else 0
        seen = now
        if insights._away.is_set():
            insights._return()
        elif seen and looks >= LOOKS:
            insights._give_up()
        del insights


def _run(row: Row) -> RunRow:
    columns = list(row)
    unserved = columns.pop()
    waiting_on = msgspec.json.decode(str(row[11]), type=list[str])
    columns[11] = (*waiting_on, f"worker:{unserved}") if unserved is not None else tuple(waiting_on)
    return RunRow(*columns)  # type: ignore[arg-type]


def _key(row: Row) -> KeyRow:
    columns = list(row)
    columns[4] = msgspec.json.decode(str(row[4]), type=tuple[Grant, ...])
    return KeyRow(*columns)  # type: ignore[arg-type]


def _post(row: Row) -> PostRow:
    columns = list(row)
    columns[12] = msgspec.json.decode(str(row[12]), type=tuple[tuple[str, str], ...])
    return PostRow(*columns)  # type: ignore[arg-type]
