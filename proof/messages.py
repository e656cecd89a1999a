"""R20: messages arrive at least once, in the order of their keys, through crashes at every moment and receivers that fail.

A workflow publishes under two keys, with tools and by itself. Each trial kills the process at one or two moments (around each operation of
the store, and within the receiver) and draws how the receiver fails; two relays share the store in half of them. Then what arrived is
compared with what is in the journal.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from proof.keys import opening, policies_once
from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app import wiring
from quarterdeck.core.commit import Claim, Op, TakePosts
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.dispatch import embedded, relay
from quarterdeck.engine.workflows.context import Context
from quarterdeck.ports.outbox import DeliveryFailed, Message
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore, Moment
from quarterdeck.testing.patching import patched

PATIENT = RetryPolicy(max_attempts=50, base_s=1.0, cap_s=8.0, unknown_is_transient=True)
WANTED = {"A": ["a1", "a2", "a3", "a4"], "B": ["b1", "b2"]}
"""What the workflow publishes, by key, in order."""
MOMENTS = 90
"""About so many moments a trial passes at which the process can die."""


class Posted(msgspec.Struct, frozen=True):
    """One trial: at which moments the process dies, how often the receiver fails first, how long it takes, and whether two relays work."""

    crashes: frozenset[int] = frozenset()
    fails: int = 0
    takes_s: float = 0.0
    two: bool = False
    seed: int = 0


class Mailroom:
    """Everything outside: what arrived, and when the process dies."""

    def __init__(self, trial: Posted, clock: VirtualClock) -> None:
        self.trial = trial
        self.clock = clock
        self.points = 0
        self.arrived: list[tuple[str, str, str]] = []
        self.failures: dict[str, int] = {}
        self.under_way: dict[str, int] = {}
        self.wrong: list[str] = []
        self.died = asyncio.Event()

    def faults(self, moment: Moment, op: Op) -> asyncio.Future[None] | None:
        """The fault hook of the store that dies."""
        idle = isinstance(op, (Claim, TakePosts)) and not self.died.is_set()
        return asyncio.get_running_loop().create_future() if not idle and self._dies() else None

    def _dies(self) -> bool:
        self.points += 1
        if self.points in self.trial.crashes:
            self.died.set()
        return self.died.is_set()

    def deck(self, *, dies: bool) -> Quarterdeck:
        """The deck; the receiver of a process that may die is a moment, too."""
        deck = Quarterdeck("messages")

        @deck.outbox("told", retry=PATIENT, timeout=60.0)
        async def receive(message: Message) -> None:
            said = message.body.decode().strip('"')
            self.under_way[message.key] = self.under_way.get(message.key, 0) + 1
            if self.under_way[message.key] > 1 and not self.trial.crashes:
                self.wrong.append(f"two of {message.key} at once")
            try:
                await self.clock.sleep(self.trial.takes_s)
                if dies and self._dies():
                    await asyncio.get_running_loop().create_future()
                if said[-1] in "13" and self.failures.setdefault(said, 0) < self.trial.fails:
                    self.failures[said] += 1
                    raise DeliveryFailed("receiver.busy", "later")
                self.arrived.append((message.key, said, message.message))
            finally:
                self.under_way[message.key] -= 1

        @deck.tool(effect="external", transactional=True)
        async def tell(first: str, second: str, ctx: ToolContext) -> str:
            """Tell twice, in one transaction."""
            ctx.publish("told", first.encode(), key="A")
            ctx.publish("told", second.encode(), key="B")
            return "told"

        @deck.workflow("order")
        async def order(ctx: Context, payload: object) -> object:
            await ctx.tool(tell, first="a1", second="b1")
            await ctx.tool(tell, first="a2", second="b2")
            await ctx.publish("told", "a3", key="A")
            await ctx.publish("told", "a4", key="A")
            return "done"

        return deck

    def findings(self, store: MemoryStore) -> list[str]:
        """What did not arrive, arrived out of order, or was recorded twice."""
        found = list(self.wrong)
        for key, wanted in WANTED.items():
            got = [said for of, said, _ in self.arrived if of == key]
            if list(dict.fromkeys(got)) != wanted:
                found.append(f"under {key} arrived {got}")
            elif [wanted.index(said) for said in got] != sorted(wanted.index(said) for said in got):
                found.append(f"under {key} a message was passed by a later one: {got}")
            if not self.trial.crashes and got != wanted:
                found.append(f"under {key} something arrived twice without a crash: {got}")
        rows = store.posts()
        if sorted(row.status for row in rows) != ["delivered"] * 6:
            found.append(f"the outbox holds {[(row.message, row.status) for row in rows]}")
        return found


def drawn(seed: int) -> Posted:
    """The trial of a seed."""
    luck = random.Random(seed)
    crashes = frozenset(luck.sample(range(1, MOMENTS), luck.choice([0, 1, 2])))
    return Posted(crashes, luck.choice([0, 0, 1, 3]), luck.choice([0.0, 5.0]), luck.random() < 0.5, seed)


def play(trial: Posted) -> list[str]:
    """Play one trial; what was wrong."""
    clock = VirtualClock()
    room = Mailroom(trial, clock)
    found: list[str] = []
    with patched(wiring, "policy_of", policies_once), patched(embedded, "POLL_S", 5.0), patched(relay, "POLL_S", 2.0):
        try:
            found = run(_scene(room, clock), trial.seed, clock=clock, max_ticks=1_000_000)
        except (AssertionError, TimeoutError, ExceptionGroup) as error:
            return [f"{type(error).__name__}: {error}"[:300]]
    return found


async def _scene(room: Mailroom, clock: VirtualClock) -> list[str]:
    store = MemoryStore("w0", quiesced=not room.trial.two, faults=room.faults)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if room.trial.two:
            group.create_task(_beside(room, store.connect("beside"), clock, over))
        for number in range(10):
            room.died = asyncio.Event()
            work = group.create_task(_serve(room, store, clock, number))
            died = group.create_task(room.died.wait())
            await asyncio.wait([work, died], return_when=asyncio.FIRST_COMPLETED)
            died.cancel()
            if work.done() and not room.died.is_set():
                break
            store.crash()
            if room.trial.two:
                store.declare_dead(store.worker)
            work.cancel()
            store = store.connect(f"w{number + 1}", faults=room.faults)
        over.set()
    return room.findings(store)


async def _serve(room: Mailroom, store: MemoryStore, clock: VirtualClock, number: int) -> None:
    async with opening(room.deck(dies=True), store, clock, number) as rt:
        rows = rt.runs()
        handle = rt.handle(rows[0].run_id) if rows else await rt.submit("order")
        result = await handle.result(5_000.0)
        assert result.status == "succeeded", result
        async with asyncio.timeout(5_000.0):
            while any(row.status == "queued" for row in store.posts()):
                await clock.sleep(1.0)


async def _beside(room: Mailroom, store: MemoryStore, clock: VirtualClock, over: asyncio.Event) -> None:
    async with opening(room.deck(dies=False), store, clock, 99):
        await over.wait()
