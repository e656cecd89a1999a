"""The HTTP door under load: a served deck in a process of its own, asked over real sockets.

usage: python -m benchmarks.service [--seconds S] [--streams N]

Each admission is a durable commit before its answer; the runs (one scripted model call each) are driven by the same process meanwhile.
Latency under open load counts from the moment at which a request was due, not from when the client got round to sending it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import msgspec
import uvloop

from quarterdeck import Quarterdeck
from quarterdeck.testing import ScriptedModel

deck = Quarterdeck("service")


@deck.tool(effect="irreversible")
async def act() -> str:
    """Act, once a person has said so."""
    return "done"


deck.agent("hello", model=ScriptedModel(["hello"]))
deck.agent("waiting", model=ScriptedModel([[("act", {})], "done"]), tools=[act], autonomy="executes_after_approval")

AT_ONCE = 32
"""Requests under way in the closed loop."""
WIDE = {
    f"QUARTERDECK_SERVER_{name}": "1000000"
    for name in ("RATE_PER_S", "BURST", "MAX_CONNECTIONS", "MAX_STREAMS", "MAX_STREAMS_PER_CALLER")
}


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, dict[str, str], int]]:
    """A serving process: its URL, the headers of a caller, its process id."""
    command = [sys.executable, "-m", "quarterdeck.cli", "serve", "benchmarks.service:deck"]
    command += ["--store", str(folder / "service.db"), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **WIDE})
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield told["url"], {"Authorization": f"Bearer {told['key']}"}, process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def submitted(client: httpx2.AsyncClient) -> None:
    """One admission; anything but 202 ends the benchmark."""
    answer = await client.post("/v1/runs", json={"intent": "hello"}, headers={"Prefer": "respond-async"})
    if answer.status_code != 202:
        raise SystemExit(f"an admission was answered {answer.status_code}: {answer.text[:300]}")


async def closed_loop(client: httpx2.AsyncClient, seconds: float) -> float:
    """Admissions per second with ``AT_ONCE`` callers that each wait for their answer."""
    until_s = time.perf_counter() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < until_s:
            await submitted(client)
            count += 1

    began_s = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - began_s)


async def open_loop(client: httpx2.AsyncClient, rate_per_s: float, seconds: float) -> list[float]:
    """Latencies in milliseconds of requests that are due at a fixed rate, whatever became of those before."""
    latencies: list[float] = []
    began_s = time.perf_counter() + 0.1

    async def one(due_s: float) -> None:
        await submitted(client)
        latencies.append((time.perf_counter() - due_s) * 1e3)

    tasks = []
    for number in range(int(rate_per_s * seconds)):
        due_s = began_s + number / rate_per_s
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        tasks.append(asyncio.ensure_future(one(due_s)))
    await asyncio.gather(*tasks)
    return sorted(latencies)


async def first_bytes(client: httpx2.AsyncClient, count: int) -> list[float]:
    """Milliseconds from asking for a run to the first byte of its stream, one after the other."""
    found: list[float] = []
    for _ in range(count):
        began_s = time.perf_counter()
        async with client.stream("POST", "/v1/runs", json={"intent": "hello"}, headers={"Accept": "text/event-stream"}) as answer:
            async for _chunk in answer.aiter_raw():
                found.append((time.perf_counter() - began_s) * 1e3)
                break
    return sorted(found)


def resident_bytes(pid: int) -> int:
    """Memory of a process, as the kernel counts it."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def many_streams(url: str, headers: dict[str, str], pid: int, count: int) -> dict[str, float]:
    """``count`` streams of one waiting run at once: memory per stream, and that each has got the journal so far."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:
        run = (await client.post("/v1/runs", json={"intent": "waiting"}, headers={"Prefer": "respond-async"})).json()["run_id"]
        while (await client.get(f"/v1/runs/{run}")).json()["status"] != "waiting":
            pass
        before = resident_bytes(pid)
        held, all_there = asyncio.Event(), asyncio.Event()
        ready: list[bool] = []

        async def watcher() -> None:
            async with client.stream("GET", f"/v1/runs/{run}/events") as answer:
                async for line in answer.aiter_lines():
                    if line == "event: run.waiting":
                        ready.append(True)
                        if len(ready) == count:
                            all_there.set()
                        await held.wait()
                        return

        tasks = [asyncio.ensure_future(watcher()) for _ in range(count)]
        await all_there.wait()
        after = resident_bytes(pid)
        held.set()
        await asyncio.gather(*tasks)
    return {"streams": count, "bytes_per_stream": (after - before) / count}


async def measure(seconds: float, streams: int, folder: Path) -> dict[str, float]:
    """Everything, one after the other."""
    with served(folder) as (url, headers, pid):
        limits = httpx2.Limits(max_connections=256, max_keepalive_connections=256)
        async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:
            await closed_loop(client, 1.0)
            first = await first_bytes(client, 200)
            knee = await closed_loop(client, seconds)
            waited = await open_loop(client, knee / 2, seconds)
        found = await many_streams(url, headers, pid, streams)
    return {
        "admissions_per_s": round(knee),
        "first_byte_p50_ms": round(statistics.median(first), 2),
        "first_byte_p99_ms": round(first[int(len(first) * 0.99)], 2),
        "half_knee_p50_ms": round(statistics.median(waited), 2),
        "half_knee_p99_ms": round(waited[int(len(waited) * 0.99)], 2),
        "streams": found["streams"],
        "kib_per_stream": round(found["bytes_per_stream"] / 1024, 1),
    }


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as name:
        figures = uvloop.run(measure(chosen.seconds, chosen.streams, Path(name)))
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
