"""Executed again, a workflow must ask for the same: anything else parks the run, with both sides shown, before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quarterdeck import Context, Quarterdeck
from quarterdeck.app import wiring
from quarterdeck.core import events as ev
from quarterdeck.core.events import ReplayDiverged, decode
from quarterdeck.dispatch import embedded
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, add, cached_policy, desk, opening, staged

Body = Callable[[Context], object]


def deck_of(world: World, body: Body) -> Quarterdeck:
    """A deck with this one workflow."""
    deck = desk(world)
    deck.workflow("flow")(body)  # type: ignore[type-var]
    return deck


async def old(ctx: Context) -> object:
    """What the run began with."""
    await ctx.tool("book", what="flight")
    await ctx.signal("go")
    return await ctx.tool("book", what="hotel")


async def other_arguments(ctx: Context) -> object:
    await ctx.tool("book", what="train")
    await ctx.signal("go")


async def other_order(ctx: Context) -> object:
    await ctx.step(add, 1, 2)
    await ctx.tool("book", what="flight")
    await ctx.signal("go")


async def other_kind(ctx: Context) -> object:
    await ctx.workflow("book", {"what": "flight"})


async def shorter(ctx: Context) -> object:
    return "early"


async def waits_too_soon(ctx: Context) -> object:
    await ctx.gather(ctx.tool("book", what="flight"), ctx.signal("go"))


async def catches_everything(ctx: Context) -> object:
    async with ctx.saga():
        try:
            await ctx.tool("book", what="flight")
            ctx.emit("new")
        except Exception as error:
            return str(error)
    return await ctx.signal("go")


def upgraded(new: Body, *, then: Body | None = None) -> tuple[str, str, list[str], list[ev.Event]]:
    """Begin with the old code, go on with the new: status, code, effects, journal. ``then``: code that a person resumes it with."""
    world, clock = World(), VirtualClock()

    async def main() -> tuple[str, str, MemoryStore]:
        store = MemoryStore("w0")
        async with opening(deck_of(world, old), store, clock) as runtime:
            handle = await runtime.submit("flow", user="ada")
            await handle.rest()
        store = store.connect("w1")
        async with opening(deck_of(world, new), store, clock, 1) as runtime:
            await runtime.signal(handle.id, "go", 1)
            row = await runtime.until(handle.id, lambda row: row.code != "signal.awaited" and row.worker is None)
        if then is not None:
            store = store.connect("w2")
            async with opening(deck_of(world, then), store, clock, 2) as runtime:
                await runtime.resume(handle.id, by="bo")
                await runtime.handle(handle.id).result(1_000)
                row = runtime.show(handle.id).row
        return row.status, row.code, store

    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        status, code, store = run(main(), clock=clock)
    events = [decode(stored.body) for stored in store.events(store.runs()[0].run_id)]
    return status, code, world.log, events


@pytest.mark.parametrize("new", [other_arguments, other_order, other_kind, shorter, waits_too_soon, catches_everything])
def test_other_code_parks_the_run_and_does_nothing(new: Body) -> None:
    status, code, effects, events = upgraded(new)
    assert (status, code, effects) == ("waiting", "replay.divergence", ["flight"])
    [diverged] = [event for event in events if isinstance(event, ReplayDiverged)]
    assert diverged.recorded
    assert diverged.proposed
    assert diverged.recorded != diverged.proposed


@pytest.mark.parametrize("new", [other_arguments, shorter])
def test_a_person_resumes_it_with_code_that_fits(new: Body) -> None:
    status, _, effects, _ = upgraded(new, then=old)
    assert (status, effects) == ("succeeded", ["flight", "hotel"])


def test_a_patch_lets_old_runs_go_the_old_way() -> None:
    async def new(ctx: Context) -> object:
        await ctx.tool("book", what="flight")
        if ctx.patched("insured"):
            await ctx.tool("book", what="insurance")
        await ctx.signal("go")
        if ctx.patched("bigger"):
            return await ctx.tool("book", what="suite")
        return await ctx.tool("book", what="hotel")

    status, _, effects, _ = upgraded(new)
    assert (status, effects) == ("succeeded", ["flight", "suite"])


def test_named_steps_and_code_that_fits_need_no_patch() -> None:
    async def longer(ctx: Context) -> object:
        await ctx.tool("book", what="flight")
        await ctx.signal("go")
        await ctx.step(add, 1, 1, key="sum")
        return await ctx.tool("book", what="castle", key="stay")

    assert upgraded(longer)[2] == ["flight", "castle"]


async def sleeps(ctx: Context) -> object:
    return await asyncio.sleep(1)  # noqa: TID251 - that is what is refused


async def yields(ctx: Context) -> object:
    return await asyncio.sleep(0)  # noqa: TID251


async def gathers(ctx: Context) -> object:
    async with asyncio.timeout(1):
        return await ctx.sleep(1)


async def threads(ctx: Context) -> object:
    return await asyncio.to_thread(int)


@pytest.mark.parametrize("body", [sleeps, yields, gathers, threads])
def test_what_is_not_recorded_cannot_be_awaited(body: Body) -> None:
    async def careful(ctx: Context) -> object:
        async with ctx.saga():
            await ctx.tool("book", what="flight")
            return await body(ctx)  # type: ignore[misc]

    result, world, _ = staged(lambda world: deck_of(world, careful), "flow")
    assert (result.status, result.code) == ("failed", "workflow.foreign_await")
    assert world.log == ["flight", "undo flight"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda ctx: ctx.step(add, 1, 2, key="1x"), "workflow.key_invalid"),
        (lambda ctx: ctx.tool("book", what=object()), "workflow.arguments"),
        (lambda ctx: ctx.gather(*[ctx.step(add, 1, 2)] * 1_001), "workflow.too_many_branches"),
        (lambda ctx: ctx.tool(print), "tool.undeclared"),
        (lambda ctx: ctx.agent(3), "workflow.program"),
        (lambda ctx: ctx.agent("nobody"), "route.unknown"),
        (lambda ctx: ctx.model("nobody", "x"), "workflow.model_unknown"),
        (lambda ctx: ctx.sleep(-1), "duration.invalid"),
        (lambda ctx: ctx.approve("x", on_timeout="maybe"), "approval.on_timeout"),
    ],
)
def test_mistakes_have_codes(body: Body, code: str) -> None:
    async def mistaken(ctx: Context) -> object:
        return await body(ctx)  # type: ignore[misc]

    assert staged(lambda world: deck_of(world, mistaken), "flow")[0].code == code


def test_a_name_is_used_once() -> None:
    async def twice(ctx: Context) -> object:
        await ctx.step(add, 1, 2, key="sum")
        return await ctx.step(add, 1, 2, key="sum")

    assert staged(lambda world: deck_of(world, twice), "flow")[0].code == "workflow.key_twice"


def test_a_payload_has_to_fit() -> None:
    async def picky(ctx: Context, size: int, colour: str) -> object:
        return [size, colour]

    make = lambda world: deck_of(world, picky)  # noqa: E731
    assert staged(make, "flow", {"size": 3, "colour": "red"})[0].text == '[3,"red"]'
    assert staged(make, "flow", {"size": 3})[0].code == "workflow.payload"
    assert staged(make, "flow", {"size": "3", "colour": "red"})[0].code == "workflow.payload"


def test_a_run_that_does_not_heed_its_cancel_is_ended() -> None:
    async def deaf(ctx: Context) -> object:
        while True:
            try:
                await ctx.sleep(10)
            except asyncio.CancelledError:
                continue

    async def cancel(runtime, run_id) -> None:
        await runtime.parts.clock.sleep(50)
        await runtime.cancel(run_id)

    assert staged(lambda world: deck_of(world, deaf), "flow", scene=cancel)[0].status == "cancelled"
