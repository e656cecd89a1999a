"""A running deck: submits runs, shows them, cancels them, takes approvals; owns the store while it lives."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from quarterdeck.app.admission import Admission, envelope_of
from quarterdeck.app.budgets import Budget
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.lookout import Lookout
from quarterdeck.app.orders import Orders, through
from quarterdeck.app.views import EventView, RunResult, RunView, event_views, is_at_rest, read_all, result_of, row_of, run_view
from quarterdeck.app.wiring import Parts, check_deck, check_models, wire
from quarterdeck.core.commit import SetAccount, SetFact
from quarterdeck.core.contract import Envelope
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.vocabulary import TERMINAL, Mode
from quarterdeck.dispatch.embedded import EmbeddedDispatcher
from quarterdeck.engine.runner import drive
from quarterdeck.engine.stream import Entry
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import AccountRow, ApprovalRow, Insights, Journal, RunRow
from quarterdeck.resilience.dependency import DependencyView
from quarterdeck.store import postgres
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights

DEFAULT_STORE = "quarterdeck.db"
DRAIN_S = 30.0
"""How long a stopping runtime lets active runs come to rest before it lets go of them."""


class OpenStore(Protocol):
    """A store that a runtime can own: both sides of it."""

    async def __call__(self, entropy: Entropy) -> tuple[Journal, Insights]:
        """Open both sides."""
        ...


def shared_store(store: str | Path | None) -> str | None:
    """The connection string of a store setting that names a PostgreSQL database; ``None`` for a file.

    >>> shared_store("postgresql://db.example/agents"), shared_store("sqlite:///x.db")
    ('postgresql://db.example/agents', None)
    """
    chosen = store if store is not None else os.environ.get("QUARTERDECK_STORE", DEFAULT_STORE)
    return chosen if isinstance(chosen, str) and chosen.startswith(("postgresql://", "postgres://")) else None


def store_path(store: str | Path | None) -> Path:
    """The file that a store setting names: ``sqlite:///path``, a path, or the default.

    >>> store_path("sqlite:///tmp/x.db")
    PosixPath('tmp/x.db')
    """
    chosen = store if store is not None else os.environ.get("QUARTERDECK_STORE", DEFAULT_STORE)
    if isinstance(chosen, Path):
        return chosen
    if chosen.startswith("sqlite:///"):
        return Path(chosen.removeprefix("sqlite:///"))
    if "://" in chosen:
        said = f"{chosen.partition(':')[0]} does not name a file here; use sqlite:///path, or postgresql://… where a database can stand"
        raise UsageError("store.unsupported", said)
    return Path(chosen)


class _Kind(msgspec.Struct):
    kind: str


class RunHandle:
    """One submitted run."""

    def __init__(self, runtime: Runtime, run_id: str, *, existing: bool) -> None:
        self.id = run_id
        self.existing = existing
        self._runtime = runtime

    async def result(self, timeout_s: float | None = None) -> RunResult:
        """How the run ended; waits for it, whoever drives it. Raises ``TimeoutError`` after ``timeout_s``; the run goes on all the
        same.
        """
        async with asyncio.timeout(timeout_s):
            await self._runtime.until(self.id, lambda row: row.status in TERMINAL)
        return result_of(self._runtime.insights, self.id)

    async def rest(self, timeout_s: float | None = None) -> RunResult:
        """How the run stands when it next comes to rest: it waits for something, or has ended."""
        async with asyncio.timeout(timeout_s):
            await self._runtime.until(self.id, is_at_rest)
        return result_of(self._runtime.insights, self.id)

    def events(self, *, content: bool = False) -> list[EventView]:
        """The journal so far."""
        return event_views(read_all(self._runtime.insights, self.id), content=content)

    def follow(self, after: int = 0) -> AsyncIterator[Entry]:
        """Every event after ``after``, past and future, and deltas as they come; ends when the run has ended."""
        return self._runtime.follow(self.id, after)

    async def cancel(self, reason: str = "", by: str = "operator") -> None:
        """Stop the run; see :meth:`Runtime.cancel`."""
        await self._runtime.cancel(self.id, reason=reason, by=by)


class Runtime:
    """One process that runs a deck on a store. Use it through ``async with deck.start()``."""

    def __init__(
        self,
        deck: Quarterdeck,
        journal: Journal,
        insights: Insights,
        parts: Parts,
        dispatcher: EmbeddedDispatcher,
        lookout: Lookout,
    ) -> None:
        self.deck = deck
        self.insights = insights
        self.parts = parts
        self._journal = journal
        self._dispatcher = dispatcher
        self._lookout = lookout
        self.apply = through(journal)
        self._orders = Orders(self.apply, insights, parts.clock)
        self._admission = Admission(
            deck.name,
            deck.routes,
            deck.agents,
            {name: tool.spec for name, tool in deck.tools.items()},
            parts.clock,
            parts.entropy,
        )

    @property
    def active(self) -> int:
        """Runs that this process drives now; at :attr:`max_active` the others that are ready stay rows."""
        return self._dispatcher.active

    @property
    def max_active(self) -> int:
        """The most runs that this process drives at once."""
        return self._dispatcher.max_active

    @property
    def failed(self) -> QuarterdeckError | None:
        """What has stopped this runtime for good, if anything has: it claims nothing any more; start another."""
        return self._dispatcher.failed

    async def submit(
        self,
        intent: str,
        payload: object = None,
        *,
        tenant: str = "default",
        user: str = "anonymous",
        budget: Budget | None = None,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        priority: str | None = None,
        mode: Mode | None = None,
    ) -> RunHandle:
        """Ask for a run. When this returns, the run is a committed row and will end, whatever happens to this process."""
        envelope = envelope_of(
            intent,
            payload,
            tenant=tenant,
            user=user,
            budget=budget,
            idempotency_key=idempotency_key,
            correlation_id=correlation_id,
            priority=priority,
            mode=mode,
        )
        return await self.admit(envelope)

    async def admit(self, envelope: Envelope, *, submitted_by: str = "") -> RunHandle:
        """Admit an envelope. The same idempotency key with the same body gives the same run, whatever its status.

        ``submitted_by`` is who was authenticated, where a door has authenticated somebody; that one cannot approve what the run asks.
        """
        run_id, existing = await self._orders.admit(
            self._admission,
            envelope,
            self.parts.gate.policy_version,
            self.parts.budget_version,
            self._journal.incarnation,
            submitted_by,
        )
        self._dispatcher.hint()
        return RunHandle(self, run_id, existing=existing)

    def handle(self, run_id: str) -> RunHandle:
        """A handle on a run that exists."""
        row_of(self.insights, run_id)
        return RunHandle(self, run_id, existing=True)

    async def cancel(self, run_id: str, *, reason: str = "", by: str = "operator", compensate: bool = True) -> None:
        """Stop a run and its children: when this returns, no further intent of it commits, but those that undo what its sagas have done,
        unless not to ``compensate``. Cancelling again, or a run that has ended, is harmless.
        """
        await self._orders.cancel(run_id, by=by, reason=reason, compensate=compensate)
        self._dispatcher.hint()

    async def signal(
        self, run_id: str, name: str, payload: object = None, *, by: str = "operator", token: str | None = None
    ) -> None:
        """Send a run a message, for ``ctx.signal(name)``. With a ``token`` of its own, the same message twice is one."""
        await self._orders.signal(run_id, name, payload, by=by, token=token or self._token())
        self._dispatcher.hint()

    async def pause(self, run_id: str, *, reason: str = "", by: str = "operator") -> None:
        """Let a run begin nothing new, until it is resumed. See :meth:`Orders.pause`."""
        await self._orders.pause(run_id, by=by, reason=reason, token=self._token())
        self._dispatcher.hint()

    async def resume(self, run_id: str, *, reason: str = "", by: str = "operator", done: bool = False) -> None:
        """Let a run go on that was paused, has diverged, or is stuck in undoing (``done``: it was undone by hand)."""
        await self._orders.resume(run_id, by=by, reason=reason, done=done, token=self._token())
        self._dispatcher.hint()

    def _token(self) -> str:
        return self.parts.entropy.token(8).hex()

    async def decide(self, approval: str, *, approve: bool, by: str, reason: str = "", digest: str | None = None) -> None:
        """Answer an approval, for the digest that was seen (by default the one that is stored). See :meth:`Orders.decide`."""
        await self._orders.decide(approval, approve=approve, by=by, reason=reason, digest=digest)
        self._dispatcher.hint()

    async def approve(self, approval: str, *, by: str, reason: str = "", digest: str | None = None) -> None:
        """Approve one exact action."""
        await self.decide(approval, approve=True, by=by, reason=reason, digest=digest)

    async def reject(self, approval: str, *, by: str, reason: str = "", digest: str | None = None) -> None:
        """Reject one exact action; the model is told, with the reason code."""
        await self.decide(approval, approve=False, by=by, reason=reason, digest=digest)

    async def resolve(self, run_id: str, call: str, *, done: bool, by: str, result: object = None) -> None:
        """Say how an unknown effect ended, after a person has looked; the run goes on from there. See :meth:`Orders.resolve`."""
        await self._orders.resolve(run_id, call, done=done, by=by, result=result)
        self._dispatcher.hint()

    async def switch(self, name: str, *, on: bool = True) -> int:
        """Set or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``; its new version.

        When this returns, no intent that the switch covers commits any more, in any run.
        """
        version = await self._orders.switch(name, on=on)
        self.parts.refresh()
        return version

    async def erase(self, run_id: str) -> None:
        """Destroy the contents of a run that has ended, for good; its journal still verifies."""
        await self._orders.erase(run_id)

    def runs(
        self, *, status: str | None = None, route: str | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[RunRow]:
        """Runs, newest first."""
        return self.insights.runs(status=status, route=route, before=before, limit=limit)

    def show(self, run_id: str) -> RunView:
        """Everything that is known of one run, without contents."""
        return run_view(self.insights, run_id)

    def approvals(self, *, status: str | None = "pending", limit: int = 50) -> Sequence[ApprovalRow]:
        """Approvals, the nearest deadline first."""
        return self.insights.approvals(status=status, limit=limit)

    def budgets(self) -> Sequence[AccountRow]:
        """Every shared account: its limit, what is committed, what is reserved."""
        return self.insights.accounts()

    def dependencies(self) -> Sequence[DependencyView]:
        """How each model and tool is doing, and what to check first."""
        return self.parts.dependencies.views()

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        """Every event after ``after``, first from the journal, then live; deltas in between; ends with the run, whoever drives it."""
        row_of(self.insights, run_id)
        watch = self.parts.hub.subscribe(run_id)
        try:
            with self._lookout.watching(run_id, after):
                behind = True
                while True:
                    if behind:  # at the beginning, after being cut off, and when another process drove the run
                        while page := self.insights.events(run_id, after):
                            for stored in page:
                                after = stored.seq
                                yield Entry(stored.seq, stored.body, stored.payload)
                        row = row_of(self.insights, run_id)
                        if row.status in TERMINAL and row.seq <= after:
                            return
                        behind = row.seq > after
                        continue
                    entry = await watch.next()
                    if entry is None:
                        watch.close()
                        watch = self.parts.hub.subscribe(run_id)
                        behind = True
                    elif not entry.seq:
                        if entry.delta:
                            yield entry
                    elif entry.seq == after + 1:
                        after = entry.seq
                        yield entry
                        if _ends(entry):
                            return
                    else:
                        behind = entry.seq > after
        finally:
            watch.close()

    async def until(self, run_id: str, reached: Callable[[RunRow], bool]) -> RunRow:
        """The run's row as soon as it has ``reached`` something; looked at whenever the run comes to rest, here or elsewhere."""
        while True:
            resting = self.resting(run_id)
            try:
                row = row_of(self.insights, run_id)
                if reached(row):
                    return row
                with self._lookout.watching(run_id, row.seq):
                    await resting
            finally:
                if resting.done() and not resting.cancelled():
                    resting.exception()  # looked at, so that one which nobody waited for is not reported as forgotten
                resting.cancel()

    def resting(self, run_id: str) -> asyncio.Future[None]:
        """A future that is done when the run next comes to rest in this process; it fails with what stopped the store."""
        if self._dispatcher.failed is not None:
            raise self._dispatcher.failed
        return self.parts.hub.rest(run_id)

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stop claiming, let active runs come to rest, release the store. Whoever still waits for a run is told."""
        await self._dispatcher.stop(drain_s)
        self.parts.hub.fail(Unavailable("runtime.stopped", "this runtime has stopped; the run goes on when one starts again"))
        await self._journal.close()
        for model in self.deck.models.values():
            await model.close()


_kind_of = msgspec.json.Decoder(_Kind).decode


def _ends(entry: Entry) -> bool:
    """Whether an event is the last of its run."""
    return _kind_of(entry.body).kind == "run.finished"


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
    ) -> None:
        self._deck = deck
        self._store = store
        self._open_store = open_store
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._max_active = max_active
        self._drain_s = drain_s
        self._worker = worker
        self._runtime: Runtime | None = None

    async def __aenter__(self) -> Runtime:
        check_deck(self._deck)
        journal, insights = await self._open()
        try:
            check_models(self._deck)  # only now: whoever finds the store owned drives nothing here, and needs no model
            worker = self._worker or f"w{os.getpid()}-{self._entropy.token(3).hex()}"
            parts = wire(self._deck, journal, insights, self._clock, self._entropy, worker)
            await _activate(self._deck, journal, insights, parts)
        except BaseException:
            await journal.close()
            raise
        lookout = Lookout(insights, parts.hub)
        dispatcher = EmbeddedDispatcher(
            worker,
            journal,
            insights,
            self._clock,
            lambda claimed: drive(parts.services, claimed),
            parts.hub.fail,
            lookout.look,
            self._max_active,
        )

        def changed() -> None:
            parts.refresh()
            dispatcher.hint()

        journal.hints(changed)
        self._runtime = Runtime(self._deck, journal, insights, parts, dispatcher, lookout)
        dispatcher.start()
        return self._runtime

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runtime is not None:
            await self._runtime.stop(0.0 if kind is not None else self._drain_s)

    async def _open(self) -> tuple[Journal, Insights]:
        if self._open_store is not None:
            return await self._open_store(self._entropy)
        if (dsn := shared_store(self._store)) is not None:
            return await postgres.open_store(dsn)(self._entropy)
        path = store_path(self._store)
        incarnation = int.from_bytes(self._entropy.token(6), "big")
        journal = await SqliteJournal.open(path, incarnation)
        return journal, SqliteInsights(path)


async def _activate(deck: Quarterdeck, journal: Journal, insights: Insights, parts: Parts) -> None:
    """Make this deck's policy set, release and budgets the ones in force."""
    now_us = parts.clock.now_us()
    release = hashlib.sha256(repr(sorted(deck.agents.items())).encode()).hexdigest()[:16]
    await journal.submit(SetFact("policy", parts.gate.policy.version, now_us))
    await journal.submit(SetFact("release", release, now_us))
    for account, limits in deck.accounts.items():
        if not account.endswith("*"):
            await journal.submit(SetAccount(account, limits))
    everyone = deck.accounts.get("tenant:*")
    if everyone is not None:
        for known in sorted({row.account for row in insights.accounts() if row.account.startswith("tenant:")}):
            if known not in deck.accounts:
                await journal.submit(SetAccount(known, everyone))
    parts.refresh()
