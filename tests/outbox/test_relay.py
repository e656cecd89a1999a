"""Messages of workflows and tools arrive at least once, in the order of their keys, whatever dies in between, and not after a cancel."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.dispatch import relay
from quarterdeck.engine.workflows.context import Context
from quarterdeck.ports.outbox import DeliveryFailed, Message
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, desk, opening, staged

FEW = RetryPolicy(max_attempts=3, base_s=1.0, cap_s=4.0, unknown_is_transient=True)


def shop(world: World, fails: dict[str, list[Exception]] | None = None) -> Quarterdeck:
    """A workflow that publishes three messages under one key and one under another, and a tool that publishes with its own receipt."""
    deck = desk(world)
    failing = fails or {}

    @deck.outbox("orders", retry=FEW)
    async def receive(message: Message) -> None:
        await world.point()
        said = message.body.decode()
        if failing.get(said):
            world.log.append(f"failed {said}")
            raise failing[said].pop(0)
        world.log.append(f"{message.key} {said} {message.message}")
        await world.point()

    @deck.tool(effect="external", transactional=True)
    async def tell(what: str, ctx: ToolContext) -> str:
        """Tell others."""
        await world.point()
        ctx.publish("orders", what.encode(), key="A1")
        return what

    @deck.workflow("order")
    async def order(ctx: Context, order: object) -> object:
        first = await ctx.publish("orders", "placed", key="A1")
        await ctx.tool(tell, what='"paid"')
        await ctx.publish("orders", "else", key="B2")
        await ctx.publish("orders", "shipped", key="A1")
        await ctx.signal("go_on")
        return first

    return deck


async def _until_told(runtime: Runtime, run_id: str) -> None:
    """Let the run end once everything has left."""
    while any(row.status == "queued" for row in runtime.insights.posts()) or len(runtime.insights.posts()) < 4:
        await runtime.parts.clock.sleep(0.3)
    await runtime.signal(run_id, "go_on", token="once")


def arrived(world: World, key: str) -> list[str]:
    """What arrived under a key, in order."""
    return [line.split(" ", 1)[1] for line in world.log if line.startswith(f"{key} ")]


def check(world: World, run_id: str) -> None:
    names = [f"{run_id}:{step}:0" for step in (1, 2, 3, 4)]
    wanted = [f'"placed" {names[0]}', f'"paid" {names[1]}', f'"shipped" {names[3]}']
    got = arrived(world, "A1")
    assert list(dict.fromkeys(got)) == wanted, got
    places = [wanted.index(line) for line in got]
    assert places == sorted(places), f"a message was passed by a later one of its key: {got}"
    assert set(arrived(world, "B2")) == {f'"else" {names[2]}'}


def test_messages_leave_in_the_order_of_their_keys() -> None:
    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(shop, "order", {}, scene=_until_told)
    assert (result.status, result.text) == ("succeeded", f"{result.run_id}:1:0")
    check(world, result.run_id)
    assert len(world.log) == 4, "without a crash, each arrives once"
    assert {row.status for row in store.posts()} == {"delivered"}


@pytest.mark.parametrize("crash", range(1, 62, 2))
def test_a_crash_at_any_moment_loses_nothing_and_keeps_the_order(crash: int) -> None:
    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(shop, "order", {}, scene=_until_told, crashes={crash, crash + 40})
    assert result.status == "succeeded"
    check(world, result.run_id)
    assert {row.status for row in store.posts()} == {"delivered"}
    assert len(store.posts()) == 4, "what was performed again after a crash published nothing twice"


def test_a_message_that_fails_is_tried_again_and_nothing_passes_it() -> None:
    errors: list[Exception] = [OSError("away"), DeliveryFailed("x.busy", "later", retry_after_s=3.0)]
    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(lambda world: shop(world, {'"placed"': errors}), "order", {}, scene=_until_told)
    check(world, result.run_id)
    assert world.log.count('failed "placed"') == 2
    row = store.post(f"{result.run_id}:1:0")
    assert row is not None and (row.status, row.attempts) == ("delivered", 3)


async def _decide(runtime: Runtime, run_id: str) -> None:
    while not (dead := runtime.insights.posts(status="dead")):
        await runtime.parts.clock.sleep(0.3)
    await runtime.parts.clock.sleep(60.0)
    waiting = [row.message for row in runtime.insights.posts(status="queued")]
    assert waiting == [f"{run_id}:4:0", f"{run_id}:2:0"], "what is behind a dead one waits for a person"
    await runtime.decide_post(dead[0].message, "requeue", by="ada", reason="mended")
    await _until_told(runtime, run_id)


def test_a_dead_message_stops_its_key_until_a_person_decides() -> None:
    errors: list[Exception] = [DeliveryFailed("x.never", "no", transient=False)]
    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(lambda world: shop(world, {'"placed"': errors}), "order", {}, scene=_decide)
    check(world, result.run_id)
    row = store.post(f"{result.run_id}:1:0")
    assert row is not None and (row.status, row.decided_by, row.reason) == ("delivered", "ada", "mended")


def test_a_cancelled_run_tells_nothing_that_had_not_begun() -> None:
    async def scene(runtime: Runtime, run_id: str) -> None:
        while len(runtime.insights.posts()) < 4:
            await runtime.parts.clock.sleep(0.3)
        await runtime.cancel(run_id)

    errors: list[Exception] = [OSError("away")] * 2
    with patched(relay, "POLL_S", 5.0):
        result, world, store = staged(lambda world: shop(world, {'"placed"': errors}), "order", {}, scene=scene)
    assert result.status == "cancelled"
    rows = {row.message.split(":")[1]: row.status for row in store.posts()}
    assert rows["2"] == rows["4"] == "withdrawn", f"what stood behind the first had not begun: {rows}"
    assert not [line for line in arrived(world, "A1") if "paid" in line or "shipped" in line]


def test_two_relays_never_have_one_key_at_once() -> None:
    """Two runtimes on one store, deliveries that take long: of each key one message at a time, in order, each once."""
    under_way: dict[str, int] = {}
    seen: dict[str, list[str]] = {}
    clock = VirtualClock()

    def deck(name: str) -> Quarterdeck:
        deck = Quarterdeck("two")

        @deck.outbox("orders", timeout=60.0)
        async def receive(message: Message) -> None:
            under_way[message.key] = under_way.get(message.key, 0) + 1
            assert under_way[message.key] == 1, "two of one key at once"
            await clock.sleep(7.0)
            seen.setdefault(message.key, []).append(message.body.decode())
            under_way[message.key] -= 1

        @deck.workflow("order")
        async def order(ctx: Context, payload: object) -> object:
            for number in range(4):
                await ctx.publish("orders", number, key=str(payload))
            return "done"

        return deck

    async def both() -> None:
        store = MemoryStore("w1", quiesced=False)
        second = store.connect("w2")
        async with opening(deck("a"), store, clock) as one, opening(deck("b"), second, clock, 1):
            handles = [await one.submit("order", key) for key in ("x", "y", "z")]
            await asyncio.gather(*[handle.result() for handle in handles])
            while any(row.status == "queued" for row in store.posts()):
                await clock.sleep(1.0)

    run(both(), clock=clock, max_ticks=100_000)
    assert seen == {key: ["0", "1", "2", "3"] for key in ("x", "y", "z")}
