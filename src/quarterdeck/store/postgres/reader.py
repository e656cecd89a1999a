"""The read side of a PostgreSQL store: short queries on a read-only connection; they decide nothing.

Lists for some tenants run under row security, as a role that sees no others' rows; :class:`PostgresInsights` can be bound to tenants as a
whole, and then all its reads do.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from threading import Event
from typing import LiteralString

import msgspec
import psycopg

from quarterdeck.core.commit import InboxRow
from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.core.identity import Grant
from quarterdeck.ports.store import AccountRow, ApprovalRow, FactRow, KeyRow, RunPosition, RunRow, StoredEvent
from quarterdeck.store.postgres.opening import Connection, connect, reachable
from quarterdeck.store.postgres.statements import load

MAX_PAGE = 1_000
"""The most rows of one list."""
ATTEMPTS = 20
"""How often a read whose connection was lost is tried again."""
RETRY_S = 0.1
"""The pause between these attempts; nothing else goes on in the process meanwhile, except that leases are renewed."""

Row = tuple[object, ...]


class PostgresInsights:
    """Reads one database. Use it on one thread. With ``tenants`` it sees their rows and no others."""

    def __init__(self, dsn: str, tenants: Collection[str] | None = None) -> None:
        self._dsn = dsn
        self._tenants = tenants
        self._sql = load("read")
        self._db = self._connected()

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        return [StoredEvent(*row) for row in self._rows(self._sql["events"], (run_id, after, limit))]  # type: ignore[arg-type]

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow]]:
        """The run's control counter and its unread inbox rows, read in one statement."""
        found = self._rows(self._sql["inbox"], (run_id,))
        if not found:
            return 0, []
        rows = [InboxRow(*rest) for _, *rest in found if rest[0] is not None]  # type: ignore[arg-type]
        return int(str(found[0][0])), rows

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
        correlation: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Runs, newest first."""
        where: list[LiteralString] = ["true"]
        values: list[object] = []
        if status is not None:
            where.append("r.status = %s")
            values.append(status)
        if route is not None:
            where.append("c.route = %s")
            values.append(route)
        if tenants is not None:
            where.append("c.tenant = ANY (%s)")
            values.append(sorted(tenants))
        if correlation is not None:
            where.append("c.correlation_id = %s")
            values.append(correlation)
        if before is not None:
            position = self._rows(self._sql["run_position"], (before,))
            if not position:
                raise UsageError("cursor.unknown", f"no run {before!r} to continue after; start from the first page")
            where.append("r.id < %s")
            values.append(position[0][0])
        query = self._sql["run_columns"] + " WHERE " + " AND ".join(where) + " ORDER BY r.id DESC LIMIT %s"
        return [_run(row) for row in self._rows(query, (*values, max(1, min(limit, MAX_PAGE))), tenants)]

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
                raise UsageError("cursor.unknown", f"no approval {after!r} to continue after; start from the first page")
            where.append("(a.expires_at_us, a.approval) > (%s, %s)")
            values += position[0]
        order: LiteralString = " ORDER BY a.expires_at_us, a.approval LIMIT %s"
        query = self._sql["approval_columns"] + " WHERE " + " AND ".join(where) + order
        found = self._rows(query, (*values, max(1, min(limit, MAX_PAGE))), tenants)
        return [ApprovalRow(*row) for row in found]  # type: ignore[arg-type]

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        found = self._rows(self._sql["keyed"], (tenant, key, now_us))
        return str(found[0][0]) if found else None

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status."""
        return {str(status): int(str(count)) for status, count in self._rows(self._sql["standing"])}

    def accounts(self) -> Sequence[AccountRow]:
        """Every shared account in every dimension that was ever touched."""
        return [AccountRow(*row) for row in self._rows(self._sql["accounts"])]  # type: ignore[arg-type]

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        return [FactRow(*row) for row in self._rows(self._sql["facts"])]  # type: ignore[arg-type]

    def due(self, now_us: int) -> bool:
        """Whether a claim now would find anything, or has a dead runtime's runs to release first."""
        return bool(self._rows(self._sql["due"], (now_us,))[0][0])

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        found = self._rows(self._sql["key_columns"] + " WHERE prefix = %s", (prefix,))
        return _key(found[0]) if found else None

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        return [_key(row) for row in self._rows(self._sql["key_columns"] + " ORDER BY id")]

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        found = self._rows(self._sql["salt"], (run_id,))
        salt = found[0][0] if found else None
        return salt if isinstance(salt, bytes) else None

    def close(self) -> None:
        """Close the connection; a later read makes another."""
        self._db.close()

    def _connected(self) -> Connection:
        db = connect(self._dsn, readonly=True)
        weakref.finalize(self, db.close)  # whoever forgets to close leaves no session behind at the server
        return db

    def _rows(self, query: LiteralString, values: Sequence[object] = (), tenants: Collection[str] | None = None) -> list[Row]:
        """Every row of a statement; on a new connection, if this one was lost. Raises ``Unavailable`` if there is none to be had."""
        tenants = self._tenants if self._tenants is not None else tenants
        for attempt in range(ATTEMPTS + 1):
            try:
                if self._db.closed:
                    self._db = self._connected()
                return self._read(query, values, tenants)
            except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
                if attempt == ATTEMPTS or isinstance(error, psycopg.errors.QueryCanceled):
                    with reachable():
                        raise
                self._db.close()
                if attempt:
                    Event().wait(RETRY_S)
        return []

    def _read(self, query: LiteralString, values: Sequence[object], tenants: Collection[str] | None) -> list[Row]:
        if tenants is None:
            return self._db.execute(query, values, prepare=True, binary=True).fetchall()
        with self._db.pipeline(), self._db.transaction():
            self._db.execute(self._sql["as_reader"])
            self._db.execute(self._sql["for_tenants"], (sorted(tenants),))
            cursor = self._db.execute(query, values, binary=True)
            return cursor.fetchall()


def _run(row: Row) -> RunRow:
    columns = list(row)
    columns[11] = tuple(msgspec.json.decode(str(row[11]), type=list[str]))
    return RunRow(*columns)  # type: ignore[arg-type]


def _key(row: Row) -> KeyRow:
    columns = list(row)
    columns[4] = msgspec.json.decode(str(row[4]), type=tuple[Grant, ...])
    return KeyRow(*columns)  # type: ignore[arg-type]
