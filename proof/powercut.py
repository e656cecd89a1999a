"""R05: the power goes at every write of the file, and nothing acknowledged may be missing afterwards.

A load runs on a recording disk; every state in which the disk may have been left is opened by the product's own opening. What it
holds must be *exactly* the state after some batch between the last acknowledged one and the last begun one, must pass the audit,
and must take new work. The same with weaker settings, and with planted bugs, has to lose something.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import apsw

from proof.result import SuiteResult
from quarterdeck.core.commit import Applied, Commit, NewRun, Op, Outcome, Record
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import check, connect, prepare, require_durable
from quarterdeck.store.sqlite.rows import rows
from quarterdeck.store.sqlite.visitor import visit
from quarterdeck.testing.powercut import Fate, RecordingDisk, Step, images
from quarterdeck.testing.storeload import StoreLoad, audit, fingerprint

INCARNATION = 7
BATCHES = 24
CHECKPOINT_PAGES = 25
"""A checkpoint every few batches, so that its writes are cut as well."""
NOTHING = b"nothing"
"""The fingerprint of a file in which no store was made yet."""

Adjust = Callable[[apsw.Connection], object]


@dataclass(slots=True)
class Recording:
    """A load's log, and what the file held after each batch; batch 1 is the making of the store."""

    log: list[Step]
    states: list[bytes]


