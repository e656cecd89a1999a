"""Opening: only a server that keeps what it acknowledged, a schema that is ours, and a store that knows when it was put back."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import quarterdeck
from quarterdeck.app.clock import SystemEntropy
from quarterdeck.core.commit import Applied, Claim, Deliver
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.store.postgres import open_store, opening, statements
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare, renew
from quarterdeck.store.postgres.visitor import visit
from quarterdeck.testing.conformance.stand import admit, claim, done, held, refused
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import SETTING, Server, binaries
from quarterdeck.testing.samples import T0_US, admission
from tests.store_postgres.sessions import runtime, until

SOURCE = str(Path(quarterdeck.__file__).parents[1])


def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises((UsageError, Unavailable)) as caught:
        attempt()
    assert isinstance(caught.value, QuarterdeckError)
    return caught.value.code


def name_of(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture(scope="module")
def loose() -> Iterator[Server]:
    """A server whose operator was in a hurry."""
    if binaries() is None:
        pytest.skip(f"no PostgreSQL binaries for this platform; {SETTING} names a server that is not ours to break")
    server = Server.start(("fsync=off", "synchronous_commit=off"))
    yield server
    server.stop()


async def test_many_that_open_at_once_make_one_schema(database: str) -> None:
    numbers = itertools.count(1)
    journals = await asyncio.gather(*[PostgresJournal.open(database, lambda: next(numbers)) for _ in range(6)])
    assert len({journal.incarnation for journal in journals}) == 1
    assert len({journal.owner for journal in journals}) == 6
    await asyncio.gather(*[journal.submit(Deliver("nobody", "signal", b"", 0, "t")) for journal in journals])
    await asyncio.gather(*[journal.close() for journal in journals])


def test_what_cannot_be_used_is_named(postgres: Server, database: str) -> None:
    assert code_of(lambda: prepare("host", 1)) == "store.dsn"
    assert code_of(lambda: prepare(make_conninfo(database, port=1), 1)) == "store.unreachable"
    assert code_of(lambda: visit(database, Deliver("r1", "signal", b"", 0, "t"))) == "store.missing"
    postgres.execute("CREATE SCHEMA quarterdeck", database)
    assert code_of(lambda: prepare(database, 1)) == "store.foreign"
    postgres.execute("DROP SCHEMA quarterdeck", database)
    postgres.execute(
        f"ALTER DATABASE {name_of(database)} OWNER TO postgres; REVOKE CREATE ON DATABASE {name_of(database)} FROM PUBLIC"
    )
    assert code_of(lambda: prepare(database, 1)) == "store.role"
    postgres.execute(f"ALTER DATABASE {name_of(database)} OWNER TO {Server.role}")
    prepare(database, 1)
    postgres.execute("UPDATE quarterdeck.meta SET value = '99' WHERE name = 'compatible'", database)
    assert code_of(lambda: prepare(database, 1)) == "store.newer"


def test_a_read_only_database_is_refused(postgres: Server, database: str) -> None:
    postgres.execute(f"ALTER DATABASE {name_of(database)} SET default_transaction_read_only = on")
    assert code_of(lambda: prepare(database, 1)) == "store.replica"


async def test_settings_that_lose_commits_are_refused(loose: Server) -> None:
    dsn = loose.database()
    assert code_of(lambda: prepare(dsn, 1)) == "store.unsafe"
    loose._settings = ("full_page_writes=off",)
    loose.restart()
    assert code_of(lambda: prepare(dsn, 1)) == "store.unsafe"
    loose._settings = ("synchronous_commit=off",)
    loose.restart()
    async with runtime(dsn) as stand:  # what is only a session's setting is set, whatever the server's default
        await admit(stand, "r1")


async def test_a_session_that_would_not_wait_for_its_commit_applies_nothing(database: str) -> None:
    async with runtime(database) as stand:
        await admit(stand, "r1")
        db = stand.journal._db
        await db.execute("SET synchronous_commit = off")
        with pytest.raises(Unavailable, match=r"store\.unknown"):
            await stand.journal.submit(admission("r2"))
        assert stand.insights.run("r2") is None
        assert await stand.journal.submit(admission("r2")) == Applied(1), "the next session is a sound one"


async def test_a_replica_is_refused_and_its_promotion_is_another_incarnation(loose: Server) -> None:
    loose._settings = ()
    loose.restart()
    dsn = loose.database()
    async with runtime(dsn) as stand:
        hold = await held(stand, worker="before")
        assert stand.journal.incarnation == 1
        await asyncio.to_thread(loose.restart, standby=True)
        assert code_of(lambda: prepare(dsn, 7)) == "store.replica"
        with pytest.raises(Unavailable, match=r"store\.unknown"):
            await stand.journal.submit(hold.commit())
        loose.execute("SELECT pg_promote()")
        await until(lambda: loose.execute("SELECT pg_is_in_recovery()") == [(False,)], "it was promoted")
        commit = hold.commit()
        outcome = None
        while outcome is None:
            try:
                outcome = await stand.journal.submit(commit)
            except Unavailable as error:
                assert error.code == "store.unknown"
        assert getattr(outcome, "guard", "") == "incarnation"
        assert stand.journal.incarnation != commit.incarnation
        assert [(run.run_id, run.epoch) for run in await claim(stand, "after")] == [("r1", 2)], "what was held is looked at again"


async def test_a_copy_of_a_database_is_another_store(postgres: Server, database: str) -> None:
    async with runtime(database) as stand:
        await held(stand)
    copy = make_conninfo(database, dbname=f"{name_of(database)}_copy")
    postgres.execute(f"CREATE DATABASE {name_of(copy)} TEMPLATE {name_of(database)} OWNER {Server.role}")
    assert prepare(database, 9) == (1, False)
    assert prepare(copy, 9) == (9, True)
    assert prepare(copy, 10) == (9, False)
    postgres.drop(copy)


async def test_a_restore_that_nothing_shows_can_be_said(database: str) -> None:
    async with runtime(database) as stand:
        hold = await held(stand)
        renew(database, 5)
        await refused(stand, hold.commit(), "incarnation")


async def test_a_visitor_reaches_runs_and_appends_nothing(database: str) -> None:
    async with runtime(database) as stand:
        await admit(stand, "r1")
        heard = asyncio.Event()
        stand.journal.hints(heard.set)
        order = Deliver("r1", "cancel", b"{}", T0_US, "c1")
        first = await asyncio.to_thread(visit, database, order)
        assert await asyncio.to_thread(visit, database, order) == first
        assert [row.kind for row in stand.insights.inbox("r1")[1]] == ["cancel"]
        async with asyncio.timeout(20):
            await heard.wait()
        assert code_of(lambda: visit(database, Claim("w", 1, 0))) == "store.visitor"


async def test_a_migration_that_fails_leaves_nothing(postgres: Server, database: str) -> None:
    original = statements.script

    def broken(name: str) -> str:
        return original(name) + ("; SELECT no_such_function()" if name.startswith("functions") else "")

    with patched(statements, "script", broken), pytest.raises(psycopg.ProgrammingError):
        prepare(database, 1)
    assert postgres.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'quarterdeck'", database) == [(0,)]
    assert prepare(database, 1) == (1, False)


async def test_older_workers_go_on_beside_a_newer_schema(database: str) -> None:
    """A later version adds a column while a runtime of this one works, and this one can still be started beside it."""
    async with runtime(database) as stand:
        hold = await held(stand)
        await hold.append()
        with (
            patched(opening, "SCHEMA", opening.SCHEMA + 1),
            patched(opening, "migration", lambda version: ("ALTER TABLE runs ADD COLUMN colour text NOT NULL DEFAULT 'blue'",)),
        ):
            prepare(database, 1)
        await hold.append()
        await done(stand, Deliver("r1", "signal", b"{}", T0_US, "s1"))
        async with runtime(database) as another:
            await admit(another, "r2")
            assert [run.run_id for run in await claim(another, "w2")] == ["r2"]
        await refused(stand, hold.commit(control=0), "control")


async def test_an_older_worker_stops_beside_a_schema_that_it_may_not_use(database: str) -> None:
    """What it has decided is refused in the same moment in which the schema changes; then it says why it stops."""
    async with runtime(database) as stand:
        hold = await held(stand)
        await asyncio.to_thread(_outgrow, database)
        await refused(stand, hold.commit(), "incarnation")
        await until(lambda: stand.journal._fault is not None, "it has looked", 20.0)
        with pytest.raises(Unavailable, match=r"store\.newer"):
            await stand.journal.submit(admission("r2"))
        assert code_of(lambda: prepare(database, 1)) == "store.newer"


def _outgrow(dsn: str) -> None:
    """What a process with later code does, in one of its own, so that the code of this one stays as it is."""
    later = (
        "from quarterdeck.store.postgres import opening as o; o.SCHEMA += 1; o.COMPATIBLE = o.SCHEMA; o.migration = lambda _: ()"
    )
    subprocess.run(
        [sys.executable, "-c", f"{later}; o.prepare({dsn!r}, 77)"], check=True, env={**os.environ, "PYTHONPATH": SOURCE}
    )


async def test_a_runtime_does_not_wait_for_a_server_that_hangs(loose: Server) -> None:
    """Reads fail and closing ends, though nothing ever answers; what was submitted has no known outcome."""
    loose._settings = ()
    await asyncio.to_thread(loose.restart)
    dsn = loose.database()
    journal, insights = await open_store(dsn)(SystemEntropy())
    await journal.submit(admission("r1", incarnation=journal.incarnation))
    hang(loose, signal.SIGSTOP)
    try:
        lost = journal.submit(admission("r2", incarnation=journal.incarnation))
        with pytest.raises(Unavailable, match=r"store\.unreachable"):
            await asyncio.to_thread(insights.run, "r1")
        await until(lambda: journal.failing, "it is noticed", 20.0)
        await journal.close()
        with pytest.raises(Unavailable, match=r"store\.unknown"):
            await lost
    finally:
        hang(loose, signal.SIGCONT)


def hang(server: Server, how: signal.Signals) -> None:
    """Send every process of a server of ours a signal."""
    first = int((Path(str(conninfo_to_dict(server.dsn)["host"])) / "data" / "postmaster.pid").read_text().split()[0])
    for pid in (first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())):
        os.kill(pid, how)
