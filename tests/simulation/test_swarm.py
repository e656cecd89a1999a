"""The whole runtime on virtual time, under faults drawn from a seed; the long version is `python -m proof --only simulation`."""

import pytest

from proof.simulation import seeds_to_find, swarm
from quarterdeck.testing.mutants_runtime import RUNTIME_MUTANTS, RuntimeMutant
from quarterdeck.testing.reached import DECLARED
from quarterdeck.testing.simulator import simulate

SEEDS = 150

RARE = {
    "a receipt that is not idempotent is delivered before its commit",
    "a stale owner retries",
    "an effect is repeated after its key has expired",
    "the former owner's attempt is forgotten",
    "refused connections are charged",
    "an approval is stretched by a wait for capacity",
    "facts are those of the commit, not of the judgement",
    "a late receipt is put away unread",
}
"""Bugs that need more seeds, or more time, than a test has; the proof looks for them."""


def test_a_swarm_of_seeds_violates_nothing_and_meets_most_of_what_matters() -> None:
    violations, met, hours, count = swarm(range(1, SEEDS + 1))
    assert violations == []
    assert count == SEEDS
    assert hours > 1
    assert len(met) > 0.8 * len(DECLARED), sorted(set(DECLARED) - set(met))


@pytest.mark.parametrize("seed", range(1, 13))
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    assert simulate(seed).trace_hash == simulate(seed).trace_hash


@pytest.mark.parametrize("mutant", [bug for bug in RUNTIME_MUTANTS if bug.name not in RARE], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(mutant: RuntimeMutant) -> None:
    assert seeds_to_find(mutant, 80) is not None


def test_only_bugs_that_exist_are_called_rare() -> None:
    assert {bug.name for bug in RUNTIME_MUTANTS} >= RARE
