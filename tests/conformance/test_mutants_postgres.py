"""Every bug planted into the PostgreSQL store's functions is caught, by the check that is there for it and by saying so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quarterdeck.store.postgres.opening import prepare
from quarterdeck.testing.conformance import CHECKS, Broken
from quarterdeck.testing.mutants import Mutant
from quarterdeck.testing.mutants_postgres import MUTANTS, install
from quarterdeck.testing.postgres import Server
from tests.conformance import stands

BY_NAME = {check.name: check for check in CHECKS}


@pytest.fixture(scope="module")
def shared(postgres: Server) -> Iterator[str]:
    """One database for every mutant; each installs its functions."""
    with postgres.fresh() as dsn:
        prepare(dsn, 1)
        yield dsn


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
async def test_the_bug_is_caught(mutant: Mutant, postgres: Server, shared: str) -> None:
    check = BY_NAME[mutant.caught_by]
    assert set(mutant.invariants) & set(check.invariants), "mutant and check speak of the same invariant"
    with mutant.planted():
        install(shared)
        with pytest.raises(Broken):
            await check.run(stands.postgres(postgres, shared))


def test_every_invariant_of_a_store_has_a_mutant_here() -> None:
    of_checks = {invariant for check in CHECKS for invariant in check.invariants}
    of_mutants = {name for mutant in MUTANTS for name in mutant.invariants}
    assert of_checks - of_mutants <= {"I14"}, "I14 is the fold's, which a store never calls"
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
