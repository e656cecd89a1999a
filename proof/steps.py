"""R10 and its neighbours: processes that run agents are killed at every durable step, and nothing may be lost or doubled.

A *trial* is a fresh folder: a victim runs agents until it is killed at a failpoint; perhaps a second one is killed while it recovers;
then a clean process brings everything to rest. The autopsy compares the store with the ledger that the tools wrote themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import msgspec

from proof import answers, hostile, late, revokes, stage
from proof.answers import Case
from proof.autopsy import Autopsy, examine
from proof.plants import BUGS, PLANTS
from proof.powercut import scratch
from proof.result import Suite, SuiteResult
from proof.victim import Ended, Files, Job
from quarterdeck.core.commit import DecideApproval
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.store.sqlite.visitor import visit
from quarterdeck.testing.patching import patched

PLANTED_PATIENCE_S = 1.0
"""How long a case waits where a planted bug may keep a run from ending at all."""
ROOT = Path(__file__).resolve().parents[1]


class Strike(msgspec.Struct, frozen=True):
    """One kill: at which passing of which point, and whose."""

    point: str
    occurrence: int = 1
    who: str = "owner"

    def __str__(self) -> str:
        return f"{self.who}@{self.point}#{self.occurrence}"


class Nursery:
    """The process whose forks are the victims."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proof.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=ROOT,
        )

    def run(self, job: Job) -> Ended:
        """Let one child live and die."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        process.stdin.flush()
        return msgspec.json.decode(process.stdout.readline(), type=Ended)

    def close(self) -> None:
        """End it, when its last child has ended."""
        self._process.communicate()


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery, ended in any case."""
    opened = Nursery()
    try:
        yield opened
    finally:
        opened.close()


def failpoints(nurse: Nursery, orders: int) -> Counter[str]:
    """Every failpoint of an undisturbed life, with how often it is passed."""
    folder = scratch()
    try:
        ended = nurse.run(Job(str(folder), orders))
        assert ended == Ended(), f"the undisturbed run ended as {ended}"
        line = (folder / "passed").read_bytes().splitlines()[-1]
        return Counter(msgspec.json.decode(line)["passed"])
    finally:
        shutil.rmtree(folder)


class Trial(msgspec.Struct):
    """What became of one trial."""

    strikes: tuple[Strike, ...]
    kills: int
    findings: list[str]
    doubtful: list[str] = []
    lost: int = 0
    doubled: int = 0
    effects: int = 0
    accounts: int = 0


def trial(nurse: Nursery, strikes: Sequence[Strike], orders: int, *, plant: str = "", outside: bool = False) -> Trial:
    """Strike after strike on the same files, then a clean life, then the autopsy.

    With ``outside`` the parent answers what waits for approval between the lives, through the file, as another process would.
    """
    folder = scratch()
    files = Files(folder)
    try:
        trouble = []
        for number, strike in enumerate(strikes):
            job = Job(str(folder), orders, strike.point, strike.occurrence, strike.who, heals=number > 0, plant=plant)
            ended = nurse.run(job)
            if ended not in (Ended(), Ended(signal.SIGKILL)):
                trouble.append(f"the victim ended as {ended}: {_trouble(files)}")
            if outside:
                _answer(files)
        ended = nurse.run(Job(str(folder), heals=True, plant=plant))
        if ended != Ended():
            trouble.append(f"the clean life ended as {ended}: {_trouble(files)}")
        autopsy = examine(files) if files.store.exists() else Autopsy()
        return Trial(
            tuple(strikes),
            files.passed.read_bytes().count(b'{"struck"') if files.passed.exists() else 0,
            trouble + autopsy.findings,
            autopsy.doubtful,
            len(autopsy.lost),
            len(autopsy.doubled),
            autopsy.effects,
            autopsy.accounts,
        )
    finally:
        shutil.rmtree(folder)


def _trouble(files: Files) -> str:
    return files.trouble.read_text() if files.trouble.exists() else ""


