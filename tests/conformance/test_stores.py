"""Every store of this repository keeps every promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.testing.conformance import CHECKS, Check
from quarterdeck.testing.postgres import Server
from tests.conformance import stands


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("store", ["memory", "shared_memory", "inline", "sqlite"])
async def test_the_promise_is_kept(check: Check, store: str, tmp_path: Path) -> None:
    stand = {
        "memory": stands.memory,
        "shared_memory": stands.shared_memory,
        "inline": stands.inline(tmp_path),
        "sqlite": stands.sqlite(tmp_path),
    }[store]
    await check.run(stand)


@pytest.fixture(scope="module")
def shared(postgres: Server) -> str:
    """One database for every check; each begins by emptying it."""
    return postgres.database()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
async def test_the_promise_is_kept_by_postgres(check: Check, postgres: Server, shared: str) -> None:
    await check.run(stands.postgres(postgres, shared))
