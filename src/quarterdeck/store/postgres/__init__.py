"""The shared store: one PostgreSQL database, any number of runtimes.

Every batch of operations is one call of one function in the database, so one statement and one transaction: the guards are compared where
the rows are, under their locks, and a runtime that stops in the middle of anything holds none. Locks are taken in one order by everybody
(facts, runs, accounts), and a claim waits for nobody. An answer that is lost with the connection is `store.unknown`; the same operation
again is success, or says what stands in its place.

A runtime owns its runs through a lease: a row that a thread renews by the server's clock for as long as the event loop turns. Whoever
claims releases what belongs to an expired lease; the epoch fences a runtime that in truth still lives. So opening this store proves
nothing about earlier owners (``quiesced`` is false), and open effects wait their perform-by time out.

Other runtimes are told of new work by one empty notification per batch; polling finds what a notification lost. Reads for some tenants run
under row security. A server that could lose an acknowledged commit is refused. The connection must be to one server session for good:
poolers that share sessions between transactions lose notifications and prepared statements.

It must never decide anything but the guards, hold a transaction open between two messages, or trust a worker's clock about a lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from quarterdeck.core.commit import Op, Outcome
from quarterdeck.core.errors import UsageError

if TYPE_CHECKING:
    from quarterdeck.store.postgres.reader import PostgresInsights
    from quarterdeck.store.postgres.store import OpenPostgres
    from quarterdeck.store.postgres.visitor import Finding

LEASE_S = 8.0
"""How long a runtime that has stopped without a word keeps its runs from the others."""


def open_store(dsn: str, *, lease_s: float = LEASE_S) -> OpenPostgres:
    """A store in the PostgreSQL database that ``dsn`` names; any number of runtimes may open it.

    For ``deck.start(open_store=...)``. Raises ``UsageError`` (``store.library``) where the driver is not installed.

    >>> open_store("postgresql://localhost/quarterdeck").lease_s
    8.0
    """
    with _driver():
        from quarterdeck.store.postgres.store import OpenPostgres
    return OpenPostgres(dsn, lease_s)


@contextmanager
def looking(dsn: str) -> Iterator[PostgresInsights]:
    """The read side of a database, for a process that is no runtime; raises ``UsageError`` or ``Unavailable`` if there is none."""
    with _driver():
        from quarterdeck.store.postgres.visitor import look
    insights = look(dsn)
    try:
        yield insights
    finally:
        insights.close()


def visit(dsn: str, op: Op) -> Outcome:
    """Apply one operation as a visitor; see :func:`quarterdeck.store.postgres.visitor.visit`."""
    with _driver():
        from quarterdeck.store.postgres.visitor import visit
    return visit(dsn, op)


def examine(dsn: str) -> Finding:
    """Look at a database as a runtime would; see :func:`quarterdeck.store.postgres.visitor.examine`."""
    with _driver():
        from quarterdeck.store.postgres.visitor import examine
    return examine(dsn)


def incarnation_of(dsn: str) -> int:
    """The incarnation of a store, part of the guard of every commit."""
    with looking(dsn) as insights:
        return insights.incarnation


def shown(dsn: str) -> str:
    """A connection string for people: without its password.

    >>> shown("postgresql://ada:secret@db.example/agents?sslmode=require")
    'postgresql://ada@db.example/agents'
    """
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    return f"{parts.scheme}://{f'{user}@' if user else ''}{host}{parts.path}"


@contextmanager
def _driver() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError("store.library", f"{error.name} is not installed; install quarterdeck[postgres]") from None


__all__ = ["LEASE_S", "examine", "incarnation_of", "looking", "open_store", "shown", "visit"]
