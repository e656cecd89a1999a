"""Statements of the author's own, in the writer's transaction: they may touch any table but ours."""

from __future__ import annotations

from functools import cache

import apsw

from quarterdeck.core.commit import Statement
from quarterdeck.store.sqlite.statements import ours

MAX_MESSAGE = 200
"""Characters of SQLite's message that a refusal names."""
_HARMLESS = frozenset(
    {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE, apsw.SQLITE_INSERT}
    | {apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
)
_CHANGES = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})


def write(db: apsw.Connection, statement: Statement) -> str:
    """Execute one statement; why it was refused, or an empty string. The caller undoes what a refused one has done.

    Only rows of the author's tables change: a statement that names one of ours, or does anything else than read and change rows
    (such as beginning a transaction, a pragma, attaching a file), is refused.
    """
    values = {str(place): value for place, value in enumerate(statement.values, 1)}
    before = db.total_changes()
    db.authorizer = _allowed
    try:
        db.execute(statement.sql, values).fetchall()
    except (
        apsw.AuthError,
        apsw.SQLError,
        apsw.ConstraintError,
        apsw.BindingsError,
        apsw.MismatchError,
        apsw.TooBigError,
        KeyError,
    ) as error:
        return str(error)[:MAX_MESSAGE] or type(error).__name__
    finally:
        db.authorizer = None
    changed = db.total_changes() - before
    if statement.rows is not None and changed != statement.rows:
        return f"changed {changed} rows, not {statement.rows}"
    return ""


def _allowed(action: int, first: str | None, _second: str | None, _database: str | None, _trigger: str | None) -> int:
    if action not in _HARMLESS or (action in _CHANGES and first in _ours()):
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK


@cache
def _ours() -> frozenset[str]:
    return frozenset({*ours(), "sqlite_master", "sqlite_schema", "sqlite_sequence"})
