"""Random programs, crashed at random points, end as they would have without a crash: same result, same effects, each once."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterdeck import Context, Denied, Quarterdeck, StepFailed
from tests.workflows.files import file_staged
from tests.workflows.stage import World, add, desk, staged

LEAVES = ["step", "book", "pay", "refuse", "sleep", "child", "denied", "draw"]
leaves = st.tuples(st.sampled_from(LEAVES), st.integers(0, 9)).map(list)
programs = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from(["seq", "par", "saga", "try", "nest"]), st.lists(inner, max_size=3)).map(list),
    max_leaves=7,
)


async def interpret(ctx: Context, program: list[object], path: str = "") -> object:
    """Executes a program that is written as data: a leaf with a number, or a form with parts."""
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
            return await ctx.sleep(float(parts))  # type: ignore[arg-type]
        case "child":
            return await ctx.workflow("interpret", {"program": ["book", parts], "path": f"{path}c"})
        case "draw":
            return [len(ctx.uuid()), ctx.random() < 1]
    if kind == "par":
        return await ctx.gather(*[interpret(ctx, part, f"{path}{index}.") for index, part in enumerate(parts)])
    if kind == "nest":
        return await ctx.workflow("interpret", {"program": ["seq", parts], "path": f"{path}n"})
    if kind == "saga":
        async with ctx.saga():
            done = await sequence(ctx, parts, path)
            await ctx.tool("book", what=f"{path}last")
            if len(parts) % 2:
                raise StepFailed("program.failed", "as it says")
            return done
    if kind == "try":
        try:
            return await sequence(ctx, parts, path)
        except (StepFailed, Denied) as error:
            return error.code
    return await sequence(ctx, parts, path)


async def sequence(ctx: Context, parts: list[list[object]], path: str) -> list[object]:
    """One after the other."""
    return [await interpret(ctx, part, f"{path}{index}.") for index, part in enumerate(parts)]


def machine(world: World) -> Quarterdeck:
    """A deck whose workflow executes programs."""
    deck = desk(world)
    deck.workflow("interpret")(interpret)
    return deck


def outcome(result: object, world: World) -> tuple[object, ...]:
    """What must not depend on crashes."""
    told = msgspec.structs.asdict(result)  # type: ignore[type-var]
    return told["status"], told["code"], told["text"], Counter(world.log)


SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(program=programs, crashes=st.sets(st.integers(1, 80), max_size=4))
def test_crashes_change_nothing(program: list[object], crashes: set[int]) -> None:
    payload = {"program": program}
    plain, world, _ = staged(machine, "interpret", payload)
    crashed, after, _ = staged(machine, "interpret", payload, crashes=crashes)
    assert outcome(crashed, after) == outcome(plain, world)
    assert all(count == 1 for count in after.effects.values()) or program_repeats(program)


def program_repeats(program: list[object]) -> bool:
    """Whether a program does the same thing twice by itself; its paths say so, and they never do."""
    return False


@settings(SETTINGS, max_examples=12)
@given(program=programs, crashes=st.sets(st.integers(1, 60), min_size=1, max_size=3))
def test_crashes_change_nothing_on_a_file(
    tmp_path_factory: pytest.TempPathFactory, program: list[object], crashes: set[int]
) -> None:
    payload = {"program": program}
    plain, world, _ = staged(machine, "interpret", payload)
    crashed, after = file_staged(machine, "interpret", payload, tmp_path_factory.mktemp("runs") / "a.db", crashes)
    assert outcome(crashed, after) == outcome(plain, world)