@dataclass(slots=True)
class Tally:
    """What became of the images."""

    images: int = 0
    lost: int = 0
    corrupt: int = 0
    first: str = ""
    fates: dict[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        """Images that lost something or contradict themselves."""
        return self.lost + self.corrupt


class EarlyAnswers(Applier):
    """Planted: answers a batch before it is committed; the commit comes with the next batch."""

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        if self._db.in_transaction:
            self._execute("COMMIT")
        self._execute("BEGIN IMMEDIATE")
        self._facts = dict(rows(self._db, self._sql["facts"]))
        return [self._operation(op) for op in batch]

    def checkpoint(self) -> None:
        """The planted transaction is open between batches."""


def scratch() -> Path:
    """An empty folder in memory where there is one: a fault suite syncs often and keeps nothing."""
    memory = Path("/dev/shm")  # noqa: S108 - each run makes a folder of its own in it
    return Path(tempfile.mkdtemp(prefix="quarterdeck-proof-", dir=memory if memory.is_dir() else None))


def recorded(
    seed: int, *, adjust: Adjust | None = None, applier: type[Applier] = Applier, deaf: bool = False, batches: int = BATCHES
) -> Recording:
    """Run a load on a recording disk. ``adjust`` weakens the connection, ``applier`` and ``deaf`` plant a bug."""
    folder = scratch()
    path = folder / "store.db"
    states = [NOTHING]
    try:
        with RecordingDisk(folder, deaf=deaf) as disk:

            def done(begun: int) -> None:
                disk.mark(begun, begun)
                states.append(fingerprint(db))

            disk.mark(1, 0)
            prepare(path, INCARNATION)
            db = connect(path)
            done(1)
            if adjust is not None:
                adjust(db)
            writer = applier(db, checkpoint_pages=CHECKPOINT_PAGES)
            load = StoreLoad(seed, INCARNATION)
            begun = 1
            while begun <= batches:
                begun += 1
                disk.mark(begun, begun - 1)
                beside = load.delivery() if begun % 7 == 0 and applier is Applier and adjust is None else None
                load.learn([visit(path, beside)] if beside is not None else writer.apply(load.batch()))
                done(begun)
                writer.checkpoint()
            if db.in_transaction:
                db.execute("ROLLBACK")
            db.close()
            return Recording(list(disk.log), states)
    finally:
        shutil.rmtree(folder)


def examine(
    folder: Path, files: dict[str, bytes], allowed: Sequence[bytes], older: Sequence[bytes], *, open_ended: bool = False
) -> str:
    """Open one image as the product would. Empty if all is well, else ``lost: …`` or ``corrupt: …``.

    ``open_ended``: a state that nobody has seen, of a batch that was begun and never came to its end, is allowed too.
    """
    for leftover in folder.iterdir():
        leftover.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder / "store.db"
    try:
        finding = _held(path, allowed, older, open_ended)
        if not finding:
            prepare(path, INCARNATION)
            finding = _continues(path)
    except (QuarterdeckError, apsw.Error) as error:
        finding = f"corrupt: {type(error).__name__}: {error}"
    return finding


def _held(path: Path, allowed: Sequence[bytes], older: Sequence[bytes], open_ended: bool) -> str:
    if not path.exists():
        return "" if NOTHING in allowed else "lost: the whole file"
    db = connect(path)
    try:
        require_durable(db)
        check(db, path)
        made = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'runs'").fetchone()
        state = fingerprint(db) if made else NOTHING
        findings = audit(db) if made else []
    finally:
        db.close()
    if findings:
        return f"corrupt: {findings[0]}"
    if state not in allowed:
        if state in older:
            return "lost: an older state"
        return "" if open_ended else "corrupt: a state that never was"
    return ""


def _continues(path: Path) -> str:
    db = connect(path)
    try:
        new = NewRun("t", "route", "agent", "alice", 1, bytes(16))
        outcome = Applier(db).apply([Commit("after", 0, 0, INCARNATION, (Record(b"{}", b"payload"),), 1, new=new)])[0]
        findings = audit(db)
    finally:
        db.close()
    if outcome != Applied(1):
        return f"corrupt: takes no new run ({outcome})"
    return f"corrupt: {findings[0]}" if findings else ""


def cut(recording: Recording, seed: int, share: float, most: int) -> Tally:
    """Examine that share of a recording's images, at most so many."""
    tally = Tally()
    folder = scratch()
    try:
        for replay, fate, files in images(recording.log, seed, share):
            if tally.images >= most:
                break
            allowed = recording.states[replay.acknowledged : replay.begun + 1]
            finding = examine(folder, files, allowed, recording.states[: replay.acknowledged])
            tally.images += 1
            tally.fates[str(fate)] = tally.fates.get(str(fate), 0) + 1
            tally.lost += finding.startswith("lost")
            tally.corrupt += finding.startswith("corrupt")
            if finding and not tally.first:
                tally.first = f"{finding} (batch {replay.begun}, {fate})"
    finally:
        shutil.rmtree(folder)
    return tally


def _normal(db: apsw.Connection) -> None:
    db.execute("PRAGMA synchronous = NORMAL")


def _rollback_off(db: apsw.Connection) -> None:
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA synchronous = OFF")


CONTROLS: dict[str, Callable[[int], Recording]] = {
    "wal_normal": lambda seed: recorded(seed, adjust=_normal),
    "delete_off": lambda seed: recorded(seed, adjust=_rollback_off),
    "answers_before_commit": lambda seed: recorded(seed, applier=EarlyAnswers),
    "syncs_ignored": lambda seed: recorded(seed, deaf=True),
}
"""Weaker settings and planted bugs; each must lose something."""


def powercut(count: int, seed: int) -> SuiteResult:
    """At least ``count`` images of the product, and a tenth of that for each control."""
    start = perf_counter()
    total = Tally()
    runs = 0
    while total.images < count:
        recording = recorded(seed + runs)
        # A log gives about three distinct images per call; with few wanted, they come from all over one log.
        share = min(1.0, count / (2.5 * len(recording.log)))
        tally = cut(recording, seed + runs, share, count)
        runs += 1
        for fate, number in tally.fates.items():
            total.fates[fate] = total.fates.get(fate, 0) + number
        total.images += tally.images
        total.lost += tally.lost
        total.corrupt += tally.corrupt
        total.first = total.first or (f"seed {seed + runs - 1}: {tally.first}" if tally.first else "")
    controls = {}
    for name, make in CONTROLS.items():
        recording = make(seed)
        most = max(80, count // 10)
        controls[name] = cut(recording, seed, min(1.0, most / (2.5 * len(recording.log))), most)
    detail: dict[str, object] = {
        "images": total.images, "lost": total.lost, "corrupt": total.corrupt, "loads": runs, "fates": total.fates,
        "controls": {name: {"images": tally.images, "lost": tally.lost, "corrupt": tally.corrupt} for name, tally in controls.items()},
    }  # fmt: skip
    if total.first:
        detail["first_failure"] = total.first
    missing = {str(fate) for fate in Fate} - set(total.fates)
    return SuiteResult(
        "sqlite-powercut", total.images, total.bad + len(missing), len(controls),
        sum(tally.bad > 0 for tally in controls.values()), (perf_counter() - start) / 60, detail,
    )  # fmt: skip
