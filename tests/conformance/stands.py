"""The stands of this repository's own stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.conformance import OpenStand
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.postgres import Server


async def turn() -> None:
    """Let everything that is ready now run once."""
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()
    loop.call_soon(passed.set_result, None)
    await passed


LEASE_S = 600.0
"""The lease in a check: however slow the machine is, it ends only when the check says so."""
Reopen = Callable[[], Awaitable[tuple[Journal, Insights]]]


class SwappingStand:
    """A stand whose owner is replaced by calling ``reopen``, which ends the former one."""

    def __init__(self, journal: Journal, insights: Insights, reopen: Reopen) -> None:
        self.journal = journal
        self.insights = insights
        self._reopen = reopen

    async def replace_owner(self) -> None:
        self.journal, self.insights = await self._reopen()


@asynccontextmanager
async def memory() -> AsyncIterator[SwappingStand]:
    store = MemoryStore("w1")

    async def reopen() -> tuple[Journal, Insights]:
        nonlocal store
        store.crash()
        store = store.connect("next")
        return store, store

    yield SwappingStand(store, store, reopen)
    await store.close()


@asynccontextmanager
async def shared_memory() -> AsyncIterator[SwappingStand]:
    """A store that several owners may use at once: a new one learns from elsewhere that the former is dead."""
    store = MemoryStore("w1", quiesced=False)

    async def reopen() -> tuple[Journal, Insights]:
        nonlocal store
        store.crash()
        for worker in ("w1", "w2", "w3"):
            store.declare_dead(worker)
        store = store.connect("next")
        return store, store

    yield SwappingStand(store, store, reopen)
    await store.close()


def sqlite(folder: Path) -> OpenStand:
    """A file with its writer process."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[SwappingStand]:
        path = folder / "store.db"
        journal = await SqliteJournal.open(path, incarnation=1)
        insights = SqliteInsights(path)

        async def reopen() -> tuple[Journal, Insights]:
            nonlocal journal, insights
            insights.close()
            await journal.close(give_up=False)
            journal = await SqliteJournal.open(path, incarnation=1)
            insights = SqliteInsights(path)
            return journal, insights

        yield SwappingStand(journal, insights, reopen)
        insights.close()
        await journal.close()

    return opened


def inline(folder: Path) -> OpenStand:
    """A file whose applier runs in this process, so that a bug can be planted in it."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[SwappingStand]:
        path = folder / "store.db"
        journal = InlineJournal(path)
        insights = SqliteInsights(path)

        async def reopen() -> tuple[Journal, Insights]:
            nonlocal journal, insights
            insights.close()
            await journal.close()
            journal = InlineJournal(path)
            insights = SqliteInsights(path)
            return journal, insights

        yield SwappingStand(journal, insights, reopen)
        insights.close()
        await journal.close()

    return opened


EMPTY = ";".join(
    f"DELETE FROM quarterdeck.{table}"  # noqa: S608 - names of our own
    for table in (
        *(
            "runs",
            "contracts",
            "events",
            "payloads",
            "ready",
            "claims",
            "outbox",
            "lanes",
            "exclusive",
            "erasures",
            "inbox",
            "approvals",
        ),
        *("accounts", "idempotency", "facts", "api_keys", "owners"),
    )
)
EMPTY += (
    ";ALTER TABLE quarterdeck.audit DISABLE TRIGGER keep_audit;DELETE FROM quarterdeck.audit"
    ";ALTER TABLE quarterdeck.audit ENABLE TRIGGER keep_audit"
)


def postgres(server: Server, dsn: str) -> OpenStand:
    """A database, emptied first, whose next owner learns from an expired lease that the former is dead."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[SwappingStand]:
        prepare(dsn, 1)
        server.execute(EMPTY, dsn)
        journal = await PostgresJournal.open(dsn, lambda: 1, LEASE_S)
        insights = PostgresInsights(dsn)

        async def reopen() -> tuple[Journal, Insights]:
            nonlocal journal, insights
            insights.close()
            await journal.close(give_up=False)
            server.execute("UPDATE quarterdeck.owners SET lease_until = '-infinity'", dsn)
            journal = await PostgresJournal.open(dsn, lambda: 1, LEASE_S)
            insights = PostgresInsights(dsn)
            return journal, insights

        try:
            yield SwappingStand(journal, insights, reopen)
        finally:
            insights.close()
            await journal.close(give_up=False)

    return opened
