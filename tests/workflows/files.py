"""The same stage on a SQLite file: each process opens it anew, and dies by never being answered again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from quarterdeck import Quarterdeck
from quarterdeck.app import wiring
from quarterdeck.app.starting import Starting
from quarterdeck.app.views import RunResult
from quarterdeck.core.commit import Claim, Op, Outcome
from quarterdeck.dispatch import embedded
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.memory import Moment
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, cached_policy


class Mortal(InlineJournal):
    """A journal whose process dies before or after an operation of it."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path, 1)
        self._world = world
        self._told: Callable[[], None] | None = None

    def hints(self, callback: Callable[[], None]) -> None:
        self._told = callback

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        never: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._world.store(Moment.BEFORE, op) is not None:
            return never
        answer = super().submit(op)
        self._flush()
        if self._told is not None and not isinstance(op, Claim):
            asyncio.get_running_loop().call_soon(self._told)
        return never if self._world.store(Moment.AFTER, op) is not None else answer


def file_staged(
    make: Callable[[World], Quarterdeck], intent: str, payload: object, path: Path, crashes: set[int]
) -> tuple[RunResult, World]:
    """Drive one run on a file to its end, through every crash."""
    world, clock = World(crashes), VirtualClock()
    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        return run(_play(make, intent, payload, path, world, clock), clock=clock), world


async def _play(
    make: Callable[[World], Quarterdeck], intent: str, payload: object, path: Path, world: World, clock: VirtualClock
) -> RunResult:
    for number in range(100):
        world.died = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            crashed = group.create_task(world.died.wait())
            work = group.create_task(_serve(make(world), path, world, clock, number, intent, payload))
            await asyncio.wait([crashed, work], return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not world.died.is_set():
                crashed.cancel()
                return work.result()
            work.cancel()
            crashed.cancel()
    raise AssertionError("it crashed for ever")


async def _serve(
    deck: Quarterdeck, path: Path, world: World, clock: VirtualClock, number: int, intent: str, payload: object
) -> RunResult:
    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return Mortal(path, world), SqliteInsights(path)

    async with Starting(deck, open_store=open_store, clock=clock, entropy=SeededEntropy(number), worker=f"w{number}") as runtime:
        rows = runtime.runs()
        handle = runtime.handle(rows[-1].run_id) if rows else await runtime.submit(intent, payload, user="ada")
        return await handle.result(1e5)
