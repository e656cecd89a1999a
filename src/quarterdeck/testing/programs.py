"""Workflows on a store in memory and on virtual time, with a world outside that keeps its own ledger, and crashes wherever wanted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from quarterdeck import Finding, Quarterdeck, ReceiptStatus, ToolContext, ToolFailure
from quarterdeck.app import wiring
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.starting import Starting
from quarterdeck.app.views import RunResult
from quarterdeck.core.commit import Claim, Op
from quarterdeck.dispatch import embedded
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.policy import PolicyEngine
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run
from quarterdeck.testing.memory import MemoryStore, Moment
from quarterdeck.testing.patching import patched


@dataclass
class World:
    """What is outside: who did what, under which key; and at which points the process dies.

    A *point* is passed before and after each operation of the store, and within each tool before and after it did something; ``at`` is
    what else happens at some of them.
    """

    crashes: set[int] = field(default_factory=set)
    points: int = 0
    done: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    at: dict[int, Callable[[], None]] = field(default_factory=dict)

    def dies(self) -> bool:
        """Whether the process dies at this point."""
        self.points += 1
        if (happening := self.at.pop(self.points, None)) is not None:
            happening()
        if self.points in self.crashes and not self.died.is_set():
            self.died.set()
        return self.died.is_set()

    async def point(self) -> None:
        """A point within a tool; one that dies there never comes back."""
        if self.dies():
            await asyncio.get_running_loop().create_future()

    def store(self, moment: Moment, op: Op) -> asyncio.Future[None] | None:
        """The fault hook of the store."""
        if isinstance(op, Claim) and not self.died.is_set():
            return None
        return asyncio.get_running_loop().create_future() if self.dies() else None

    async def act(self, what: str, key: str) -> str:
        """Do something at a provider that honours keys."""
        await self.point()
        if key not in self.done:
            self.done[key] = what
            self.log.append(what)
        await self.point()
        return what

    @property
    def effects(self) -> Counter[str]:
        """What was done, how often."""
        return Counter(self.log)


def desk(world: World) -> Quarterdeck:
    """A deck with tools of every class that undo what they do."""
    deck = Quarterdeck("stage")

    async def unbook(what: str, ctx: ToolContext) -> str:
        return await world.act(f"undo {what}", f"undo:{ctx.idempotency_key}")

    @deck.tool(effect="write", idempotent=True, compensate=unbook)
    async def book(what: str, ctx: ToolContext) -> str:
        """Book something, once per key."""
        return await world.act(what, ctx.idempotency_key)

    async def paid(what: str, ctx: ToolContext) -> Finding:
        found = world.done.get(ctx.idempotency_key)
        return Finding(ReceiptStatus.SUCCEEDED, found) if found is not None else Finding(ReceiptStatus.FAILED)

    @deck.tool(effect="irreversible", reconcile=paid)
    async def pay(what: str, ctx: ToolContext) -> str:
        """Pay; done twice it would be paid twice, but one can ask."""
        await world.point()
        world.done[ctx.idempotency_key] = what
        world.log.append(what)
        await world.point()
        return what

    @deck.tool(effect="read")
    async def refuse(what: str) -> str:
        """A provider that never does it."""
        raise ToolFailure("provider.refused", "not today")

    return deck


async def add(first: int, second: int) -> int:
    """A function, as a step."""
    return first + second


def opening(deck: Quarterdeck, store: MemoryStore, clock: VirtualClock, number: int = 0) -> Starting:
    """A runtime of a deck on a handle of a store in memory."""

    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return store, store

    return Starting(deck, open_store=open_store, clock=clock, entropy=SeededEntropy(number), worker=store.worker)


LIMIT_S = 6_000.0
"""Virtual seconds within which every run of these tests must have ended."""

Scene = Callable[[Runtime, str], Awaitable[None]]
"""What people do while a run goes on; played anew by every process, so everything in it must be harmless to repeat."""


async def play(
    make: Callable[[World], Quarterdeck],
    intent: str,
    payload: object,
    world: World,
    clock: VirtualClock,
    *,
    scene: Scene | None = None,
    within_s: float = LIMIT_S,
) -> tuple[RunResult, MemoryStore]:
    """Submit one run and drive it to its end, through every crash; how it ended, and the store with its journals."""
    store = MemoryStore("w0", faults=world.store)
    run_id = ""
    for number in range(1_000):
        world.died = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            crashed = group.create_task(world.died.wait())
            work = group.create_task(_serve(make(world), store, clock, number, intent, payload, run_id, scene, within_s))
            await asyncio.wait([crashed, work], return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not world.died.is_set():
                crashed.cancel()
                return work.result(), store
            store.crash()
            work.cancel()
            crashed.cancel()
        rows = store.runs()
        run_id = rows[-1].run_id if rows else ""
        store = store.connect(f"w{number + 1}", faults=world.store)
    raise AssertionError("it crashed for ever")


async def _serve(
    deck: Quarterdeck,
    store: MemoryStore,
    clock: VirtualClock,
    number: int,
    intent: str,
    payload: object,
    run_id: str,
    scene: Scene | None,
    within_s: float,
) -> RunResult:
    async with opening(deck, store, clock, number) as runtime:
        handle = runtime.handle(run_id) if run_id else await runtime.submit(intent, payload, user="ada")
        if scene is None:
            return await handle.result(within_s)
        acting: asyncio.Task[None] = asyncio.get_running_loop().create_task(scene(runtime, handle.id))  # type: ignore[arg-type]
        try:
            return await handle.result(within_s)
        finally:
            acting.cancel()


def staged(make: Callable[[World], Quarterdeck], intent: str, payload: object = None, *, crashes: set[int] | None = None,
           scene: Scene | None = None, world: World | None = None) -> tuple[RunResult, World, MemoryStore]:  # fmt: skip
    """The same on a loop of its own."""
    world = world or World(crashes or set())
    clock = VirtualClock()
    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        result, store = run(play(make, intent, payload, world, clock, scene=scene), clock=clock, max_ticks=100_000)
    return result, world, store


def cached_policy(deck: Quarterdeck) -> PolicyEngine:
    """The policies of a deck, compiled once; an engine never changes."""
    key = (tuple(deck.policies.items()), tuple(deck.tools), tuple(deck.agents), tuple(deck.models))
    if key not in _engines:
        _engines[key] = _compile(deck)
    return _engines[key]


_compile = wiring.policy_of
_engines: dict[object, PolicyEngine] = {}
