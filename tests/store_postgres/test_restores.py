"""An older state of the database is put back, as files or as a dump: whoever was up notices, and all go on from there."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from quarterdeck.core.commit import Op, Outcome
from quarterdeck.core.errors import Unavailable
from quarterdeck.store.postgres.opening import renew
from quarterdeck.testing.conformance.stand import Hold, admit, claim, held, refusal, verified
from quarterdeck.testing.postgres import SETTING, Server, binaries
from tests.conformance.stands import SwappingStand
from tests.store_postgres.sessions import runtime, until


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that may be stopped."""
    if binaries() is None:
        pytest.skip(f"no PostgreSQL binaries for this platform; {SETTING} names a server that is not ours to put back")
    server = Server.start()
    yield server
    server.stop()


async def surely(stand: SwappingStand, op: Op) -> Outcome:
    """The answer, however often it is lost on the way."""
    async with asyncio.timeout(60):
        while True:
            with suppress(Unavailable):
                return await stand.journal.submit(op)


async def renewed(server: Server, dsn: str) -> None:
    """Wait until every runtime has renewed its lease: a copy that is younger than that lacks nothing that anybody knows."""
    now = server.execute("SELECT clock_timestamp()::text")[0][0]
    younger = f"SELECT count(*) FROM quarterdeck.owners WHERE beat_at < '{now}'"  # noqa: S608 - the server's own clock
    await until(lambda: server.execute(younger, dsn) == [(0,)], "every lease was renewed")


async def reborn(stand: SwappingStand, before: int) -> None:
    """Wait until a runtime knows that its store is another one."""
    await until(lambda: stand.journal.incarnation != before, "the restore was noticed")


async def goes_on(stand: SwappingStand, hold: Hold, worker: str) -> None:
    """What was known of a run is refused; it is looked at again from where it stands now."""
    refusal(await surely(stand, hold.commit()), "epoch")
    [again] = await claim(stand, worker)
    assert (again.seq, again.epoch > hold.epoch) == (hold.seq - 1, True)
    await Hold(stand, "r1", again.seq, again.epoch).finish()
    verified(stand, "r1")


async def test_files_that_are_put_back_are_noticed_by_those_who_were_up(own: Server) -> None:
    dsn = own.database()
    async with runtime(dsn) as first, runtime(dsn) as second:
        hold = await held(first, worker="first")
        await asyncio.to_thread(own.copy)
        before = first.journal.incarnation
        await surely(first, hold.commit())
        hold.seq += 1
        late = hold.commit()
        await renewed(own, dsn)
        await asyncio.to_thread(own.put_back)
        assert getattr(await surely(first, late), "guard", "") == "incarnation", "what has followed here does not follow there"
        await reborn(second, before)
        await until(lambda: first.journal.incarnation == second.journal.incarnation, "both know the same store")
        await goes_on(first, Hold(first, "r1", hold.seq, hold.epoch), "first")


async def test_a_restart_is_no_restore(own: Server) -> None:
    dsn = own.database()
    async with runtime(dsn, lease_s=0.5) as first:
        hold = await held(first, worker="first")
        before = first.journal.incarnation
        for _ in range(2):
            await asyncio.to_thread(own.restart)
            await surely(first, hold.commit())
            hold.seq += 1
        assert first.journal.incarnation == before


def loaded(server: Server, dsn: str, dump: bytes | None = None) -> bytes:
    """A dump of the schema; or load one in its place. Row security lets only a superuser do so."""
    programs = binaries()
    assert programs is not None
    whole = make_conninfo(server.dsn, dbname=str(conninfo_to_dict(dsn)["dbname"]))
    if dump is None:
        return subprocess.run([programs / "pg_dump", "-n", "quarterdeck", whole], check=True, capture_output=True).stdout
    text = b"BEGIN; DROP SCHEMA quarterdeck CASCADE;\n" + dump + b"\nCOMMIT;"
    subprocess.run([programs / "psql", "-qX", "-v", "ON_ERROR_STOP=1", whole], input=text, check=True, capture_output=True)
    return b""


async def test_a_dump_that_is_loaded_under_a_running_fleet_is_noticed(own: Server) -> None:
    dsn = own.database()
    async with runtime(dsn, lease_s=0.5) as first:
        hold = await held(first, worker="first")
        before = first.journal.incarnation
        dump = await asyncio.to_thread(loaded, own, dsn)
        await hold.append()
        await renewed(own, dsn)
        await asyncio.to_thread(loaded, own, dsn, dump)
        await reborn(first, before)
        await goes_on(first, hold, "first")


async def test_saying_it_is_enough_where_nobody_was_up(own: Server) -> None:
    dsn = own.database()
    async with runtime(dsn) as first:
        await held(first)
    await asyncio.to_thread(own.copy)
    async with runtime(dsn) as first:
        await admit(first, "r2")
    await asyncio.to_thread(own.put_back)
    renew(dsn, 77)
    async with runtime(dsn, lease_s=0.5) as later:
        assert later.journal.incarnation == 77
        [again] = await claim(later)
        renew(dsn, 78)
        await reborn(later, 77)
        hold = Hold(later, "r1", again.seq, again.epoch)
        assert getattr(await later.journal.submit(hold.commit()), "guard", "") == "epoch", "it was given up"
