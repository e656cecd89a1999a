"""Other sessions on the same database, and waiting for what the server says rather than for time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg

from quarterdeck.core.commit import Outcome
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.postgres import Server
from tests.conformance.stands import SwappingStand

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def until(holds: Callable[[], bool], what: str, for_s: float = 20.0) -> None:
    """Ask again and again, letting the loop turn in between."""
    try:
        async with asyncio.timeout(for_s):
            while not await asyncio.to_thread(holds):
                pass
    except TimeoutError:
        raise AssertionError(f"it never came to pass that {what}") from None


async def blocked(server: Server, dsn: str, answer: asyncio.Future[Outcome]) -> None:
    """Wait until an answer is there, or some session of this database waits for a lock."""
    await until(lambda: answer.done() or server.execute(LOCKED, dsn) != [(0,)], "a session waits for a lock")


@asynccontextmanager
async def runtime(dsn: str, *, reads: str | None = None, lease_s: float = 60.0) -> AsyncIterator[SwappingStand]:
    """One more runtime on a database, as the conformance suite's words need it; ``reads`` where reading goes another way."""
    numbers = itertools.count(1)
    journal = await PostgresJournal.open(dsn, lambda: next(numbers), lease_s)
    insights = PostgresInsights(reads or dsn)

    async def reopen() -> tuple[PostgresJournal, PostgresInsights]:
        raise AssertionError("this stand has one owner")

    try:
        yield SwappingStand(journal, insights, reopen)
    finally:
        insights.close()
        await journal.close()


def session(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    """A session that is somebody else's, in a transaction of its own."""
    db = psycopg.connect(dsn)
    db.execute("SET search_path = quarterdeck, pg_temp")
    db.commit()
    return db
