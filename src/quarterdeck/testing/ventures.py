"""The workflows of a simulation: programs drawn as data, and the function that executes them against a world that fails.

What a program does outside carries the place of the saga that it belongs to, and a saga that fails says so before anything of it is
undone. So whoever reads the journal knows what had to be undone, without knowing how sagas work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.app.deck import Quarterdeck
from quarterdeck.engine.workflows.context import Context
from quarterdeck.engine.workflows.errors import Denied, StepFailed
from quarterdeck.testing.processes import current
from quarterdeck.testing.scenario import TOPIC, VENTURE, Scenario, Venture
from quarterdeck.testing.world import UNDO, World, for_ever

UNDONE_BY = {"note": f"note{UNDO}", "ship": f"ship{UNDO}"}
"""The tools that are undone, and by which."""
FAILED = "saga.failed"
"""What a program emits when it leaves a saga by an error; its payload is the saga's place."""
NEWS = "news"
"""The name of the messages that clients send."""


class Told(msgspec.Struct, frozen=True):
    """The payload of a simulated workflow."""

    label: str
    program: Venture
    path: str = "v"


Function = Callable[..., Awaitable[object]]


def declare(deck: Quarterdeck, scenario: Scenario, world: World) -> None:
    """Give a deck the workflow that executes programs."""
    compute = computing(world)

    async def venture(ctx: Context, told: Told) -> object:
        return await _execute(ctx, compute, told.label, told.program, told.path, "")

    letters = (f"publish.{TOPIC}",) if scenario.letters else ()
    deck.workflow(VENTURE, tools=("lookup", "note", "ship", "pay", "mail", *letters))(venture)
    deck.compensations.update(UNDONE_BY)
    route = deck.routes[VENTURE]
    deck.routes[VENTURE] = msgspec.structs.replace(route, approval_timeout_s=scenario.agents[0].approval_timeout_s)


def computing(world: World) -> Function:
    """A function as a step: a read that fails, takes its time, or dies with its process."""

    async def compute(number: int) -> int:
        process = current()
        if process is None or process.dead:
            await for_ever()
        if world.dies(world.rates.crash_tool / 2):
            await for_ever()
        if world.roll(world.rates.tool_refused):
            raise ConnectionRefusedError("nobody listens")
        await world.clock.sleep(world.between(0.0, 0.5))
        return number * 2

    return compute


async def _execute(ctx: Context, compute: Function, label: str, program: Venture, path: str, saga: str) -> object:
    kind, number, parts = program.kind, program.number, program.parts
    match kind:
        case "seq":
            return await _sequence(ctx, compute, label, parts, path, saga)
        case "par":
            order: list[int] = []
            await ctx.gather(*[_branch(ctx, compute, label, part, f"{path}.{n}", saga, order, n) for n, part in enumerate(parts)])
            ctx.emit("order", order)
            return order
        case "saga":
            async with ctx.saga():
                try:
                    done = await _sequence(ctx, compute, label, parts, path, path)
                    if number % 2:
                        raise StepFailed("venture.failed", "as it says")
                except (Exception, asyncio.CancelledError):
                    ctx.emit(FAILED, path)
                    raise
            return done
        case "try":
            try:
                return await _sequence(ctx, compute, label, parts, path, saga)
            except (StepFailed, Denied) as error:
                return error.code
        case "nest":
            inner = Venture("seq", number, parts)
            return await ctx.workflow(VENTURE, {"label": label, "program": inner, "path": path})
        case _:
            return await _leaf(ctx, compute, label, program, path, saga)


async def _leaf(ctx: Context, compute: Function, label: str, program: Venture, path: str, saga: str) -> object:
    kind, number = program.kind, program.number
    match kind:
        case "compute":
            return await ctx.step(compute, number)
        case "sleep":
            await ctx.sleep(float(number * number))
            return None
        case "signal":
            return await ctx.signal(NEWS, timeout=60.0)
        case "approve":
            return (await ctx.approve("look", {"at": path}, timeout=30.0 * (1 + number % 3), on_timeout="deny")).require().outcome
        case "publish":
            return await ctx.publish(TOPIC, {"at": path}, key=("", "k1", "k2")[number % 3])
        case "model":
            return await ctx.model("small", msgspec.json.encode({"label": label}).decode(), max_output_tokens=60)
        case _:
            return await ctx.tool(kind, target=saga, amount=number)


async def _sequence(
    ctx: Context, compute: Function, label: str, parts: tuple[Venture, ...], path: str, saga: str
) -> list[object]:
    return [await _execute(ctx, compute, label, part, f"{path}.{index}", saga) for index, part in enumerate(parts)]


async def _branch(
    ctx: Context, compute: Function, label: str, part: Venture, path: str, saga: str, order: list[int], number: int
) -> object:
    try:
        return await _execute(ctx, compute, label, part, path, saga)
    finally:
        order.append(number)
