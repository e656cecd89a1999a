"""The janitor removes what routes keep no longer, piece by piece, by itself, and goes on after a store that could not be reached."""

from __future__ import annotations

import asyncio

from quarterdeck import Quarterdeck
from quarterdeck.core.commit import Claim, Commit, Head, Op, Purge
from quarterdeck.core.errors import Unavailable
from quarterdeck.dispatch import janitor
from quarterdeck.dispatch.janitor import Janitor
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.memory import MemoryStore, Moment
from quarterdeck.testing.patching import patched
from quarterdeck.testing.samples import T0_US, admission

DAY_S = 86_400.0


async def ended(store: MemoryStore, count: int, route: str) -> None:
    for number in range(count):
        run_id = f"{route}{number}"
        await store.submit(admission(run_id, route=route))
        await store.submit(Claim("w", 1, T0_US))
        head = Head("succeeded", "completed", "done", release=True)
        await store.submit(Commit(run_id, 1, 1, 1, (note("end"),), T0_US, head=head))


def test_each_route_is_cleaned_by_its_own_time() -> None:
    clock = VirtualClock()
    failing = [True]

    def faults(moment: Moment, op: Op) -> asyncio.Future[None] | None:
        if isinstance(op, Purge) and failing and moment is Moment.BEFORE:
            failing.clear()
            raise Unavailable("store.unknown", "away for a moment")
        return None

    async def scene() -> list[int]:
        store = MemoryStore("w", faults=faults)
        await ended(store, 25, "short")
        await ended(store, 3, "long")
        cleaner = Janitor(store, clock, {"short": DAY_S, "long": 30 * DAY_S})
        cleaner.start()
        counts = []
        for days in (0.5, 1.5, 31.0):
            await clock.sleep(T0_US / 1e6 + days * DAY_S - clock.now_us() / 1e6)
            counts.append(len(store.runs()))
        await cleaner.stop()
        return counts

    with patched(janitor, "PIECE", 10):
        assert run(scene(), clock=clock) == [28, 3, 0]
    assert not failing, "the first attempt met a store that was away"


def test_a_route_says_how_long_it_keeps_its_runs() -> None:
    deck = Quarterdeck("d")

    @deck.workflow("w")
    async def work(ctx: object, payload: object) -> object:
        return payload

    assert deck.routes["w"].retention_s == 400 * 86_400
    assert deck.route("w2", work, retention="30d").retention_s == 30 * 86_400
