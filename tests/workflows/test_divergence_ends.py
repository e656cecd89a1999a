"""A run that is held for divergence is not stuck for ever: it is cancelled, forked, or goes on with code that fits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from quarterdeck import Context, Quarterdeck, ToolContext
from quarterdeck.app import wiring
from quarterdeck.app.runtime import Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.events import decode
from quarterdeck.core.vocabulary import CancelMode
from quarterdeck.dispatch import embedded
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, cached_policy, desk, opening

Body = Callable[..., object]
Then = Callable[[Runtime, str], Awaitable[None]]


def deck_of(world: World, body: Body) -> Quarterdeck:
    deck = desk(world)

    async def stop_job(what: str, ctx: ToolContext) -> str:
        return await world.act(f"stop {what}", f"stop:{ctx.idempotency_key}")

    @deck.tool(effect="external", idempotent=True, cancel=stop_job)
    async def begin_job(what: str, ctx: ToolContext) -> str:
        return await world.act(what, ctx.idempotency_key)

    @deck.workflow("child")
    async def child(ctx: Context) -> None:
        async with ctx.saga():
            await ctx.tool("book", what="of the child")
            await ctx.signal("never")

    deck.workflow("flow")(body)  # type: ignore[type-var]
    return deck


async def booked(ctx: Context) -> object:
    async with ctx.saga():
        await ctx.tool("book", what="flight")
        await ctx.tool("book", what="hotel")
        await ctx.signal("go")
    return "there"


async def begun(ctx: Context) -> object:
    await ctx.tool("begin_job", what="render")
    await ctx.signal("go")


async def delegated(ctx: Context) -> object:
    await ctx.workflow("child")


async def other(ctx: Context) -> object:
    await ctx.sleep(5)


def held(old: Body, then: Then, *, new: Body = other) -> tuple[str, str, list[str], list[ev.Event], MemoryStore]:
    """A run begins with the old code, is held for divergence under the new, and then something is done about it."""
    world, clock = World(), VirtualClock()

    async def main() -> tuple[str, str, MemoryStore, str]:
        store = MemoryStore("w0")
        async with opening(deck_of(world, old), store, clock) as runtime:
            name = (await runtime.submit("flow", user="ada")).id
            await runtime.handle(name).rest()
        store = store.connect("w1")
        async with opening(deck_of(world, new), store, clock, 1) as runtime:
            await runtime.signal(name, "go", 1)
            if new is other:
                await runtime.until(name, lambda row: row.code == "replay.divergence" and row.worker is None)
            await then(runtime, name)
            row = runtime.show(name).row
        return row.status, row.code, store, name

    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        status, code, store, name = run(main(), clock=clock)
    events = [decode(stored.body) for stored in store.events(name)]
    return status, code, world.log, events, store


async def ended(runtime: Runtime, name: str) -> None:
    await runtime.handle(name).result(1_000)


def cancelling(mode: CancelMode) -> Then:
    async def cancel(runtime: Runtime, name: str) -> None:
        await runtime.cancel(name, by="bo", mode=mode)
        await ended(runtime, name)

    return cancel


async def quiet(ctx: Context) -> object:
    await ctx.signal("go")


@pytest.mark.parametrize("mode", CancelMode)
def test_a_cancel_ends_a_run_that_has_nothing_to_undo(mode: CancelMode) -> None:
    status, code, log, events, _ = held(quiet, cancelling(mode))
    assert (status, code, log) == ("cancelled", "run.cancelled", [])
    diverged = [event for event in events if isinstance(event, ev.ReplayDiverged)]
    assert diverged, "both sides are told"


@pytest.mark.parametrize("mode", [CancelMode.STOP, CancelMode.DRAIN])
def test_a_cancel_that_undoes_nothing_ends_any_run(mode: CancelMode) -> None:
    status, _, log, _, _ = held(booked, cancelling(mode))
    assert (status, log) == ("cancelled", ["flight", "hotel"])


def test_what_would_have_to_be_undone_is_shown_to_a_person_who_undoes_it_by_hand() -> None:
    seen: list[tuple[str, ...]] = []

    async def by_hand(runtime: Runtime, name: str) -> None:
        await runtime.cancel(name, by="bo")
        row = await runtime.until(name, lambda row: row.code == "compensation.stuck" and row.worker is None)
        seen.append(row.waiting_on)
        await runtime.resume(name, by="bo", done=True)
        await ended(runtime, name)

    status, _, log, _, _ = held(booked, by_hand)
    assert seen == [("compensation:3", "compensation:2")], "newest first"
    assert (status, log) == ("cancelled", ["flight", "hotel"])


def test_a_resume_that_says_nothing_of_hands_does_not_end_it_and_a_stop_does() -> None:
    async def stopped(runtime: Runtime, name: str) -> None:
        await runtime.resume(name, by="bo", done=True)  # before the cancel it means nothing for it
        await runtime.until(name, lambda row: row.code == "replay.divergence" and row.worker is None)
        await runtime.cancel(name, by="bo")
        await runtime.until(name, lambda row: row.code == "compensation.stuck" and row.worker is None)
        seq = runtime.show(name).row.seq
        await runtime.resume(name, by="bo")
        await runtime.until(name, lambda row: row.seq > seq and row.code == "compensation.stuck" and row.worker is None)
        await runtime.cancel(name, by="bo", mode=CancelMode.STOP)
        await ended(runtime, name)

    status, _, log, _, _ = held(booked, stopped)
    assert (status, log) == ("cancelled", ["flight", "hotel"])


def test_a_cancelled_run_undoes_once_its_old_code_is_back() -> None:
    world, clock = World(), VirtualClock()

    async def main() -> str:
        store = MemoryStore("w0")
        for number, body in enumerate((booked, other, booked)):
            async with opening(deck_of(world, body), store, clock, number) as runtime:
                if number == 0:
                    name = (await runtime.submit("flow", user="ada")).id
                    await runtime.handle(name).rest()
                elif number == 1:
                    await runtime.cancel(name, by="bo")
                    await runtime.until(name, lambda row: row.code == "compensation.stuck" and row.worker is None)
                else:
                    await runtime.resume(name, by="bo")
                    await runtime.handle(name).result(1_000)
                status = runtime.show(name).row.status
            store = store.connect(f"w{number + 1}")
        return status

    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        status = run(main(), clock=clock)
    assert (status, world.log) == ("cancelled", ["flight", "hotel", "undo hotel", "undo flight"])


@pytest.mark.parametrize(("mode", "log"), [(CancelMode.COMPENSATE, ["render", "stop render"]), (CancelMode.DRAIN, ["render"])])
def test_what_it_has_started_outside_is_stopped(mode: CancelMode, log: list[str]) -> None:
    status, _, seen, _, _ = held(begun, cancelling(mode))
    assert (status, seen) == ("cancelled", log)


def test_its_children_are_stopped_and_waited_for() -> None:
    status, _, log, events, store = held(delegated, cancelling(CancelMode.COMPENSATE))
    assert (status, log) == ("cancelled", ["of the child", "undo of the child"])
    assert {row.status for row in store.runs()} == {"cancelled"}
    [told] = [event for event in events if isinstance(event, ev.ChildEnded)]
    assert told.status == "cancelled"


def test_a_fork_goes_on_beside_it() -> None:
    async def forked(runtime: Runtime, name: str) -> None:
        fork = await runtime.fork(name, "3", by="bo")
        assert (await fork.result(1_000)).ok
        await runtime.cancel(name, by="bo", mode=CancelMode.STOP)
        await ended(runtime, name)

    async def mended(ctx: Context) -> object:
        async with ctx.saga():
            await ctx.tool("book", what="flight")
            await ctx.tool("book", what="castle")
        return "there"

    status, _, log, events, _ = held(booked, forked, new=mended)
    assert any(isinstance(event, ev.ReplayDiverged) for event in events)
    assert (status, log) == ("cancelled", ["flight", "hotel", "castle"])


def test_a_patch_marker_resolves_it() -> None:
    async def patched_body(ctx: Context) -> object:
        async with ctx.saga():
            if ctx.patched("insured"):
                await ctx.tool("book", what="insurance")
            await ctx.tool("book", what="flight")
            await ctx.tool("book", what="hotel")
            await ctx.signal("go")
        return "there"

    status, _, log, _, _ = held(booked, ended, new=patched_body)
    assert (status, log) == ("succeeded", ["flight", "hotel"])


def test_the_old_code_resolves_it() -> None:
    async def by_old_code(runtime: Runtime, name: str) -> None:
        return None

    status, code, _, _, store = held(booked, by_old_code)
    assert (status, code) == ("waiting", "replay.divergence")
    world, clock = World(), VirtualClock()

    async def main() -> str:
        connected = store.connect("w2")
        async with opening(deck_of(world, booked), connected, clock, 2) as runtime:
            name = connected.runs()[-1].run_id
            await runtime.resume(name, by="bo")
            return (await runtime.handle(name).result(1_000)).text

    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        assert run(main(), clock=clock) == "there"
