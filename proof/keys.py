"""R17: runs of one ordering key take effect in the order of their admission, whatever dies, waits or works beside them.

Each trial draws keys, pauses, waits, deaths of workers and whether two of them share the store, and plays it on virtual time, with ready
callbacks in a drawn order. Then the ledger of what the runs did is compared with the order of admission.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Container, Coroutine, Sequence

import msgspec

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app import wiring
from quarterdeck.app.starting import Starting
from quarterdeck.app.views import RunResult
from quarterdeck.dispatch import embedded
from quarterdeck.engine.workflows.context import Context
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.policy import PolicyEngine
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched

POLL_S = 2.0
"""How often dispatchers poll here, in virtual seconds."""


class Ordered(msgspec.Struct, frozen=True):
    """One run of a trial: its key (none if empty), how long each piece of work takes, how long it waits between them."""

    key: str
    pause_s: float
    rest_s: float


class Drawn(msgspec.Struct, frozen=True):
    """One trial: the runs, after how long each worker dies, which runs are cancelled while they stand behind another, and whether
    another worker shares the store."""

    runs: tuple[Ordered, ...]
    deaths_s: tuple[float, ...] = ()
    cancelled: frozenset[int] = frozenset()
    shared: bool = False
    seed: int = 0


class Ledger:
    """What the runs did, in the order in which it happened: (key, run)."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.lines: list[tuple[str, str]] = []
        self.admitted: dict[str, list[str]] = defaultdict(list)
        self.cancelled: set[str] = set()

    def deck(self) -> Quarterdeck:
        """A workflow that works, waits, and works again."""
        deck = Quarterdeck("lines")

        @deck.tool(effect="write", idempotent=True)
        async def work(of: str, pause: float, ctx: ToolContext) -> str:
            """Work, for a while."""
            self.lines.append((of, ctx.run_id))
            await self.clock.sleep(pause)
            self.lines.append((of, ctx.run_id))
            return "done"

        @deck.workflow("ordered")
        async def ordered(ctx: Context, payload: dict[str, object]) -> object:
            of = msgspec.convert(payload, Ordered)
            await ctx.tool(work, of=of.key, pause=of.pause_s)
            await ctx.sleep(of.rest_s)
            await ctx.tool(work, of=of.key, pause=of.pause_s)
            return of.key

        return deck

    def findings(self) -> list[str]:
        """Where a run of a key began, or went on, beside or before one that was admitted earlier."""
        found: list[str] = []
        for key, names in self.admitted.items():
            place = 0
            for of, name in self.lines:
                if of != key:
                    continue
                if names.index(name) < place:
                    found.append(f"{name} went on after a later run of {key!r} had begun")
                place = max(place, names.index(name))
            seen = list(dict.fromkeys(name for of, name in self.lines if of == key))
            if seen != [name for name in names if name in seen or name not in self.cancelled]:
                found.append(f"the runs of {key!r} did not take effect in the order of admission")
        return found


def drawn(seed: int) -> Drawn:
    """The trial of a seed. Nobody is cancelled where workers die: an effect that was cut off then would wait for a person."""
    luck = random.Random(seed)
    keys = ["x", "y", "z", ""]
    runs = [
        Ordered(luck.choice(keys), luck.choice([0.0, 0.5, 3.0]), luck.choice([0.0, 0.0, 40.0]))
        for _ in range(luck.randint(3, 10))
    ]
    deaths = [luck.choice([0.1, 0.7, 1.0, 4.0, 30.0]) for _ in range(luck.randint(0, 2))]  # a third death of its owner ends a run
    cancelled = frozenset(luck.sample(range(len(runs)), luck.choice([0, 1, 2])) if not deaths else ())
    return Drawn(tuple(runs), tuple(deaths), cancelled, luck.random() < 0.5, seed)


def play(trial: Drawn) -> list[str]:
    """Play one trial; what was wrong."""
    clock = VirtualClock()
    ledger = Ledger(clock)
    with patched(wiring, "policy_of", policies_once), patched(embedded, "POLL_S", POLL_S):
        try:
            run(_scene(trial, ledger, clock), trial.seed, clock=clock, shuffle=True, max_ticks=1_000_000)
        except (AssertionError, TimeoutError, ExceptionGroup) as error:
            return [f"{type(error).__name__}: {error}"[:300]]
    return ledger.findings()


async def _scene(trial: Drawn, ledger: Ledger, clock: VirtualClock) -> None:
    store = MemoryStore("w0", quiesced=not trial.shared)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        if trial.shared:
            group.create_task(_beside(ledger, store.connect("beside"), clock, over))
        names: list[str] = []
        for number, death_s in enumerate([*trial.deaths_s, None]):
            async with opening(ledger.deck(), store, clock, number) as rt:
                for place, one in enumerate(trial.runs if not names else ()):
                    handle = await rt.submit("ordered", msgspec.to_builtins(one), ordering_key=one.key or None)
                    names.append(handle.id)
                    if one.key:
                        ledger.admitted[one.key].append(handle.id)
                    if one.key and place in trial.cancelled and len(ledger.admitted[one.key]) > 1:
                        ledger.cancelled.add(handle.id)
                for name in sorted(ledger.cancelled):
                    await rt.cancel(name)
                if death_s is None:
                    await _all_ended([rt.handle(name).result(50_000.0) for name in names], ledger.cancelled)
                    break
                await clock.sleep(death_s)
                store.crash()
                if trial.shared:
                    store.declare_dead(store.worker)
                store = store.connect(f"w{number + 1}")
        over.set()


async def _all_ended(results: Sequence[Coroutine[object, object, RunResult]], cancelled: Container[str]) -> None:
    for ended in await asyncio.gather(*results):
        assert ended.status == "succeeded" or ended.run_id in cancelled, ended


async def _beside(ledger: Ledger, store: MemoryStore, clock: VirtualClock, over: asyncio.Event) -> None:
    async with opening(ledger.deck(), store, clock, 99):
        await over.wait()


def opening(deck: Quarterdeck, store: MemoryStore, clock: VirtualClock, number: int) -> Starting:
    """A runtime of a deck on a handle of a store in memory."""

    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return store, store

    return Starting(deck, open_store=open_store, clock=clock, entropy=SeededEntropy(number), worker=store.worker, drain_s=0.0)


def policies_once(deck: Quarterdeck) -> PolicyEngine:
    """The policies of a deck, compiled once for each set of names; an engine never changes."""
    names = (tuple(deck.policies.items()), tuple(deck.tools), tuple(deck.agents), tuple(deck.models))
    if names not in _engines:
        _engines[names] = _compile(deck)
    return _engines[names]


_compile = wiring.policy_of
_engines: dict[object, PolicyEngine] = {}
