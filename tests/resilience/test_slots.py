"""A slot is never lost and never doubled, whoever is cancelled or runs out of patience in whichever tick."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.resilience.slots import Entry, Slots
from quarterdeck.testing.clock import SeededEntropy, run, sleep


def test_first_come_first_served() -> None:
    async def main() -> list[int]:
        slots, order = Slots(BulkheadPolicy(slots=1)), []

        async def visit(number: int) -> None:
            assert await slots.enter(100.0) is Entry.ENTERED
            order.append(number)
            await sleep(1.0)
            slots.leave()

        await asyncio.gather(*(visit(number) for number in range(5)))
        assert (slots.in_flight, slots.queued) == (0, 0)
        return order

    assert run(main()) == [0, 1, 2, 3, 4]


def test_the_queue_and_the_patience_are_bounded() -> None:
    async def main() -> None:
        slots = Slots(BulkheadPolicy(slots=1, max_queue=1))
        assert await slots.enter(0.0) is Entry.ENTERED
        assert await slots.enter(0.0) is Entry.QUEUE_FULL
        patient = asyncio.create_task(slots.enter(3.0))
        await sleep(1.0)
        assert await slots.enter(3.0) is Entry.QUEUE_FULL
        assert await patient is Entry.TOO_LONG
        assert asyncio.get_running_loop().time() == 3.0
        assert (slots.in_flight, slots.queued) == (1, 0)

    run(main())


def test_those_who_wait_can_be_sent_away() -> None:
    async def main() -> None:
        slots = Slots(BulkheadPolicy(slots=1))
        await slots.enter(0.0)
        waiting = [asyncio.create_task(slots.enter(100.0)) for _ in range(3)]
        await sleep(1.0)
        slots.send_away()
        assert await asyncio.gather(*waiting) == [Entry.SENT_AWAY] * 3
        assert asyncio.get_running_loop().time() == 1.0
        assert (slots.in_flight, slots.queued) == (1, 0)

    run(main())


@pytest.mark.parametrize("seed", range(120))
def test_nothing_is_lost_in_any_order(seed: int) -> None:
    """Visits, cancellations, impatience and sending away, many of them in the same virtual instant."""
    entropy = SeededEntropy(seed)

    async def main() -> None:
        slots = Slots(BulkheadPolicy(slots=2, max_queue=6))
        inside = most = 0

        async def visit() -> None:
            nonlocal inside, most
            if await slots.enter(float(int(entropy.uniform() * 4))) is not Entry.ENTERED:
                return
            inside += 1
            most = max(most, inside)
            try:
                await sleep(int(entropy.uniform() * 3))
            finally:
                inside -= 1
                slots.leave()

        visits: list[asyncio.Task[None]] = []
        for _ in range(40):
            visits.append(asyncio.create_task(visit()))
            luck = entropy.uniform()
            if luck < 0.3:
                visits[int(entropy.uniform() * len(visits))].cancel()
            elif luck < 0.35:
                slots.send_away()
            if entropy.uniform() < 0.4:
                await sleep(1)
        await asyncio.wait(visits)
        assert most <= 2
        assert (slots.in_flight, slots.queued) == (0, 0)
        assert not slots._given and not slots._waiters
        for visited in visits:
            assert visited.cancelled() or visited.exception() is None

    run(main(), seed, shuffle=True)
