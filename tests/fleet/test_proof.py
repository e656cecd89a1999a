"""The fleet's proof suites at their shortest: workers killed, paused and stopped lose nothing; each is noticed where it is not so."""

from __future__ import annotations

from contextlib import nullcontext

from proof.fleet import STALE, killed, paused


async def test_a_killed_workers_runs_move_again() -> None:
    found, figures = await killed(6, nullcontext())
    assert (found, figures["in_flight"]) == ([], 6)


async def test_a_paused_worker_writes_nothing_and_would_be_noticed() -> None:
    found, figures = await paused(4, nullcontext())
    assert (found, figures["accepted"]) == ([], 0)
    found, figures = await paused(4, STALE())
    assert found and figures["accepted"] == 4
