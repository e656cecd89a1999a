"""Programs written as data, so that they can be drawn at random: a workflow that executes them, and what must come of them.

A program is a leaf with a number, or a form with parts. What it does outside carries its place in the program, so that whatever happens
twice is seen.

>>> import random
>>> drawn(random.Random(5), 3) == drawn(random.Random(5), 3)
True
"""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from quarterdeck import Context, Denied, Quarterdeck, StepFailed
from quarterdeck.app.views import RunResult
from quarterdeck.testing.programs import World, add, desk

LEAVES = ("step", "book", "pay", "refuse", "sleep", "child", "denied", "draw")
"""What a program can do."""
FORMS = ("seq", "par", "saga", "try", "nest")
"""How parts are put together: one after the other, side by side, undone if they fail, with errors caught, in a run of their own."""

Program = list[object]
"""A kind, and a number or parts."""


def drawn(chance: random.Random, depth: int = 3) -> Program:
    """A program, at most so deep."""
    if depth == 0 or chance.random() < 0.35:
        return [chance.choice(LEAVES), chance.randrange(10)]
    return [chance.choice(FORMS), [drawn(chance, depth - 1) for _ in range(chance.randrange(4))]]


async def interpret(ctx: Context, program: list[object], path: str = "") -> object:
    """Executes a program."""
    kind, parts = program
    what = f"{path}{kind}{parts}"
    match kind:
        case "step":
            return await ctx.step(add, parts, 1)
        case "book" | "pay" | "refuse":
            return await ctx.tool(kind, what=what)
        case "denied":
            return await ctx.tool("nowhere", what=what)
        case "sleep":
            await ctx.sleep(float(str(parts)))
            return None
        case "child":
            return await ctx.workflow("interpret", {"program": ["book", parts], "path": f"{path}c"})
        case "draw":
            return [len(ctx.uuid()), ctx.random() < 1]
    return await _composed(ctx, str(kind), parts, path)  # type: ignore[arg-type]


async def _composed(ctx: Context, kind: str, parts: list[Program], path: str) -> object:
    match kind:
        case "par":
            return await ctx.gather(*[interpret(ctx, part, f"{path}{index}.") for index, part in enumerate(parts)])
        case "nest":
            return await ctx.workflow("interpret", {"program": ["seq", parts], "path": f"{path}n"})
        case "saga":
            async with ctx.saga():
                done = await _sequence(ctx, parts, path)
                await ctx.tool("book", what=f"{path}last")
                if len(parts) % 2:
                    raise StepFailed("program.failed", "as it says")
                return done
        case "try":
            try:
                return await _sequence(ctx, parts, path)
            except (StepFailed, Denied) as error:
                return error.code
    return await _sequence(ctx, parts, path)


async def _sequence(ctx: Context, parts: list[Program], path: str) -> list[object]:
    return [await interpret(ctx, part, f"{path}{index}.") for index, part in enumerate(parts)]


def machine(world: World) -> Quarterdeck:
    """A deck whose workflow executes programs."""
    deck = desk(world)
    deck.workflow("interpret")(interpret)
    return deck


def outcome(result: RunResult, world: World) -> tuple[object, ...]:
    """What must not depend on crashes: how it ended, and what was done outside, how often."""
    told = msgspec.structs.asdict(result)
    return told["status"], told["code"], told["text"], Counter(world.log)


def wrong(result: RunResult, world: World, plain: RunResult, unhurt: World) -> list[str]:
    """How a crashed program differs from the same without a crash; and what happened twice."""
    found = []
    if outcome(result, world) != outcome(plain, unhurt):
        found.append(f"{outcome(result, world)} came of it, without crashes {outcome(plain, unhurt)}")
    found += [f"{what} happened {count} times" for what, count in sorted(world.effects.items()) if count > 1]
    return found