def _answer(files: Files) -> None:
    if not files.store.exists() or not files.accepted.exists():
        return
    insights = SqliteInsights(files.store)
    try:
        for row in insights.approvals():
            visit(files.store, DecideApproval(row.approval, row.digest, "approved", "boss", "", row.expires_at_us - 1))
    finally:
        insights.close()


def systematic(points: Counter[str]) -> list[tuple[Strike, ...]]:
    """Every failpoint, at its first passing and at its last."""
    plans = []
    for point, times in sorted(points.items()):
        plans += [(Strike(point, occurrence),) for occurrence in sorted({1, times})]
    return plans


def drawn(points: Counter[str], seed: int) -> Iterator[tuple[Strike, ...]]:
    """Random failpoints, for ever: one kill or several in a row, of the owner, its writer or both."""
    chance = random.Random(f"steps/{seed}")
    names = sorted(points)
    while True:
        plan = []
        for number in range(chance.choice((1, 1, 2, 3))):
            point = chance.choice(names)
            # In a recovery everything happens fewer times.
            occurrence = chance.randint(1, points[point] if not number else max(1, points[point] // 2))
            plan.append(Strike(point, occurrence, chance.choice(("owner", "owner", "writer", "both"))))
        yield tuple(plan)


class Tally:
    """The sum of many trials."""

    def __init__(self) -> None:
        self.trials = self.kills = self.lost = self.doubled = self.effects = self.accounts = 0
        self.doubtful: Counter[str] = Counter()
        self.bad: list[str] = []
        self.struck: set[str] = set()

    def add(self, one: Trial) -> None:
        """Count a trial."""
        self.trials += 1
        for name in ("kills", "lost", "doubled", "effects", "accounts"):
            setattr(self, name, getattr(self, name) + getattr(one, name))
        self.doubtful.update(line.partition(" ")[2] for line in one.doubtful)
        if one.kills:
            self.struck |= {strike.point for strike in one.strikes}
        if one.findings:
            self.bad.append(f"{' then '.join(map(str, one.strikes))}: {'; '.join(one.findings[:3])}")


def crash(nurse: Nursery, plans: Iterable[tuple[Strike, ...]], kills: int, orders: int) -> Tally:
    """Trials until so many kills have struck, or the plans are used up."""
    tally = Tally()
    for number, plan in enumerate(plans):
        if tally.kills >= kills:
            break
        tally.add(trial(nurse, plan, orders, outside=number % 2 == 1))
    return tally


TELLING = (
    Strike("tool.within:mail"),
    Strike("tool.within:pay"),
    Strike("tool.within:note"),
    Strike("after:tool.closed"),
    Strike("tool.at:mail"),
)
"""Kills at which every planted bug shows."""


def caught(nurse: Nursery, orders: int) -> dict[str, str]:
    """For each planted bug of the step suite, what noticed it; empty where nothing did."""
    found = {}
    for bug in BUGS:
        if bug.suite == "step-failpoints":
            trials = (trial(nurse, (strike,), orders, plant=bug.name) for strike in TELLING)
            found[bug.name] = next((one.findings[0] for one in trials if one.findings), "")
    return found


def step_failpoints(kills: int, orders: int, seed: int = 1, *, thorough: bool = True) -> SuiteResult:
    """R10 and R24: at least so many kills; the accounts are compared with the journals after each."""
    start = perf_counter()
    with nursery() as nurse:
        points = failpoints(nurse, orders)
        tally = crash(nurse, systematic(points), 10**9, orders) if thorough else Tally()
        rest = crash(nurse, drawn(points, seed), max(0, kills - tally.kills), orders)
        bugs = caught(nurse, orders)
    for name in ("trials", "kills", "lost", "doubled", "doubtful", "effects", "accounts"):
        setattr(tally, name, getattr(tally, name) + getattr(rest, name))
    bad = tally.bad + rest.bad
    detail: dict[str, object] = {
        "kills": tally.kills, "failpoints": len(points), "struck": len((tally.struck | rest.struck) & set(points)),
        "lost": tally.lost, "doubled": tally.doubled, "doubtful": dict(tally.doubtful), "effects": tally.effects,
        "accounts_compared": tally.accounts, "bugs": bugs,
    }  # fmt: skip
    if bad:
        detail["first_failures"] = bad[:5]
    return SuiteResult(
        "step-failpoints", tally.trials, len(bad), len(bugs), sum(bool(found) for found in bugs.values()),
        (perf_counter() - start) / 60, detail,
    )  # fmt: skip


def findings(case: Case) -> list[str]:
    """What one case finds; an exception of the case itself is a finding, too."""
    try:
        return asyncio.run(case())
    except (AssertionError, QuarterdeckError, TimeoutError) as error:
        return [f"{type(error).__name__}: {error}"]


def in_process(name: str, cases: Mapping[str, Case], telling: Mapping[str, str] | None = None) -> SuiteResult:
    """A suite of cases; ``telling`` names, for each planted bug, the case that has to notice it."""
    start = perf_counter()
    logging.disable(logging.CRITICAL)  # quarantines and late owners complain, as they should
    try:
        bad = {case: found for case, body in cases.items() if (found := findings(body))}
        bugs = {}
        for bug, case in (telling or {}).items():
            with PLANTS[bug].planted(), patched(stage, "PATIENCE_S", PLANTED_PATIENCE_S):
                bugs[bug] = (findings(cases[case]) or [""])[0]
    finally:
        logging.disable(logging.NOTSET)
    detail: dict[str, object] = {"cases": len(cases), "bugs": bugs}
    if bad:
        detail["first_failures"] = [f"{case}: {'; '.join(found[:3])}" for case, found in list(bad.items())[:5]]
    minutes = (perf_counter() - start) / 60
    return SuiteResult(name, len(cases), len(bad), len(bugs), sum(bool(found) for found in bugs.values()), minutes, detail)


TELLING_CASES: dict[str, dict[str, str]] = {
    "lost-tool-answer": {
        "receipts are not flushed": "receipts at once",
        "only the last attempt counts": "lost_then_refused, connection",
        "lost answers count as failures": "other, timeout",
    },
    "revoke-in-retry": {
        "attempts are not checked": "cancel, lost",
        "perform-by is not checked": "perform-by, lost",
        "time-outs are retried in place": "timed out under way, limit 600",
        "a recovery does not look at revocations": "switch while a recovery asks",
    },
    "late-receipt": {
        "late receipts are ignored": "in time, other",
        "a new owner does not wait": "in time, other",
        "late receipts are not shown": "in time, idempotent",
        "nothing is held back": "hastily resolved",
        "doubt is forgotten at a crash": "after a crash, idempotent, done=True",
    },
    "hostile-input": {
        "journals are not checked": "stored: payload of another event",
        "messages are not checked": "message: lone surrogate in the text",
    },
}
"""For each suite: its planted bugs, and the case that notices each."""


def _suite(name: str, cases: Mapping[str, Case], more: Callable[[bool], Iterable[tuple[str, Case]]] | None = None) -> Suite:
    def run(quick: bool) -> SuiteResult:
        every = {**cases, **dict(more(quick) if more is not None else ())}
        return in_process(name, every, TELLING_CASES[name])

    return Suite(name, run)


SUITES = (
    Suite("step-failpoints", lambda quick: step_failpoints(12 if quick else 400, 1 if quick else 2, thorough=not quick)),
    _suite("lost-tool-answer", answers.CASES),
    _suite("revoke-in-retry", revokes.CASES),
    _suite("late-receipt", late.CASES),
    _suite("hostile-input", hostile.CASES, lambda quick: hostile.flips(20 if quick else 2_000)),
)
"""R10 with R24, R14, R26, R27, and B02 and B03 as far as they concern runs."""
