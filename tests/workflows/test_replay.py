"""A workflow survives a crash at every point: nothing is done twice, nothing is lost, the result is the same."""

from __future__ import annotations

import pytest

from quarterdeck import Context, Quarterdeck
from tests.workflows.stage import World, add, desk, staged


def trip(world: World) -> Quarterdeck:
    """A workflow with everything in it that can be interrupted."""
    deck = desk(world)

    @deck.workflow("child")
    async def child(ctx: Context, what: str) -> object:
        return await ctx.tool("book", what=what)

    @deck.workflow("trip")
    async def trip(ctx: Context, city: str) -> object:
        days = await ctx.step(add, 1, 2)
        flight = await ctx.tool("book", what=f"flight to {city}")
        hotel, museum = await ctx.gather(ctx.tool("book", what="hotel"), ctx.tool("pay", what="museum"))
        await ctx.sleep(3_600)
        car = await ctx.workflow("child", {"what": "car"})
        return [days, flight, hotel, museum, car, ctx.uuid()]

    return deck


def test_it_runs() -> None:
    result, world, store = staged(trip, "trip", {"city": "Rome"})
    assert result.status == "succeeded", result
    assert result.text.startswith('[3,"flight to Rome","hotel","museum","car"')
    assert world.effects == {"flight to Rome": 1, "hotel": 1, "museum": 1, "car": 1}
    assert [row.parent_run_id is None for row in store.runs()] == [False, True]


PLAIN, _, _ = staged(trip, "trip", {"city": "Rome"})
POINTS = staged(trip, "trip", {"city": "Rome"})[1].points


@pytest.mark.parametrize("point", range(1, POINTS + 1))
def test_it_survives_a_crash_at_every_point(point: int) -> None:
    result, world, _ = staged(trip, "trip", {"city": "Rome"}, crashes={point})
    assert world.points > point, "the crash did not strike"
    assert result.status == "succeeded", result
    assert result.text.rpartition(",")[0] == PLAIN.text.rpartition(",")[0]
    assert world.effects == {"flight to Rome": 1, "hotel": 1, "museum": 1, "car": 1}
