"""Two runtimes, two processes, one database: one is killed, the other finishes its runs, and nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres import open_store
from tests.store_postgres.shop import LEASE_S, shop

RUNS = 40


async def worker(dsn: str, ledger: Path, name: str) -> asyncio.subprocess.Process:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in (*sys.path, os.getcwd()) if entry)}
    command = (sys.executable, "-m", "tests.store_postgres.shop", dsn, str(ledger), name)
    child = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    return child


async def ended(child: asyncio.subprocess.Process) -> int:
    assert child.stdin is not None
    child.stdin.close()
    return await child.wait()


async def test_a_killed_runtime_is_taken_over_and_nothing_is_done_twice(database: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    async with asyncio.timeout(60):
        first, second = await asyncio.gather(worker(database, ledger, "first"), worker(database, ledger, "second"))
        async with shop(ledger, "nobody").start(open_store=open_store(database, lease_s=LEASE_S), max_active=0) as rt:
            handles = await asyncio.gather(*[rt.submit("support", f"order {number}") for number in range(RUNS)])
            moved = asyncio.Event()
            loop = asyncio.get_running_loop()

            def look() -> None:
                if ledger.read_text().count("first ") >= 12:
                    moved.set()
                else:
                    loop.call_later(0.005, look)

            look()
            await moved.wait()
            first.kill()
            await first.wait()
            rows = [rt.insights.run(handle.id) for handle in handles]
            held = [row.run_id for row in rows if row is not None and row.worker == "first"]
            assert held, "it was killed while it held runs"
            results = await asyncio.gather(*[handle.result() for handle in handles])
            assert [result.status for result in results] == ["succeeded"] * RUNS
            assert all(verify_run(rt.insights, handle.id) for handle in handles)
            assert await ended(second) == 0
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    by: dict[str, set[str]] = defaultdict(set)
    for line in ledger.read_text().splitlines():
        name, kind, run_id, key = line.split(" ")
        keys[run_id, kind].add(key)
        by[run_id].add(name)
    assert set(keys) == {(handle.id, kind) for handle in handles for kind in ("note-asked", "refund", "note-done")}
    assert {len(found) for found in keys.values()} == {1}, "an effect that is attempted again has its key again"
    assert all("second" in by[run_id] for run_id in held), "the other one has finished them"
