"""R18 and R19: sagas that are killed in the middle of undoing, and runs that are cancelled at every await.

Both play on virtual time, on a store in memory that is crashed, with a world outside that keeps its own ledger. A *point* is passed before
and after every operation of the store, and inside every tool before and after it did something; so "at every point" means at every await of
the run, whoever is waiting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from proof.result import Suite, SuiteResult
from quarterdeck import Context, Quarterdeck, StepFailed, ToolContext
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.views import RunResult
from quarterdeck.core import events as ev
from quarterdeck.core.vocabulary import CancelMode
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.mutants_runtime import RuntimeMutant
from quarterdeck.testing.mutants_workflows import WORKFLOW_MUTANTS
from quarterdeck.testing.programs import World, desk, staged

BOOKED = ("flight", "hotel", "car", "cat")
PAIRS = 400
"""Pairs of crashes that are tried at full length."""


def office(world: World) -> Quarterdeck:
    """Nested sagas, with branches and a child in them, that end as they are told to; and tools that start something elsewhere."""
    deck = desk(world)

    async def stop(what: str, ctx: ToolContext) -> str:
        return await world.act(f"stop {what}", f"stop:{ctx.idempotency_key}")

    @deck.tool(effect="external", idempotent=True, cancel=stop)
    async def start(what: str, ctx: ToolContext) -> str:
        """Start something that goes on elsewhere."""
        return await world.act(what, ctx.idempotency_key)

    @deck.workflow("trip")
    async def trip(ctx: Context, end: str) -> str:
        async with ctx.saga():
            await ctx.tool("book", what="flight")
            async with ctx.saga():
                await ctx.gather(ctx.tool("book", what="hotel"), ctx.tool("book", what="car"))
            await ctx.workflow("leg")
            if end == "fails":
                raise StepFailed("trip.off", "as it says")
            if end == "waits":
                await ctx.sleep(500)
        return "there"

    @deck.workflow("leg")
    async def leg(ctx: Context) -> str:
        async with ctx.saga() as saga:
            await ctx.tool("book", what="cat")
            saga.compensate("book", what="undo cat")
            raise StepFailed("leg.off", "it undoes itself")
        return "never"

    @deck.workflow("works")
    async def works(ctx: Context) -> str:
        async with ctx.saga():
            await ctx.tool("start", what="job")
            await ctx.gather(ctx.tool("book", what="one"), ctx.tool("book", what="two"), ctx.tool("pay", what="three"))
            await ctx.sleep(5)
            await ctx.tool("book", what="four")
        return "there"

    return deck


def undone(log: Sequence[str]) -> list[str]:
    """What is wrong with how a trip was undone: everything that was booked once, each undone once, newest first."""
    found = [f"{what} happened {count} times" for what, count in Counter(log).items() if count > 1]
    booked = [what for what in log if what in BOOKED]
    expected = [f"undo {what}" for what in reversed([what for what in booked if what != "cat"])]
    told = [what for what in log if what.startswith("undo") and what != "undo cat"]
    if told and told != expected:
        found.append(f"{booked} was undone as {told}")
    if ("cat" in log) != ("undo cat" in log):
        found.append("the child did not undo what it did")
    return found


def saga_trial(crashes: set[int], end: str) -> tuple[list[str], int]:
    """One trip that fails, killed at these points; what is wrong, and how many points there were."""
    result, world, _ = staged(office, "trip", {"end": end}, crashes=crashes)
    found = undone(world.log)
    if (result.status, result.code) != ("failed", "child.failed"):
        found.append(f"it ended as {result.status} {result.code}")
    if not any(what == "undo flight" for what in world.log):
        found.append("nothing was undone")
    return found, world.points


def cancel_trial(point: int, mode: CancelMode) -> tuple[list[str], bool]:
    """One run that is cancelled at this point; what is wrong, and whether the cancel came in time."""
    world = World()
    reached: list[tuple[Runtime, str]] = []

    async def scene(runtime: Runtime, run_id: str) -> None:
        reached.append((runtime, run_id))

    def happen() -> None:
        if reached:
            runtime, run_id = reached[0]
            orders.append(asyncio.get_running_loop().create_task(runtime.cancel(run_id, mode=mode)))

    orders: list[asyncio.Task[None]] = []
    world.at[point] = happen
    result, world, store = staged(office, "works", world=world, scene=scene)
    return _judged(result, world, store, mode), result.status == "cancelled"


def _judged(result: RunResult, world: World, store: MemoryStore, mode: CancelMode) -> list[str]:
    found = [f"{what} happened {count} times" for what, count in Counter(world.log).items() if count > 1]
    if result.status not in ("cancelled", "succeeded"):
        found.append(f"it ended as {result.status} {result.code}")
    events = [ev.decode(one.body) for one in store.events(result.run_id)]
    at = next((index for index, event in enumerate(events) if isinstance(event, ev.CancelRequested)), None)
    if at is None:
        return found + ([] if result.status == "succeeded" else ["cancelled by nobody"])
    undoing = {event.call for event in events if isinstance(event, ev.StepProposed) and event.undoes}
    late = [event.call for event in events[at:] if isinstance(event, ev.ToolOpened) and event.call not in undoing]
    found += [f"{call} began after the cancel" for call in late]
    if result.status != "cancelled":
        return [*found, "a cancel that was read did not cancel"]
    done = [what for what in ("one", "two", "four") if what in world.log and f"undo {what}" not in world.log]
    if mode is CancelMode.COMPENSATE and done and done != ["one", "two", "four"]:  # all of it: the saga was left in peace before
        found.append(f"{done} was not undone")
    if mode is not CancelMode.COMPENSATE and any(what.startswith("undo") for what in world.log):
        found.append(f"{mode} undid something")
    stopped = "stop job" in world.log
    if "job" in world.log and stopped is (mode is CancelMode.DRAIN):
        found.append(f"{mode}: what was started was {'stopped' if stopped else 'left alone'}")
    return found


def sagas(quick: bool) -> Iterator[list[str]]:
    """Every single crash, and pairs of them."""
    for end in ("fails",) if quick else ("fails", "waits"):
        _, points = saga_trial(set(), end)
        for point in range(1, points + 1, 3 if quick else 1):
            yield saga_trial({point}, end)[0]
        chance = random.Random(18)
        for _ in range(10 if quick else PAIRS):
            yield saga_trial(set(chance.sample(range(1, points + 30), 2)), end)[0]


def cancels(quick: bool) -> Iterator[list[str]]:
    """Every mode at every point; in each some cancel must have come in time, and some too late."""
    _, plain, _ = staged(office, "works")
    for mode in CancelMode:
        in_time = set()
        for point in range(1, plain.points + 1, 3 if quick else 1):
            found, early = cancel_trial(point, mode)
            in_time.add(early)
            yield found
        yield [] if True in in_time else [f"{mode}: no cancel came in time"]


def _run(name: str, trials: Callable[[bool], Iterator[list[str]]], bugs: Sequence[RuntimeMutant], quick: bool) -> SuiteResult:
    began = time.monotonic()
    outcomes = list(trials(quick))
    wrong = [found for found in outcomes if found]
    missed = [bug.name for bug in bugs if not _noticed(bug, trials)]
    return SuiteResult(
        name,
        len(outcomes),
        len(wrong),
        len(bugs),
        len(bugs) - len(missed),
        (time.monotonic() - began) / 60,
        {"wrong": wrong[:5], "missed": missed},
    )


def _noticed(bug: RuntimeMutant, trials: Callable[[bool], Iterator[list[str]]]) -> bool:
    with bug.planted():
        try:
            return any(trials(True))
        except (Exception, ExceptionGroup):
            return True


def _bugs(*names: str) -> tuple[RuntimeMutant, ...]:
    known = {bug.name: bug for bug in WORKFLOW_MUTANTS}
    return tuple(known[name] for name in names)


SAGA_BUGS = ("a compensation is repeated", "the oldest is undone first", "an inner saga forgets")
CANCEL_BUGS = ("a cancel stands against undoing", "a hook is called although the cancel drains", "what was started goes on")

SUITES = (
    Suite("saga", lambda quick: _run("saga", sagas, _bugs(*SAGA_BUGS), quick)),
    Suite("cancel-race", lambda quick: _run("cancel-race", cancels, _bugs(*CANCEL_BUGS), quick)),
)
