"""Workflows hear interrupts in the same place in every execution, and what their tools have started is stopped when they are cancelled."""

from __future__ import annotations

import pytest

from quarterdeck import Context, Interrupted, Quarterdeck, ToolContext
from quarterdeck.app.runtime import Runtime
from tests.workflows.stage import World, desk, staged


def office(world: World) -> Quarterdeck:
    deck = desk(world)

    async def stop(what: str, result: object, ctx: ToolContext) -> str:
        return await world.act(f"stop {what} {result}", f"stop:{ctx.idempotency_key}")

    @deck.tool(effect="external", idempotent=True, cancel=stop)
    async def start(what: str, ctx: ToolContext) -> str:
        """Start something that goes on elsewhere."""
        return await world.act(what, ctx.idempotency_key)

    @deck.workflow("polls")
    async def polls(ctx: Context) -> object:
        seen = []
        for _ in range(3):
            await ctx.sleep(100)
            seen.append(ctx.interrupts())
        return seen

    @deck.workflow("raises", interrupts="raise")
    async def raises(ctx: Context, on: str) -> object:
        try:
            if on == "timer":
                await ctx.sleep(10_000)
            elif on == "signal":
                await ctx.signal("never")
            else:
                await ctx.approve("go", {"n": 1}, timeout=10_000)
        except Interrupted as said:
            await ctx.tool("book", what=f"told {said.payload}")
            return said.payload
        return "not told"

    @deck.workflow("jobs")
    async def jobs(ctx: Context, how: str) -> object:
        await ctx.gather(ctx.tool("start", what="one"), ctx.tool("start", what="two"))
        if how == "waits":
            await ctx.sleep(10_000)
        return "done"

    return deck


async def interrupt(runtime: Runtime, run_id: str) -> None:
    await runtime.until(run_id, lambda row: row.status == "waiting")
    await runtime.interrupt(run_id, "now", trusted=True, token="one")


async def cancel(runtime: Runtime, run_id: str) -> None:
    await runtime.until(run_id, lambda row: row.status == "waiting")
    await runtime.cancel(run_id)


async def drain(runtime: Runtime, run_id: str) -> None:
    await runtime.until(run_id, lambda row: row.status == "waiting")
    await runtime.cancel(run_id, mode="drain")


def test_a_workflow_asks_what_it_was_told() -> None:
    result, _, _ = staged(office, "polls", scene=interrupt)
    assert result.text == '[["now"],[],[]]'


@pytest.mark.parametrize("on", ["timer", "signal", "person"])
def test_an_interrupt_ends_a_wait_where_the_workflow_wants_it_so(on: str) -> None:
    result, world, store = staged(office, "raises", {"on": on}, scene=interrupt)
    assert (result.status, result.text, world.log) == ("succeeded", "now", ["told now"])
    assert [row.status for row in store.approvals(status=None)] == (["withdrawn"] if on == "person" else [])


def test_an_interrupted_workflow_survives_a_crash_at_every_point() -> None:
    points = staged(office, "raises", {"on": "timer"}, scene=interrupt)[1].points
    for point in range(1, points + 1):
        result, world, _ = staged(office, "raises", {"on": "timer"}, crashes={point}, scene=interrupt)
        assert (result.text, world.log) == ("now", ["told now"]), f"crash at {point}"


def test_a_cancel_stops_what_was_started_once_through_a_crash_at_every_point() -> None:
    result, plain, _ = staged(office, "jobs", {"how": "waits"}, scene=cancel)
    assert (result.status, plain.log) == ("cancelled", ["one", "two", "stop one one", "stop two two"])
    assert result.effects["compensated"] == 2
    for point in range(1, plain.points + 1):
        result, world, _ = staged(office, "jobs", {"how": "waits"}, crashes={point}, scene=cancel)
        assert (result.status, world.effects) == ("cancelled", plain.effects), f"crash at {point}"


def test_what_drains_and_what_is_done_is_left_alone() -> None:
    assert staged(office, "jobs", {"how": "waits"}, scene=drain)[1].log == ["one", "two"]
    assert staged(office, "jobs", {"how": "ends"})[1].log == ["one", "two"]


def test_what_an_interrupt_says_is_told_in_the_order_of_the_journal() -> None:
    async def twice(runtime: Runtime, run_id: str) -> None:
        await interrupt(runtime, run_id)
        await runtime.interrupt(run_id, "then", trusted=True, token="two")

    assert staged(office, "polls", scene=twice)[0].text == '[["now","then"],[],[]]'
