"""A running deck: submits runs, shows them, cancels them, takes approvals; owns the store while it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from quarterdeck.app import switching
from quarterdeck.app.admission import admission_of, envelope_of
from quarterdeck.app.budgets import Budget
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.forking import Fork, forked
from quarterdeck.app.letters import Letters
from quarterdeck.app.lookout import Lookout
from quarterdeck.app.notary import Notary, sealing
from quarterdeck.app.orders import Orders, through
from quarterdeck.app.oversight import Oversight, oversight
from quarterdeck.app.replaying import Replay, replayed
from quarterdeck.app.switching import Reach, Switched
from quarterdeck.app.views import EventView, RunResult, RunView, event_views, read_all, rests, result_of, row_of, run_view
from quarterdeck.app.wiring import Parts
from quarterdeck.app.words import word
from quarterdeck.app.workers import About, WorkerView, worker_views
from quarterdeck.core.breaker import BreakerState
from quarterdeck.core.contract import Envelope, checked_key
from quarterdeck.core.controls import parsed
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.overrides import Change, changed
from quarterdeck.core.vocabulary import TERMINAL, CancelMode, Mode
from quarterdeck.dispatch.embedded import EmbeddedDispatcher
from quarterdeck.dispatch.janitor import Janitor
from quarterdeck.dispatch.nearing import Nearing
from quarterdeck.dispatch.relay import Relay
from quarterdeck.engine.stream import Entry, ends
from quarterdeck.ports.store import AccountRow, ApprovalRow, Insights, Journal, RunRow
from quarterdeck.resilience.dependency import Dependency, DependencyView

DRAIN_S = 30.0
"""How long a stopping runtime lets active runs come to rest before it lets go of them."""


class Beside(NamedTuple):
    """What a runtime does beside driving runs."""

    relay: Relay
    janitor: Janitor
    nearing: Nearing


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
        """How the run stands when it next comes to rest: it waits for something, or has ended.

        A waiting run that has been sent something which it has not read yet is not at rest: so this, asked after
        :meth:`Runtime.approve`, tells what came of it.
        """
        async with asyncio.timeout(timeout_s):
            await self._runtime.until(self.id, lambda row: rests(self._runtime.insights, row))
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
        beside: Beside,
        about: About,
        notary: Notary | None = None,
    ) -> None:
        self._beside = beside
        self.deck = deck
        self.about = about
        self.insights = insights
        self.parts = parts
        self._journal = journal
        self._dispatcher = dispatcher
        self._lookout = lookout
        self.notary = notary
        self.apply = through(journal) if notary is None else sealing(through(journal), notary)
        self._orders = Orders(self.apply, insights, parts.clock)
        self._letters = Letters(self.apply, insights, parts.clock)
        self._admission = admission_of(deck, parts.clock, parts.entropy)
        self._tiered = sorted({name for agent in deck.agents.values() for tier in agent.tiers for name in tier.models})

    @property
    def active(self) -> int:
        """Runs that this process drives now; at :attr:`max_active` the others that are ready stay rows."""
        return self._dispatcher.active

    @property
    def max_active(self) -> int:
        """The most runs that this process drives at once."""
        return self._dispatcher.max_active

    @property
    def stopping(self) -> bool:
        """Whether this process takes no work any more, because it stops."""
        return self._dispatcher.stopping

    @property
    def superseded(self) -> tuple[str, ...]:
        """Of what this process judges by, what others have declared anew: then it claims nothing and gives its runs back."""
        return self.parts.services.drain.superseded

    @property
    def unreachable(self) -> bool:
        """Whether the store does not answer at the moment: what is asked of this process now has to wait, or is refused."""
        return self._dispatcher.cut_off or self._journal.failing

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
        thread_id: str | None = None,
        ordering_key: str | None = None,
        priority: str | None = None,
        mode: Mode | None = None,
        source: str = "trusted",
    ) -> RunHandle:
        """Ask for a run. When this returns, the run is a committed row and will end, whatever happens to this process.

        Runs of one tenant and route with the same ``ordering_key`` take effect one after the other, in the order in which they were asked
        for: the next one begins when the one before it has ended. ``source="untrusted"``: somebody else wrote the payload.
        """
        envelope = envelope_of(
            intent, payload, tenant=tenant, user=user, budget=budget, idempotency_key=idempotency_key, correlation_id=correlation_id,
            thread_id=thread_id, ordering_key=ordering_key, priority=priority, mode=mode, source=source,
        )  # fmt: skip
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
            controls=self.parts.gate.controls,
            waits="admission.capacity" if self.active >= self.max_active else "",
            unavailable=self._unavailable(),
        )
        self._dispatcher.hint()
        return RunHandle(self, run_id, existing=existing)

    def _unavailable(self) -> frozenset[str]:
        """The models, of those that can be chosen among, whose breaker lets nothing through now in this process."""
        return frozenset(name for name in self._tiered if _is_shut(self.parts.services.model_dependencies[name]))

    def handle(self, run_id: str) -> RunHandle:
        """A handle on a run that exists."""
        row_of(self.insights, run_id)
        return RunHandle(self, run_id, existing=True)

    async def cancel(
        self,
        run_id: str,
        *,
        reason: str = "",
        by: str = "operator",
        compensate: bool = True,
        mode: CancelMode | str | None = None,
    ) -> None:
        """Stop a run and its children: when this returns, no further intent of it commits, but those that undo what its sagas have done,
        unless not to ``compensate``. Cancelling again, or a run that has ended, is harmless.

        ``mode``: ``compensate`` ends model calls under way, finishes tool calls, and undoes; ``drain`` finishes both and undoes nothing;
        ``stop`` ends both, and what was cut off is asked for, or stopped by its tool's ``cancel`` hook, or unknown.
        """
        how = None if mode is None else word(CancelMode, mode)
        told = await self._orders.cancel(run_id, by=by, reason=reason, compensate=compensate, mode=how)
        for each in told:
            self.parts.services.flights.look_at(each)
        self._dispatcher.hint()

    async def interrupt(
        self, run_id: str, payload: object = None, *, by: str = "operator", trusted: bool = False, token: str | None = None
    ) -> None:
        """Tell a run something that goes before whatever it was about to do, also while it waits.

        An agent's model sees it, as a message of the user, before anything else is done: a model call under way is ended, planned
        calls that have not begun are withdrawn, with what they asked people. A workflow asks ``ctx.interrupts()``. Unless the caller is
        ``trusted`` to steer the run, the run has read untrusted content from then on. The same ``token`` twice is one interrupt.
        """
        await self._orders.interrupt(run_id, payload, by=by, trusted=trusted, token=token or self._token())
        self.parts.services.flights.look_at(run_id)
        self._dispatcher.hint()

    async def raise_budget(
        self, run_id: str, budget: Budget, *, reason: str = "", by: str = "operator", token: str | None = None
    ) -> None:
        """Set limits of a run anew, those that ``budget`` names; one that waits at a limit goes on."""
        await self._orders.raise_budget(run_id, budget.limits(), by=by, reason=reason, token=token or self._token())
        self._dispatcher.hint()

    async def fork(
        self,
        run_id: str,
        step: str,
        *,
        by: str = "operator",
        route: str | None = None,
        idempotency_key: str | None = None,
        **edited: object,
    ) -> RunHandle:
        """A new run that goes on where this one was at a step, under the code and policies of now; nothing before is done again.

        The step itself is done anew (of an agent: a model call, ``m3``), or has the ``result`` that is given. Raises
        :class:`UsageError` (``fork.step``), :class:`Refused` (``fork.under_way``, ``fork.erased``), and what admission raises.
        """
        unknown = edited.keys() - {"result"}
        if unknown:
            raise TypeError(f"fork() takes result=, not {', '.join(sorted(unknown))}")
        stored = read_all(self.insights, run_id)
        wanted = Fork(step, bool(edited), edited.get("result"), route)
        workflow = row_of(self.insights, run_id).agent in self.deck.workflows
        commit = forked(
            self._admission,
            stored,
            wanted,
            workflow=workflow,
            by=checked_key("by", by),
            policy_version=self.parts.gate.policy_version,
            budget_version=self.parts.budget_version,
            incarnation=self._journal.incarnation,
            key=idempotency_key,
        )
        made, existing = await self._orders.fork(commit, idempotency_key, by=by, source=run_id)
        self._dispatcher.hint()
        return RunHandle(self, made, existing=existing)

    def replay(self, run_id: str) -> Replay:
        """Execute a run again offline, under the code, policies and switches of now, against what is recorded; nothing is done, and
        nothing is written. Says where it differs.
        """
        return replayed(self.parts.services, read_all(self.insights, run_id))

    async def escalate(self, run_id: str, *, reason: str = "", by: str = "operator") -> str:
        """Make a run, with what it asks people, the concern of the next owner that its route names; who that is."""
        route = self.deck.routes.get(row_of(self.insights, run_id).route)
        owners = route.escalation if route is not None else ()
        owner = await self._orders.escalate(run_id, owners, by=by, reason=reason)
        self._dispatcher.hint()
        return owner

    async def signal(
        self, run_id: str, name: str, payload: object = None, *, by: str = "operator", token: str | None = None
    ) -> None:
        """Send a run a message, for ``ctx.signal(name)``. With a ``token`` of its own, the same message twice is one."""
        await self._orders.signal(run_id, name, payload, by=by, token=token or self._token())
        self._dispatcher.hint()

    async def raise_account(self, account: str, budget: Budget, *, by: str = "operator", reason: str = "") -> int:
        """Set limits of a shared account anew, those that ``budget`` names, until the deck starts anew; the runs that rest for it go on.
        How many did. (Those of one run: :meth:`raise_budget`.) See :meth:`Orders.raise_account`.
        """
        woken = await self._orders.raise_account(account, budget.limits(), token=self._token(), by=by, reason=reason)
        self._dispatcher.hint()
        return woken

    async def pause(self, run_id: str, *, reason: str = "", by: str = "operator", token: str | None = None) -> None:
        """Let a run begin nothing new, until it is resumed. See :meth:`Orders.pause`."""
        await self._orders.pause(run_id, by=by, reason=reason, token=token or self._token())
        self._dispatcher.hint()

    async def resume(
        self, run_id: str, *, reason: str = "", by: str = "operator", done: bool = False, token: str | None = None
    ) -> None:
        """Let a run go on that was paused, has diverged, or is stuck in undoing (``done``: it was undone by hand)."""
        await self._orders.resume(run_id, by=by, reason=reason, done=done, token=token or self._token())
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

    async def edit(self, approval: str, arguments: object, *, by: str, reason: str = "", digest: str | None = None) -> None:
        """Want other arguments: a new proposal, of this person. See :meth:`Orders.edit`."""
        fits = self.parts.gate.catalogue.unfit
        await self._orders.edit(approval, arguments, by=by, reason=reason, digest=digest, unfit=fits)
        self._dispatcher.hint()

    async def respond(self, approval: str, text: str, *, by: str, digest: str | None = None) -> None:
        """Say something to the program instead of the action."""
        await self._orders.respond(approval, text, by=by, digest=digest)
        self._dispatcher.hint()

    async def decide_post(self, message: str, action: str, *, by: str, reason: str = "") -> None:
        """Deliver a dead message once more (``requeue``), or ``drop`` it; its key goes on. See :meth:`Orders.decide_post`."""
        await self._orders.decide_post(message, action, by=by, reason=reason)
        self._beside.relay.hint()

    async def mark(self, run_id: str, call: str, *, by: str, reason: str, wrong: bool = True) -> None:
        """Say of a decision that it was wrong. See :meth:`Orders.mark`."""
        await self._orders.mark(run_id, call, by=by, reason=reason, wrong=wrong)

    def oversight(self) -> Oversight:
        """How often people changed decisions, and what they say was wrong. See :func:`~quarterdeck.app.oversight.oversight`."""
        return oversight(self.insights)

    async def resolve(
        self, run_id: str, call: str, *, done: bool, by: str, result: object = None, retry: bool = False, reason: str = ""
    ) -> None:
        """Say how an unknown effect ended, after a person has looked; the run goes on from there. See :meth:`Orders.resolve`."""
        await self._orders.resolve(run_id, call, done=done, by=by, result=result, retry=retry, reason=reason)
        self._dispatcher.hint()

    async def switch(
        self,
        name: str,
        *,
        on: bool = True,
        by: str = "operator",
        reason: str = "",
        tenant: str = "",
        route: str = "",
        expires_at_us: int | None = None,
        expected: int | None = None,
    ) -> Switched:
        """Set or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``; the proof of what it reaches.

        When this returns, no intent that the switch covers commits any more, in any run. See :meth:`Orders.switch`.
        """
        wanted = parsed(name, tenant=tenant, route=route)
        if on and wanted.kind == "pin_model" and wanted.name not in self.deck.models:
            known = ", ".join(sorted(self.deck.models))
            raise UsageError("switch.model_unknown", f"no model is called {wanted.name!r}; pin one of {known}")
        done = await self._orders.switch(
            name,
            on=on,
            by=by,
            reason=reason,
            tenant=tenant,
            route=route,
            expires_at_us=expires_at_us,
            expected=expected,
            routes=self.deck.routes,
            agents=self.deck.agents,
        )
        self.parts.refresh()
        return done

    async def change_dependency(
        self, name: str, change: Change | None, *, for_s: float = 3_600.0, reason: str = "", by: str = "operator"
    ) -> int:
        """Change the policy of ``model:NAME`` or ``tool:NAME`` in every process, for so long; ``None`` ends a change. The new version.

        When this returns, nothing that was judged before under the old policy begins any more.
        """
        declared = self.deck.dependencies.get(name)
        if declared is None:
            raise UsageError(
                "dependency.unknown", f"no dependency is called {name[:80]!r}; `quarterdeck dependencies` lists them"
            )
        if change is not None:
            changed(declared, change)
        version = await self._orders.change_dependency(name, change, for_s=for_s, by=by, reason=reason)
        self.parts.refresh()
        return version

    def reach(self, name: str, *, tenant: str = "", route: str = "") -> Reach:
        """What a switch would reach now; nothing is changed."""
        return switching.reach(self.insights, parsed(name, tenant=tenant, route=route), self.deck.routes, self.deck.agents)

    async def requeue(self, run_id: str, *, by: str, reason: str = "") -> RunHandle:
        """Ask for what a failed run was asked for, once more, as a new run. Requeueing again gives the same one."""
        versions = (self.parts.gate.policy_version, self.parts.budget_version)
        name, existing = await self._letters.requeue(
            run_id, self._admission, versions, self._journal.incarnation, by=by, reason=reason
        )
        self._dispatcher.hint()
        return RunHandle(self, name, existing=existing)

    async def drop(self, run_id: str, *, by: str, reason: str) -> None:
        """Let a dead letter go: it is no longer listed; its record stays."""
        await self._letters.drop(run_id, by=by, reason=reason)

    def dead_letters(self, *, route: str | None = None, before: str | None = None, limit: int = 50) -> Sequence[RunRow]:
        """Runs that could not be done and that nobody has requeued or dropped, the newest first."""
        return self.insights.dead_letters(route=route, before=before, limit=limit)

    async def erase(self, run_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Destroy the contents of a run that has ended, for good; its journal still verifies."""
        await self._orders.erase(run_id, by=by, reason=reason)

    async def erase_all(
        self, *, by: str, reason: str = "", user: str | None = None, tenant: str | None = None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Destroy the contents of every ended run of a user or a tenant: which, and which have not ended. See :meth:`Orders.erase_all`."""
        return await self._orders.erase_all(by=by, reason=reason, user=user, tenant=tenant)

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

    def workers(self) -> Sequence[WorkerView]:
        """Every runtime that may hold runs of this store."""
        return worker_views(self.insights)

    def silences(self) -> Mapping[str, float]:
        """For each tool that promises heartbeats and is being performed, how many seconds its most silent call has been so."""
        return self.parts.services.pulses.silences()

    def introduce(self) -> None:
        """Say to others how this process is doing; done every second."""
        state = (
            "draining" if self.stopping else "failed" if self.failed is not None else "superseded" if self.superseded else "ready"
        )
        said = msgspec.structs.replace(self.about, state=state, active=self.active)
        self._journal.introduce(msgspec.json.encode(said), said.programs)

    def hurry(self) -> None:
        """Do not wait any longer for active runs: a stop that is under way lets go of them now."""
        self._dispatcher.hurry()

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
                        if ends(entry):
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

    def begin(self) -> None:
        """Start to claim runs, to deliver messages and to tidy up."""
        self.introduce()
        self._dispatcher.start()
        if self.deck.topics or self.deck.channels:
            self._beside.relay.start()
        self._beside.janitor.start()
        deck = self.deck
        if deck.accounts or deck.periods or deck.limits or deck.paces or deck.attentions:
            self._beside.nearing.start()

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Stop claiming, let active runs come to rest, release the store. Whoever still waits for a run is told.

        Runs and messages share the ``drain_s``; what comes after takes a few seconds at most, also where the store does not answer.
        """
        end_s = self.parts.clock.monotonic_s() + drain_s
        self._dispatcher.halt()
        self.introduce()
        await self._beside.janitor.stop()
        await self._beside.nearing.stop()
        await self._dispatcher.stop(drain_s)
        await self._beside.relay.stop(max(0.0, end_s - self.parts.clock.monotonic_s()))
        self.parts.hub.fail(Unavailable("runtime.stopped", "this runtime has stopped; the run goes on when one starts again"))
        if self.notary is not None and self._dispatcher.failed is None:
            await self.notary.seal()
        await self._journal.close()
        for model in self.deck.models.values():
            await model.close()


def _is_shut(dependency: Dependency) -> bool:
    """Whether the breaker of a dependency lets nothing through; one whose time has come lets a probe through."""
    state = dependency.breaker_state
    return state is BreakerState.ISOLATED or (state is BreakerState.OPEN and dependency.view().breaker.retry_after_s > 0)
