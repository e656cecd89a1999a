"""Reading and visiting a store from the command line, beside its owner or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.core.errors import Corrupt
from quarterdeck.store.sqlite.opening import readable, require_ours
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.store.sqlite.visitor import visit


@contextmanager
def reading(path: Path) -> Iterator[SqliteInsights]:
    """The read side of a store, with its errors in our words; works beside an owner and without one."""
    require_ours(path)
    with readable(path):
        insights = SqliteInsights(path)
        try:
            yield insights
        finally:
            insights.close()


def ask_store(path: Path, op: Op) -> Applied | Refused:
    """Apply one operation as a visitor; returns when it is durable."""
    outcome = visit(path, op)
    if not isinstance(outcome, (Applied, Refused)):
        raise Corrupt("store.answer", "the store answered with something else; its adapter is broken")
    return outcome
