"""R01–R03: the whole runtime on virtual time under faults drawn from a seed; each seed's history repeated; planted bugs found."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from proof.result import Suite, SuiteResult
from quarterdeck.testing.mutants_runtime import RUNTIME_MUTANTS, RuntimeMutant
from quarterdeck.testing.reached import DECLARED
from quarterdeck.testing.simulator import simulate

SEEDS = 2_000
QUICK_SEEDS = 100
REPEATED = 100
PATIENCE = 300
"""Seeds within which a planted bug has to be found."""


def swarm(seeds: Iterable[int]) -> tuple[list[str], Counter[str], float, int]:
    """Simulate every seed: what was violated, what was met how often, virtual hours, and how many seeds."""
    violations: list[str] = []
    met: Counter[str] = Counter()
    virtual_s, count = 0.0, 0
    for seed in seeds:
        report = simulate(seed)
        violations += [f"{report.replay}: {found}" for found in report.violations[:2]]
        met.update({name: 1 for name, times in report.reached.items() if times})
        virtual_s += report.virtual_s
        count += 1
    return violations, met, virtual_s / 3_600, count


def seeds_to_find(mutant: RuntimeMutant, patience: int) -> int | None:
    """How many seeds it takes until a planted bug violates something; ``None`` if none of ``patience`` does."""
    for seed in range(1, patience + 1):
        if simulate(seed, (mutant.planted,)).violations:
            return seed
    return None


def simulation(seeds: int, *, planted: bool) -> SuiteResult:
    """The swarm, its *sometimes* assertions, and the planted bugs."""
    began = time.monotonic()
    violations, met, hours, count = swarm(range(1, seeds + 1))
    never = sorted(set(DECLARED) - set(met)) if seeds >= SEEDS else []
    found = {mutant.name: seeds_to_find(mutant, PATIENCE) for mutant in RUNTIME_MUTANTS} if planted else {}
    return SuiteResult(
        "simulation",
        count,
        len(violations) + len(never),
        len(found),
        sum(number is not None for number in found.values()),
        (time.monotonic() - began) / 60,
        {
            "virtual_hours": round(hours, 1),
            "violations": violations[:10],
            "met": len(met),
            "declared": len(DECLARED),
            "never_met": never,
            "bugs_not_found": [name for name, number in found.items() if number is None],
            "seeds_to_find": {name: number for name, number in found.items() if number is not None},
        },
    )


def determinism(seeds: int) -> SuiteResult:
    """Each seed twice: the same history, to the last byte."""
    began = time.monotonic()
    differing = [seed for seed in range(1, seeds + 1) if simulate(seed).trace_hash != simulate(seed).trace_hash]
    return SuiteResult("determinism", seeds, len(differing), 0, 0, (time.monotonic() - began) / 60, {"differing": differing})


SUITES = (
    Suite("simulation", lambda quick: simulation(QUICK_SEEDS if quick else SEEDS, planted=not quick)),
    Suite("determinism", lambda quick: determinism(10 if quick else REPEATED)),
)
