"""The read side of a SQLite store: short queries on a read-only connection; they decide nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from quarterdeck.core.audit import AuditRow
from quarterdeck.core.commit import InboxRow
from quarterdeck.core.errors import UsageError
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
    opened,
    page_size,
    unknown_place,
)
from quarterdeck.store.sqlite.opening import connect, owner_of
from quarterdeck.store.sqlite.rows import one, rows
from quarterdeck.store.sqlite.statements import load


class SqliteInsights:
    """Reads one file. Use it on one thread; each process opens its own."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise UsageError("store.missing", f"there is no store at {path}; start a runtime first, or set QUARTERDECK_STORE")
        self._db = connect(path, readonly=True)
        self._sql = load("read")
        self._path = path
        self._present: set[str] = set()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside sees the file at one moment."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        return [StoredEvent(*row) for row in self._db.execute(self._sql["events"], (run_id, after, limit))]

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        """The run's control counter, its unread inbox rows and its epoch, read in one statement."""
        found = rows(self._db, self._sql["inbox"], (run_id,))
        if not found:
            return 0, [], 0
        control, epoch, *_ = found[0]
        return control, [InboxRow(*rest) for _, _, *rest in found if rest[0] is not None], epoch

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
        actor: str | None = None,
        correlation: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Runs, newest first."""
        named = {"c.actor = ?": actor, "r.status = ?": status, "c.route = ?": route, "c.correlation_id = ?": correlation}
        # The order of the index that finds the rows, so that a page is read off it and nothing is sorted.
        order = "r.id" if route is None and tenants is None and correlation is None else "c.run"
        return self._listed(["1"], named, tenants, before, limit, order)

    def _listed(
        self,
        where: list[str],
        named: Mapping[str, str | None],
        tenants: Collection[str] | None,
        before: str | None,
        limit: int,
        order: str,
    ) -> Sequence[RunRow]:
        values: list[object] = [value for value in named.values() if value is not None]
        where += [condition for condition, value in named.items() if value is not None]
        if tenants is not None and len(tenants) == 1:  # in the order of the index, however many runs the tenant has
            where.append("c.tenant = ?")
            values += tenants
        elif tenants is not None:
            where.append("c.tenant IN (SELECT value FROM json_each(?))")
            values.append(_json(tenants))
        if before is not None:
            position = self._db.execute(self._sql["run_position"], (before,)).fetchone()
            if position is None:
                raise unknown_place("run", before)
            where.append(f"{order} < ?")
            values.append(position[0])
        query = f"{self._sql['run_columns']} WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT ?"
        return [_run(row) for row in self._db.execute(query, (*values, page_size(limit)))]

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        """What driving each of these runs begins with."""
        return [opening for run_id in run_ids for opening in opened(self, run_id)]

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
                raise unknown_place("approval", after)
            where.append("(a.expires_at_us, a.approval) > (?, ?)")
            values += position
        query = f"{self._sql['approval_columns']} WHERE {' AND '.join(where)} ORDER BY a.expires_at_us, a.approval LIMIT ?"
        return [_approval(row) for row in self._db.execute(query, (*values, page_size(limit)))]

    def dead_letters(
        self, *, tenants: Collection[str] | None = None, route: str | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[RunRow]:
        """Runs that could not be done and that nobody has requeued or dropped, the newest first."""
        if not self._has("dead_letters"):
            return []
        where = ["r.status = 'failed' AND r.reason = 'blocked'", "NOT EXISTS (SELECT 1 FROM dead_letters d WHERE d.run = r.id)"]
        return self._listed(where, {"c.route = ?": route}, tenants, before, limit, "r.id")

    def letter(self, run_id: str) -> LetterRow | None:
        """What became of a run that was a dead letter, or ``None``."""
        row = self._db.execute(self._sql["letter"], (run_id,)).fetchone() if self._has("dead_letters") else None
        return LetterRow(*row) if row is not None else None

    def workers(self) -> Sequence[WorkerRow]:
        """The one owner of the file, if it has one."""
        pid = owner_of(self._path)
        if pid is None:
            return []
        return [WorkerRow(str(pid), alive=True, held=one(self._db, self._sql["held"])[0], about=b'{"pid":%d}' % pid)]

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        row = self._db.execute(self._sql["keyed"], (tenant, key, now_us)).fetchone()
        return str(row[0]) if row is not None else None

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status."""
        return {str(status): int(count) for status, count in rows(self._db, self._sql["standing"])}

    def accounts(self, name: str | None = None) -> Sequence[AccountRow]:
        """Every shared account, or the one of this name, in every dimension that was ever touched."""
        found = self._db.execute(self._sql["accounts"]) if name is None else self._db.execute(self._sql["account"], (name,))
        return [AccountRow(*row) for row in found]

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        return [FactRow(*row) for row in self._db.execute(self._sql["facts"])]

    def due(self, now_us: int, programs: tuple[str, ...] | None = None) -> bool:
        """Whether a claim now would find anything; what needs other code counts as well."""
        return bool(one(self._db, self._sql["due"], (now_us,))[0])

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        found = self._keys("WHERE prefix = ?", (prefix,))
        return found[0] if found else None

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        return self._keys("ORDER BY id", ())

    def _keys(self, which: str, values: tuple[str, ...]) -> list[KeyRow]:
        if not self._has("api_keys"):
            return []
        return [_key(row) for row in self._db.execute(f"{self._sql['key_columns']} {which}", values)]

    def _has(self, table: str) -> bool:
        """Whether there is this table: a file of an earlier version that no owner has opened since may have none."""
        if table not in self._present and one(self._db, self._sql["has_table"], (table,))[0]:
            self._present.add(table)
        return table in self._present

    def post(self, message: str) -> PostRow | None:
        """One message of the outbox, or ``None``."""
        found = self._db.execute(f"{self._sql['post_columns']} WHERE o.message = ?", (message,)).fetchone()
        return _post(found) if found is not None else None

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
        where, values = ["1"], []
        for column, value in (("o.status", status), ("o.topic", topic), ("r.run_id", run_id)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if tenants is not None:
            where.append("c.tenant IN (SELECT value FROM json_each(?))")
            values.append(_json(tenants))
        if before is not None:
            position = self._db.execute(self._sql["post_position"], (before,)).fetchone()
            if position is None:
                raise unknown_place("message", before)
            where.append("o.id < ?")
            values.append(position[0])
        query = f"{self._sql['post_columns']} WHERE {' AND '.join(where)} ORDER BY o.id DESC LIMIT ?"
        return [_post(row) for row in self._db.execute(query, (*values, page_size(limit)))]

    def posts_due(self, now_us: int) -> bool:
        """Whether taking messages now would find any."""
        return bool(one(self._db, self._sql["due_posts"], (now_us,))[0])

    def erasures(self, limit: int = 1_000) -> Sequence[ErasureRow]:
        """What was erased, newest first."""
        return [ErasureRow(*row) for row in self._db.execute(self._sql["erasures"], (page_size(limit),))]

    def audit(self, after: int = 0, limit: int = 1_000) -> Sequence[AuditRow]:
        """The audit log behind a row, in order."""
        if not self._has("audit"):
            return []
        return [AuditRow(*row) for row in self._db.execute(self._sql["audit"], (after, page_size(limit)))]

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


def _post(row: tuple[object, ...]) -> PostRow:
    columns = list(row)
    columns[12] = msgspec.json.decode(str(row[12]), type=tuple[tuple[str, str], ...])
    return PostRow(*columns)  # type: ignore[arg-type]
