"""What people ask of a store while runs go on: admit, cancel, approve, reject, resolve, switch, erase.

Each order has one form, one set of bounds and one meaning for each answer of the store, whoever gives it: a runtime through the
journal that it owns, or a visitor to the file of somebody else. An order is durable when it returns; giving the same one again is
harmless.

What is written into a run's inbox is bounded here, at the door: nothing that a person says can make a row that a run chokes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import msgspec

from quarterdeck.app import switching
from quarterdeck.app.admission import Admission, canonical_of
from quarterdeck.app.switching import Switched
from quarterdeck.app.views import read_all, row_of, state_of
from quarterdeck.core.admission import Conditions
from quarterdeck.core.audit import Audit
from quarterdeck.core.budget import SHARED
from quarterdeck.core.commit import (
    AddAudit,
    Applied,
    Commit,
    DecideApproval,
    DecidePost,
    Deliver,
    Erase,
    Op,
    Refused,
    SetAccount,
    SetFact,
)
from quarterdeck.core.contract import Envelope, Limits, checked_key, checked_name
from quarterdeck.core.controls import Controls, parsed
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.events import GateDecided, RunAdmitted, ToolOpened, decode
from quarterdeck.core.overrides import MAX_OVERRIDE_S, MAX_OVERRIDES, Change, Override, current
from quarterdeck.core.overrides import parsed as overrides_of
from quarterdeck.core.specs import AgentSpec, RouteSpec
from quarterdeck.core.vocabulary import TERMINAL, CancelMode, ReceiptStatus, Status
from quarterdeck.core.windows import ENDS, tenant_of
from quarterdeck.engine.sequencer import (
    CancelOrder,
    EscalateOrder,
    InterruptOrder,
    LateReceipt,
    OperatorOrder,
    RaiseOrder,
    SignalSent,
)
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import ApprovalRow, Insights, Journal

MAX_REASON = 2_000
"""The longest reason of a cancel or an answer, in characters."""
MAX_SWITCHES = 1_000
"""The most switches that are set at once."""
MAX_FAMILY = 1_000
"""Runs of one correlation that are looked at when one of them is cancelled; what lies deeper is told by its parents."""
ASKED_AGAIN = 5
"""How often an order of unknown outcome is given to the store before the caller is told."""

Apply = Callable[[Op], Awaitable[Applied | Refused]]
"""Applies one operation durably. Raises ``Unavailable`` where the outcome stays unknown: the same order may be given again."""

Outcome = Literal["approved", "rejected", "edited", "answered"]
"""What a person can answer to an approval."""

_encoder = msgspec.json.Encoder(order="deterministic")


def through(journal: Journal) -> Apply:
    """Orders through a journal that this process owns; an unknown outcome is asked for again a few times."""

    async def apply(op: Op) -> Applied | Refused:
        for _ in range(ASKED_AGAIN):
            try:
                outcome = await journal.submit(op)
            except Unavailable as error:
                if error.code != "store.unknown":
                    raise
            else:
                if isinstance(outcome, (Applied, Refused)):
                    return outcome
        raise Unavailable("store.unknown", "the store does not answer; ask again, the same request is safe to repeat")

    return apply


class Orders:
    """Gives orders to one store. Raises what a refusal means to the person who asked; see :func:`refusal`."""

    def __init__(self, apply: Apply, insights: Insights, clock: Clock) -> None:
        self._apply = apply
        self._insights = insights
        self._clock = clock
        self._switching = asyncio.Lock()

    def _told(self, action: str, by: str, run_id: str, reason: str = "", **detail: object) -> Audit:
        """The row of the audit log for an order about a run."""
        row = self._insights.run(run_id)
        said = _encoder.encode(detail).decode() if detail else ""
        return Audit(action, by, run_id, self._clock.now_us(), reason, row.tenant if row is not None else "", said)

    async def admit(
        self,
        admission: Admission,
        envelope: Envelope,
        policy_version: str,
        budget_version: str,
        incarnation: int,
        submitted_by: str = "",
        *,
        controls: Controls | None = None,
        waits: str = "",
        unavailable: frozenset[str] = frozenset(),
    ) -> tuple[str, bool]:
        """Make a run a committed row: its id, and whether it was there already under this idempotency key and body.

        ``controls`` are the switches in force, ``waits`` the code of why a run that is admitted now cannot start at once. What stands
        against new runs does not stand against one that is there already.
        """
        exhausted = self._exhausted() if admission.asks_accounts(envelope.intent) else frozenset()
        rows = [row for account in admission.lifetimes(envelope) for row in self._insights.accounts(account)]
        lifetimes = {row.account: row.limit for row in rows if row.dimension == ENDS and row.limit is not None}
        now = Conditions(controls or Controls(), exhausted, waits, unavailable, self._clock.now_us(), lifetimes)
        try:
            contract, payload = admission.contract(envelope, policy_version, budget_version, submitted_by, now)
        except RefusedError:
            if not self._is_there(envelope):
                raise
            contract, payload = admission.contract(envelope, policy_version, budget_version, submitted_by)
        outcome = await self._apply(admission.commit(contract, payload, envelope, incarnation))
        if isinstance(outcome, Applied):
            return contract.run_id, False
        if outcome.guard == "key":
            return outcome.detail, True
        if outcome.guard == "digest":
            said = f"key {envelope.idempotency_key!r} was used for another request (run {outcome.detail}); use a new key"
            raise UsageError("idempotency.body_differs", said)
        if outcome.guard == "account":
            account = outcome.detail.partition("|")[0].removeprefix("pace:")
            raise Unavailable("budget.pace", f"{account} has begun as many runs as it may for now; ask later", 60.0)
        if outcome.guard == "run":
            said = f"a run {contract.run_id!r} exists already; choose another id or none, or repeat a request with an idempotency key"
            raise UsageError("admission.run", said)
        said = f"run {contract.run_id} was not admitted: {outcome.detail or outcome.guard}"
        raise UsageError(f"admission.{outcome.guard}", said)

    def _exhausted(self) -> frozenset[str]:
        """The shared accounts of which some limited dimension is spent whole; what is only reserved may come back."""
        rows = self._insights.accounts()
        return frozenset(row.account for row in rows if row.limit is not None and row.committed >= row.limit)

    def _is_there(self, envelope: Envelope) -> bool:
        """Whether this envelope's idempotency key means a run already."""
        key, tenant = envelope.idempotency_key, envelope.caller.tenant
        return key is not None and self._insights.keyed(tenant, key, self._clock.now_us()) is not None

    async def cancel(
        self, run_id: str, *, by: str, reason: str = "", compensate: bool = True, mode: CancelMode | None = None
    ) -> list[str]:
        """Stop a run: when this returns, no further intent of it or of its children commits, but those that undo, if it is to
        ``compensate``. Repeating it, or a run that has ended, is harmless. ``mode`` says more exactly what becomes of what is under
        way. The runs that were told.
        """
        how = mode or (CancelMode.COMPENSATE if compensate else CancelMode.DRAIN)
        order = CancelOrder(checked_key("by", by), checked_reason(reason), how is CancelMode.COMPENSATE, how)
        token = "cancel" if how is not CancelMode.STOP else "cancel:stop"  # who has let it drain may still stop it
        said = self._told("run.cancel", by, run_id, reason, mode=how)
        await self._deliver(run_id, "cancel", _encoder.encode(order), token, ended=True, audit=said)
        below = msgspec.structs.replace(order, by=f"run:{run_id}"[:256])
        told = self._descendants(run_id)
        for child in told:
            await self._deliver(child, "cancel", _encoder.encode(below), token, ended=True)
        return [run_id, *told]

    async def interrupt(self, run_id: str, payload: object, *, by: str, trusted: bool = False, token: str) -> None:
        """Tell a run something that goes before whatever it was about to do; see :meth:`Runtime.interrupt`. The same ``token`` again
        changes nothing. Refused (``run.ended``) if the run has ended.
        """
        body = InterruptOrder(checked_key("by", by), msgspec.Raw(canonical_of("the payload", payload)), trusted)
        told = self._told("run.interrupt", by, run_id, trusted=trusted)
        await self._deliver(run_id, "interrupt", _encoder.encode(body), f"interrupt:{checked_key('token', token)}", audit=told)

    async def raise_budget(self, run_id: str, limits: Limits, *, by: str, reason: str = "", token: str) -> None:
        """Set limits of a run anew; those that are not named stay. Raises :class:`UsageError` (``budget.nothing``) for none."""
        if limits == Limits():
            raise UsageError("budget.nothing", "say which limit is to be another one, such as tokens or turns")
        order = RaiseOrder(checked_key("by", by), limits, checked_reason(reason))
        told = self._told("run.budget", by, run_id, reason, limits=limits)
        await self._deliver(run_id, "budget", _encoder.encode(order), f"budget:{checked_key('token', token)}", audit=told)

    async def fork(self, commit: Commit, key: str | None = None, *, by: str, source: str) -> tuple[str, bool]:
        """Admit a fork of the run ``source``: its id, and whether it was there already under this idempotency key."""
        told = self._told("run.fork", by, source, fork=commit.run_id)
        outcome = await self._apply(msgspec.structs.replace(commit, audit=told))
        if isinstance(outcome, Applied):
            return commit.run_id, False
        if outcome.guard == "key":
            return outcome.detail, True
        if outcome.guard == "digest":
            said = f"key {key!r} was used for another request (run {outcome.detail}); use a new key"
            raise UsageError("idempotency.body_differs", said)
        raise refusal(outcome)

    async def escalate(self, run_id: str, owners: Sequence[str], *, by: str, reason: str = "") -> str:
        """Make a run the concern of the next of its route's ``owners``; who that is. Refused (``run.no_owner``) after the last."""
        row = row_of(self._insights, run_id)
        if row.status in TERMINAL:
            raise refusal(Refused("terminal", row.status))
        moved = state_of(read_all(self._insights, run_id)).escalations
        if moved >= len(owners):
            raise RefusedError("run.no_owner", f"route {row.route} names nobody after {moved} escalations; see to it yourself")
        order = EscalateOrder(checked_key("by", by), owners[moved], checked_reason(reason))
        told = self._told("run.escalate", by, run_id, reason, to=order.to)
        await self._deliver(run_id, "escalate", _encoder.encode(order), f"escalate:{moved}", audit=told)
        return order.to

    async def signal(self, run_id: str, name: str, payload: object, *, by: str, token: str) -> None:
        """Send a run a message. The same ``token`` again changes nothing. Refused (``run.ended``) if the run has ended."""
        body = SignalSent(checked_name("signal", name), checked_key("by", by), msgspec.Raw(canonical_of("the payload", payload)))
        told = self._told("run.signal", by, run_id, signal=name)
        await self._deliver(run_id, "signal", _encoder.encode(body), f"signal:{checked_key('token', token)}", audit=told)

    async def raise_account(self, account: str, limits: Limits, *, token: str, by: str = "operator", reason: str = "") -> int:
        """Set limits of a shared account anew, and wake the runs that rest for it; how many. Limits that are not named stay, and so does
        what is committed and reserved. Raises :class:`UsageError`: ``account.unknown``, ``budget.nothing``, ``budget.invalid``.
        """
        now = {str(row.dimension): row.limit for row in self._insights.accounts() if row.account == account}
        if account != "all" and now.keys().isdisjoint(SHARED):
            raise UsageError("account.unknown", f"no shared account is called {account[:80]!r}; `quarterdeck budgets` lists them")
        if limits == Limits():
            raise UsageError("budget.nothing", "say which limit is to be another one, such as tokens or usd")
        wanted = {str(dimension): limits.limit(dimension) for dimension in SHARED}
        if limits != Limits(**wanted):
            raise UsageError("budget.invalid", "shared accounts limit model calls, tool calls, tokens and money; nothing else")
        kept = Limits(**{name: now.get(name) if limit is None else limit for name, limit in wanted.items()})
        detail = _encoder.encode({str(dimension): kept.limit(dimension) for dimension in SHARED}).decode()
        who, why = checked_key("by", by), checked_reason(reason)
        told = Audit("account.limited", who, account, self._clock.now_us(), why, tenant_of(account) or "", detail)
        await self._apply(SetAccount(account, kept, told))
        woken, before = 0, None
        while page := self._insights.runs(status=Status.WAITING, before=before, limit=500):
            before = page[-1].run_id
            for row in page:
                if f"account:{account}" in row.waiting_on:
                    woken += 1
                    await self._deliver(row.run_id, "raised", _encoder.encode(account), f"raised:{token}", ended=True)
        return woken

    async def pause(self, run_id: str, *, by: str, reason: str = "", token: str) -> None:
        """Let a run begin nothing new, until it is resumed; what is being performed is finished."""
        order = OperatorOrder(checked_key("by", by), checked_reason(reason))
        told = self._told("run.pause", by, run_id, reason)
        await self._deliver(run_id, "pause", _encoder.encode(order), f"pause:{checked_key('token', token)}", audit=told)

    async def resume(self, run_id: str, *, by: str, reason: str = "", done: bool = False, token: str) -> None:
        """Let a run go on that an operator paused, or that waits for one; ``done``: what was stuck was undone by hand."""
        order = OperatorOrder(checked_key("by", by), checked_reason(reason), done)
        told = self._told("run.resume", by, run_id, reason, done=done)
        await self._deliver(run_id, "resume", _encoder.encode(order), f"resume:{checked_key('token', token)}", audit=told)

    async def _deliver(
        self, run_id: str, kind: str, body: bytes, token: str, *, ended: bool = False, audit: Audit | None = None
    ) -> None:
        outcome = await self._apply(Deliver(run_id, kind, body, self._clock.now_us(), token, audit))
        if isinstance(outcome, Refused) and not (ended and outcome.guard == "terminal"):
            raise refusal(outcome)

    def _descendants(self, run_id: str) -> list[str]:
        """The runs below a run that have not ended, parents before their children. They share its correlation."""
        row = self._insights.run(run_id)
        if row is None:
            return []
        family = self._insights.runs(correlation=row.correlation_id, limit=MAX_FAMILY)
        found, known = [], {run_id}
        for one in sorted(family, key=lambda each: each.admitted_at_us):
            if one.parent_run_id in known:
                known.add(one.run_id)
                if one.status not in TERMINAL:
                    found.append(one.run_id)
        return found

    async def decide(self, approval: str, *, approve: bool, by: str, reason: str = "", digest: str | None = None) -> ApprovalRow:
        """Answer one approval for the digest that was seen, by default the stored one; the approval as it was before. The same answer by
        the same person again is harmless.

        Whoever asked for the action is refused, and so is who submitted the run for somebody else. An approval of a run that has
        ended is refused: ``run.ended``.
        """
        return await self._answer(approval, "approved" if approve else "rejected", by, reason, digest)

    async def edit(
        self,
        approval: str,
        arguments: object,
        *,
        by: str,
        reason: str = "",
        digest: str | None = None,
        unfit: Callable[[str, object], str] = lambda *_: "",
    ) -> ApprovalRow:
        """Answer with other arguments: the action that was shown is not done; the other one is a new proposal, of this person, which goes
        through every check, and which somebody else approves if a person has to. What ``unfit`` says the tool would never take raises
        :class:`UsageError` (``approval.unfit``), and nothing is decided.
        """
        if not isinstance(arguments, dict):
            raise UsageError("approval.arguments", "other arguments are an object, as the approval shows them")
        if found := unfit(approval_of(self._insights, approval).tool, arguments):
            raise UsageError(
                "approval.unfit", f"these arguments do not fit the tool ({found}); mend them, the approval still waits"
            )
        return await self._answer(approval, "edited", by, reason, digest, canonical_of("the arguments", arguments))

    async def respond(self, approval: str, text: str, *, by: str, digest: str | None = None) -> ApprovalRow:
        """Answer with a text for the program instead of the action, which is not done."""
        if not text.strip():
            raise UsageError("reason.missing", "an answer needs a text; say something")
        return await self._answer(approval, "answered", by, "", digest, canonical_of("the text", checked_reason(text)))

    async def _answer(
        self, approval: str, how: Outcome, by: str, reason: str, digest: str | None, content: bytes = b""
    ) -> ApprovalRow:
        checked_key("by", by)
        row = approval_of(self._insights, approval)
        if how == "approved" and by in self._askers(row.run_id) - {row.requested_by}:  # who has requested it the store refuses
            raise refusal(Refused("self", by))
        seen = row.digest if digest is None else digest
        told = self._told(f"approval.{how}", by, row.run_id, reason, approval=approval, tool=row.tool, digest=seen)
        op = DecideApproval(approval, seen, how, by, checked_reason(reason), self._clock.now_us(), content, told)
        outcome = await self._apply(op)
        if isinstance(outcome, Refused):
            if outcome.guard == "decided":
                now = approval_of(self._insights, approval)
                if (now.digest, now.status, now.decided_by, now.reason) == (op.digest, op.outcome, op.by, op.reason):
                    return row
            raise refusal(outcome)
        return row

    async def resolve(
        self, run_id: str, call: str, *, done: bool, by: str, result: object = None, retry: bool = False, reason: str = ""
    ) -> None:
        """Say how an effect in doubt ended, after a person has looked; the run goes on from there.

        In doubt is an unknown effect, and an open one whose receipt has not come: if this process turns out to be performing it still,
        its own receipt counts, not the person. The first answer counts; the same one again is harmless. Another is refused
        (``effect.resolved``), as is any about an effect that is not in doubt, or of a run that has ended. With ``retry`` it was not done
        and is proposed once more, under its old key, through every check.
        """
        status = ReceiptStatus.SUCCEEDED if done else ReceiptStatus.FAILED
        said = LateReceipt(call, status, checked_key("by", by), msgspec.Raw(canonical_of("the result", result)), again=retry)
        row = row_of(self._insights, run_id)
        if row.status in TERMINAL:
            raise refusal(Refused("terminal", row.status))
        if retry and done:
            raise UsageError("effect.answer", "what was done is not tried again; say one of the two")
        stored = read_all(self._insights, run_id)
        state = state_of(stored)
        opened = sum(isinstance(event, ToolOpened) and event.call == call for event in map(decode, [one.body for one in stored]))
        doubtful = state.unknown | {name for name, effect in state.open.items() if not effect.model}
        if call not in (state.unknown if retry else doubtful):
            there_are = ", ".join(sorted(doubtful)) or "none"
            raise UsageError("effect.not_unknown", f"{call[:40]!r} is no unknown effect of run {run_id}; there are: {there_are}")
        body = _encoder.encode(said)
        if self._is_answered(run_id, call, body):
            return
        told = self._told("effect.resolved", by, run_id, checked_reason(reason), call=call, done=done, retry=retry)
        token = f"resolve:{call}:{opened}" if opened > 1 else f"resolve:{call}"
        outcome = await self._apply(Deliver(run_id, "receipt", body, self._clock.now_us(), token, told))
        if isinstance(outcome, Refused):
            raise refusal(outcome)
        self._is_answered(run_id, call, body)  # of two who answer in the same moment, one is told that the other was first

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
        routes: Mapping[str, RouteSpec] | None = None,
        agents: Mapping[str, AgentSpec] | None = None,
    ) -> Switched:
        """Set or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``, in a tenant or a route or everywhere, for
        good or until a time; what that reaches, by the deck's ``routes`` and ``agents`` where they are known.

        When this returns, no intent that the switch covers commits any more, in any run. A change of somebody else in the same moment is
        kept: this one starts from it, or, with the ``expected`` version, is refused (``switch.conflict``).
        """
        wanted = parsed(name, tenant=tenant, route=route)
        said = {"by": checked_key("by", by), "reason": checked_reason(reason), "at_us": self._clock.now_us()}
        switch = msgspec.structs.replace(wanted, **said, expires_at_us=expires_at_us)
        async with self._switching:
            version, at_us = await switching.change(
                self._apply, self._insights, self._clock, switch, on=on, expected=expected, most=MAX_SWITCHES
            )
        found = switching.reach(self._insights, switch, routes, agents)
        done = Switched(switch.key, on, version, at_us, expires_at_us, found)
        if on:
            await switching.tell(self._apply, done, by, switch.tenant)
        elif switch.kind == "drain":
            await switching.wake_drained(self._apply, self._insights, self._clock.now_us(), version)
        return done

    async def change_dependency(self, name: str, change: Change | None, *, for_s: float, by: str, reason: str = "") -> int:
        """Change a dependency's policy for so long, or end a change (``None``); the new version of all changes. See
        :mod:`quarterdeck.core.overrides`. A change of somebody else in the same moment is kept: this one starts from it.
        """
        if not 0 < for_s <= MAX_OVERRIDE_S:
            raise UsageError(
                "dependency.for", f"a change is in force for 1 s to {MAX_OVERRIDE_S // 86_400} days, not {for_s:g} s"
            )
        checked_name("dependency", name)
        checked_key("by", by)
        checked_reason(reason)
        async with self._switching:
            for _ in range(switching.TRIES):
                outcome = await self._apply(self._changed(name, change, for_s, by, reason))
                if isinstance(outcome, Applied):
                    return outcome.number
                if outcome.guard != "facts":
                    raise refusal(outcome)
        raise Unavailable("dependency.contended", f"others change dependencies in the same moments; look, then change {name}")

    async def decide_post(self, message: str, action: str, *, by: str, reason: str = "") -> None:
        """Say what becomes of a dead message: ``requeue`` or ``drop``. The same answer again is harmless; a message that is not dead is
        refused (``outbox.not_dead``)."""
        if action not in ("requeue", "drop"):
            raise UsageError("outbox.action", f"a dead message is answered with requeue or drop, not {action[:20]!r}")
        op = DecidePost(
            message,
            "requeue" if action == "requeue" else "drop",
            checked_key("by", by),
            checked_reason(reason),
            self._clock.now_us(),
            self._about_post("outbox.requeue" if action == "requeue" else "outbox.drop", by, message, reason),
        )
        outcome = await self._apply(op)
        if isinstance(outcome, Refused):
            if outcome.detail == "unknown":
                raise UsageError("outbox.unknown", f"no message is called {message[:80]!r}; `quarterdeck outbox ls` lists them")
            raise RefusedError("outbox.not_dead", f"this message is {outcome.detail}; only a dead one waits for a person")

    def _about_post(self, action: str, by: str, message: str, reason: str) -> Audit:
        row = self._insights.post(message)
        return Audit(action, by, message, self._clock.now_us(), reason, row.tenant if row is not None else "")

    async def erase_all(
        self, *, by: str, reason: str = "", user: str | None = None, tenant: str | None = None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Destroy the contents of every ended run of a user, of a tenant, or of a user of a tenant, for good: which runs that were, and
        which of them have not ended and are left. That it was done is recorded with each run. Repeating it is harmless."""
        if user is None and tenant is None:
            raise UsageError("erase.nobody", "say whose runs: a user, a tenant, or both")
        who, why = checked_key("by", by), checked_reason(reason)
        tenants = None if tenant is None else (tenant,)
        erased: list[str] = []
        left: list[str] = []
        before: str | None = None
        while page := self._insights.runs(tenants=tenants, actor=user, before=before, limit=MAX_FAMILY):
            for row in page:
                told = self._told("run.erase", who, row.run_id, why)
                outcome = await self._apply(Erase(row.run_id, self._clock.now_us(), who, why, told))
                if isinstance(outcome, Applied):
                    erased.append(row.run_id)
                elif outcome.guard == "terminal":
                    left.append(row.run_id)
                elif outcome.guard != "run":
                    raise refusal(outcome)
            before = page[-1].run_id
        return tuple(erased), tuple(left)

    def _changed(self, name: str, change: Change | None, for_s: float, by: str, reason: str) -> SetFact:
        """The fact with one change more or less, from the version that is read now on."""
        now_us = self._clock.now_us()
        row = next((each for each in self._insights.facts() if each.name == "dependencies"), None)
        overrides = current(overrides_of(row.value if row is not None else "[]"), now_us)
        overrides.pop(name, None)
        if change is not None:
            overrides[name] = Override(name, change, now_us + int(for_s * 1e6), by, reason)
        if len(overrides) > MAX_OVERRIDES:
            raise UsageError("dependency.too_many", f"{MAX_OVERRIDES} dependencies are changed; end some of the changes")
        value = _encoder.encode(tuple(overrides[each] for each in sorted(overrides))).decode()
        detail = "" if change is None else _encoder.encode({"change": change, "for_s": for_s}).decode()
        action = "dependency.restored" if change is None else "dependency.changed"
        told = Audit(action, by, name, now_us, reason, detail=detail)
        version = row.version if row is not None else 0
        return SetFact("dependencies", value, now_us, version, told)

    async def erase(self, run_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Destroy the contents of a run that has ended, for good. Refused (``erase.not_ended``) while it has not."""
        told = self._told("run.erase", checked_key("by", by), run_id, checked_reason(reason))
        outcome = await self._apply(Erase(run_id, self._clock.now_us(), by, checked_reason(reason), told))
        if isinstance(outcome, Refused):
            if outcome.guard == "terminal":
                raise RefusedError("erase.not_ended", f"run {run_id} has not ended ({outcome.detail}); cancel it first")
            raise refusal(outcome)

    async def mark(self, run_id: str, call: str, *, by: str, reason: str, wrong: bool = True) -> None:
        """Say of a decision that it was wrong, or that it was right after all; the newest word counts. It changes nothing but what is
        known: the audit log keeps it, and :func:`~quarterdeck.app.oversight.oversight` counts it.
        """
        if not reason.strip():
            raise UsageError("reason.missing", "a judgement needs a reason; say why")
        ruled = [
            event
            for event in map(decode, [one.body for one in read_all(self._insights, run_id)])
            if isinstance(event, GateDecided)
        ]
        found = next((event for event in reversed(ruled) if event.call == call), None)
        if found is None:
            raise UsageError("decision.unknown", f"nothing was decided on {call[:40]!r} of {run_id}; see `runs events`")
        told = self._told(
            "decision.marked", checked_key("by", by), run_id, checked_reason(reason), call=call, ruling=found.ruling, wrong=wrong
        )
        await self._apply(AddAudit(told))

    def _askers(self, run_id: str) -> frozenset[str]:
        """On whose behalf the run acts, and who was authenticated when it was asked for; neither ever changes."""
        for stored in self._insights.events(run_id, 0, 1):
            event = decode(stored.body)
            if isinstance(event, RunAdmitted):
                return frozenset({event.contract.actor, event.contract.submitted_by} - {""})
        return frozenset()

    def _is_answered(self, run_id: str, call: str, body: bytes) -> bool:
        """Whether this very answer waits in the inbox; raises ``effect.resolved`` if a person has put another one there."""
        for item in self._insights.inbox(run_id)[1]:
            if item.kind != "receipt":
                continue
            late = msgspec.json.decode(item.body, type=LateReceipt)
            if late.call == call and not late.epoch:
                if item.body == body:
                    return True
                told = f"{late.by} said that it {'happened' if late.status is ReceiptStatus.SUCCEEDED else 'did not happen'}"
                raise RefusedError(
                    "effect.resolved", f"{call} of run {run_id} was resolved before: {told}; the run takes that up"
                )
        return False


def checked_reason(reason: str) -> str:
    """Return ``reason`` if it can be recorded: at most ``MAX_REASON`` characters of valid Unicode."""
    if len(reason) > MAX_REASON:
        raise UsageError("reason.too_long", f"a reason has at most {MAX_REASON} characters, not {len(reason)}; say it shorter")
    canonical_of("the reason", reason)
    return reason


def approval_of(insights: Insights, approval: str) -> ApprovalRow:
    """One approval; raises :class:`UsageError` (``approval.unknown``)."""
    row = insights.approval(approval)
    if row is None:
        raise refusal(Refused("approval", approval))
    return row


_REFUSALS: dict[str, tuple[type[QuarterdeckError], str, str]] = {
    "run": (UsageError, "run.unknown", "no run is called {detail!r}; `quarterdeck runs ls` lists them"),
    "approval": (UsageError, "approval.unknown", "no approval is called {detail!r}; `quarterdeck approvals ls` lists them"),
    "decided": (RefusedError, "approval.decided", "this approval was answered before: {detail}"),
    "decided expired": (RefusedError, "approval.expired", "this approval has expired; the action was denied"),
    "decided withdrawn": (RefusedError, "run.ended", "the run has ended and has withdrawn this approval; its record is final"),
    "digest": (RefusedError, "approval.digest_differs", "the action has changed since it was shown; look at it again"),
    "expired": (RefusedError, "approval.expired", "this approval has expired; the action was denied"),
    "self": (RefusedError, "approval.self", "whoever asked for an action cannot approve it; another person must"),
    "terminal": (RefusedError, "run.ended", "the run has ended ({detail}); its record is final"),
}
"""What a store's guard, or a guard with its detail, means to a person."""


def refusal(refused: Refused) -> QuarterdeckError:
    """The error that a store's refusal means outside.

    >>> refusal(Refused("terminal", "cancelled")).code, refusal(Refused("poison", "too large")).code
    ('run.ended', 'store.poison')
    """
    guard, detail = refused.guard, refused.detail
    otherwise = (RefusedError, f"store.{guard}", "the store refused: {detail}")
    kind, code, text = _REFUSALS.get(f"{guard} {detail}") or _REFUSALS.get(guard) or otherwise
    return kind(code, text.format(detail=detail))
