"""Fresh histories, forks, interrupts and cancels on PostgreSQL: the same journals, the same ends."""

from __future__ import annotations

import asyncio

from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres import open_store
from tests.workflows import test_forks
from tests.workflows.stage import World
from tests.workflows.test_generations import office


async def test_a_fork_takes_its_steps_along(database: str) -> None:
    test_forks.log.clear()
    async with asyncio.timeout(60), test_forks.office().start(open_store=open_store(database)) as runtime:
        run = await test_forks.ended(runtime, "trip", {"city": "Rome"})
        fork = await runtime.fork(run.id, "quote", result=99)
        result = await fork.result()
        assert (result.status, result.code) == ("failed", "trip.expensive")
        assert verify_run(runtime.insights, fork.id)
        assert runtime.replay(run.id).same


async def test_a_run_begins_fresh_histories(database: str) -> None:
    world = World()
    async with asyncio.timeout(60), office(world).start(open_store=open_store(database)) as runtime:
        run = await runtime.submit("counts", {"n": 0, "seen": []})
        await runtime.signal(run.id, "news", "early", token="one")
        result = await run.result()
        assert (result.text, len(world.log)) == ('[4,6,"early"]', 5)
        assert verify_run(runtime.insights, run.id)
