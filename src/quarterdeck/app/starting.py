"""From a deck to a running one: opens the store, wires the parts, makes the deck's rules the ones in force, starts claiming."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container
from pathlib import Path
from types import TracebackType

from quarterdeck.app.activating import activate, release_of
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.lookout import Lookout
from quarterdeck.app.notary import Notary, key_path
from quarterdeck.app.orders import through
from quarterdeck.app.runtime import DRAIN_S, Beside, Runtime
from quarterdeck.app.stores import OpenStore, shared_store, store_path
from quarterdeck.app.telling import relayed
from quarterdeck.app.wiring import Parts, check_deck, check_models, programs_of, wire
from quarterdeck.app.workers import about
from quarterdeck.core.commit import ClaimedRun
from quarterdeck.dispatch.embedded import EmbeddedDispatcher
from quarterdeck.dispatch.janitor import Janitor
from quarterdeck.dispatch.nearing import Nearing
from quarterdeck.dispatch.relay import Relay
from quarterdeck.engine.runner import Left, drive
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.outbox import Topic
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store import postgres
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights


class Starting:
    """``async with deck.start() as rt``: opens the store, wires the parts, starts claiming; stops in the opposite order."""

    def __init__(
        self,
        deck: Quarterdeck,
        store: str | Path | None = None,
        *,
        open_store: OpenStore | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        max_active: int = 1_024,
        drain_s: float = DRAIN_S,
        worker: str | None = None,
        any_code: bool = False,
        work: bool = True,
        prepared: Callable[[str], None] | None = None,
    ) -> None:
        self._deck = deck
        self._store = store
        self._open_store = open_store
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._max_active = max_active
        self._drain_s = drain_s
        self._worker = worker
        self._any_code = any_code
        self._work = work
        self._prepared = prepared or _unheard
        self._topics: dict[str, Topic] = {}
        self._runtime: Runtime | None = None

    async def __aenter__(self) -> Runtime:
        check_deck(self._deck)
        self._topics = relayed(self._deck.topics, self._deck.channels)
        self._prepared("configuration")
        journal, insights = await self._open()
        self._prepared("store")
        try:
            if self._work:
                check_models(self._deck)  # only now: whoever finds the store owned drives nothing here, and needs no model
                self._prepared("models")
            worker = self._worker or f"w{os.getpid()}-{self._entropy.token(3).hex()}"
            parts = wire(self._deck, journal, insights, self._clock, self._entropy, worker, judges=self._work)
            now_us, version = self._clock.now_us(), parts.gate.policy.version
            await activate(self._deck, through(journal), insights, now_us, version, alone=journal.quiesced, judges=self._work)
            parts.refresh()
            self._prepared("policies")
            notary = await self._notary(journal, insights)
        except BaseException:
            await journal.close()
            raise
        runtime = self._runtime = self._assembled(worker, journal, insights, parts, notary)
        runtime.begin()
        return runtime

    def _assembled(self, worker: str, journal: Journal, insights: Insights, parts: Parts, notary: Notary | None) -> Runtime:
        """The runtime with everything that goes on beside it, not yet begun."""
        deck, clock = self._deck, self._clock
        lookout = Lookout(insights, parts.hub)
        shared = not journal.quiesced
        programs = None if self._any_code or not shared else programs_of(deck)
        capacity = self._max_active if self._work else 0

        drain = parts.services.drain

        def refresh() -> None:
            superseded = drain.superseded
            parts.refresh()
            if superseded != drain.superseded:
                dispatcher.hint()

        def look(driven: Container[str]) -> None:
            lookout.look(driven)
            parts.services.flights.look()
            if shared or parts.dependencies.ends_by(parts.clock.now_us()):
                refresh()
            runtime.introduce()

        def give_way() -> None:
            drain.stopping = True

        async def driven(claimed: ClaimedRun) -> bool:
            left = await drive(parts.services, claimed)
            if left is Left.ROUSING:
                dispatcher.hint()
            return left is not Left.HELD

        way = give_way if shared else None  # where nobody else can go on with them, runs come to rest here
        dispatcher = EmbeddedDispatcher(
            worker,
            journal,
            insights,
            clock,
            driven,
            parts.hub.fail,
            look,
            capacity,
            programs,
            way,
            lambda: not drain.superseded,
            parts.services.openings.expect,
        )
        relay = Relay(journal, insights, clock, self._entropy, self._topics)
        janitor = Janitor(journal, clock, {name: route.retention_s for name, route in deck.routes.items()})
        nearing = Nearing(journal, insights, clock, f"deck:{deck.name}")
        journal.hints(_changed(parts, dispatcher, relay, notary))
        said = about(worker, release_of(deck), capacity, programs if self._work else (), clock.now_us())
        runtime = Runtime(deck, journal, insights, parts, dispatcher, lookout, Beside(relay, janitor, nearing), said, notary)
        return runtime

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runtime is not None:
            await self._runtime.stop(0.0 if kind is not None else self._drain_s)

    async def _notary(self, journal: Journal, insights: Insights) -> Notary | None:
        """Who signs the audit log of this store; nobody where no place for a key is known."""
        owned = self._open_store is None and shared_store(self._store) is None
        path = key_path(store_path(self._store) if owned else None)
        if path is None or self._open_store is not None:
            return None
        notary = Notary(through(journal), insights, self._clock, journal.incarnation, path)
        await notary.seal()
        return notary

    async def _open(self) -> tuple[Journal, Insights]:
        if self._open_store is not None:
            return await self._open_store(self._entropy)
        if (dsn := shared_store(self._store)) is not None:
            return await postgres.open_store(dsn)(self._entropy)
        path = store_path(self._store)
        incarnation = int.from_bytes(self._entropy.token(6), "big")
        journal = await SqliteJournal.open(path, incarnation)
        return journal, SqliteInsights(path)


def _changed(parts: Parts, dispatcher: EmbeddedDispatcher, relay: Relay, notary: Notary | None) -> Callable[[], None]:
    """What happens when the store says that something has changed."""
    sealings: set[asyncio.Task[object]] = set()

    def changed() -> None:
        parts.refresh()
        dispatcher.hint()
        if notary is not None and notary.behind:
            task = asyncio.get_running_loop().create_task(notary.seal())
            sealings.add(task)
            task.add_done_callback(sealings.discard)
        relay.hint()

    return changed


def _unheard(part: str) -> None:
    """Nobody asked how far the start is."""
