"""The owner is killed, stopped or challenged while operations are under way; what it was told must outlive it.

``python -m proof.owners PATH PREFIX RUNS MUTANT`` is the owner that is killed: it prints its writer's process id, then one line per
acknowledgement.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from time import perf_counter

from proof.powercut import INCARNATION, scratch
from proof.pressure import Pressure, inspect
from proof.result import SuiteResult
from proof.writers import in_place
from quarterdeck.core.errors import Unavailable
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.opening import OwnerLock

RUNS = 12
ENDLESS = 150
"""More runs than an owner finishes before it is killed."""


class Child:
    """An owner in a process of its own, under load."""

    def __init__(self, path: Path, prefix: str, runs: int = ENDLESS, mutant: str = "none") -> None:
        command = [sys.executable, "-m", "proof.owners", str(path), prefix, str(runs), mutant]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        quiet = None if mutant == "none" else subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True, env=env)
        self.pid = self._process.pid
        self.acknowledged: dict[str, int] = {}
        self.writer_pid = int(self._line() or 0)

    def listen(self, lines: int) -> None:
        """Wait for so many acknowledgements."""
        for _ in range(lines):
            self._note(self._line())

    def kill(self) -> None:
        """SIGKILL; what it had said before is still heard. It stays a zombie until :meth:`bury`."""
        os.kill(self.pid, signal.SIGKILL)
        while line := self._line():
            self._note(line)

    def bury(self) -> None:
        """Take its exit status."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()

    def _line(self) -> str:
        return self._process.stdout.readline() if self._process.stdout is not None else ""

    def _note(self, line: str) -> None:
        run_id, _, seq = line.strip().partition(" ")
        if seq:
            self.acknowledged[run_id] = int(seq)


def killed_owners(kills: int, seed: int, mutant: str = "none") -> tuple[int, list[str]]:
    """Owners of one file, one after the other, each killed under load; returns what was acknowledged in all, and the findings."""
    rng = Random(seed)
    folder = scratch()
    path = folder / "store.db"
    acknowledged: dict[str, int] = {}
    try:
        for number in range(kills):
            owner = Child(path, f"o{number}", mutant=mutant)
            try:
                owner.listen(rng.randint(1, 60))
            finally:
                owner.kill()
                acknowledged.update(owner.acknowledged)
                # The next owner comes while this one is a zombie and its writer may still be at work.
                if number % 2:
                    OwnerLock(path).release()
                owner.bury()
        # A copy would do, but the file is scratch: all that is left is driven to its end, by the last owner.
        findings = asyncio.run(_finished(path, acknowledged))
        return sum(acknowledged.values()), findings
    finally:
        shutil.rmtree(folder)


async def _finished(path: Path, acknowledged: dict[str, int]) -> list[str]:
    store = await SqliteJournal.open(path, INCARNATION)
    findings = inspect(path, acknowledged, finished=False)
    findings += await Pressure(store, "last", RUNS).go()
    await store.close()
    return findings + inspect(path, acknowledged, finished=True)


def _refusal(path: Path, wait_s: float) -> Unavailable | None:
    try:
        OwnerLock(path, wait_s).release()
    except Unavailable as error:
        return error
    return None


def challenged(*, share_lock: bool = True) -> list[str]:
    """A second owner is refused while the first runs, while it is stopped, and after its death until its writer has ended."""
    folder = scratch()
    path = folder / "store.db"
    owner = Child(path, "o", mutant="none" if share_lock else "unlocked")
    findings: list[str] = []

    def refused(when: str, wait_s: float) -> None:
        error = _refusal(path, wait_s)
        if error is None:
            findings.append(f"{when}: a second owner was let in")
        elif error.code != "store.owned" or error.detail.get("holder") != owner.pid:
            findings.append(f"{when}: {error} ({error.detail})")

    try:
        owner.listen(5)
        refused("while the owner runs", 60.0)
        os.kill(owner.pid, signal.SIGSTOP)
        refused("while the owner is stopped", 60.0)
        os.kill(owner.pid, signal.SIGCONT)
        os.kill(owner.writer_pid, signal.SIGSTOP)
        owner.kill()
        refused("while the dead owner's writer lives", 0.2)
        os.kill(owner.writer_pid, signal.SIGCONT)
        owner.bury()
        return findings + asyncio.run(_finished(path, owner.acknowledged))
    finally:
        shutil.rmtree(folder)


def owners(kills: int, seed: int) -> SuiteResult:
    """``kills`` owners killed under load, and the challenges."""
    start = perf_counter()
    acknowledged, findings = killed_owners(kills, seed)
    findings += challenged()
    caught = {
        "commits_seldom": killed_owners(2, seed, "seldom")[1],
        "writer_without_the_lock": challenged(share_lock=False),
    }
    detail: dict[str, object] = {
        "kills": kills, "acknowledged": acknowledged, "lost": sum(finding.startswith("lost") for finding in findings),
        "mutants": {name: found[0] if found else "" for name, found in caught.items()},
    }  # fmt: skip
    if findings:
        detail["findings"] = findings[:5]
    return SuiteResult(
        "sqlite-owner-kill", kills + 3, len(findings), len(caught), sum(map(bool, caught.values())),
        (perf_counter() - start) / 60, detail,
    )  # fmt: skip


async def _own(path: Path, prefix: str, runs: int) -> None:
    store = await SqliteJournal.open(path, INCARNATION)
    os.write(1, b"%d\n" % store.writer_pid)
    await Pressure(store, prefix, runs, lambda run_id, seq: _say(f"{run_id} {seq}\n")).go()
    await store.close()


def _say(line: str) -> None:
    os.write(1, line.encode())


def main(arguments: list[str]) -> int:
    """Own the file and work on it."""
    path, prefix, runs, mutant = Path(arguments[0]), arguments[1], int(arguments[2]), arguments[3]
    if mutant == "none":
        asyncio.run(_own(path, prefix, runs))
    else:
        with in_place(mutant="none" if mutant == "unlocked" else mutant, share_lock=mutant != "unlocked"):
            asyncio.run(_own(path, prefix, runs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
