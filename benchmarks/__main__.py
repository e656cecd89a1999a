"""Measure everything and write ``build/bench.json``. usage: python -m benchmarks [--only PREFIX] [--rounds N] [--without-peers]"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from psycopg.conninfo import conninfo_to_dict

from quarterdeck.testing.postgres import Server

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PEERS = ("dbos", "langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg[binary,pool]")
PEER_SHARE = 2
"""On PostgreSQL the peers get so much less to do than we, so that a round ends in bearable time."""


class Figure(msgspec.Struct):
    """One published number."""

    name: str
    value: float
    unit: str
    detail: str


def measured(module: str, *arguments: object) -> Any:
    """The JSON line of one measurement in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} failed:\n{done.stderr[-2000:]}")
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1])


def throughput(rounds: int) -> list[Figure]:
    """1,000 runs at once, in both shapes."""
    plain = [measured("workload", 1_000, 20, "--per-message", 20) for _ in range(rounds)]
    threads = [measured("workload", 1_000, 20, "--per-message", 20, "--thread") for _ in range(rounds)]
    turns = [measured("workload", 1_000, 20, "--per-message", 1) for _ in range(rounds)]
    best = statistics.median(item["tool_steps_per_s"] for item in plain)
    both = statistics.median(item["all_steps_per_s"] for item in turns)
    tools = statistics.median(item["tool_steps_per_s"] for item in turns)
    return [
        Figure(
            "sqlite.governed_steps_per_s",
            best,
            "1/s",
            f"1,000 runs x 20 tool calls, proposed in one model message, one after the other; {rounds} rounds: "
            + ", ".join(str(item["tool_steps_per_s"]) for item in plain)
            + f"; main process {plain[0]['cpu_us_per_step']} us of CPU a step",
        ),
        Figure(
            "sqlite.governed_steps_per_s.writer_thread",
            statistics.median(item["tool_steps_per_s"] for item in threads),
            "1/s",
            "the same with the writer as a thread, which shares the interpreter lock",
        ),
        Figure(
            "sqlite.governed_steps_per_s.model_turns",
            both,
            "1/s",
            f"model and tool steps, one model call per tool call; {tools} tool steps/s",
        ),
    ]


def alone(rounds: int) -> list[Figure]:
    """One run alone."""
    latency = [measured("workload", 1, 1_000, "--latency") for _ in range(rounds)]
    long = measured("workload", 1, 5_000, "--alone")
    ratio = statistics.median(item["ratio"] for item in latency)
    one = latency[0]
    return [
        Figure(
            "sqlite.step_p50_over_commit",
            ratio,
            "x",
            f"one run: {one['step_p50_us']} us a step, one bare synced commit {one['commit_p50_us']} us",
        ),
        Figure(
            "sqlite.step_cost_5000_over_10",
            long["step_cost_last_over_first"],
            "x",
            "median of 100 turns at 5,000 over 100 turns at 10",
        ),
        Figure("sqlite.turn_bytes_200_over_20", long["turn_bytes_200_over_20"], "x", "journal bytes of turn 200 over turn 20"),
    ]


def gate(rounds: int) -> list[Figure]:
    """Decision time."""
    found = [measured("gate") for _ in range(rounds)]
    figures = []
    for policies in (1, 50, 500):
        value = statistics.median(item[f"{policies}_distinct"]["p99_us"] for item in found)
        p50 = statistics.median(item[f"{policies}_distinct"]["p50_us"] for item in found)
        memo = statistics.median(item[f"{policies}_remembered"]["p99_us"] for item in found)
        detail = f"distinct arguments, verdict evaluated each time: p50 {p50:.0f} us; remembered verdict: p99 {memo:.0f} us"
        figures.append(Figure(f"gate.p99_us_{policies}_policies", value, "us", detail))
        for part in ("p50_us", "p99_us"):
            value = statistics.median(item[f"labels_{policies}"][part] for item in found)
            detail = "a run that has read 9 KB of untrusted, sensitive text; half of the calls is allowed, half asked about"
            figures.append(Figure(f"gate.labels_{part}_{policies}_policies", value, "us", detail))
    return figures


