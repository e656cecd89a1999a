"""A rolling deploy: two versions of the code on one store. Runs end under the code that began them; nothing is parked, nothing breaks."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from quarterdeck import Context, Quarterdeck
from quarterdeck.app.runtime import Runtime
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel
from tests.store_postgres.sessions import until

RUNS = 6


def deck(version: str) -> Quarterdeck:
    """The shop in one of two versions: the workflow does its steps in another order, and there is a new route."""
    made = Quarterdeck("shop")

    async def pick(order: str) -> str:
        return f"{version} picked {order}"

    async def pack(order: str) -> str:
        return f"{version} packed {order}"

    if version == "old":

        @made.workflow("parcel")
        async def parcel(ctx: Context, order: str) -> list[str]:
            picked = await ctx.step(pick, order)
            await ctx.signal("go")
            return [picked, await ctx.step(pack, order)]

    else:

        @made.workflow("parcel")
        async def parcel_anew(ctx: Context, order: str) -> list[str]:
            packed = await ctx.step(pack, order)
            await ctx.signal("go")
            return [packed, await ctx.step(pick, order), "checked"]

        made.agent("greeter", model=ScriptedModel(["hello"]))
    return made


def waits(rt: Runtime, names: list[str]) -> list[tuple[str, ...]]:
    rows = [rt.insights.run(name) for name in names]
    return [row.waiting_on for row in rows if row is not None]


async def test_runs_end_under_the_code_that_began_them(database: str) -> None:
    store = open_store(database)
    async with asyncio.timeout(60), AsyncExitStack() as fleet:
        old = await fleet.enter_async_context(deck("old").start(open_store=store))
        begun = [(await old.submit("parcel", {"order": f"A{number}"})).id for number in range(RUNS)]
        for name in begun:
            await old.handle(name).rest()
        new = await fleet.enter_async_context(deck("new").start(open_store=store))
        later = [(await new.submit("parcel", {"order": f"B{number}"})).id for number in range(RUNS)]
        hello = await new.submit("greeter")
        for name in (*begun, *later):
            await new.signal(name, "go")
        results = [await new.handle(name).result() for name in (*begun, *later)]
        assert [one.status for one in results] == ["succeeded"] * 2 * RUNS
        assert all("old picked" in one.text and "old packed" in one.text for one in results[:RUNS])
        assert all("checked" in one.text and "old" not in one.text for one in results[RUNS:])
        assert (await hello.result()).ok, "the old worker knows no such route, and has kept its hands off it"
        assert all(verify_run(new.insights, name) for name in (*begun, *later))


async def test_a_run_whose_code_has_gone_waits_visibly(database: str) -> None:
    store = open_store(database)
    async with asyncio.timeout(60):
        async with deck("old").start(open_store=store) as old:
            run = await old.submit("parcel", {"order": "A1"})
            await run.rest()
            needed = next(one for one in old.about.programs or () if one.startswith("parcel/"))
        async with deck("new").start(open_store=store) as new:
            await new.signal(run.id, "go")
            assert waits(new, [run.id]) == [("signal:go", f"worker:{needed}")]
            other = await new.submit("greeter")
            assert (await other.result()).ok, "what others need is not held up"
            row = new.insights.run(run.id)
            assert row is not None and row.worker is None
            assert [shown.waiting_on for shown in new.insights.runs(tenants=["default"]) if shown.run_id == run.id] == [
                row.waiting_on
            ]
        async with deck("old").start(open_store=store) as old:
            assert (await old.handle(run.id).result()).ok, "the code is there again"


@pytest.mark.parametrize("any_code", [True, False])
async def test_an_operator_may_let_any_code_look(database: str, any_code: bool) -> None:
    store = open_store(database)
    async with asyncio.timeout(60):
        async with deck("old").start(open_store=store) as old:
            run = await old.submit("parcel", {"order": "A1"})
            await run.rest()
        async with deck("new").start(open_store=store, any_code=any_code) as new:
            await new.signal(run.id, "go")
            if any_code:
                row = await new.until(run.id, lambda row: row.code == "replay.divergence")
                assert row.status == "waiting", "it is compared with what was recorded, and parked"
            else:
                assert not new.insights.due(new.parts.clock.now_us(), new.about.programs)


async def test_a_worker_that_stops_hands_its_runs_on_before_it_is_gone(database: str) -> None:
    """While one effect of the stopping worker is still under way, its other runs go on elsewhere."""
    slow, quick = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    def made(name: str) -> Quarterdeck:
        yard = Quarterdeck("yard")

        @yard.tool(effect="external")
        async def haul(what: str) -> str:
            """Haul something."""
            await (slow if what == "slow" else quick).wait()
            done.append(f"{name} {what}")
            return what

        turns = [[[("haul", {"what": what})], [("haul", {"what": what})], "done"] for what in ("slow", "quick")]
        yard.agent("slow", model=ScriptedModel(turns[0]), tools=[haul])
        yard.agent("quick", model=ScriptedModel(turns[1]), tools=[haul])
        return yard

    store = open_store(database)
    async with asyncio.timeout(60):
        first = made("first").start(open_store=store)
        rt = await first.__aenter__()
        runs = [await rt.submit("slow"), await rt.submit("quick")]
        async with made("second").start(open_store=store, max_active=0) as looker:
            await until(lambda: all(row.seq > 6 for row in looker.runs()) and rt.active == 2, "both are being performed")
            async with made("second").start(open_store=store) as second:
                leaving = asyncio.ensure_future(first.__aexit__(None, None, None))
                quick.set()
                assert (await second.handle(runs[1].id).result()).ok
                assert not leaving.done(), "the other effect is still under way"
                slow.set()
                await leaving
                assert (await second.handle(runs[0].id).result()).ok
    assert sorted(done) == ["first quick", "first slow", "second quick", "second slow"]
