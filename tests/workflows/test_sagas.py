"""What was done is undone, newest first, each once, through every crash; what cannot be undone waits for a person."""

from __future__ import annotations

import pytest

from quarterdeck import Context, Quarterdeck, StepFailed, ToolContext, ToolFailure
from quarterdeck.app.runtime import Runtime
from tests.workflows.stage import World, desk, staged

UNDONE = ["flight", "hotel", "car", "undo car", "undo hotel", "undo flight"]


def trip(world: World) -> Quarterdeck:
    deck = desk(world)

    @deck.workflow("trip")
    async def trip(ctx: Context, end: str) -> object:
        async with ctx.saga():
            await ctx.tool("book", what="flight")
            async with ctx.saga():
                await ctx.tool("book", what="hotel")
            await ctx.tool("book", what="car")
            if end == "fails":
                await ctx.tool("refuse", what="x")
            elif end == "is denied":
                (await ctx.approve("go", {"trip": 1}, timeout=60)).require()
            elif end == "waits":
                await ctx.sleep(5_000)
            elif end == "raises":
                raise ValueError("no")
        return "there"

    return deck


async def cancel(runtime: Runtime, run_id: str) -> None:
    await runtime.until(run_id, lambda row: row.status == "waiting")
    await runtime.cancel(run_id)


@pytest.mark.parametrize(
    ("end", "status", "code", "effects"),
    [
        ("well", "succeeded", "completed", ["flight", "hotel", "car"]),
        ("fails", "failed", "provider.refused", UNDONE),
        ("raises", "failed", "workflow.failed", UNDONE),
        ("is denied", "refused", "approval.expired", UNDONE),
    ],
)
def test_an_end_decides_what_is_undone(end: str, status: str, code: str, effects: list[str]) -> None:
    result, world, _ = staged(trip, "trip", {"end": end})
    assert (result.status, result.code, world.log) == (status, code, effects)
    assert result.effects["compensated"] == (3 if "undo car" in effects else 0)


def test_a_cancel_undoes() -> None:
    result, world, _ = staged(trip, "trip", {"end": "waits"}, scene=cancel)
    assert (result.status, world.log) == ("cancelled", UNDONE)


def test_a_cancel_that_only_stops_undoes_nothing() -> None:
    async def stop(runtime: Runtime, run_id: str) -> None:
        await runtime.until(run_id, lambda row: row.status == "waiting")
        await runtime.cancel(run_id, compensate=False)

    result, world, _ = staged(trip, "trip", {"end": "waits"}, scene=stop)
    assert (result.status, world.log) == ("cancelled", ["flight", "hotel", "car"])


@pytest.mark.parametrize("end", ["fails", "waits"])
def test_undoing_survives_a_crash_at_every_point(end: str) -> None:
    scene = cancel if end == "waits" else None
    points = staged(trip, "trip", {"end": end}, scene=scene)[1].points
    for point in range(1, points + 1):
        result, world, _ = staged(trip, "trip", {"end": end}, crashes={point}, scene=scene)
        assert world.log == UNDONE, f"crash at {point}"
        assert result.status == ("cancelled" if scene else "failed")


def stubborn(world: World) -> Quarterdeck:
    """A tool that can be undone at the third attempt only, and one whose compensation the author gives."""
    deck = desk(world)
    tried: list[str] = []

    async def untie(what: str, ctx: ToolContext) -> str:
        tried.append(what)
        if world.effects["attempt"] < 2:
            world.log.append("attempt")
            raise ToolFailure("provider.closed", "come back tomorrow")
        return await world.act(f"undo {what}", f"undo:{ctx.idempotency_key}")

    @deck.tool(effect="external", compensate=untie)
    async def tie(what: str, ctx: ToolContext) -> str:
        return await world.act(what, ctx.idempotency_key)

    @deck.workflow("knot")
    async def knot(ctx: Context) -> str:
        async with ctx.saga() as saga:
            await ctx.tool("tie", what="rope")
            await ctx.tool("book", what="boat")
            saga.compensate("book", what="instead of the default")
            raise StepFailed("sea.rough", "no")

    return deck


def test_what_cannot_be_undone_waits_for_a_person() -> None:
    seen = []

    async def person(runtime: Runtime, run_id: str) -> None:
        while True:
            row = await runtime.until(run_id, lambda row: row.status == "waiting" and row.code == "compensation.stuck")
            seen.append(row.waiting_on)
            await runtime.resume(run_id, by="bo")
            await runtime.parts.clock.sleep(5)

    result, world, _ = staged(stubborn, "knot", scene=person)
    assert (result.status, result.code) == ("failed", "sea.rough")
    assert world.log == ["rope", "boat", "instead of the default", "attempt", "attempt", "undo rope"]
    assert len(seen) == 2
    assert seen[0][0].startswith("compensation:")
    assert result.effects["compensated"] == 2


def test_a_person_can_say_that_it_was_undone_by_hand() -> None:
    async def person(runtime: Runtime, run_id: str) -> None:
        await runtime.until(run_id, lambda row: row.status == "waiting" and row.code == "compensation.stuck")
        await runtime.resume(run_id, by="bo", done=True)

    result, world, _ = staged(stubborn, "knot", scene=person)
    assert (result.status, result.effects["compensated"]) == ("failed", 2)
    assert "undo rope" not in world.log
