"""R13: the answer to a commit is lost, because the writer dies; and R25: one poisonous commit in a full group.

Deaths are enumerated (at each point of the n-th group) and sampled (SIGKILL from outside, at random moments under load). Afterwards
everything must have been answered, every event must be there exactly once, and accounts must agree with the journals.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter

import msgspec

from proof.powercut import INCARNATION, scratch
from proof.pressure import Pressure, event, inspect
from proof.result import SuiteResult
from proof.writers import POINTS, in_place
from quarterdeck.core.commit import Applied, Commit, NewRun, Refused
from quarterdeck.core.errors import Unavailable
from quarterdeck.store.sqlite.journal import GROUP, SqliteJournal
from quarterdeck.testing.storeload import START_US

RUNS = 12


class NeverResends(SqliteJournal):
    """Planted: what was under way when the writer died is not sent again; its callers are told that it failed."""

    async def _restart(self) -> None:
        reason = await self._replaced()
        self._restarting = None
        if reason or self._sent:
            self._fault = Unavailable("store.lost", "planted: operations under way were forgotten")
            for group in self._sent.values():
                for _, future in group:
                    if not future.done():
                        future.set_exception(self._fault)
            self._sent.clear()


def died_at(point: str, nth: int, mutant: str = "none", journal: type[SqliteJournal] = SqliteJournal) -> tuple[bool, list[str]]:
    """One load whose writer dies once at that point: whether it was reached, and the findings."""
    folder = scratch()
    path = folder / "store.db"
    try:
        with in_place(point, nth, mutant):
            findings = asyncio.run(_pressed(path, journal, lambda _: None))
        reached = (folder / "store.db.died").exists()
        return reached, findings
    finally:
        shutil.rmtree(folder)


async def _pressed(path: Path, journal: type[SqliteJournal], watch: Callable[[SqliteJournal], None]) -> list[str]:
    acknowledged: dict[str, int] = {}
    store = await journal.open(path, INCARNATION)

    def told(run_id: str, seq: int) -> None:
        acknowledged[run_id] = seq
        watch(store)

    findings = list(await Pressure(store, "p", RUNS, told).go())
    await store.close()
    return findings + inspect(path, acknowledged, finished=True)


def killed(kills: int, seed: int) -> tuple[int, list[str]]:
    """Loads under which the writer is killed from outside, so many times in all; returns the kills done and the findings."""
    rng = Random(seed)
    done = 0
    findings: list[str] = []
    while done < kills and not findings:
        countdown = rng.randint(1, 20)

        def watch(store: SqliteJournal) -> None:
            nonlocal countdown, done
            countdown -= 1
            if countdown == 0 and done < kills:
                _spin(rng.random() * 0.003)
                os.kill(store.writer_pid, signal.SIGKILL)
                done += 1
                countdown = rng.randint(5, 40)

        folder = scratch()
        try:
            findings = asyncio.run(_pressed(folder / "store.db", SqliteJournal, watch))
        finally:
            shutil.rmtree(folder)
    return done, findings


def _spin(seconds: float) -> None:
    """Busy, so that the writer gets to another point of its group before the blow."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def poisoned(mutant: str = "none") -> list[str]:
    """A full group with one poisonous commit in it, of each kind: all others must land."""
    folder = scratch()
    try:
        with in_place(mutant=mutant):
            return asyncio.run(_poisoned(folder / "store.db"))
    finally:
        shutil.rmtree(folder)


def admission(run_id: str, at_us: int = START_US, salt: bytes = bytes(16)) -> Commit:
    """An admission; its event is the one that :func:`~proof.pressure.event` names."""
    return Commit(run_id, 0, 0, INCARNATION, (event(run_id, 1),), at_us, new=NewRun("t", "r", "a", "u", at_us, salt))


POISONS: dict[str, Callable[[str], Commit]] = {
    "a number that SQLite cannot hold": lambda name: admission(name, at_us=2**63),
    "a number that the wire cannot hold": lambda name: admission(name, at_us=2**70),
    "a name that is no text": lambda name: msgspec.structs.replace(admission(name), run_id=name + "\udc80"),
    "a key that cannot be a key": lambda name: admission(name, salt=bytes(65)),
    "a value of the wrong type": lambda name: admission(name, at_us="soon"),  # type: ignore[arg-type]
}


async def _poisoned(path: Path) -> list[str]:
    findings: list[str] = []
    acknowledged: dict[str, int] = {}
    store = await SqliteJournal.open(path, INCARNATION)
    for number, (kind, make) in enumerate(POISONS.items()):
        names = [f"g{number}-{place}" for place in range(GROUP)]
        group = [make(name) if place == GROUP // 3 else admission(name) for place, name in enumerate(names)]
        outcomes = await asyncio.gather(*(store.submit(op) for op in group), return_exceptions=True)
        for place, outcome in enumerate(outcomes):
            if place == GROUP // 3:
                if not (isinstance(outcome, Refused) and outcome.guard == "poison"):
                    findings.append(f"{kind}: answered with {outcome!r}")
            elif outcome == Applied(1):
                acknowledged[names[place]] = 1
            else:
                findings.append(f"{kind}: its neighbour was answered with {outcome!r}")
    await store.close()
    return findings + inspect(path, acknowledged, finished=False)


def unknown_commit(groups: int, kills: int, seed: int) -> SuiteResult:
    """A death at every point of the first ``groups`` groups, ``kills`` kills at random, and the poisons."""
    start = perf_counter()
    findings: list[str] = []
    trials = 0
    for nth in range(1, groups + 1):
        for point in POINTS:
            reached, found = died_at(point, nth)
            trials += reached
            findings += [f"died {point} group {nth}: {finding}" for finding in found[:2]]
    done, found = killed(kills, seed)
    findings += [f"killed, seed {seed}: {finding}" for finding in found[:2]]
    findings += [f"poison: {finding}" for finding in poisoned()[:2]]
    caught = {
        "resend_not_done": died_at("before", 2, journal=NeverResends)[1],
        "appends_again_on_resend": died_at("after", 6, "again")[1],
        "answers_before_commit": died_at("before", 4, "early")[1],
        "claim_forgotten": next((found for nth in range(2, 12) if (found := died_at("after", nth, "forgets")[1])), []),
        "poison_costs_its_group": poisoned("whole"),
    }
    detail: dict[str, object] = {
        "deaths_enumerated": trials, "kills": done, "poisons": len(POISONS),
        "mutants": {name: found[0] if found else "" for name, found in caught.items()},
    }  # fmt: skip
    if findings:
        detail["findings"] = findings[:5]
    return SuiteResult(
        "sqlite-unknown-commit", trials + done + len(POISONS), len(findings), len(caught), sum(map(bool, caught.values())),
        (perf_counter() - start) / 60, detail,
    )  # fmt: skip
