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
from quarterdeck.core.vocabulary import TERMINAL, ReceiptStatus
from quarterdeck.engine.sequencer import CancelOrder, LateReceipt
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import ApprovalRow, Insights, Journal

MAX_REASON = 2_000
"""The longest reason of a cancel or an answer, in characters."""
MAX_SWITCHES = 1_000
"""The most switches that are set at once."""
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
        self, admission: Admission, envelope: Envelope, policy_version: str, budget_version: str, incarnation: int
    ) -> tuple[str, bool]:
        """Make a run a committed row: its id, and whether it was there already under this idempotency key and body."""
        contract, payload = admission.contract(envelope, policy_version, budget_version)
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

    async def cancel(self, run_id: str, *, by: str, reason: str = "") -> None:
        """Stop a run: when this returns, no further intent of it commits. Repeating it, or a run that has ended, is harmless."""
        body = _encoder.encode(CancelOrder(checked_key("by", by), checked_reason(reason)))
        outcome = await self._apply(Deliver(run_id, "cancel", body, self._clock.now_us(), "cancel"))
        if isinstance(outcome, Refused) and outcome.guard != "terminal":
            raise refusal(outcome)

    async def decide(self, approval: str, *, approve: bool, by: str, reason: str = "", digest: str | None = None) -> ApprovalRow:
        """Answer one approval for the digest that was seen, by default the stored one; the approval as it was before.

        The store refuses whoever asked for the action. An approval of a run that has ended is refused: ``run.ended``.
        """
        checked_key("by", by)
        row = approval_of(self._insights, approval)
        outcome = await self._apply(
            DecideApproval(
                approval,
                row.digest if digest is None else digest,
                "approved" if approve else "rejected",
                by,
                checked_reason(reason),
                self._clock.now_us(),
            )
        )
        if isinstance(outcome, Refused):
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
