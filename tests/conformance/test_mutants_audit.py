"""Bugs in how stores tell what operators did are caught, in every store."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.store.postgres.opening import prepare
from quarterdeck.testing.conformance import CHECKS, Broken
from quarterdeck.testing.mutants import Mutant
from quarterdeck.testing.mutants_audit import MUTANTS
from quarterdeck.testing.mutants_postgres import install
from quarterdeck.testing.postgres import Server
from tests.conformance import stands

BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.store}-{mutant.name.replace(' ', '_')}")
async def test_the_bug_is_caught(mutant: Mutant, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    check = BY_NAME[mutant.caught_by]
    assert set(mutant.invariants) & set(check.invariants)
    if mutant.store == "postgres":
        server: Server = request.getfixturevalue("postgres")
        with server.fresh() as dsn:
            prepare(dsn, 1)
            with mutant.planted():
                install(dsn)
                with pytest.raises(Broken):
                    await check.run(stands.postgres(server, dsn))
        return
    stand = stands.inline(tmp_path) if mutant.store == "sqlite" else stands.memory
    with mutant.planted(), pytest.raises(Broken):
        await check.run(stand)
