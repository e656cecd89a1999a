"""A running deck: submits runs, shows them, cancels them, takes approvals; owns the store while it lives."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec

from quarterdeck.app.admission import Admission
from quarterdeck.app.budgets import Budget
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.views import EventView, RunResult, RunView, event_views, read_all, result_of, run_view, state_of
from quarterdeck.app.wiring import Parts, check_deck, wire
from quarterdeck.core.commit import Applied, DecideApproval, Deliver, Op, Refused, SetAccount, SetFact
from quarterdeck.core.contract import Caller, Envelope, EnvelopeBudget
from quarterdeck.core.controls import checked_switch
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.vocabulary import TERMINAL, Mode
from quarterdeck.dispatch.embedded import EmbeddedDispatcher
from quarterdeck.engine.runner import drive
from quarterdeck.engine.stream import Entry
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import AccountRow, ApprovalRow, Insights, Journal, RunRow
from quarterdeck.resilience.dependency import DependencyView
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
        raise UsageError("store.unsupported", f"{chosen.partition(':')[0]} is no store of this version; use sqlite:///path")
    return Path(chosen)


class RunHandle:
    """One submitted run."""

    def __init__(self, runtime: Runtime, run_id: str, *, existing: bool) -> None:
        self.id = run_id
        self.existing = existing
        self._runtime = runtime

    async def result(self, timeout_s: float | None = None) -> RunResult:
        """How the run ended; waits for it. Raises ``TimeoutError`` after ``timeout_s``; the run goes on all the same."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = await self.rest()
                if found.done:
                    return found
                await self._runtime.resting(self.id)

    async def rest(self, timeout_s: float | None = None) -> RunResult:
        """How the run stands when it next comes to rest: it waits for something, or has ended."""
        async with asyncio.timeout(timeout_s):
            while True:
                resting = self._runtime.resting(self.id)
                try:
                    row = self._runtime.insights.run(self.id)
                    if row is not None and (row.status in TERMINAL or (row.status == "waiting" and row.worker is None)):
                        return result_of(self._runtime.insights, self.id)
                    await resting
                finally:
                    resting.cancel()

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
        self, deck: Quarterdeck, journal: Journal, insights: Insights, parts: Parts, dispatcher: EmbeddedDispatcher
    ) -> None:
        self.deck = deck
        self.insights = insights
        self.parts = parts
        self._journal = journal
        self._dispatcher = dispatcher
        self._switching = asyncio.Lock()
        self._admission = Admission(
            deck.routes, deck.agents, {name: tool.spec for name, tool in deck.tools.items()}, parts.clock, parts.entropy
        )

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
        mode: Mode | None = None,
    ) -> RunHandle:
        """Ask for a run. When this returns, the run is a committed row and will end, whatever happens to this process."""
        limits = (budget or Budget()).limits()
        narrowed = EnvelopeBudget(
            deadline_ms=limits.deadline_ms,
            max_steps=limits.turns,
            max_tools=limits.tool_calls,
            max_tokens=limits.tokens,
            max_context=limits.context,
            max_cost_usd=None if limits.cost_microusd is None else f"{limits.cost_microusd / 1e6:.6f}",
        )
        envelope = Envelope(
            intent,
            payload,
            caller=Caller(tenant, user),
            budget=narrowed,
            idempotency_key=idempotency_key,
            correlation_id=correlation_id,
            mode=mode,
        )
        return await self.admit(envelope)

    async def admit(self, envelope: Envelope) -> RunHandle:
        """Admit an envelope. The same idempotency key with the same body gives the same run, whatever its status."""
        contract, payload = self._admission.contract(envelope, self.parts.gate.policy_version, self.parts.budget_version)
        commit = self._admission.commit(contract, payload, envelope, self._journal.incarnation)
        outcome = await self._apply(commit)
        if isinstance(outcome, Refused):
            if outcome.guard == "key":
                return RunHandle(self, outcome.detail, existing=True)
            if outcome.guard == "digest":
                raise UsageError(
                    "idempotency.body_differs",
                    f"key {envelope.idempotency_key!r} was used for another request (run {outcome.detail}); use a new key",
                )
            raise UsageError(
                f"admission.{outcome.guard}",
                f"run {contract.run_id} was not admitted: {outcome.detail or outcome.guard}",
            )
        self._dispatcher.hint()
        return RunHandle(self, contract.run_id, existing=False)

    def handle(self, run_id: str) -> RunHandle:
        """A handle on a run that exists."""
        if self.insights.run(run_id) is None:
            raise UsageError("run.unknown", f"no run is called {run_id!r}; `quarterdeck runs ls` lists them")
        return RunHandle(self, run_id, existing=True)

    async def cancel(self, run_id: str, *, reason: str = "", by: str = "operator") -> None:
        """Stop a run: when this returns, no further intent of it commits. Cancelling again, or a run that has ended, is harmless."""
        body = msgspec.json.encode({"by": by, "reason": reason})
        op = Deliver(run_id, "cancel", body, self.parts.clock.now_us(), "cancel")
        answered(await self._apply(op))
        self._dispatcher.hint()

    async def decide(self, approval: str, *, approve: bool, by: str, reason: str = "", digest: str | None = None) -> None:
        """Answer an approval, for the digest that was seen (by default the one that is stored)."""
        row = self.insights.approval(approval)
        if row is None:
            raise UsageError("approval.unknown", f"no approval is called {approval!r}; `quarterdeck approvals ls` lists them")
        op = DecideApproval(
            approval, digest or row.digest, "approved" if approve else "rejected", by, reason, self.parts.clock.now_us()
        )
        answered(await self._apply(op))
        self._dispatcher.hint()

    async def approve(self, approval: str, *, by: str, reason: str = "", digest: str | None = None) -> None:
        """Approve one exact action."""
        await self.decide(approval, approve=True, by=by, reason=reason, digest=digest)

    async def reject(self, approval: str, *, by: str, reason: str = "", digest: str | None = None) -> None:
        """Reject one exact action; the model is told, with the reason code."""
        await self.decide(approval, approve=False, by=by, reason=reason, digest=digest)

    async def resolve(self, run_id: str, call: str, *, done: bool, by: str, result: object = None) -> None:
        """Say how an unknown effect ended, after a person has looked; the run goes on from there."""
        state = state_of(read_all(self.insights, run_id))
        if call not in state.unknown and call not in state.open:
            raise UsageError(
                "effect.not_open",
                f"effect {call[:40]!r} of run {run_id} is not in doubt; `quarterdeck runs show` lists those that are",
            )
        status = "succeeded" if done else "failed"
        body = msgspec.json.encode({"call": call, "status": status, "by": by, "result": result})
        op = Deliver(run_id, "receipt", body, self.parts.clock.now_us(), f"resolve:{call}:{self.parts.entropy.token(8).hex()}")
        answered(await self._apply(op))
        self._dispatcher.hint()

    async def switch(self, name: str, *, on: bool = True) -> int:
        """Set or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``; its new version.

        When this returns, no intent that the switch covers commits any more, in any run.
        """
        checked_switch(name)
        async with self._switching:  # each change starts from the one before it
            rows = {row.name: row.value for row in self.insights.facts()}
            names = set(msgspec.json.decode(rows.get("switches", "[]"), type=list[str]))
            changed = names | {name} if on else names - {name}
            value = msgspec.json.encode(sorted(changed)).decode()
            outcome = await self._apply(SetFact("switches", value, self.parts.clock.now_us()))
            self.parts.refresh()
        return outcome.number if isinstance(outcome, Applied) else 0

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
        """Every event after ``after``, first from the journal, then live; deltas in between; ends with the run."""
        self.handle(run_id)
        watch = self.parts.hub.subscribe(run_id)
        try:
            while True:
                for stored in self.insights.events(run_id, after):
                    after = stored.seq
                    yield Entry(stored.seq, stored.body, stored.payload)
                row = self.insights.run(run_id)
                if row is not None and row.status in TERMINAL and row.seq <= after:
                    return
                entry = await watch.next()
                if entry is None:
                    watch.close()
                    watch = self.parts.hub.subscribe(run_id)
                elif not entry.seq:
                    yield entry
                elif entry.seq == after + 1:
                    after = entry.seq
                    yield entry
        finally:
            watch.close()

    def resting(self, run_id: str) -> asyncio.Future[None]:
        """A future that is done when the run next comes to rest; it fails with what stopped the store."""
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

    async def _apply(self, op: Op) -> Applied | Refused:
        for _ in range(5):
            try:
                outcome = await self._journal.submit(op)
            except Unavailable as error:
                if error.code != "store.unknown":
                    raise
            else:
                if isinstance(outcome, (Applied, Refused)):
                    return outcome
        raise Unavailable("store.unknown", "the store does not answer; ask again, the same request is safe to repeat")


