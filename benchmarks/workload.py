"""The workload: N runs at once, K governed steps each, every step durable before the next begins.

A step is an idempotent ``write`` tool call with distinct arguments and about 200 bytes of result: schema-checked, judged under ten Cedar
policies, charged to the accounts run, route, tenant and all, its decision, intent and receipt journaled under its digest.

usage: python -m benchmarks.workload RUNS STEPS [--per-message M] [--profile]

``--per-message``: how many calls one (scripted) model message proposes; they are performed one after the other. With 1, each tool call has
a governed, durable model call of its own before it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import functools
import gc
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import apsw
import msgspec
import uvloop

from benchmarks import thread_writer
from quarterdeck import Budget, Quarterdeck
from quarterdeck.app.runtime import Runtime
from quarterdeck.ports.store import StoredEvent
from quarterdeck.store.sqlite.opening import connect
from quarterdeck.testing import ScriptedModel

MANY = 10**12


class Marks(msgspec.Struct):
    """When each step of a watched run was performed."""

    at_s: list[float] = []


def deck_of(steps: int, per_message: int, marks: Marks) -> Quarterdeck:
    """The deck of the workload."""
    deck = Quarterdeck("bench")

    @deck.tool(effect="write", idempotent=True)
    async def write_row(row: int, text: str) -> dict[str, object]:
        """Write one row."""
        marks.at_s.append(time.perf_counter())
        return {"row": row, "text": "x" * 180}

    calls = [("write_row", {"row": number, "text": f"row {number}"}) for number in range(steps)]
    turns = [calls[start : start + per_message] for start in range(0, steps, per_message)]
    deck.model("scripted", ScriptedModel([*turns, "done"]))
    generous = Budget(turns=len(turns) + 1, tools=steps, tokens=MANY, usd=1_000, context=6_000)
    deck.agent("writer", model="scripted", instructions="Write rows.", tools=[write_row], budget=generous, parallel=False)
    deck.policy(POLICIES)
    for account in ("all", "tenant:*", "route:writer"):
        deck.budget(account, Budget(tools=MANY, tokens=MANY, usd=1_000_000))
    return deck


POLICIES = "permit(principal, action, resource);\n" + "\n".join(
    f'@reason("row.forbidden_{number}")\n'
    f'forbid(principal, action in Action::"tool", resource == Tool::"write_row") when {{ context.args.text == "secret {number}" }};'
    for number in range(9)
)


async def governed(runs: int, steps: int, per_message: int, folder: Path, *, thread: bool = False) -> dict[str, object]:
    """Steps per second of ``runs`` runs at once; ``thread``: with the writer as a thread, for comparison."""
    marks = Marks()
    opener = functools.partial(thread_writer.open_store, folder / "bench.db") if thread else None
    async with deck_of(steps, per_message, marks).start(folder / "bench.db", open_store=opener) as rt:
        await (await rt.submit("writer", "warm up")).result()
        gc.collect()
        gc.freeze()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        handles = await asyncio.gather(*(rt.submit("writer", number) for number in range(runs)))
        results = await asyncio.gather(*(handle.result() for handle in handles))
        elapsed_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        wrong = [result for result in results if not result.ok or result.effects["succeeded"] != steps]
        if wrong:
            raise SystemExit(f"a run of the benchmark did not succeed: {wrong[0]}")
        models = sum(result.spent["model_calls"] for result in results)
    rows = connect(folder / "bench.db", readonly=True).execute("SELECT count(*) FROM events").fetchone()
    return {
        "runs": runs,
        "steps": runs * steps,
        "model_steps": models,
        "tool_steps_per_s": round(runs * steps / elapsed_s),
        "all_steps_per_s": round((runs * steps + models) / elapsed_s),
        "cpu_us_per_step": round(cpu_s / (runs * steps + models) * 1e6),
        "event_rows": rows[0] if rows else 0,
    }


async def alone(steps: int, folder: Path) -> dict[str, object]:
    """One run alone: latency per step, how it grows with the length of the run, and the bytes of its turns."""
    marks = Marks()
    commit_us = synced_commit_us(folder)
    async with deck_of(steps, 1, marks).start(folder / "alone.db") as rt:
        gc.collect()
        gc.freeze()
        handle = await rt.submit("writer", "alone")
        result = await handle.result()
        if not result.ok:
            raise SystemExit(f"the run of the benchmark did not succeed: {result}")
        turns: dict[int, int] = {}
        for stored in _stored(rt, handle.id):
            call = msgspec.json.decode(stored.body).get("call", "")
            if call[:1] in ("m", "t"):
                turn = int(call[1:].partition(".")[0].partition("r")[0])
                turns[turn] = turns.get(turn, 0) + len(stored.body) + len(stored.payload or b"")
    gaps = [after - before for before, after in zip(marks.at_s, marks.at_s[1:], strict=False)]
    early, late = statistics.median(gaps[5:105]), statistics.median(gaps[-100:])
    return {
        "turn_p50_us": round(statistics.median(gaps) * 1e6),
        "commit_p50_us": round(commit_us),
        "step_cost_last_over_first": round(late / early, 3),
        "steps": steps,
        "turn_bytes_200_over_20": round(turns[min(200, steps - 1)] / turns[20], 3),
    }


def _stored(rt: Runtime, run_id: str) -> list[StoredEvent]:
    after = 0
    found: list[StoredEvent] = []
    while page := rt.insights.events(run_id, after):
        found += page
        after = page[-1].seq
    return found


async def step_latency(steps: int, folder: Path) -> dict[str, object]:
    """One run alone, several calls per message: the time from one tool step to the next, beside one synced commit."""
    marks = Marks()
    before_us = synced_commit_us(folder)
    async with deck_of(steps, 50, marks).start(folder / "step.db") as rt:
        await (await rt.submit("writer", "warm up")).result()
        marks.at_s.clear()
        gc.collect()
        gc.freeze()
        await (await rt.submit("writer", "alone")).result()
    after_us = synced_commit_us(folder)
    gaps = [after - before for before, after in zip(marks.at_s, marks.at_s[1:], strict=False)]
    commit_us = (before_us + after_us) / 2
    p50_us = statistics.median(gaps) * 1e6
    return {
        "step_p50_us": round(p50_us),
        "commit_p50_us": round(commit_us),
        "ratio": round(p50_us / commit_us, 2),
        "steps": steps,
    }


def synced_commit_us(folder: Path) -> float:
    """The median of one bare synced commit of a 400-byte row on the same disk, in microseconds."""
    db = apsw.Connection(str(folder / "bare.db"))
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE IF NOT EXISTS rows (body BLOB)"):
        db.execute(statement).fetchall()
    times = []
    for _ in range(500):
        began = time.perf_counter()
        db.execute("INSERT INTO rows (body) VALUES (?)", (b"x" * 400,))
        times.append(time.perf_counter() - began)
    db.close()
    return statistics.median(times) * 1e6


def main() -> None:
    """One measurement, as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("--per-message", type=int, default=50)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--thread", action="store_true", help="the writer as a thread instead of a process")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as name:
        folder = Path(name)
        if chosen.alone:
            work = alone(chosen.steps, folder)
        elif chosen.latency:
            work = step_latency(chosen.steps, folder)
        else:
            work = governed(chosen.runs, chosen.steps, chosen.per_message, folder, thread=chosen.thread)
        if chosen.profile:
            profile = cProfile.Profile()
            figures = profile.runcall(asyncio.run, work)
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        else:
            figures = uvloop.run(work)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
