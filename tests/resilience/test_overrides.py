"""A dependency is changed while it is in use: nothing is lost, nothing is counted twice, and it ends by itself."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.core.overrides import Change, Override, changed, current
from quarterdeck.resilience.dependency import Dependencies, Dependency
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run

POLICY = DependencyPolicy(concurrency=BulkheadPolicy(slots=2, max_queue=10, max_wait_s=100.0))


def of(**change: object) -> Override:
    return Override("x", Change(**change), 10**18, "ops")  # type: ignore[arg-type]


def test_more_slots_let_in_who_waits_and_fewer_take_none_away() -> None:
    clock = VirtualClock()

    async def scene() -> None:
        dependency = Dependency("x", POLICY, clock, SeededEntropy(1))
        first = [await dependency.acquire() for _ in range(2)]
        waiting = [asyncio.ensure_future(dependency.acquire()) for _ in range(3)]
        await clock.sleep(1.0)
        assert dependency.view().figures.queued == 3
        dependency.put(of(slots=4))
        second = await asyncio.gather(*waiting[:2])
        assert (dependency.view().figures.in_flight, dependency.view().figures.queued) == (4, 1)
        dependency.put(of(slots=1))
        for permit in (*first, second[0]):
            dependency.release(permit)
        await clock.sleep(1.0)
        assert (dependency.view().figures.in_flight, waiting[2].done()) == (1, False)
        dependency.release(second[1])
        third = await waiting[2]
        dependency.release(third)
        assert dependency.view().figures.in_flight == 0

    run(scene(), clock=clock, max_ticks=10_000)


def test_isolating_sends_away_who_waits_and_ends_with_the_change() -> None:
    clock = VirtualClock()

    async def scene() -> None:
        all_ = Dependencies(clock, SeededEntropy(1))
        dependency = all_.declare("x", POLICY)
        held = [await dependency.acquire() for _ in range(2)]
        waiting = asyncio.ensure_future(dependency.acquire())
        await clock.sleep(1.0)
        override = Override("x", Change(isolated=True), clock.now_us() + 60_000_000, "ops")
        all_.put(current([override], clock.now_us()))
        with pytest.raises(Unavailable, match=r"breaker\.isolated"):
            await waiting
        for permit in held:
            dependency.release(permit)
        assert not all_.ends_by(clock.now_us())
        await clock.sleep(61.0)
        assert all_.ends_by(clock.now_us())
        all_.put(current([override], clock.now_us()))
        dependency.release(await dependency.acquire())
        assert dependency.policy == POLICY

    run(scene(), clock=clock, max_ticks=10_000)


def test_what_is_not_named_stays() -> None:
    policy = changed(POLICY, Change(timeout_s=3.0))
    assert (policy.timeout_s, policy.concurrency, policy.retry, policy.rate) == (3.0, POLICY.concurrency, POLICY.retry, None)
