"""PostgreSQL and workers: governed steps a second with several worker processes, claims beside long queues, how soon others take over.

usage: python -m benchmarks.fleet steps WORKERS RUNS STEPS | claims QUEUED | recover kill|stop RUNS | work DSN STEPS
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import msgspec

from benchmarks.workload import Marks, deck_of
from proof.fleet import killed
from quarterdeck.core.commit import Claim
from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.testing.postgres import Server

DEADLINE_S = 600.0
"""A measurement that takes longer is given up."""
QUEUE = """
INSERT INTO quarterdeck.runs (run_id, status, seq, head, updated_at_us)
SELECT 'q' || n, 'queued', 1, ''::bytea, n FROM generate_series(1, {0}) AS n;
INSERT INTO quarterdeck.contracts SELECT id, 'acme', 'r', 'a', 'ada', 1, '', NULL, NULL, 'standard', '' FROM quarterdeck.runs;
INSERT INTO quarterdeck.ready (run, at_us) SELECT id, id FROM quarterdeck.runs
"""
DONE = "SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status <> 'queued') FROM quarterdeck.runs"


async def work(dsn: str, steps: int) -> None:
    """Be one worker until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with deck_of(steps, steps, Marks()).start(open_store=open_store(dsn)):
        print("ready", flush=True)
        await stop.wait()


async def steps_per_s(workers: int, runs: int, steps: int) -> dict[str, float]:
    """From the first run that is begun to the last that has ended."""
    server = Server.start()
    children: list[subprocess.Popen[bytes]] = []
    try:
        dsn = server.database()
        async with deck_of(steps, steps, Marks()).start(open_store=open_store(dsn), work=False) as rt:
            for start in range(0, runs, 500):
                await asyncio.gather(*[rt.submit("writer", number) for number in range(start, min(runs, start + 500))])
        command = [sys.executable, "-m", "benchmarks.fleet", "work", dsn, str(steps)]
        children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(workers)]  # noqa: ASYNC220 - it does not wait
        began_s, end_s = 0.0, time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            ((ended, begun),) = server.execute(DONE, dsn)
            began_s = began_s or (time.monotonic() if begun else 0.0)
            if ended == runs:
                break
            await asyncio.sleep(0.02)
        took_s = time.monotonic() - began_s
        return {"steps_per_s": round(runs * steps / took_s), "took_s": round(took_s, 2)}
    finally:
        for child in children:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=40)
        server.stop()


async def claims(queued: int) -> dict[str, float]:
    """One claim of one run, alone, again and again, with so many more in the queue; and what an idle runtime costs."""
    server = Server.start()
    try:
        dsn = server.database()
        journal = await PostgresJournal.open(dsn, lambda: 1)
        if queued:
            server.execute(QUEUE.format(queued), dsn)
            server.execute("ANALYZE", dsn)
        took: list[float] = []
        for number in range(200):
            began_s = time.perf_counter()
            await journal.submit(Claim("w", 1, time.time_ns() // 1_000, str(number), ("r/a", "r/b")))
            took.append((time.perf_counter() - began_s) * 1e3)
        await journal.close()
        idle = 0.0
        if not queued:
            async with deck_of(1, 1, Marks()).start(open_store=open_store(dsn)):
                before = resource.getrusage(resource.RUSAGE_SELF)
                await asyncio.sleep(10.0)
                after = resource.getrusage(resource.RUSAGE_SELF)
                idle = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 10
        took.sort()
        return {"p50_ms": round(took[100], 2), "p99_ms": round(took[198], 2), "idle_cpu_percent": round(idle, 2)}
    finally:
        server.stop()


async def recover(how: str, runs: int) -> dict[str, float]:
    """How long until the last run of a killed, or stopped, worker moves again under another."""
    found, figures = await killed(runs, nullcontext(), stop=how == "stop")
    if found:
        raise SystemExit("; ".join(found))
    return {name: value for name, value in figures.items() if isinstance(value, (int, float))}


def main(words: list[str]) -> int:
    """One measurement, as a line of JSON."""
    kind, rest = words[0], words[1:]
    if kind == "work":
        asyncio.run(work(rest[0], int(rest[1])))
        return 0
    if kind == "steps":
        found = asyncio.run(steps_per_s(int(rest[0]), int(rest[1]), int(rest[2])))
    elif kind == "claims":
        found = asyncio.run(claims(int(rest[0])))
    else:
        found = asyncio.run(recover(rest[0], int(rest[1])))
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
