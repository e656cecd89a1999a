"""Reading rows: SQLite types a cell when it is read, so what a statement returns is known only to its author."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from quarterdeck.core.errors import Corrupt

Row = tuple[Any, ...]
"""One row; the caller knows what it asked for."""
Values = Sequence[Any] | Mapping[str, Any]


def rows(db: apsw.Connection, sql: str, values: Values = ()) -> list[Row]:
    """Every row of a statement."""
    found: list[Row] = db.execute(sql, values).fetchall()
    return found


def one(db: apsw.Connection, sql: str, values: Values = ()) -> Row:
    """The row of a statement that always has one; raises :class:`Corrupt` (``store.row_missing``) if it has none."""
    found: Row | None = db.execute(sql, values).fetchone()
    if found is None:
        raise Corrupt("store.row_missing", "a row that must exist is missing; run `quarterdeck doctor` on the file")
    return found
