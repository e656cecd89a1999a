"""The read side of a SQLite store: short queries on a read-only connection; they decide nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from quarterdeck.core.commit import InboxRow
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Grant
from quarterdeck.ports.store import AccountRow, ApprovalRow, FactRow, KeyRow, RunPosition, RunRow, StoredEvent
from quarterdeck.store.sqlite.opening import connect
from quarterdeck.store.sqlite.rows import one, rows
from quarterdeck.store.sqlite.statements import load

MAX_PAGE = 1_000
"""The most rows of one list."""


class SqliteInsights:
    """Reads one file. Use it on one thread; each process opens its own."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UsageError("store.missing", f"there is no store at {path}; start a runtime first, or set QUARTERDECK_STORE")
        self._db = connect(path, readonly=True)
        self._sql = load("read")
        self._has_keys = False

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        return [StoredEvent(*row) for row in self._db.execute(self._sql["events"], (run_id, after, limit))]

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow]]:
        """The run's control counter and its unread inbox rows, read in one statement."""
        found = rows(self._db, self._sql["inbox"], (run_id,))
        if not found:
            return 0, []
        return found[0][0], [InboxRow(*rest) for _, *rest in found if rest[0] is not None]

    def run(self, run_id: str) -> RunRow | None:
        """One run, or ``None``."""
        row = self._db.execute(f"{self._sql['run_columns']} WHERE r.run_id = ?", (run_id,)).fetchone()
        return _run(row) if row is not None else None

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
        where, values = ["1"], []
        if status is not None:
            where.append("r.status = ?")
            values.append(status)
        if route is not None:
            where.append("c.route = ?")
            values.append(route)
        if tenants is not None:
            where.append("c.tenant IN (SELECT value FROM json_each(?))")
            values.append(_json(tenants))
        if correlation is not None:
            where.append("c.correlation_id = ?")
            values.append(correlation)
        if before is not None:
            position = self._db.execute(self._sql["run_position"], (before,)).fetchone()
            if position is None:
                raise UsageError("cursor.unknown", f"no run {before!r} to continue after; start from the first page")
            where.append("r.id < ?")
            values.append(position[0])
        query = f"{self._sql['run_columns']} WHERE {' AND '.join(where)} ORDER BY r.id DESC LIMIT ?"
        return [_run(row) for row in self._db.execute(query, (*values, max(1, min(limit, MAX_PAGE))))]

    def positions(self, run_ids: Sequence[str]) -> Sequence[RunPosition]:
        """Where each of these runs stands, in one statement."""
        wanted = msgspec.json.encode(run_ids).decode()
        return [RunPosition(*row) for row in self._db.execute(self._sql["positions"], (wanted,))]

    def approval(self, approval: str) -> ApprovalRow | None:
        """One approval, or ``None``."""
        row = self._db.execute(f"{self._sql['approval_columns']} WHERE a.approval = ?", (approval,)).fetchone()
        return _approval(row) if row is not None else None

    def approvals(
        self,
        *,
        status: str | None = "pending",
        tenants: Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[ApprovalRow]:
        """Approvals, the nearest deadline first."""
        where, values = ["1"], []
        if status is not None:
            where.append("a.status = ?")
            values.append(status)
        if tenants is not None:
            where.append("c.tenant IN (SELECT value FROM json_each(?))")
            values.append(_json(tenants))
        if after is not None:
            position = self._db.execute(self._sql["approval_position"], (after,)).fetchone()
            if position is None:
                raise UsageError("cursor.unknown", f"no approval {after!r} to continue after; start from the first page")
            where.append("(a.expires_at_us, a.approval) > (?, ?)")
            values += position
        query = f"{self._sql['approval_columns']} WHERE {' AND '.join(where)} ORDER BY a.expires_at_us, a.approval LIMIT ?"
        return [_approval(row) for row in self._db.execute(query, (*values, max(1, min(limit, MAX_PAGE))))]

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        row = self._db.execute(self._sql["keyed"], (tenant, key, now_us)).fetchone()
        return str(row[0]) if row is not None else None

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status."""
        return {str(status): int(count) for status, count in rows(self._db, self._sql["standing"])}

    def accounts(self) -> Sequence[AccountRow]:
        """Every shared account in every dimension that was ever touched."""
        return [AccountRow(*row) for row in self._db.execute(self._sql["accounts"])]

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        return [FactRow(*row) for row in self._db.execute(self._sql["facts"])]

    def due(self, now_us: int) -> bool:
        """Whether a claim now would find anything."""
        return bool(one(self._db, self._sql["due"], (now_us,))[0])

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        found = self._keys("WHERE prefix = ?", (prefix,))
        return found[0] if found else None

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        return self._keys("ORDER BY id", ())

    def _keys(self, which: str, values: tuple[str, ...]) -> list[KeyRow]:
        if not self._has_keys:  # a file of an earlier version that no owner has opened since has none
            self._has_keys = bool(one(self._db, self._sql["has_keys"])[0])
        return [_key(row) for row in self._db.execute(f"{self._sql['key_columns']} {which}", values)] if self._has_keys else []

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        row = self._db.execute(self._sql["salt"], (run_id,)).fetchone()
        return row[0] if row is not None else None

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


def _json(names: Collection[str]) -> str:
    return msgspec.json.encode(sorted(names)).decode()


def _run(row: tuple[object, ...]) -> RunRow:
    columns = list(row)
    columns[11] = tuple(msgspec.json.decode(str(row[11]), type=list[str]))
    return RunRow(*columns)  # type: ignore[arg-type]


def _approval(row: tuple[object, ...]) -> ApprovalRow:
    columns = list(row)
    columns[11] = bool(row[11])
    return ApprovalRow(*columns)  # type: ignore[arg-type]


def _key(row: tuple[object, ...]) -> KeyRow:
    columns = list(row)
    columns[4] = msgspec.json.decode(str(row[4]), type=tuple[Grant, ...])
    return KeyRow(*columns)  # type: ignore[arg-type]
