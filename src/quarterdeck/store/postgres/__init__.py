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

from typing import TYPE_CHECKING

from quarterdeck.core.errors import UsageError

if TYPE_CHECKING:
    from quarterdeck.store.postgres.store import OpenPostgres

LEASE_S = 8.0
"""How long a runtime that has stopped without a word keeps its runs from the others."""


def open_store(dsn: str, *, lease_s: float = LEASE_S) -> OpenPostgres:
    """A store in the PostgreSQL database that ``dsn`` names; any number of runtimes may open it.

    For ``deck.start(open_store=...)``. Raises ``UsageError`` (``store.library``) where the driver is not installed.

    >>> open_store("postgresql://localhost/quarterdeck").lease_s
    8.0
    """
    try:
        from quarterdeck.store.postgres.store import OpenPostgres
    except ModuleNotFoundError as error:
        raise UsageError("store.library", f"{error.name} is not installed; install quarterdeck[postgres]") from None
    return OpenPostgres(dsn, lease_s)


__all__ = ["LEASE_S", "open_store"]
