"""The fleet's proof suites at their shortest: workers killed, paused and stopped lose nothing; each is noticed where it is not so."""

from __future__ import annotations

from contextlib import nullcontext

from proof.fleet import STALE, killed, paused
from proof.rolling import replaced


async def test_a_killed_workers_runs_move_again() -> None:
    found, figures = await killed(6, nullcontext())
    assert (found, figures["in_flight"]) == ([], 6)


async def test_a_paused_worker_writes_nothing_and_would_be_noticed() -> None:
    found, figures = await paused(4, nullcontext())
    assert (found, figures["accepted"]) == ([], 0)
    found, figures = await paused(4, STALE())
    assert found and figures["accepted"] == 4


async def test_replaced_rules_are_given_up_under_load_and_would_be_missed() -> None:
    found, figures = await replaced(16, 2)
    assert (found, figures["opened_late"]) == ([], 0)
    found, figures = await replaced(16, 2, stubborn=True)
    assert found and figures["opened_late"]
