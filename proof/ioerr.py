"""R06: the n-th call to the disk fails, for n = 1, 2, 3 … until the load runs clean.

After the fault the product must stop: the error surfaces, nothing more is written or synced on the same descriptors, nothing
acknowledged is missing when the file is opened again, whatever became of what had not been synced.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import perf_counter

import apsw

from proof.powercut import INCARNATION, NOTHING, examine, scratch
from proof.result import SuiteResult
from quarterdeck.core.commit import Op, Outcome
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import connect, prepare
from quarterdeck.store.sqlite.visitor import visit
from quarterdeck.testing.faultdisk import Failing, FaultyDisk
from quarterdeck.testing.powercut import Fate, Replay
from quarterdeck.testing.storeload import LoadRefused, StoreLoad, fingerprint

BATCHES = 12
CHECKPOINT_PAGES = 20


@dataclass(slots=True)
class Trial:
    """One load with one fault: how far it came, what it was doing, and what stopped it."""

    folder: Path
    nth: int
    failing: Failing
    states: list[bytes] = field(default_factory=lambda: [NOTHING])
    begun: int = 0
    stopped: str = ""


class AnswersAnyway(Applier):
    """Planted: takes an error of the storage for a hiccup and answers as if the batch were in."""

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        try:
            return super().apply(batch)
        except (apsw.IOError, apsw.FullError):
            self._execute("BEGIN IMMEDIATE")
            outcomes = [self._operation(op) for op in batch]
            self._execute("ROLLBACK")
            return outcomes


class TriesAgain(Applier):
    """Planted: applies the batch once more on the same descriptors."""

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        try:
            return super().apply(batch)
        except (apsw.IOError, apsw.FullError):
            return super().apply(batch)


class AutomaticCheckpoints(Applier):
    """Planted: leaves checkpoints to SQLite, which does not say when one fails."""

    def __init__(self, connection: apsw.Connection, checkpoint_pages: int) -> None:
        super().__init__(connection, checkpoint_pages)
        connection.set_wal_hook(None)
        connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}")


MUTANTS: tuple[type[Applier], ...] = (AnswersAnyway, TriesAgain)


def attempt(seed: int, nth: int, failing: Failing, applier: type[Applier] = Applier) -> tuple[bool, str]:
    """One trial: whether the fault was reached at all, and what is wrong, if anything."""
    trial = Trial(scratch(), nth, failing)
    try:
        with FaultyDisk(trial.folder, nth, failing) as disk:
            try:
                _load(trial, seed, disk, applier)
            except (apsw.Error, QuarterdeckError) as error:
                trial.stopped = f"{type(error).__name__}: {error}"
            except LoadRefused as error:
                return True, f"refused: seed {seed}, {failing} at call {nth} ({disk.failed}): {error}"
            # What a process does when it ends at once: nothing more.
            disk.dead = True
        return bool(disk.failed), _judged(trial, disk, seed) if disk.failed else ""
    finally:
        shutil.rmtree(trial.folder)


def _load(trial: Trial, seed: int, disk: FaultyDisk, applier: type[Applier]) -> None:
    path = trial.folder / "store.db"
    trial.begun = 1
    disk.phase = "make"
    disk.mark(1, 0)
    prepare(path, INCARNATION)
    db = connect(path)
    try:
        trial.states.append(_state(db, disk))
        writer = applier(db, checkpoint_pages=CHECKPOINT_PAGES)
        load = StoreLoad(seed, INCARNATION)
        for begun in range(2, BATCHES + 2):
            trial.begun = begun
            disk.mark(begun, begun - 1)
            disk.phase = "visit" if begun % 5 == 0 else "apply"
            load.learn([visit(path, _delivery(load))] if begun % 5 == 0 else writer.apply(load.batch()))
            disk.mark(begun, begun)
            trial.states.append(_state(db, disk))
            disk.phase = "checkpoint"
            writer.checkpoint()
    finally:
        disk.dead = True
        with contextlib.suppress(apsw.Error):
            db.close()


def _delivery(load: StoreLoad) -> Op:
    op = load.delivery()
    if op is None:
        raise ValueError("the load has no run to deliver to")
    return op


def _state(db: apsw.Connection, disk: FaultyDisk) -> bytes:
    """The fingerprint, read without using up calls of the disk."""
    calls, disk.calls = disk.calls, -(1 << 30)
    found = fingerprint(db)
    disk.calls = calls
    return found


def _judged(trial: Trial, disk: FaultyDisk, seed: int) -> str:
    where = f"seed {seed}, {trial.failing} at call {trial.nth} ({disk.failed}, {disk.failed_in} of batch {trial.begun})"
    acknowledged = len(trial.states) - 1
    # SQLite may do without a page that it wanted to read ahead, and while a store is made there is nothing to lose yet.
    if disk.failed_in != "make" and (trial.stopped or not disk.failed.startswith("read")):
        if not trial.stopped:
            return f"swallowed: {where}"
        if disk.after:
            return f"went on: {where}: {disk.after[0]}"
    allowed, older = trial.states[acknowledged:], trial.states[:acknowledged]
    # A batch that was begun may be there whole; its state is not known here, so it is learned from a disk that kept everything.
    present = {
        path.name: path.read_bytes() for path in trial.folder.iterdir() if path.suffix != ".lock" and "-shm" not in path.name
    }
    finding = examine(trial.folder, present, allowed, older, open_ended=trial.begun > acknowledged)
    if finding:
        return f"{finding}: {where}, stopped by {trial.stopped}"
    replay, rng = Replay(), Random(seed * 1_000_003 + trial.nth)
    for step in disk.log:
        replay.advance(step)
    for fate in Fate:
        image = replay.image(fate, rng)
        finding = examine(trial.folder, image, allowed, older, open_ended=trial.begun > acknowledged)
        if finding:
            return f"{finding}: {where}, then a power cut ({fate})"
    return ""


def faults(seed: int, failing: Failing, stride: int, applier: type[Applier] = Applier) -> Iterator[str]:
    """The findings of all trials, one each (mostly empty), until a load runs clean."""
    nth = 1 + seed % stride
    while True:
        reached, finding = attempt(seed, nth, failing, applier)
        if not reached:
            return
        yield finding
        nth += stride


def checkpoint_fault(applier: type[Applier] = Applier) -> str:
    """Let the file (not the log) hit a limit of the operating system, so that only a checkpoint fails. Empty if that surfaces.

    On the ordinary disk, because an error of a disk written in Python always surfaces in Python.
    """
    folder = scratch()
    path = folder / "store.db"
    try:
        prepare(path, INCARNATION)
        db = connect(path)
        writer = applier(db, checkpoint_pages=CHECKPOINT_PAGES)
        load = StoreLoad(1, INCARNATION, width=8)
        with _file_limit(path.stat().st_size + 8_192 * CHECKPOINT_PAGES):
            doing = "apply"
            try:
                for _ in range(60):
                    doing = "apply"
                    load.learn(writer.apply(load.batch()))
                    doing = "checkpoint"
                    writer.checkpoint()
            except (apsw.IOError, apsw.FullError):
                return "" if doing == "checkpoint" else f"swallowed until the log was full too, at batch {load.batches}"
            finally:
                db.close()
        return "nothing failed: the limit was not reached"
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _file_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past ``size``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ioerr(loads: int, stride: int, seed: int) -> SuiteResult:
    """``loads`` loads, each with a fault at every ``stride``-th call, in each way of failing."""
    start = perf_counter()
    trials: dict[str, int] = {}
    findings: list[str] = []
    for number in range(loads):
        for failing in Failing:
            for finding in faults(seed + number, failing, stride):
                trials[failing.value] = trials.get(failing.value, 0) + 1
                findings += [finding] if finding else []
    caught = {}
    for mutant in MUTANTS:
        caught[mutant.__name__] = next((finding for finding in faults(seed, Failing.EIO, 5, mutant) if finding), "")
    trials["checkpoint"] = 1
    findings += [finding] if (finding := checkpoint_fault()) else []
    caught[AutomaticCheckpoints.__name__] = checkpoint_fault(AutomaticCheckpoints)
    detail: dict[str, object] = {"calls_failed": trials, "mutants": caught}
    if findings:
        detail["findings"] = findings[:5]
    return SuiteResult(
        "sqlite-ioerr", sum(trials.values()), len(findings), len(caught), sum(map(bool, caught.values())),
        (perf_counter() - start) / 60, detail,
    )  # fmt: skip
