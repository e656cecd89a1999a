"""R01–R03: the whole runtime on virtual time under faults drawn from a seed; each seed's history repeated; planted bugs found."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from statistics import median

from proof.result import Suite, SuiteResult
from quarterdeck.testing.mutants import MUTANTS
from quarterdeck.testing.mutants_letters import LETTER_MUTANTS
from quarterdeck.testing.mutants_runtime import RUNTIME_MUTANTS
from quarterdeck.testing.mutants_ventures import VENTURE_MUTANTS
from quarterdeck.testing.patching import Plant
from quarterdeck.testing.reached import DECLARED
from quarterdeck.testing.scenario import draw
from quarterdeck.testing.simulator import simulate

SEEDS = 2_000
QUICK_SEEDS = 100
REPEATED = 200
PATIENCE = 1_500
"""Seeds within which a planted bug has to be found."""
STORE_PATIENCE = 40
"""Seeds for the bugs of a store; the conformance suite is their judge, and what the runtime's own care hides is no failure here."""


def swarm(seeds: Iterable[int]) -> tuple[list[str], Counter[str], Counter[str]]:
    """Simulate every seed: what was violated (with its replay), how many seeds met what, and the totals."""
    violations: list[str] = []
    met: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for seed in seeds:
        report = simulate(seed)
        violations += [f"{report.replay}: {found}" for found in report.violations[:2]]
        totals["failed"] += not report.ok
        met.update(report.reached.keys())
        totals.update(
            seeds=1, virtual_s=round(report.virtual_s), runs=report.runs, commits=report.commits, effects=report.effects
        )
    return violations, met, totals


def seeds_to_find(planted: Plant, seeds: Sequence[int]) -> int | None:
    """How many of these seeds it takes until a planted bug violates something; ``None`` if none does."""
    for place, seed in enumerate(seeds, 1):
        if not simulate(seed, (planted,)).ok:
            return place
    return None


def with_ventures(count: int) -> list[int]:
    """The first seeds whose simulations have workflows of every kind among their runs."""
    return list(islice((seed for seed in itertools.count(1) if draw(seed).ventures and not draw(seed).letters), count))


def with_letters(count: int) -> list[int]:
    """The first seeds in whose simulations messages leave through the outbox."""
    return list(islice((seed for seed in itertools.count(1) if draw(seed).letters), count))


def simulation(seeds: int) -> SuiteResult:
    """The swarm and its *sometimes* assertions; a long one must meet every declared situation."""
    began = time.monotonic()
    violations, met, totals = swarm(range(1, seeds + 1))
    never = sorted(set(DECLARED) - set(met)) if seeds >= SEEDS else []
    detail: dict[str, object] = {
        "seeds": totals["seeds"], "virtual_hours": round(totals["virtual_s"] / 3_600, 1), "runs": totals["runs"],
        "commits": totals["commits"], "effects": totals["effects"], "upper_bound": round(3 / max(1, totals["seeds"]), 6),
        "sometimes_met": len(met), "sometimes_declared": len(DECLARED), "never_met": never,
        "rarest": dict(met.most_common()[: -6 : -1]), "violations": violations[:10],
    }  # fmt: skip
    return SuiteResult("simulation", seeds, totals["failed"] + len(never), 0, 0, (time.monotonic() - began) / 60, detail)


def planted_bugs(patience: int, *, rare: bool) -> SuiteResult:
    """Every bug planted in the runtime has to be found; those planted in the store are looked for as well."""
    began = time.monotonic()
    kinds = (
        (RUNTIME_MUTANTS, range(1, patience + 1)),
        (VENTURE_MUTANTS, with_ventures(patience)),
        (LETTER_MUTANTS, with_letters(patience)),
    )
    wanted = [(mutant, seeds) for mutants, seeds in kinds for mutant in mutants if rare or not mutant.rare]
    bugs = [mutant for mutant, _ in wanted]
    found = {mutant.name: seeds_to_find(mutant.planted, seeds) for mutant, seeds in wanted}
    numbers = {name: number for name, number in found.items() if number is not None}
    in_store = [mutant for mutant in MUTANTS if mutant.store == "memory"] if rare else []
    seen = [mutant.name for mutant in in_store if seeds_to_find(mutant.planted, range(1, STORE_PATIENCE + 1)) is not None]
    detail: dict[str, object] = {
        "median_seeds": median(numbers.values()) if numbers else None, "most_seeds": max(numbers.values(), default=None),
        "contract_points": sorted({mutant.point for mutant in bugs if mutant.name in numbers}),
        "not_found": [name for name in found if name not in numbers], "seeds_to_find": numbers,
        "bugs_of_the_store_seen": f"{len(seen)} of {len(in_store)}",
    }  # fmt: skip
    tried = sum(patience if number is None else number for number in found.values())
    return SuiteResult("planted-bugs", tried, 0, len(found), len(numbers), (time.monotonic() - began) / 60, detail)


def determinism(seeds: int) -> SuiteResult:
    """Each seed twice: the same history, to the last byte."""
    began = time.monotonic()
    differing = [seed for seed in range(1, seeds + 1) if simulate(seed).trace_hash != simulate(seed).trace_hash]
    return SuiteResult("determinism", seeds, len(differing), 0, 0, (time.monotonic() - began) / 60, {"differing": differing})


SUITES = (
    Suite("simulation", lambda quick: simulation(QUICK_SEEDS if quick else SEEDS)),
    Suite("determinism", lambda quick: determinism(10 if quick else REPEATED)),
    Suite("planted-bugs", lambda quick: planted_bugs(80 if quick else PATIENCE, rare=not quick)),
)
