"""R07, R11, R12, R23, O01: workers and their database are killed, paused, restarted and stopped under load, on a real PostgreSQL.

Each suite states what is measured: how long until the last run of a dead worker moves again (its journal has grown under a new epoch), how
many stale writes were tried and accepted, how many acknowledged commits were lost, what a stop in order takes and leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

import msgspec

from proof.crew import STEPS, Duty, crew
from proof.result import Suite, SuiteResult
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.commit import Applied, Claim, Claimed, Commit, Outcome
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.journal import PostgresJournal
from quarterdeck.store.postgres.opening import prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing import ledger
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.mutants_postgres import install, rewritten
from quarterdeck.testing.patching import patched
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US, admission

LEASE_S = 4.0
"""The lease of these suites; half of the default."""
PATIENCE_S = 120.0
"""A run that has not ended by then is a finding."""
Found = tuple[list[str], dict[str, object]]
"""What was wrong, and the figures."""
LENGTHS = (*[100] * 30, *[1_000] * 9, 10_000)
"""Runs in flight at each of the forty kills of a long run."""
ROOT = Path(__file__).resolve().parents[1]


class Yard:
    """A database, a ledger, and worker processes on them."""

    def __init__(self, server: Server, folder: Path, dsn: str, **duty: object) -> None:
        self.server = server
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.duty = msgspec.structs.replace(Duty(dsn, str(self.ledger), "", lease_s=LEASE_S, perform_s=3.0), **duty)
        self.folder = folder
        self.workers: list[asyncio.subprocess.Process] = []

    async def worker(self, name: str, **duty: object) -> asyncio.subprocess.Process:
        """A worker that is ready."""
        said = msgspec.json.encode(msgspec.structs.replace(self.duty, name=name, **duty)).decode()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *[entry for entry in sys.path if entry]])}
        with (self.folder / f"{name}.log").open("ab") as log:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proof.crew", said), stdout=asyncio.subprocess.PIPE, stderr=log, env=env, cwd=ROOT
            )
        self.workers.append(worker)
        if worker.stdout is None or await worker.stdout.readline() != b"ready\n":
            raise RuntimeError((self.folder / f"{name}.log").read_text()[-2_000:])
        return worker

    def log(self, name: str) -> str:
        """What a worker has logged."""
        return (self.folder / f"{name}.log").read_text()

    @asynccontextmanager
    async def door(self, **duty: object) -> AsyncIterator[Runtime]:
        """A runtime that asks for runs and drives none."""
        deck = crew(msgspec.structs.replace(self.duty, **duty))
        async with deck.start(open_store=open_store(self.duty.dsn), work=False, worker="door") as rt:
            yield rt

    def rows(self) -> dict[str, tuple[int, int, str | None]]:
        """Sequence, epoch and holder of every run."""
        found = self.server.execute("SELECT run_id, seq, epoch, worker FROM quarterdeck.runs", self.duty.dsn)
        return {
            str(run): (int(str(seq)), int(str(epoch)), None if holder is None else str(holder))
            for run, seq, epoch, holder in found
        }

    def ended(self) -> int:
        """How many runs have succeeded."""
        ((count,),) = self.server.execute("SELECT count(*) FROM quarterdeck.runs WHERE status = 'succeeded'", self.duty.dsn)
        return int(str(count))

    def findings(self, runs: int) -> list[str]:
        """What must hold in the end: every run has ended well, every journal verifies, the books agree, every effect happened."""
        found = [] if self.ended() == runs else [f"{runs - self.ended()} of {runs} runs have not ended well"]
        with contextlib.closing(PostgresInsights(self.duty.dsn)) as insights:
            for name in list(self.rows())[:500]:
                try:
                    verify_run(insights, name)
                except QuarterdeckError as error:
                    found.append(str(error))
            found += ledger.differences(insights)
        keys = {line.split()[1] for line in self.ledger.read_text().splitlines() if line.startswith("ended ")}
        return found if len(keys) == runs * STEPS else [*found, f"{len(keys)} effects for {runs * STEPS} steps"]


@asynccontextmanager
async def yard(plant: AbstractContextManager[object], **duty: object) -> AsyncIterator[Yard]:
    """A server of its own, with what a planted bug makes of its functions."""
    server = await asyncio.to_thread(Server.start)
    with tempfile.TemporaryDirectory(prefix="qdproof-") as folder:
        dsn = server.database()
        prepare(dsn, 1)
        with plant:
            install(dsn)
        made = Yard(server, Path(folder), dsn, **duty)
        try:
            yield made
        finally:
            for worker in made.workers:
                if worker.returncode is None:
                    worker.kill()
                await worker.communicate()
            await asyncio.to_thread(server.stop)


async def comes(holds: Callable[[], bool], for_s: float = PATIENCE_S) -> bool:
    """Whether this becomes true in time; asked often, but nine tenths of the time not at all, so that a long look does no harm."""
    end_s = time.monotonic() + for_s
    while True:
        asked_s = time.monotonic()
        if await asyncio.to_thread(holds):
            return True
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(max(0.05, 9 * (time.monotonic() - asked_s)))


async def submitted(rt: Runtime, runs: int, intent: str = "haul") -> None:
    """Ask for so many runs."""
    for start in range(0, runs, 500):
        asked = range(start, min(runs, start + 500))
        await asyncio.gather(*[rt.submit(intent, number if intent == "haul" else {}) for number in asked])


async def killed(runs: int, plant: AbstractContextManager[object], *, stop: bool = False, for_s: float = 0.0) -> Found:
    """Kill (or, with ``stop``, stop in order) the worker that holds so many runs, while another is up; how soon each moves again."""
    patience_s = PATIENCE_S + runs * 0.06
    async with yard(plant, latency_s=1.0 if stop else 20.0 + runs * 0.01) as there:
        first = await there.worker("first")
        async with there.door() as rt:
            await submitted(rt, runs)
            await comes(lambda: sum([row[2] == "first" for row in there.rows().values()]) == runs, patience_s)
            await comes(lambda: there.ledger.read_text().count("begun") >= runs, patience_s)
            second = await there.worker("second", latency_s=0.0)
            first.send_signal(signal.SIGTERM if stop else signal.SIGKILL)
            since_s = time.monotonic()
            if not stop:
                await first.wait()
            before = await asyncio.to_thread(there.rows)
            left = {name for name, row in before.items() if row[2] == "first"}
            moved: list[float] = []

            def look() -> bool:
                now, at_s = there.rows(), time.monotonic() - since_s
                for name in [name for name in left if now[name][1] > before[name][1] and now[name][0] > before[name][0]]:
                    left.discard(name)
                    moved.append(at_s)
                return not left

            all_moved = await comes(look, for_s or patience_s)
            found = [] if all_moved else [f"{len(left)} of {runs} runs have not moved"]
            if all_moved and await comes(lambda: there.ended() == runs, patience_s):
                found += there.findings(runs)
            elif all_moved:
                found.append(f"{runs - there.ended()} of {runs} runs have not ended")
            second.terminate()
        moved.sort()
        figures: dict[str, object] = {"in_flight": runs, "lease_s": LEASE_S}
        if moved:
            figures |= {"p50_s": _at(moved, 0.5), "p99_s": _at(moved, 0.99), "max_s": round(moved[-1], 2)}
        return found, figures


def _at(values: Sequence[float], part: float) -> float:
    return round(values[min(len(values) - 1, int(part * len(values)))], 2)


async def paused(runs: int, plant: AbstractContextManager[object]) -> Found:
    """Stop a worker's process for longer than its lease; somebody else claims its runs and writes nothing; let it go on."""
    async with yard(plant, latency_s=1.0) as there:
        first = await there.worker("first")
        async with there.door() as rt:
            await submitted(rt, runs)
        await comes(lambda: there.ledger.read_text().count("begun") >= runs)
        first.send_signal(signal.SIGSTOP)
        journal = await PostgresJournal.open(there.duty.dsn, lambda: 1)
        taken: list[str] = []
        try:
            end_s = time.monotonic() + LEASE_S + 10.0
            while len(taken) < runs and time.monotonic() < end_s:
                answer = await journal.submit(Claim("claimant", runs, time.time_ns() // 1_000))
                taken += [run.run_id for run in answer.runs] if isinstance(answer, Claimed) else []
                await asyncio.sleep(0.1)
            before = there.rows()
            first.send_signal(signal.SIGCONT)
            await comes(lambda: there.log("first").count("another owner") >= len(taken), 15.0)
            after = there.rows()
        finally:
            await journal.close()
        accepted = [name for name in taken if after[name][0] != before[name][0]]
        tried = there.log("first").count("another owner") + len(accepted)
        found = [f"{len(accepted)} stale writes were accepted"] if accepted else []
        if len(taken) < runs or tried < len(taken):
            found.append(f"of {runs} runs {len(taken)} were taken over, and {tried} stale writes tried")
        if not found:
            found += [] if await comes(lambda: there.ended() == runs) else ["not every run has ended"]
            found += there.findings(runs)
        return found, {"runs": runs, "tried": tried, "accepted": len(accepted), "lease_s": LEASE_S}


async def database_killed(kills: int, plant: AbstractContextManager[object], *, gently: bool = False) -> Found:
    """Kill (or restart) the database under load, again and again: everything that was acknowledged is there."""
    server = await asyncio.to_thread(Server.start)
    try:
        dsn = server.database()
        with plant:
            journal = await PostgresJournal.open(dsn, lambda: 1)
            acknowledged: Counter[str] = Counter()
            stop = asyncio.Event()

            async def surely(op: Commit | Claim) -> Outcome:
                while True:
                    with contextlib.suppress(Unavailable):
                        return await journal.submit(op)
                    await asyncio.sleep(0.02)

            async def append(name: str) -> None:
                seq = 1
                while not stop.is_set():
                    op = Commit(name, seq, 1, journal.incarnation, (note(f"{name} {seq}"),), T0_US + seq)
                    outcome = await surely(op)
                    if not isinstance(outcome, Applied):
                        return
                    seq = outcome.number
                    acknowledged[name] = seq

            names = [f"n{number}" for number in range(40)]
            for name in names:
                await surely(admission(name, incarnation=journal.incarnation))
            await surely(Claim("w1", 100, T0_US, "t"))
            writing = [asyncio.ensure_future(append(name)) for name in names]
            for _ in range(kills):
                floor = sum(acknowledged.values()) + 400
                await comes(partial(_more, acknowledged, floor), 30.0)
                if not gently:
                    os.kill(int((Path(_folder(server)) / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
                await asyncio.to_thread(_restart, server)
            stop.set()
            await asyncio.wait(writing, timeout=30.0)
            for task in writing:
                task.cancel()
            await journal.close()
        found = []
        with contextlib.closing(PostgresInsights(dsn)) as insights:
            for name in names:
                row = insights.run(name)
                there = row.seq if row is not None else 0
                if there < acknowledged[name]:
                    found.append(f"{acknowledged[name] - there} acknowledged events of {name} are lost")
                try:
                    verify_run(insights, name)
                except QuarterdeckError as error:
                    found.append(str(error))
            found += ledger.differences(insights)
        return found, {"kills": kills, "acknowledged": sum(acknowledged.values()), "lost": len(found)}
    finally:
        await asyncio.to_thread(server.stop)


def _folder(server: Server) -> str:
    from psycopg.conninfo import conninfo_to_dict

    return str(conninfo_to_dict(server.dsn)["host"])


def _restart(server: Server) -> None:
    """The new server may find that the old one's last children are still ending."""
    for attempt in range(20):
        try:
            server.restart()
        except LookupError:
            if attempt == 19:
                raise
            time.sleep(0.3)
        else:
            return


async def drained(runs: int, rounds: int, plant: AbstractContextManager[object], *, abrupt: bool = False) -> Found:
    """Restart workers one after the other under load: each ends in order, cuts nothing off, and leaves nothing behind."""
    async with yard(plant, latency_s=0.5, active=6, abrupt=abrupt) as there:
        up = [await there.worker("w0"), await there.worker("w1")]
        took: list[float] = []
        found: list[str] = []
        each = runs // rounds
        async with there.door() as rt:
            for number in range(rounds):
                up.append(await there.worker(f"w{number + 2}"))
                await submitted(rt, each)
                if not await comes(partial(_at_work, there.ledger, f"w{number}"), 20.0):
                    found.append(f"w{number} had nothing to do when it was stopped")
                leaving = up.pop(0)
                began_s = time.monotonic()
                leaving.terminate()
                if await leaving.wait():
                    found.append(f"a worker ended with status {leaving.returncode}")
                took.append(time.monotonic() - began_s)
            if not await comes(lambda: there.ended() == each * rounds):
                found.append(f"{each * rounds - there.ended()} of {each * rounds} runs have not ended")
        lines = Counter(line.split()[0] for line in there.ledger.read_text().splitlines())
        if lines["begun"] != lines["ended"]:
            found.append(f"{lines['begun'] - lines['ended']} effects were cut off")
        held = [name for name, row in there.rows().items() if row[2] is not None]
        found += [f"{len(held)} runs are still held"] if held else []
        found += there.findings(runs)
        return found, {
            "runs": runs,
            "stops": rounds,
            "max_s": round(max(took), 2),
            "begun": lines["begun"],
            "ended": lines["ended"],
        }


def _under_way(ledger: Path, name: str) -> int:
    """Effects that a worker is performing."""
    mine = Counter(line.split()[0] for line in ledger.read_text().splitlines() if line.endswith(f" {name}"))
    return mine["begun"] - mine["ended"]


def _at_work(ledger: Path, name: str) -> bool:
    return _under_way(ledger, name) > 0


def _more(acknowledged: Counter[str], floor: int) -> bool:
    return acknowledged.total() > floor


def _told_too_early() -> AbstractContextManager[object]:
    """A store that answers before it has written."""
    original = PostgresJournal._write

    async def early(self: PostgresJournal, db: object, group: list[tuple[object, asyncio.Future[Outcome]]]) -> None:
        for op, future in group:
            if isinstance(op, Commit) and op.new is None and not future.done():
                future.set_result(Applied(op.seq + len(op.records)))
        await original(self, db, group)  # type: ignore[arg-type]

    return patched(PostgresJournal, "_write", early)


FOREVER = rewritten(("release_expired", "lease_until < clock_timestamp()", "false"))
STALE = rewritten(
    ("append", "AND epoch = (op -> 'epoch')::bigint AND worker IS NOT NULL", "AND true"),
)


def suite_of(
    name: str,
    trials: Callable[[bool], list[Callable[[], Awaitable[Found]]]],
    bugs: dict[str, Callable[[], Awaitable[Found]]],
) -> Suite:
    """A suite of trials, each of which must find nothing, and of planted bugs, each of which must be found."""

    def run(quick: bool) -> SuiteResult:
        began_s = time.monotonic()
        detail: dict[str, object] = {}
        failures, caught, chosen = 0, 0, trials(quick)
        for number, trial in enumerate(chosen, 1):
            found, figures = asyncio.run(_awaited(trial))
            detail[f"trial_{number}"] = figures
            if found:
                failures += 1
                detail[f"wrong_{number}"] = found[:10]
        for bug, trial in bugs.items():
            found, _ = asyncio.run(_awaited(trial))
            caught += bool(found)
            if not found:
                detail[f"missed: {bug}"] = True
        minutes = (time.monotonic() - began_s) / 60
        return SuiteResult(name, len(chosen), failures, len(bugs), caught, minutes, detail)

    return Suite(name, run)


async def _awaited(trial: Callable[[], Awaitable[Found]]) -> Found:
    return await trial()


SUITES = (
    suite_of(
        "worker-kill",
        lambda quick: [partial(killed, runs, nullcontext()) for runs in ((30,) if quick else LENGTHS)],
        {"expired leases are left alone": lambda: killed(10, FOREVER(), for_s=LEASE_S + 8.0)},
    ),
    suite_of(
        "paused-worker",
        lambda quick: [lambda: paused(20 if quick else 200, nullcontext()) for _ in range(1 if quick else 5)],
        {"a stale epoch may write": lambda: paused(10, STALE())},
    ),
    suite_of(
        "pg-kill9",
        lambda quick: [lambda: database_killed(2 if quick else 40, nullcontext())],
        {"told before it is written": lambda: database_killed(3, _told_too_early())},
    ),
    suite_of(
        "db-restart",
        lambda quick: [lambda: database_killed(2 if quick else 40, nullcontext(), gently=True)],
        {"told before it is written": lambda: database_killed(3, _told_too_early(), gently=True)},
    ),
    suite_of(
        "drain",
        lambda quick: [
            lambda: drained(40 if quick else 720, 2 if quick else 24, nullcontext()),
            lambda: killed(30 if quick else 1_000, nullcontext(), stop=True),
        ],
        {"a stop does not wait": lambda: drained(40, 2, nullcontext(), abrupt=True)},
    ),
)
"""What `python -m proof` runs."""
