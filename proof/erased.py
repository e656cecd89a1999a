"""R30 on PostgreSQL: after an erasure no row of any table holds anything of a tenant or user, and every journal still verifies.

The tables are not named here: whatever there is in the schema is looked through, so that a table that is added later is, too. (What the
files of the server hold until it vacuums is its operator's; see the guide.)
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

from proof.erasing import RUNS, TENANTS, USERS, mark, written
from proof.fleet import Found, suite_of
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders, through
from quarterdeck.core.errors import Corrupt
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.mutants_postgres import install, rewritten
from quarterdeck.testing.postgres import Server

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'quarterdeck'::regnamespace AND relkind = 'r' ORDER BY relname"
HOLDING = "SELECT count(*) FROM quarterdeck.{0} AS t WHERE position('{1}' IN t::text) > 0 OR position('{2}' IN t::text) > 0"


async def erased(seeds: range, plant: AbstractContextManager[object]) -> Found:
    """As many trials; each in a database of its own."""
    server = await asyncio.to_thread(Server.start)
    found, tables = list[str](), 0
    try:
        for seed in seeds:
            with server.fresh() as dsn:
                prepare(dsn, 1)
                with plant:
                    install(dsn)
                tables = len(server.execute(TABLES, dsn))
                found += [f"seed {seed}: {wrong}" for wrong in await _scene(server, dsn, random.Random(seed))]
        return found, {"trials": len(seeds), "tables": tables}
    finally:
        await asyncio.to_thread(server.stop)


async def _scene(server: Server, dsn: str, luck: random.Random) -> list[str]:
    owners = {f"r{number}": (luck.choice(TENANTS), luck.choice(USERS)) for number in range(RUNS)}
    tenant = luck.choice((None, *TENANTS))
    user = luck.choice(USERS) if tenant is None or luck.random() < 0.5 else None
    journal = await PostgresJournal.open(dsn, lambda: 1)
    try:
        for run_id, (of, who) in owners.items():
            await written(journal, run_id, of, who)
        with closing(PostgresInsights(dsn)) as insights:
            orders = Orders(through(journal), insights, SystemClock())
            done, left = await orders.erase_all(by="ada", reason="asked to", user=user, tenant=tenant)
            meant = {run for run, (of, who) in owners.items() if tenant in (None, of) and user in (None, who)}
            found = [] if set(done) == meant and not left else [f"erased {sorted(done)}, meant {sorted(meant)}, left {left}"]
            for run_id in owners:
                try:
                    verify_run(insights, run_id)
                except Corrupt as error:
                    found.append(f"{run_id} does not verify: {error.code}")
    finally:
        await journal.close()
    gone, kept = {owners[run] for run in meant}, {owners[run] for run in owners.keys() - meant}
    for who in sorted(gone - kept):
        found += [f"{table} still holds contents of {who}" for table in _holding(server, dsn, mark(*who))]
    return found + [f"contents of {who} are gone" for who in sorted(kept) if not _holding(server, dsn, mark(*who))]


def _holding(server: Server, dsn: str, secret: bytes) -> list[str]:
    """The tables of which a row holds this, as text or in its bytes."""
    tables = [str(row[0]) for row in server.execute(TABLES, dsn)]
    return [table for table in tables if server.execute(HOLDING.format(table, secret.decode(), secret.hex()), dsn) != [(0,)]]


BUGS = {
    "payloads are kept": ("erase", "DELETE FROM payloads WHERE run = of_run", "DELETE FROM payloads WHERE false"),
    "messages are kept": ("erase", "SET body = '', headers = '[]',", "SET"),
    "inboxes are kept": ("erase", "UPDATE inbox SET body = ''", "UPDATE inbox SET body = body"),
    "what is shown is kept": ("erase", "UPDATE approvals SET shown = ''", "UPDATE approvals SET shown = shown"),
}


async def missed(edit: tuple[str, str, str]) -> Found:
    """The trials of some seeds, with a bug in the store's functions."""
    found: list[str] = []
    for seed in range(3):
        found += (await erased(range(seed, seed + 1), rewritten(edit)()))[0]
    return found, {}


SUITES = (
    suite_of(
        "erase-verify-postgres",
        lambda quick: [partial(erased, range(4 if quick else 60), nullcontext())],
        {bug: partial(missed, edit) for bug, edit in BUGS.items()},
    ),
)
"""What `python -m proof` runs."""
