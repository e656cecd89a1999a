"""Every planted bug is caught, by the check that is there for it and by saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.testing.conformance import CHECKS, Broken
from quarterdeck.testing.mutants import MUTANTS, Mutant
from tests.conformance import stands

BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.store}-{mutant.name.replace(' ', '_')}")
async def test_the_bug_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    check = BY_NAME[mutant.caught_by]
    assert set(mutant.invariants) & set(check.invariants), "mutant and check speak of the same invariant"
    stand = stands.inline(tmp_path) if mutant.store == "sqlite" else stands.memory
    with mutant.planted(), pytest.raises(Broken):
        await check.run(stand)


def test_every_invariant_of_a_store_has_a_mutant_in_both_stores() -> None:
    of_checks = {invariant for check in CHECKS for invariant in check.invariants}
    for store in ("memory", "sqlite"):
        of_mutants = {name for mutant in MUTANTS if mutant.store == store for name in mutant.invariants}
        assert of_checks - of_mutants <= {"I14"}, "I14 is the fold's, which a store never calls"


def test_names_are_unique() -> None:
    names = [(mutant.store, mutant.name) for mutant in MUTANTS]
    assert len(set(names)) == len(names)
