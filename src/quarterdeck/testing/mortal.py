"""Programs on stores that last, on virtual time, with processes that die: a SQLite file, or a PostgreSQL database.

The stores' own statements are used, on this thread: each operation is applied when it is submitted, and a process dies before or after it.
Each process opens the store anew; who died is never answered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from quarterdeck import Quarterdeck
from quarterdeck.app import wiring
from quarterdeck.app.starting import Starting
from quarterdeck.app.views import RunResult
from quarterdeck.core.commit import Claim, Op, Outcome
from quarterdeck.dispatch import embedded
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.postgres.batch import Batch, answers
from quarterdeck.store.postgres.opening import connect as connect_postgres
from quarterdeck.store.postgres.opening import prepare as prepare_postgres
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.store.postgres.statements import load
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.opening import connect, prepare
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run
from quarterdeck.testing.memory import Moment
from quarterdeck.testing.patching import patched
from quarterdeck.testing.programs import World, cached_policy

LEASE_S = 1e6
"""A lease that a living process never loses; a dead one's is ended by hand, because virtual time is not the server's."""
PATIENCE_S = 1e5
"""Virtual seconds within which a program must have ended."""


class Hand(Protocol):
    """One process's hold on a store."""

    incarnation: int
    quiesced: bool
    insights: Insights

    def apply(self, op: Op) -> Outcome:
        """Apply one operation, durably."""
        ...

    def close(self, *, died: bool) -> None:
        """Let go of it."""
        ...


class FileHand:
    """A hold on a SQLite file."""

    quiesced = True

    def __init__(self, path: Path) -> None:
        prepare(path, 1)
        self._db = connect(path)
        self._applier = Applier(self._db)
        self.incarnation = self._applier.incarnation
        self.insights: Insights = SqliteInsights(path)

    def apply(self, op: Op) -> Outcome:
        """Apply one operation."""
        (outcome,) = self._applier.apply([op])
        return outcome

    def close(self, *, died: bool) -> None:
        """Close the file."""
        self._db.close()


class DatabaseHand:
    """A hold on a PostgreSQL database, under a lease of its own."""

    quiesced = False

    def __init__(self, dsn: str) -> None:
        self.incarnation = prepare_postgres(dsn, 1).incarnation
        self._db = connect_postgres(dsn)
        self._sql = load("write")
        (self._owner,) = self._db.execute(self._sql["enter"], (LEASE_S,)).fetchone() or (0,)
        self._db.execute(self._sql["adopt"])
        self._salts: dict[str, bytes | None] = {}
        self._reader = PostgresInsights(dsn)
        self.insights: Insights = self._reader

    def apply(self, op: Op) -> Outcome:
        """Apply one operation, in a batch of its own."""
        run_id = getattr(op, "run_id", "")
        if run_id and self._salts.get(run_id) is None:
            self._salts.update(self._db.execute(self._sql["salts"], ([run_id],)).fetchall())  # type: ignore[arg-type]
        batch = Batch()
        refused = batch.add(op, self._salts.get)
        if refused is not None:
            return refused
        values: tuple[object, ...] = (self._owner, LEASE_S, *batch.arguments(isolate=False))
        if batch.audited:
            row = self._db.execute(self._sql["apply_audited"], (*values, batch.audits)).fetchone()
        else:
            row = self._db.execute(self._sql["apply"], values, prepare=True).fetchone()
        (outcome,) = answers(str(row[0]) if row is not None else "[]")
        return outcome

    def close(self, *, died: bool) -> None:
        """Close the connections; a dead process's lease has run out."""
        if died:
            self._db.execute("UPDATE owners SET lease_until = clock_timestamp() - interval '1 s' WHERE id = %s", (self._owner,))
        else:
            self._db.execute(self._sql["leave"], (self._owner,))
        self._db.close()
        self._reader.close()


class Mortal:
    """A journal whose process dies before or after an operation of it; then nothing of it is answered any more."""

    def __init__(self, hand: Hand, world: World) -> None:
        self.hand = hand
        self.incarnation = hand.incarnation
        self.quiesced = hand.quiesced
        self.failing = False
        self._world = world
        self._told: Callable[[], None] | None = None

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation, unless the process dies before."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        if self._world.store(Moment.BEFORE, op) is not None:
            return answer
        outcome = self.hand.apply(op)
        if self._told is not None and not isinstance(op, Claim):
            loop.call_soon(self._told)
        if self._world.store(Moment.AFTER, op) is None:
            answer.set_result(outcome)
        return answer

    def hints(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each operation."""
        self._told = callback

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Nobody asks."""

    async def close(self) -> None:
        """Whoever made the hand closes it."""
        self._told = None


def lasting(
    make: Callable[[World], Quarterdeck],
    intent: str,
    payload: object,
    take: Callable[[], Hand],
    crashes: set[int],
    *,
    seed: int = 0,
) -> tuple[RunResult, World]:
    """Drive one run on a store to its end, through every crash; ``take`` opens the store. Runs of one store need different seeds."""
    world, clock = World(set(crashes)), VirtualClock()
    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        return run(_play(make, intent, payload, take, world, clock, seed), clock=clock), world


async def _play(
    make: Callable[[World], Quarterdeck],
    intent: str,
    payload: object,
    take: Callable[[], Hand],
    world: World,
    clock: VirtualClock,
    seed: int,
) -> RunResult:
    for number in range(100):
        world.died = asyncio.Event()
        hand = take()
        try:
            async with asyncio.TaskGroup() as group:
                crashed = group.create_task(world.died.wait())
                work = group.create_task(
                    _serve(make(world), Mortal(hand, world), clock, seed * 100 + number, intent, payload, seed)
                )
                await asyncio.wait([crashed, work], return_when=asyncio.FIRST_COMPLETED)
                if work.done() and not world.died.is_set():
                    crashed.cancel()
                    return work.result()
                work.cancel()
                crashed.cancel()
        finally:
            hand.close(died=world.died.is_set())
    raise AssertionError("it crashed for ever")


async def _serve(
    deck: Quarterdeck, journal: Mortal, clock: VirtualClock, number: int, intent: str, payload: object, seed: int
) -> RunResult:
    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return journal, journal.hand.insights

    entropy = SeededEntropy(number)
    async with Starting(deck, open_store=open_store, clock=clock, entropy=entropy, worker=f"w{number}") as runtime:
        handle = await runtime.submit(intent, payload, user="ada", idempotency_key=f"program-{seed}")
        return await handle.result(PATIENCE_S)
