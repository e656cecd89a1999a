"""Writers that die at a chosen point, or carry a planted bug, in place of the product's own: the child's program.

``python -m proof.writers POINT NTH MUTANT PATH SOCKET``: dies at ``POINT`` of the ``NTH`` group that the first of its line handles
(a file beside the store remembers that one has died); otherwise it is the product's writer, with the mutant's Applier.
:func:`in_place` makes the owner in this process start such writers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import apsw

from proof.powercut import EarlyAnswers
from quarterdeck.core.commit import Claim, Commit, Op, Outcome
from quarterdeck.store.sqlite import journal, writer
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.frames import FAULT

POINTS = ("before", "after", "half")
"""Before a group is applied; after its commit and before its answer; with half of the answer's bytes sent. (There is also
``fault``: it ends as after an error of the storage, and its report is lost.)"""


class AppendsAgain(Applier):
    """Planted: takes a commit that it has already for a new one, and appends it at the end."""

    def _commit(self, commit: Commit) -> Outcome:
        row = self._execute("SELECT seq FROM runs WHERE run_id = ?", (commit.run_id,)).fetchone()
        if row is not None and commit.new is None:
            fields = {name: getattr(commit, name) for name in commit.__struct_fields__}
            return super()._commit(Commit(**{**fields, "seq": row[0]}))
        return super()._commit(commit)


class CommitsSeldom(EarlyAnswers):
    """Planted: answers at once and commits every tenth batch, for speed."""

    _answered = 0

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        self._answered += 1
        if self._db.in_transaction and self._answered % 10:
            return [self._operation(op) for op in batch]
        return super().apply(batch)


class ForgetsClaims(Applier):
    """Planted: does not remember what it answered to a claim."""

    def _claim(self, op: Claim) -> Outcome:
        return super()._claim(Claim(op.worker, op.limit, op.now_us))


class FailsTheGroup(Applier):
    """Planted: one poisonous operation costs its whole group."""

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        return self._transaction(batch, isolate=False)


class DiesQuietly(Applier):
    """Planted: on a fault of the storage the writer just dies, so that its owner takes it for an accident and starts another."""

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        try:
            return super().apply(batch)
        except (apsw.IOError, apsw.FullError):
            os._exit(1)


MUTANTS: dict[str, type[Applier]] = {
    "none": Applier,
    "early": EarlyAnswers,
    "seldom": CommitsSeldom,
    "again": AppendsAgain,
    "forgets": ForgetsClaims,
    "whole": FailsTheGroup,
    "quiet": DiesQuietly,
}


@contextmanager
def in_place(point: str = "never", nth: int = 0, mutant: str = "none", *, share_lock: bool = True) -> Iterator[None]:
    """Owners opened inside start these writers. ``share_lock`` false plants an owner whose writer does not hold its lock."""

    def started(command: list[str], *, pass_fds: tuple[int, ...], **options: object) -> subprocess.Popen[bytes]:
        place = command.index("-m") + 1
        changed = [*command[:place], "proof.writers", point, str(nth), mutant, *command[place + 1 :]]
        kept = pass_fds if share_lock else pass_fds[:1]
        if mutant != "none":
            options["stderr"] = subprocess.DEVNULL
        return subprocess.Popen(changed, pass_fds=kept, **options)  # type: ignore[call-overload, no-any-return]

    genuine = vars(journal)["subprocess"]
    vars(journal)["subprocess"] = SimpleNamespace(Popen=started, DEVNULL=subprocess.DEVNULL)
    try:
        yield
    finally:
        vars(journal)["subprocess"] = genuine


def main(arguments: list[str]) -> int:
    """Serve like the product's writer, and die where told."""
    point, nth, mutant, path = arguments[0], int(arguments[1]), arguments[2], Path(arguments[3])
    died = path.with_name(path.name + ".died")
    vars(writer)["Applier"] = MUTANTS[mutant]
    genuine, groups = writer._applied, 0

    def applied(applier: Applier, group: list[object]) -> bytes:
        nonlocal groups
        groups += 1
        fatal = groups == nth and not died.exists()
        if fatal:
            died.touch()
        if fatal and point == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if fatal and point == "fault":
            os._exit(FAULT)
        answer = genuine(applier, group)  # type: ignore[arg-type]
        if fatal and point == "half":
            os.write(int(arguments[4]), answer[: len(answer) // 2])
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    writer._applied = applied  # type: ignore[assignment]
    return writer.main(arguments[3:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
