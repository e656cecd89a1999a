"""Workflows: how soon a long one goes on in a new process, and what a step of one costs beside a step of the agent loop.

usage: python -m benchmarks.programs resume STEPS | steps RUNS STEPS [--profile]

``resume``: a workflow that has done so many governed steps waits for a signal; its process is gone, another opens the store, and the signal
is sent: the time until the run has ended, in which every step is executed again against its recording. ``steps``: the same governed tool
calls, by the loop of an agent and by a workflow, in turn in one process, so that one's rate can be divided by the other's.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path

import msgspec
import uvloop

from benchmarks.workload import MANY, Marks, deck_of
from quarterdeck import Budget, Context, Quarterdeck
from quarterdeck.app.runtime import Runtime

TURNS = 3
"""How often each side of the comparison has its turn."""


def flows(steps: int, marks: Marks) -> Quarterdeck:
    """The deck of the workload, with workflows that call its tool so often, one call after the other."""
    deck = deck_of(steps, steps, marks)
    generous = Budget(tools=MANY, tokens=MANY, usd=1_000)

    @deck.workflow("flow", tools=["write_row"], budget=generous)
    async def flow(ctx: Context) -> int:
        for number in range(steps):
            await ctx.tool("write_row", row=number, text=f"row {number}")
        return steps

    @deck.workflow("long", tools=["write_row"], budget=generous)
    async def long(ctx: Context) -> object:
        for number in range(steps):
            await ctx.tool("write_row", row=number, text=f"row {number}")
        return await ctx.signal("go")

    for route in ("flow", "long"):
        deck.budget(f"route:{route}", Budget(tools=MANY, tokens=MANY, usd=1_000_000))
    return deck


async def begun(steps: int, store: Path) -> str:
    """A run that has done its steps and waits."""
    async with flows(steps, Marks()).start(store) as rt:
        run = await rt.submit("long")
        await run.rest()
        return run.id


async def resumed(steps: int, store: Path, run_id: str) -> dict[str, object]:
    """The time from a signal to the end of that run, in a process that has never seen it."""
    marks = Marks()
    async with flows(steps, marks).start(store) as rt:
        gc.collect()
        gc.freeze()
        began_s = time.perf_counter()
        await rt.signal(run_id, "go", 1)
        result = await rt.handle(run_id).result()
        elapsed_s = time.perf_counter() - began_s
        if not result.ok or marks.at_s:
            raise SystemExit(f"the run of the benchmark did not go on as it should: {result}, {len(marks.at_s)} steps again")
        events = rt.show(run_id).row.seq
    return {"resume_s": round(elapsed_s, 3), "steps": steps, "events": events}


async def compared(runs: int, steps: int, store: Path) -> dict[str, object]:
    """Tool steps a second of both, in turn."""
    async with flows(steps, Marks()).start(store) as rt:
        speeds: dict[str, list[float]] = {"writer": [], "flow": []}
        for route in speeds:
            await (await rt.submit(route, None if route == "flow" else "warm up")).result()
        gc.collect()
        gc.freeze()
        for turn in range(TURNS):
            for route, measured in speeds.items():
                measured.append(await speed(rt, route, runs, steps, turn))
    agent, flow = statistics.median(speeds["writer"]), statistics.median(speeds["flow"])
    return {"agent_steps_per_s": round(agent), "workflow_steps_per_s": round(flow), "ratio": round(flow / agent, 3)}


async def speed(rt: Runtime, route: str, runs: int, steps: int, turn: int) -> float:
    """Steps a second of so many runs at once."""
    began_s = time.perf_counter()
    payloads = [None if route == "flow" else f"{turn}/{number}" for number in range(runs)]
    handles = await asyncio.gather(*[rt.submit(route, payload) for payload in payloads])
    results = await asyncio.gather(*[handle.result() for handle in handles])
    elapsed_s = time.perf_counter() - began_s
    wrong = [result for result in results if not result.ok or result.effects["succeeded"] != steps]
    if wrong:
        raise SystemExit(f"a run of the benchmark did not succeed: {wrong[0]}")
    return runs * steps / elapsed_s


def measure(work: Coroutine[object, object, dict[str, object]], *, profile: bool) -> dict[str, object]:
    """Run it on a loop of its own, under the profiler if that is wanted."""
    if not profile:
        return uvloop.run(work)
    watched = cProfile.Profile()
    figures = watched.runcall(asyncio.run, work)
    pstats.Stats(watched).sort_stats("tottime").print_stats(40)
    return figures


def main() -> None:
    """One measurement, as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("resume", "steps"))
    parser.add_argument("numbers", type=int, nargs="+")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as name:
        store = Path(name) / "programs.db"
        if chosen.what == "resume":
            run_id = uvloop.run(begun(chosen.numbers[0], store))
            work = resumed(chosen.numbers[0], store, run_id)
        else:
            work = compared(chosen.numbers[0], chosen.numbers[1], store)
        figures = measure(work, profile=chosen.profile)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
