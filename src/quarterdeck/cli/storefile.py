"""Reading and visiting a store from the command line, beside those who own its runs or without them: a file, or a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quarterdeck.app.stores import shared_store, store_path
from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.core.errors import Corrupt
from quarterdeck.ports.store import Insights
from quarterdeck.store import postgres
from quarterdeck.store.sqlite import opening, visitor
from quarterdeck.store.sqlite.reader import SqliteInsights

Where = Path | str
"""A store: its file, or the connection string of its database."""


def where_of(named: str, folder: Path | None = None) -> Where:
    """The store that a setting names; a relative path is one of ``folder``.

    >>> where_of("postgresql://db/agents"), where_of("sqlite:///x.db", Path("/srv"))
    ('postgresql://db/agents', PosixPath('/srv/x.db'))
    """
    dsn = shared_store(named)
    if dsn is not None:
        return dsn
    return store_path(named) if folder is None else folder / store_path(named)


def shown(where: Where) -> str:
    """A store's name for people and logs: without what a connection string keeps secret."""
    return str(where) if isinstance(where, Path) else postgres.shown(where)


@contextmanager
def reading(where: Where) -> Iterator[Insights]:
    """The read side of a store, with its errors in our words."""
    if isinstance(where, str):
        with postgres.looking(where) as insights:
            yield insights
        return
    opening.require_ours(where)
    with opening.readable(where):
        found = SqliteInsights(where)
        try:
            yield found
        finally:
            found.close()


def ask_store(where: Where, op: Op) -> Applied | Refused:
    """Apply one operation as a visitor; returns when it is durable."""
    outcome = postgres.visit(where, op) if isinstance(where, str) else visitor.visit(where, op)
    if not isinstance(outcome, (Applied, Refused)):
        raise Corrupt("store.answer", "the store answered with something else; its adapter is broken")
    return outcome


def driver(where: Where) -> str | None:
    """Who drives the runs of a store now, for people; ``None``: nobody. A moment's truth."""
    if isinstance(where, Path):
        pid = opening.owner_of(where)
        return None if pid is None else f"process {pid}"
    with reading(where) as insights:
        alive = sum([1 for row in insights.workers() if row.alive])
    return None if not alive else "the only worker" if alive == 1 else f"one of {alive} workers"


def incarnation_of(where: Where) -> int:
    """The incarnation of a store, part of the guard of every commit."""
    return postgres.incarnation_of(where) if isinstance(where, str) else opening.incarnation_of(where)
