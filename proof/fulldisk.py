"""A disk that is really full, under the real owner and writer: the store stops with a reason, and goes on when there is room again.

Two ways: the operating system lets no file of the writer grow past a size (needs no rights), and a small file system in memory that
fills up (needs the right to mount).
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import perf_counter

from proof.powercut import INCARNATION, scratch
from proof.pressure import Pressure, inspect
from proof.result import SuiteResult
from proof.unknown import admission
from proof.writers import in_place
from quarterdeck.core.errors import Unavailable
from quarterdeck.store.sqlite.journal import SqliteJournal

RUNS = 60
MOUNTED_BYTES = 3 << 20


async def _filled(path: Path, at: int, fill: Callable[[SqliteJournal], None], free: Callable[[], None]) -> list[str]:
    """``fill`` the disk at the ``at``-th acknowledgement; everything must stop; ``free`` it; everything must go on."""
    acknowledged: dict[str, int] = {}
    store = await SqliteJournal.open(path, INCARNATION)

    def told(run_id: str, seq: int) -> None:
        acknowledged[run_id] = seq
        if sum(acknowledged.values()) >= at and not done:
            done.append(True)
            fill(store)

    done: list[bool] = []
    stopped = await Pressure(store, "p", RUNS, told).go()
    # Everyone who still waits, and everyone who comes later, hears the same reason, at once.
    late = await asyncio.gather(*(store.submit(admission(f"late-{number}")) for number in range(3)), return_exceptions=True)
    await store.close()
    findings = [] if done else ["the disk was never filled"]
    if not stopped or "store.storage" not in stopped[0]:
        findings.append(f"the store did not stop: {stopped}")
    if not all(isinstance(error, Unavailable) and error.code == "store.storage" for error in late):
        findings.append(f"after the stop it answered {late}")
    free()
    again = await SqliteJournal.open(path, INCARNATION)
    findings += inspect(path, acknowledged, finished=False)
    findings += await Pressure(again, "q", 5, acknowledged.__setitem__).go()
    await again.close()
    return findings + inspect(path, acknowledged, finished=True)


def limited(seed: int, mutant: str = "none") -> list[str]:
    """The writer's files hit a limit on their size, somewhere in the load."""
    rng = Random(seed)
    folder = scratch()
    path = folder / "store.db"

    def fill(store: SqliteJournal) -> None:
        used = max(file.stat().st_size for file in folder.iterdir())
        resource.prlimit(store.writer_pid, resource.RLIMIT_FSIZE, (used + rng.randint(0, 20_000), resource.RLIM_INFINITY))

    try:
        with in_place(mutant=mutant):
            return asyncio.run(_filled(path, rng.randint(1, 300), fill, lambda: None))
    finally:
        shutil.rmtree(folder)


def cannot_mount() -> str:
    """Why a small file system cannot be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    folder = scratch()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True)  # noqa: S607
        if mounted.returncode:
            return f"mounting is not allowed here: {mounted.stderr.strip()}"
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607
        return ""
    except FileNotFoundError:
        return "there is no mount command"
    finally:
        folder.rmdir()


def mounted(seed: int) -> list[str]:
    """A file system of three megabytes is filled by a neighbour's file, somewhere in the load."""
    rng = Random(seed)
    folder = scratch()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MOUNTED_BYTES}", "tmpfs", str(folder)], check=True)  # noqa: S607
    filler = folder / "neighbour"

    def fill(_store: SqliteJournal) -> None:
        room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        filler.write_bytes(bytes(max(0, room - rng.randint(0, 20_000))))

    try:
        return asyncio.run(_filled(folder / "store.db", rng.randint(1, 100), fill, filler.unlink))
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607
        folder.rmdir()


def full_disk(trials: int, seed: int) -> SuiteResult:
    """So many of each kind."""
    start = perf_counter()
    why_not = cannot_mount()
    findings: list[str] = []
    done = 0
    for number in range(seed, seed + trials):
        for kind, trial in (("limit", limited), ("mounted", mounted)):
            if kind == "limit" or not why_not:
                findings += [f"{kind}, seed {number}: {finding}" for finding in trial(number)[:2]]
                done += 1
    caught = {"fault_taken_for_a_death": limited(seed, "quiet")}
    detail: dict[str, object] = {
        "mounted": why_not or trials, "limited": trials, "mutants": {name: found[0] if found else "" for name, found in caught.items()}
    }  # fmt: skip
    if findings:
        detail["findings"] = findings[:5]
    return SuiteResult(
        "sqlite-full-disk",
        done,
        len(findings),
        len(caught),
        sum(map(bool, caught.values())),
        (perf_counter() - start) / 60,
        detail,
    )
