"""PostgreSQL over time and beside great numbers: what waiting runs cost and how soon they wake; how tables grow under a steady load.

usage: python -m benchmarks.lasting waiting RUNS SAMPLE | load MINUTES RUNS_PER_S
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from benchmarks.workload import Marks, deck_of
from quarterdeck import Context, Quarterdeck
from quarterdeck.app.clock import SystemClock
from quarterdeck.dispatch.janitor import Janitor
from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.testing.postgres import Server

FILL = """
INSERT INTO quarterdeck.runs (run_id, status, seq, head, waiting_on, updated_at_us)
SELECT 'q' || n, 'waiting', 1, ''::bytea, '["signal:go"]', n FROM generate_series(1, {0}) AS n;
INSERT INTO quarterdeck.contracts SELECT id, 'acme', 'waiter', 'waiter', 'ada', 1, '', NULL, NULL, 'standard', ''
FROM quarterdeck.runs WHERE run_id LIKE 'q%'
"""
WAITING = "SELECT count(*) FROM quarterdeck.runs WHERE status = 'waiting'"
SIZES = """
SELECT sum(pg_total_relation_size(relid))::bigint, sum(n_live_tup)::bigint, sum(n_dead_tup)::bigint, sum(autovacuum_count)::bigint
FROM pg_stat_user_tables WHERE schemaname = 'quarterdeck'
"""
APART_S = 0.02
"""From one signal to the next, whether the one before has been answered or not."""
KEPT_S = 120.0
"""How long ended runs are kept under the steady load."""
STEPS = 5


def waiters() -> Quarterdeck:
    """A deck whose only program waits for a signal, then ends."""
    deck = Quarterdeck("waiters")

    @deck.workflow("waiter")
    async def waiter(ctx: Context) -> object:
        """Wait for one signal."""
        return await ctx.signal("go")

    return deck


def resident_bytes() -> int:
    """Memory of this process that is in use."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def waiting(runs: int, sample: int) -> dict[str, float]:
    """A runtime beside so many waiting runs: its memory, compared with one beside none, and how soon a signal wakes one of them."""
    server = Server.start()
    try:
        dsn = server.database()
        async with waiters().start(open_store=open_store(dsn)) as rt:
            await (await rt.submit("waiter")).cancel()
            await asyncio.sleep(2.0)
            without = resident_bytes()
            names = [(await rt.submit("waiter")).id for _ in range(sample)]
            while True:
                if server.execute(WAITING, dsn) == [(sample,)]:
                    break
                await asyncio.sleep(0.05)
        server.execute(FILL.format(runs), dsn)
        server.execute("ANALYZE", dsn)
        async with waiters().start(open_store=open_store(dsn)) as rt:
            await asyncio.sleep(2.0)
            beside = resident_bytes()

            async def wake(name: str) -> float:
                began_s = time.perf_counter()
                await rt.signal(name, "go", 1)
                await rt.handle(name).result()
                return (time.perf_counter() - began_s) * 1e3

            woken: list[Awaitable[float]] = []
            for name in names:
                woken.append(asyncio.create_task(wake(name)))
                await asyncio.sleep(APART_S)
            took = sorted(await asyncio.gather(*woken))
        return {
            "waiting": runs,
            "bytes_per_run": round((beside - without) / runs, 2),
            "wake_p50_ms": round(statistics.median(took), 2),
            "wake_p99_ms": round(took[int(0.99 * len(took))], 2),
        }
    finally:
        server.stop()


async def load(minutes: int, runs_per_s: float) -> dict[str, object]:
    """A steady load of short runs, ended ones removed after two minutes: sizes, dead rows and vacuums, minute by minute."""
    server = Server.start(["autovacuum_naptime=15s"])
    try:
        dsn = server.database()
        journal = await PostgresJournal.open(dsn, lambda: 1)
        janitor = Janitor(journal, SystemClock(), {"writer": KEPT_S})
        async with deck_of(STEPS, STEPS, Marks()).start(open_store=open_store(dsn)) as rt:
            found: list[dict[str, float]] = []
            ended: list[float] = []
            tasks: set[asyncio.Task[None]] = set()

            async def one(number: int) -> None:
                began_s = time.perf_counter()
                await (await rt.submit("writer", number)).result()
                ended.append((time.perf_counter() - began_s) * 1e3)

            number, began_s = 0, time.monotonic()
            for minute in range(1, minutes + 1):
                while (now_s := time.monotonic() - began_s) < minute * 60.0:
                    while number < now_s * runs_per_s:
                        task = asyncio.create_task(one(number))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                        number += 1
                    await asyncio.sleep(0.01)
                size, live, dead, vacuums = [int(str(each)) for each in server.execute(SIZES, dsn)[0]]
                found.append(
                    {
                        "mib": round(size / 2**20, 1),
                        "live": live,
                        "dead": dead,
                        "vacuums": vacuums,
                        "run_p50_ms": round(statistics.median(ended), 1),
                        "runs": len(ended),
                    }
                )
                print(found[-1], file=sys.stderr, flush=True)
                ended.clear()
                await janitor.clean()
            await asyncio.gather(*tasks)
        await journal.close()
        return {"minutes": found}
    finally:
        server.stop()


def main(words: list[str]) -> int:
    """One measurement, as a line of JSON."""
    kind, first, second = words
    work = waiting(int(first), int(second)) if kind == "waiting" else load(int(first), float(second))
    print(msgspec.json.encode(asyncio.run(work)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
