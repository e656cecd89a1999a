"""O04: the schema is brought up to date while workers run, and whoever does it may be killed at any of its statements.

- `migration-kill`: a process that migrates is killed before each of its statements in turn, and before it commits. Whatever it was, the
  database is as before, to the last column and function, or as after; and who starts then brings it up to date.
- `upgrade`: the same under load. Older workers go on after a migration was killed, and beside the newer schema, where they can also be
  started still. Beside a schema that says that they may not, they stop, and none of them starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from proof.crew import newer
from proof.fleet import ROOT, Found, Yard, comes, submitted, suite_of, yard
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.postgres import opening
from quarterdeck.store.postgres.opening import SCHEMA, meta_of, prepare
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import Server

SHAPE = """
SELECT md5(string_agg(part, chr(10) ORDER BY part)) FROM (
    SELECT concat_ws(':', c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull) AS part FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = to_regnamespace('quarterdeck')
    UNION ALL SELECT concat_ws(':', proname, md5(prosrc)) FROM pg_proc WHERE pronamespace = to_regnamespace('quarterdeck')
    UNION ALL SELECT concat_ws(':', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(':', polname, polrelid::regclass) FROM pg_policy
) AS parts
"""
"""Everything that a migration can change, as one number."""
OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()"


class Migration(msgspec.Struct, frozen=True):
    """What one process does to a database: bring it from version ``start`` (0: there is none) one version further, or ``to`` the one ahead.

    It stands still before statement number ``at``. Planted bug: ``loose`` does without a transaction.
    """

    dsn: str
    at: int = -1
    ahead: int = 0
    loose: bool = False


def migrate(asked: Migration) -> None:
    """Do so, and say at which statement it stands still, or after how many it has ended."""
    count = itertools.count()
    execute, settle = psycopg.Connection.execute, opening._settle

    def reached() -> None:
        if next(count) == asked.at:
            print("at", flush=True)
            sys.stdin.read()

    def stepped(self: psycopg.Connection[object], *arguments: object, **options: object) -> object:
        reached()
        return execute(self, *arguments, **options)  # type: ignore[arg-type]

    def settled(*arguments: object) -> object:
        found = settle(*arguments)  # type: ignore[arg-type]
        reached()
        return found

    with ExitStack() as stack:
        newer(stack, asked.ahead)
        stack.enter_context(patched(psycopg.Connection, "execute", stepped))
        stack.enter_context(patched(opening, "_settle", settled))
        if asked.loose:
            stack.enter_context(patched(psycopg.Connection, "transaction", lambda *_: nullcontext()))
        prepare(asked.dsn, 1)
    print(f"done {next(count)}", flush=True)


@contextlib.contextmanager
def version(start: int) -> Iterator[None]:
    """Code of an earlier version of the schema."""
    with patched(opening, "SCHEMA", start):
        yield


async def interrupted(start: int, *, every: int = 1, loose: bool = False) -> Found:
    """Kill whoever migrates from version ``start``, at every so many of its statements; then migrate."""
    ahead = int(start == SCHEMA)
    server = await asyncio.to_thread(Server.start)
    try:
        whole, before = _begun(server, start), _begun(server, start)
        points = int((await _said(await _migrating(Migration(whole, ahead=ahead)))).split()[1])
        old, new = _shape(server, before), _shape(server, whole)
        found = [] if old != new else ["there was nothing to migrate"]
        undone = 0
        for at in range(0, points, every):
            dsn = _begun(server, start)
            child = await _migrating(Migration(dsn, at, ahead, loose))
            if await _said(child) != "at":
                found.append(f"statement {at} was not reached")
            child.kill()
            await child.communicate()
            name = conninfo_to_dict(dsn)["dbname"]
            await comes(lambda name=name: server.execute(OTHERS.format(name)) == [(0,)], 20.0)
            shape = _shape(server, dsn)
            undone += shape == old
            found += [] if shape in (old, new) else [f"killed at statement {at}, it is neither as before nor as after"]
            with ExitStack() as stack:
                newer(stack, ahead)
                try:
                    await asyncio.to_thread(prepare, dsn, 1)
                except (QuarterdeckError, psycopg.Error) as error:
                    found.append(f"killed at statement {at}, it cannot be brought up to date: {error}")
                else:
                    found += [] if _shape(server, dsn) == new else [f"killed at statement {at}, it is not as it should be after"]
            server.drop(dsn)
        return found, {"from": start, "to": SCHEMA + ahead, "kills": len(range(0, points, every)), "undone": undone}
    finally:
        await asyncio.to_thread(server.stop)


def _begun(server: Server, start: int) -> str:
    """A new database with the schema of an earlier version."""
    dsn = server.database()
    if start:
        with version(start):
            prepare(dsn, 1)
    return dsn


def _shape(server: Server, dsn: str) -> object:
    return server.execute(SHAPE, dsn)[0][0]


async def _migrating(asked: Migration) -> asyncio.subprocess.Process:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *[entry for entry in sys.path if entry]])}
    words = (sys.executable, "-m", "proof.upgrades", msgspec.json.encode(asked).decode())
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env, cwd=ROOT)


async def _said(child: asyncio.subprocess.Process) -> str:
    return (await child.stdout.readline()).decode().strip() if child.stdout is not None else ""


async def upgraded(kills: Sequence[int], *, deaf: bool = False) -> Found:
    """Under load: whoever migrates is killed at these statements, then a newer worker does it, then one beside which no older may go on."""
    async with yard(nullcontext(), latency_s=0.2, active=8, deaf=deaf) as there:
        found: list[str] = []
        asked: list[int] = []
        names = ("old-0", "old-1", "new-0")
        up = [await there.worker("old-0")]
        async with there.door() as rt:
            feeding = asyncio.ensure_future(_fed(rt, asked))
            await _goes_on(there, "old-0", found, "before anything")
            for at in kills:
                child = await _migrating(Migration(there.duty.dsn, at, 1))
                found += [] if await _said(child) == "at" else [f"statement {at} was not reached"]
                child.kill()
                await child.communicate()
                await _goes_on(there, "old-0", found, f"after a migration was killed at statement {at}")
            found += [] if _version(there) == SCHEMA else ["a killed migration has left another version"]
            up.append(await there.worker("old-1"))
            up.append(await there.worker("new-0", ahead=1))
            await _goes_on(there, "old-0", found, "beside a newer schema")
            up[1].terminate()
            await up[1].wait()
            up[1] = await there.worker("old-1")
            await _goes_on(there, "old-1", found, "though it was started beside a newer schema")
            feeding.cancel()
            await asyncio.wait((feeding,))
        newest = await there.worker("newest", ahead=2)
        gone = [await _stopped(worker, 5.0 if deaf else 30.0) for worker in up]
        found += [f"{name} goes on beside a schema that it may not" for name, left in zip(names, gone, strict=True) if not left]
        if not deaf:
            found += [f"{name} does not say why it stopped" for name in names if "store.newer" not in there.log(name)]
            if not await comes(lambda: there.ended() == sum(asked), 60.0):
                found.append(f"{sum(asked) - there.ended()} of {sum(asked)} runs have not ended")
            found += there.findings(sum(asked))
        late = await _refused_start(there)
        found += [] if "store.newer" in late else [f"an older worker starts all the same: {late}"]
        newest.terminate()
        return found, {"runs": sum(asked), "killed_migrations": len(kills), "stopped": sum(gone)}


async def _fed(rt: Runtime, asked: list[int]) -> None:
    """Ask for a few runs now and then."""
    while True:
        await asyncio.shield(_some(rt, asked))
        await asyncio.sleep(0.5)


async def _some(rt: Runtime, asked: list[int]) -> None:
    await submitted(rt, 2)
    asked.append(2)


async def _goes_on(there: Yard, name: str, found: list[str], when: str) -> None:
    """Whether a worker begins one more effect."""

    def begun() -> int:
        lines = there.ledger.read_text().splitlines()
        return sum(line.startswith("begun ") and line.endswith(f" {name}") for line in lines)

    floor = begun()
    if not await comes(lambda: begun() > floor, 30.0):
        found.append(f"{name} does not go on {when}")


def _version(there: Yard) -> int:
    with psycopg.connect(there.duty.dsn, options="-c search_path=quarterdeck") as db:
        return int(meta_of(db)["schema"])


async def _stopped(worker: asyncio.subprocess.Process, for_s: float) -> bool:
    try:
        async with asyncio.timeout(for_s):
            return await worker.wait() != -signal.SIGKILL
    except TimeoutError:
        return False


async def _refused_start(there: Yard) -> str:
    try:
        await there.worker("late")
    except RuntimeError as error:
        return str(error)
    return "ready"


SUITES = (
    suite_of(
        "migration-kill",
        lambda quick: [
            lambda start=start: interrupted(start, every=4 if quick else 1)
            for start in ((SCHEMA,) if quick else range(SCHEMA + 1))
        ],
        {"a migration is not one transaction": lambda: interrupted(SCHEMA, loose=True)},
    ),
    suite_of(
        "upgrade",
        lambda quick: [lambda: upgraded((9,) if quick else tuple(range(13)))],
        {"a worker does not look at the schema": lambda: upgraded((), deaf=True)},
    ),
)
"""What `python -m proof` runs."""


if __name__ == "__main__":
    migrate(msgspec.json.decode(sys.argv[1], type=Migration))
