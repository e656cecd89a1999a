"""R01–R03 at test length: the whole runtime on virtual time, under faults drawn from a seed; `python -m proof` does it at length."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proof.simulation import seeds_to_find, swarm, with_letters, with_ventures
from quarterdeck.testing.mutants_letters import LETTER_MUTANTS
from quarterdeck.testing.mutants_runtime import RUNTIME_MUTANTS, RuntimeMutant
from quarterdeck.testing.mutants_ventures import VENTURE_MUTANTS
from quarterdeck.testing.reached import DECLARED, RARE
from quarterdeck.testing.simulator import main, simulate

SEEDS = 150
ROOT = Path(__file__).resolve().parents[2]

VENTURES = with_ventures(60)
LETTERS = with_letters(60)

MENDED = (27, 34, 46, 68, 89, 137, 153, 166, 272, 375, 413, 538, 608, 847, 1145, 2201, 60, 152, 496, 55, 102, 145, 211)
"""Seeds that once showed a bug of the runtime or of the simulator itself; what they play has changed since, they stay as a corpus."""


def test_a_swarm_of_seeds_violates_nothing_and_meets_what_matters() -> None:
    violations, met, totals = swarm(range(1, SEEDS + 1))
    assert violations == []
    assert totals["seeds"] == SEEDS
    assert totals["virtual_s"] > 3_600
    assert totals["effects"] > SEEDS
    assert set(DECLARED) - RARE - set(met) == set(), "the generator does not reach these any more"


def test_seeds_that_failed_before_stay_well() -> None:
    violations, _, _ = swarm(MENDED)
    assert violations == []


@pytest.mark.parametrize("seed", range(1, 25))
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    assert simulate(seed).trace_hash == simulate(seed).trace_hash


def test_a_history_depends_on_nothing_of_its_process() -> None:
    hashes = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "quarterdeck.testing.simulator", "3", "5", "8", "13"]
        hashes.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(hashes) == 1
    assert "trace" in hashes.pop()


@pytest.mark.parametrize("mutant", [bug for bug in RUNTIME_MUTANTS if not bug.rare], ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(mutant: RuntimeMutant) -> None:
    assert seeds_to_find(mutant.planted, range(1, 121)) is not None


@pytest.mark.parametrize("mutant", [bug for bug in VENTURE_MUTANTS if not bug.rare], ids=lambda bug: bug.name)
def test_a_planted_bug_of_workflows_is_found(mutant: RuntimeMutant) -> None:
    assert seeds_to_find(mutant.planted, VENTURES) is not None


@pytest.mark.parametrize("mutant", [bug for bug in LETTER_MUTANTS if not bug.rare], ids=lambda bug: bug.name)
def test_a_planted_bug_of_the_outbox_is_found(mutant: RuntimeMutant) -> None:
    assert seeds_to_find(mutant.planted, LETTERS) is not None


def test_planted_bugs_cover_the_contract_and_leave_nothing_behind() -> None:
    assert {bug.point for bug in RUNTIME_MUTANTS} >= {0, 1, 3, 4, 5, 6, 7, 8, 9}
    for bug in RUNTIME_MUTANTS:
        with bug.planted():
            pass
    assert simulate(1).ok


def test_a_failure_prints_the_line_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    bug = next(bug for bug in RUNTIME_MUTANTS if bug.name == "the control guard is not sent")
    with bug.planted():
        assert main(["1"]) == 1
    printed = capsys.readouterr().out
    assert "replay: python -m quarterdeck.testing.simulator 1  # commit" in printed
    assert main(["1"]) == 0


def test_rare_situations_are_declared() -> None:
    assert set(DECLARED) >= RARE
