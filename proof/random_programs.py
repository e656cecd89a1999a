"""Random programs on both stores, crashed at random points: each must end as it would have without a crash, and do nothing twice.

A program has steps, tools of every class, waits, branches, children and sagas, drawn with its crashes from a seed. What it is compared with
is the same program on a store in memory that nothing befalls.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path

from proof.result import Suite, SuiteResult
from quarterdeck.app.views import RunResult
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.testing import ledger, postgres
from quarterdeck.testing.drawn import drawn, machine, wrong
from quarterdeck.testing.mortal import DatabaseHand, FileHand, Hand, lasting
from quarterdeck.testing.mutants_runtime import RuntimeMutant
from quarterdeck.testing.mutants_workflows import WORKFLOW_MUTANTS
from quarterdeck.testing.programs import World, staged

TRIALS = 1_000
"""Programs at full length, on each store."""
QUICK_TRIALS = 30
PATIENCE = 300
"""Programs within which a planted bug has to be found."""
BOOKS = 100
"""After so many programs in one store its accounts are compared with its journals; each time where every program has a store."""
_NUMBERS = itertools.count(1_000_000)

_NAMES = ("answers are delivered out of order", "an inner saga forgets", "a child's result is lost")
PROGRAM_BUGS: tuple[RuntimeMutant, ...] = tuple([bug for bug in WORKFLOW_MUTANTS if bug.name in _NAMES])
"""The planted bugs that random programs have to find."""

Take = Callable[[int], Hand]
"""Opens the store of one program."""


def program_trial(
    seed: int, take: Callable[[], Hand], number: int | None = None, *, books: bool = False
) -> tuple[list[str], int]:
    """One drawn program, crashed at drawn points of it: what is wrong, and how often it was crashed. ``number`` tells it from others in
    one store, ``books`` compares the store's accounts with its journals as well.
    """
    chance = random.Random(f"program/{seed}")
    payload = {"program": drawn(chance)}
    plain, unhurt = unhurt_trial(seed)
    most = chance.randint(1, 2)  # a third death makes a dead letter
    crashes = set(chance.sample(range(1, unhurt.points + 20), min(unhurt.points, most)))
    try:
        result, world = lasting(machine, "interpret", payload, take, crashes, seed=number or seed)
    except (QuarterdeckError, RuntimeError, ExceptionGroup) as error:
        return [f"seed {seed}: {error!r}"], len(crashes)
    struck = len([point for point in crashes if point <= world.points])
    found = [*wrong(result, world, plain, unhurt), *(disagreeing(take) if books else [])]
    return [f"seed {seed}: {what}" for what in found], struck


def disagreeing(take: Callable[[], Hand]) -> list[str]:
    """Where the accounts of a store are not the sum of its journals, now that nothing befalls it any more."""
    hand = take()
    try:
        return ledger.differences(hand.insights)
    finally:
        hand.close(died=False)


@cache
def unhurt_trial(seed: int) -> tuple[RunResult, World]:
    """The same program, and nothing befalls it."""
    result, world, _ = staged(machine, "interpret", {"program": drawn(random.Random(f"program/{seed}"))})
    return result, world


@contextmanager
def files() -> Iterator[Take]:
    """Each program on a SQLite file of its own."""
    with tempfile.TemporaryDirectory(prefix="quarterdeck-programs-") as folder:
        yield lambda seed: FileHand(Path(folder) / f"{seed}.db")


@contextmanager
def databases() -> Iterator[Take]:
    """All programs in one PostgreSQL database, one after the other."""
    server = postgres.serve()
    try:
        with server.fresh() as dsn:
            yield lambda seed: DatabaseHand(dsn)
    finally:
        server.stop()


def random_programs(name: str, stores: Callable[[], AbstractContextManager[Take]], quick: bool) -> SuiteResult:
    """Every drawn program, then the planted bugs."""
    began = time.monotonic()
    trials = QUICK_TRIALS if quick else TRIALS
    found: list[str] = []
    failed = struck = 0
    with stores() as take:
        for seed in range(1, trials + 1):
            books = seed % BOOKS == 0 or seed == trials
            said, crashes = program_trial(seed, partial(take, seed), books=books or stores is files)
            found, failed, struck = found + said, failed + bool(said), struck + crashes
        missed = [bug.name for bug in PROGRAM_BUGS if not noticed(bug, take)]
    planted = len(PROGRAM_BUGS)
    detail: dict[str, object] = {"programs": trials, "crashes": struck, "wrong": found[:5], "missed": missed}
    return SuiteResult(name, trials, failed, planted, planted - len(missed), (time.monotonic() - began) / 60, detail)


def noticed(bug: RuntimeMutant, take: Take) -> bool:
    """Whether some program shows this bug."""
    for seed in range(1, PATIENCE + 1):
        unhurt_trial(seed)  # without the bug
        with bug.planted():
            number = next(_NUMBERS)
            if program_trial(seed, partial(take, number), number)[0]:
                return True
    return False


SUITES = (
    Suite("random-programs", lambda quick: random_programs("random-programs", files, quick)),
    Suite("random-programs-postgres", lambda quick: random_programs("random-programs-postgres", databases, quick)),
)