def answered(outcome: Applied | Refused) -> None:
    """Raise what a refused delivery or decision means to the person who asked; ``terminal`` and success pass."""
    if isinstance(outcome, Applied) or outcome.guard == "terminal":
        return
    raise refusal(outcome)


_REFUSALS: dict[str, tuple[type[QuarterdeckError], str, str]] = {
    "run": (UsageError, "run.unknown", "no run is called {detail!r}; `quarterdeck runs ls` lists them"),
    "approval": (
        UsageError,
        "approval.unknown",
        "no approval is called {detail!r}; `quarterdeck approvals ls` lists them",
    ),
    "decided": (RefusedError, "approval.decided", "this approval was answered before: {detail}"),
    "digest": (RefusedError, "approval.digest_differs", "the action has changed since it was shown; look at it again"),
    "expired": (RefusedError, "approval.expired", "this approval has expired; the action was denied"),
    "self": (RefusedError, "approval.self", "whoever asked for an action cannot approve it; another person must"),
}


def refusal(refused: Refused) -> QuarterdeckError:
    """The error that a store's refusal means outside."""
    kind, code, text = _REFUSALS.get(refused.guard, (RefusedError, f"store.{refused.guard}", "the store refused: {detail}"))
    return kind(code, text.format(detail=refused.detail))


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
            worker = self._worker or f"w{os.getpid()}-{self._entropy.token(3).hex()}"
            parts = wire(self._deck, journal, insights, self._clock, self._entropy, worker)
            await _activate(self._deck, journal, insights, parts)
        except BaseException:
            await journal.close()
            raise
        services = parts.services

        dispatcher = EmbeddedDispatcher(
            worker, journal, insights, self._clock, lambda claimed: drive(services, claimed), parts.hub.fail, self._max_active
        )
        self._runtime = Runtime(self._deck, journal, insights, parts, dispatcher)
        dispatcher.start()

        def changed() -> None:
            parts.refresh()
            dispatcher.hint()

        journal.hints(changed)
        return self._runtime

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runtime is not None:
            await self._runtime.stop(0.0 if kind is not None else self._drain_s)

    async def _open(self) -> tuple[Journal, Insights]:
        if self._open_store is not None:
            return await self._open_store(self._entropy)
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
