"""What people ask of a store while runs go on: admit, cancel, approve, reject, resolve, switch, erase.

Each order has one form, one set of bounds and one meaning for each answer of the store, whoever gives it: a runtime through the
journal that it owns, or a visitor to the file of somebody else. An order is durable when it returns; giving the same one again is
harmless.

What is written into a run's inbox is bounded here, at the door: nothing that a person says can make a row that a run chokes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.app.admission import Admission, canonical_of
from quarterdeck.app.views import read_all, row_of, state_of
from quarterdeck.core.commit import Applied, DecideApproval, Deliver, Erase, Op, Refused, SetFact
from quarterdeck.core.contract import Envelope, checked_key, checked_name
from quarterdeck.core.controls import checked_switch
from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.events import RunAdmitted, decode
from quarterdeck.core.vocabulary import TERMINAL, ReceiptStatus
from quarterdeck.engine.sequencer import CancelOrder, LateReceipt, OperatorOrder, SignalSent
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

    async def admit(
        self,
        admission: Admission,
        envelope: Envelope,
        policy_version: str,
        budget_version: str,
        incarnation: int,
        submitted_by: str = "",
    ) -> tuple[str, bool]:
        """Make a run a committed row: its id, and whether it was there already under this idempotency key and body."""
        contract, payload = admission.contract(envelope, policy_version, budget_version, submitted_by)
        outcome = await self._apply(admission.commit(contract, payload, envelope, incarnation))
        if isinstance(outcome, Applied):
            return contract.run_id, False
        if outcome.guard == "key":
            return outcome.detail, True
        if outcome.guard == "digest":
            said = f"key {envelope.idempotency_key!r} was used for another request (run {outcome.detail}); use a new key"
            raise UsageError("idempotency.body_differs", said)
        said = f"run {contract.run_id} was not admitted: {outcome.detail or outcome.guard}"
        raise UsageError(f"admission.{outcome.guard}", said)

    async def cancel(self, run_id: str, *, by: str, reason: str = "", compensate: bool = True) -> None:
        """Stop a run: when this returns, no further intent of it or of its children commits, but those that undo, if it is to
        ``compensate``. Repeating it, or a run that has ended, is harmless.
        """
        order = CancelOrder(checked_key("by", by), checked_reason(reason), compensate)
        await self._deliver(run_id, "cancel", _encoder.encode(order), "cancel", ended=True)
        below = msgspec.structs.replace(order, by=f"run:{run_id}"[:256])
        for child in self._descendants(run_id):
            await self._deliver(child, "cancel", _encoder.encode(below), "cancel", ended=True)

    async def signal(self, run_id: str, name: str, payload: object, *, by: str, token: str) -> None:
        """Send a run a message. The same ``token`` again changes nothing. Refused (``run.ended``) if the run has ended."""
        body = SignalSent(checked_name("signal", name), checked_key("by", by), msgspec.Raw(canonical_of("the payload", payload)))
        await self._deliver(run_id, "signal", _encoder.encode(body), f"signal:{checked_key('token', token)}")

    async def pause(self, run_id: str, *, by: str, reason: str = "", token: str) -> None:
        """Let a run begin nothing new, until it is resumed; what is being performed is finished."""
        order = OperatorOrder(checked_key("by", by), checked_reason(reason))
        await self._deliver(run_id, "pause", _encoder.encode(order), f"pause:{checked_key('token', token)}")

    async def resume(self, run_id: str, *, by: str, reason: str = "", done: bool = False, token: str) -> None:
        """Let a run go on that an operator paused, or that waits for one; ``done``: what was stuck was undone by hand."""
        order = OperatorOrder(checked_key("by", by), checked_reason(reason), done)
        await self._deliver(run_id, "resume", _encoder.encode(order), f"resume:{checked_key('token', token)}")

    async def _deliver(self, run_id: str, kind: str, body: bytes, token: str, *, ended: bool = False) -> None:
        outcome = await self._apply(Deliver(run_id, kind, body, self._clock.now_us(), token))
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
        checked_key("by", by)
        row = approval_of(self._insights, approval)
        if approve and by == self._submitter(row.run_id):
            raise refusal(Refused("self", by))
        seen = row.digest if digest is None else digest
        op = DecideApproval(
            approval, seen, "approved" if approve else "rejected", by, checked_reason(reason), self._clock.now_us()
        )
        outcome = await self._apply(op)
        if isinstance(outcome, Refused):
            if outcome.guard == "decided":
                now = approval_of(self._insights, approval)
                if (now.digest, now.status, now.decided_by, now.reason) == (op.digest, op.outcome, op.by, op.reason):
                    return row
            raise refusal(outcome)
        return row

    async def resolve(self, run_id: str, call: str, *, done: bool, by: str, result: object = None) -> None:
        """Say how an effect in doubt ended, after a person has looked; the run goes on from there.

        In doubt is an unknown effect, and an open one whose receipt has not come: if this process turns out to be performing it still,
        its own receipt counts, not the person. The first answer counts; the same one again is harmless. Another is refused
        (``effect.resolved``), as is any about an effect that is not in doubt, or of a run that has ended.
        """
        status = ReceiptStatus.SUCCEEDED if done else ReceiptStatus.FAILED
        said = LateReceipt(call, status, checked_key("by", by), msgspec.Raw(canonical_of("the result", result)))
        row = row_of(self._insights, run_id)
        if row.status in TERMINAL:
            raise refusal(Refused("terminal", row.status))
        state = state_of(read_all(self._insights, run_id))
        doubtful = state.unknown | {name for name, effect in state.open.items() if not effect.model}
        if call not in doubtful:
            there_are = ", ".join(sorted(doubtful)) or "none"
            raise UsageError("effect.not_unknown", f"{call[:40]!r} is no unknown effect of run {run_id}; there are: {there_are}")
        body = _encoder.encode(said)
        if self._is_answered(run_id, call, body):
            return
        outcome = await self._apply(Deliver(run_id, "receipt", body, self._clock.now_us(), f"resolve:{call}"))
        if isinstance(outcome, Refused):
            raise refusal(outcome)
        self._is_answered(run_id, call, body)  # of two who answer in the same moment, one is told that the other was first

    async def switch(self, name: str, *, on: bool = True) -> int:
        """Set or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``; the new version of all switches.

        When this returns, no intent that the switch covers commits any more, in any run. One process changes switches at a time:
        each change starts from the one before it.
        """
        kind, _, named = checked_switch(name).partition(":")
        if named:
            checked_name(kind, named)
        async with self._switching:
            rows = {row.name: row.value for row in self._insights.facts()}
            names = set(msgspec.json.decode(rows.get("switches", "[]"), type=list[str]))
            changed = names | {name} if on else names - {name}
            if on and len(changed) > MAX_SWITCHES:
                raise UsageError(
                    "switch.too_many", f"{MAX_SWITCHES} switches are set; clear some, or set `freeze` or `stop_route`"
                )
            outcome = await self._apply(SetFact("switches", _encoder.encode(sorted(changed)).decode(), self._clock.now_us()))
        if isinstance(outcome, Refused):
            raise refusal(outcome)
        return outcome.number

    async def erase(self, run_id: str) -> None:
        """Destroy the contents of a run that has ended, for good. Refused (``erase.not_ended``) while it has not."""
        outcome = await self._apply(Erase(run_id, self._clock.now_us()))
        if isinstance(outcome, Refused):
            if outcome.guard == "terminal":
                raise RefusedError("erase.not_ended", f"run {run_id} has not ended ({outcome.detail}); cancel it first")
            raise refusal(outcome)

    def _submitter(self, run_id: str) -> str | None:
        """Who was authenticated when the run was asked for; it never changes. ``None`` where nobody had to be."""
        for stored in self._insights.events(run_id, 0, 1):
            event = decode(stored.body)
            if isinstance(event, RunAdmitted):
                return event.contract.submitted_by or None
        return None

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