def peers(rounds: int) -> list[Figure]:
    """Beside DBOS and LangGraph, in turn: 100 x 20 on SQLite, 400 x 20 on one PostgreSQL server with 1, 2 and 4 processes."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"dbos": [], "langgraph": []}
    for _ in range(rounds):
        ours.append(measured("workload", 100, 20, "--per-message", 20)["tool_steps_per_s"])
        for name, speeds in theirs.items():
            with tempfile.TemporaryDirectory(prefix="quarterdeck-peer-") as folder:
                speeds.append(_peer(name, f"{folder}/peer.db", 1, 100))
    ratio, said = _ratio(ours, theirs)
    figures = [Figure("sqlite.ratio_to_best_python_peer", ratio, "x", f"100 x 20, {said}")]
    for workers in (1, 2, 4):
        ours, theirs = [], {name: [] for name in theirs}
        for _ in range(rounds):
            ours.append(measured("fleet", "steps", workers, 400, 20)["steps_per_s"])
            for name, speeds in theirs.items():
                server = Server.start()
                try:
                    speeds.append(_peer(name, _url(server.database()), workers, 400 // PEER_SHARE))
                finally:
                    server.stop()
        ratio, said = _ratio(ours, theirs)
        size = f"400 x 20 (theirs {400 // PEER_SHARE} x 20, which takes them longer) in {workers} processes"
        figures.append(Figure(f"postgres.ratio_to_best_python_peer.workers_{workers}", ratio, "x", f"{size}, {said}"))
    return figures


def _ratio(ours: list[float], theirs: dict[str, list[float]]) -> tuple[float, str]:
    best = max(statistics.median(speeds) for speeds in theirs.values())
    return round(statistics.median(ours) / best, 1), f"side by side: ours {ours}, without a gate: {theirs}"


def _peer(name: str, place: str, processes: int, runs: int) -> float:
    """Steps a second of a peer: the sum over its processes, each with its share of the runs."""
    script = ROOT / "benchmarks" / "peers" / f"{name}_steps.py"
    command = [str(_peers_python()), str(script), place, str(runs // processes), "20"]
    with tempfile.TemporaryDirectory(prefix="quarterdeck-peer-") as folder:
        if processes > 1:  # several that make their tables at once lock each other out, for ever or with an error
            subprocess.run([*command[:3], "1", "1"], stdout=subprocess.DEVNULL, cwd=folder, timeout=120, check=True)
        begun = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for _ in range(processes)]
        said = [process.communicate(timeout=600)[0] for process in begun]
    if any(process.returncode for process in begun):
        raise SystemExit(f"{name} failed on {place}")
    lines = [next(line for line in reversed(output.splitlines()) if line.startswith("{")) for output in said]
    return sum([float(msgspec.json.decode(line)["steps_per_s"]) for line in lines])


def _url(dsn: str) -> str:
    """A connection string as a URL, which is what the peers read."""
    parts = conninfo_to_dict(dsn)
    return f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}&port={parts['port']}"


def _peers_python() -> Path:
    home = BUILD / "peers"
    python = home / "bin" / "python"
    if not python.exists():
        print("  installing the peers into build/peers …", flush=True)
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
    return python


def service(rounds: int) -> list[Figure]:
    """The HTTP door."""
    found = [measured("service") for _ in range(rounds)]

    def middle(name: str) -> float:
        return float(statistics.median(item[name] for item in found))

    knee = f"open loop at half of {middle('admissions_per_s'):g} admissions/s: p50 {middle('half_knee_p50_ms'):g} ms"
    streams = f"{found[0]['streams']:g} streams of one run at once"
    return [
        Figure(
            "service.admissions_per_s",
            middle("admissions_per_s"),
            "1/s",
            "each durable before its answer; runs are driven meanwhile",
        ),
        Figure(
            "stream.first_byte_p50_ms",
            middle("first_byte_p50_ms"),
            "ms",
            f"from asking for a run; p99 {middle('first_byte_p99_ms'):g}",
        ),
        Figure("service.half_knee_p99_ms", middle("half_knee_p99_ms"), "ms", knee),
        Figure("stream.kib_per_stream", middle("kib_per_stream"), "KiB", streams),
    ]


def dependency(rounds: int) -> list[Figure]:
    """What each protection is worth when a provider fails or slows down; on virtual time, so one round says it all."""
    found = measured("dependency")
    figures = []
    for trouble, variants in found.items():
        for variant, phases in variants.items():
            name = f"dependency.{trouble}.{variant.replace(', ', '+')}"
            shown = "; ".join(
                f"{phase['success']:.1%}, p99 {phase['p99_ms']:g} ms, {phase['amplification']:g}x" for phase in phases
            )
            detail = f"minute by minute: success, p99 of successes, attempts per call: {shown}"
            figures.append(Figure(f"{name}.amplification", phases[1]["amplification"], "x", detail))
            figures.append(Figure(f"{name}.success", round(phases[1]["success"], 3), "", "in the first minute of trouble"))
    return figures


def programs(rounds: int) -> list[Figure]:
    """Workflows."""
    long = [measured("programs", "resume", 10_000) for _ in range(rounds)]
    both = [measured("programs", "steps", 200, 20) for _ in range(rounds)]
    said = ", ".join(f"{item['workflow_steps_per_s']} beside {item['agent_steps_per_s']}" for item in both)
    resumes = ", ".join(str(item["resume_s"]) for item in long)
    return [
        Figure(
            "programs.resume_10000_steps_s",
            statistics.median(item["resume_s"] for item in long),
            "s",
            f"from a signal to the end of a run of {long[0]['events']} events, in a new process; {rounds} rounds: {resumes}",
        ),
        Figure(
            "programs.steps_over_agent_steps",
            statistics.median(item["ratio"] for item in both),
            "x",
            f"200 runs x 20 governed tool calls, by a workflow and by an agent, in turn in one process: {said} steps/s",
        ),
    ]


def fleet(rounds: int) -> list[Figure]:
    """PostgreSQL with worker processes. The recovery figures name their lease."""
    figures = []
    for workers in (1, 2, 4):
        found = [measured("fleet", "steps", workers, 1_000, 20)["steps_per_s"] for _ in range(rounds)]
        said = f"1,000 runs x 20 tool calls; {rounds} rounds: {found}"
        figures.append(Figure(f"postgres.governed_steps_per_s.workers_{workers}", statistics.median(found), "1/s", said))
    for queued, words in ((0, "0"), (10_000, "10k"), (1_000_000, "1m")):
        one = measured("fleet", "claims", queued)
        figures.append(
            Figure(f"claim.p99_ms.queued_{words}", one["p99_ms"], "ms", f"one run at a time; p50 {one['p50_ms']:g} ms")
        )
        if not queued:
            figures.append(Figure("worker.idle_cpu_percent", one["idle_cpu_percent"], "%", "of one core, over ten seconds"))
    asleep = measured("lasting", "waiting", 1_000_000, 500)
    said = (
        f"500 of 1,000,000 waiting runs are sent a signal, 50 a second: until they have ended; p50 {asleep['wake_p50_ms']:g} ms"
    )
    figures.append(
        Figure("waiting.bytes_per_run", asleep["bytes_per_run"], "B", "memory of a runtime beside 1,000,000 waiting runs")
    )
    figures.append(Figure("waiting.wake_p99_ms", asleep["wake_p99_ms"], "ms", said))
    lost, left = measured("fleet", "recover", "kill", 1_000), measured("fleet", "recover", "stop", 1_000)
    said = f"the lease is {lost['lease_s']:g} s; p50 {lost['p50_s']:g} s"
    figures.append(Figure("recover.sigkill_1000_runs_s", lost["max_s"], "s", said))
    figures.append(
        Figure("recover.sigterm_1000_runs_s", left["max_s"], "s", f"effects under way take 1 s; p50 {left['p50_s']:g} s")
    )
    return figures


SUITES: dict[str, Callable[[int], list[Figure]]] = {
    "throughput": throughput,
    "alone": alone,
    "gate": gate,
    "dependency": dependency,
    "service": service,
    "programs": programs,
    "fleet": fleet,
    "peers": peers,
}


def main() -> int:
    """Run the chosen suites; the file is written in any case, with what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="suites whose names begin so: " + ", ".join(SUITES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-peers", action="store_true")
    chosen = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    figures: list[Figure] = []
    for name, suite in SUITES.items():
        if name.startswith(chosen.only) and not (name == "peers" and chosen.without_peers):
            print(f"{name} …", flush=True)
            found = suite(chosen.rounds)
            figures += found
            for figure in found:
                print(f"  {figure.name} = {figure.value:g} {figure.unit}  ({figure.detail})", flush=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    report = {"commit": commit, "machine": machine, "figures": figures}
    (BUILD / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    print(f"written: build/bench.json ({len(figures)} figures; {machine})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
