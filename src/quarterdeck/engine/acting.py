"""The tool stage of a turn: decide on every planned call, commit all decisions and intents at once, perform what was allowed.

Calls that the gate asks about become approvals in the same commit; calls that it denies get their answer for the model. Allowed
calls of one turn are performed side by side. The receipt of an effect that is not idempotent is committed before anybody sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import Ask, Charge, Consume, Take
from quarterdeck.core.errors import Refused, Unavailable, UsageError
from quarterdeck.core.judge import Decision
from quarterdeck.core.loop import Wait
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling, StopReason
from quarterdeck.core.windows import ATTENTION, PREFIX
from quarterdeck.engine.asking import decided
from quarterdeck.engine.held import CROWDED_S, Held, Rest
from quarterdeck.engine.performing import perform_tool, stale_receipt
from quarterdeck.engine.sequencer import Happening
from quarterdeck.engine.settling import settle
from quarterdeck.ports.tools import Exclusive, Tool, Transaction
from quarterdeck.resilience.dependency import Dependency, Permit

_encoder = msgspec.json.Encoder()


class Shown(msgspec.Struct, frozen=True):
    """What a person who approves is shown: all that the digest covers."""

    tenant: str
    run_id: str
    tool: str
    effect: str
    arguments: msgspec.Raw
    reasons: tuple[str, ...]


@dataclass(slots=True)
class Allowed:
    """One call that may be performed now: its intent is durable, its capacity held. ``stale``: there is none, and this answer is given."""

    proposal: Proposal
    tool: Tool
    dependency: Dependency
    permit: Permit | None
    key: str
    exclusive: str = ""
    stale: bytes | None = None


@dataclass(slots=True)
class _Batch:
    """Decisions on the calls of one turn, as one commit."""

    happenings: list[Happening] = field(default_factory=list)
    allowed: list[Allowed] = field(default_factory=list)
    leases: list[ev.Move] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    consumes: list[Consume] = field(default_factory=list)
    counts: list[Charge] = field(default_factory=list)
    stop: str | None = None

    def denials(self) -> tuple[Happening, ...]:
        """What is journaled of a batch that stops the run: nothing of it was, or will be, performed."""
        return tuple(
            (event, payload)
            for event, payload in self.happenings
            if isinstance(event, ev.GateDecided) and event.ruling is Ruling.DENY
        )

    def release(self) -> None:
        for item in self.allowed:
            if item.permit is not None:
                item.dependency.release(item.permit)


K = TypeVar("K")


class _Tentative:
    """Reservations of earlier calls of the same batch, counted while the later ones are judged; taken back at the end.

    Receipts of other steps may be noted meanwhile, so what is taken back is what was counted, not what was there before.
    """

    def __init__(self, state: RunState) -> None:
        self._reserved = _Count(state.reserved)
        self._slices = _Count(state.slices)
        self._digests = _Count(state.digests)

    def count(self, proposal: Proposal, decision: Decision, leases: tuple[ev.Move, ...]) -> None:
        self._digests.add(proposal.digest, 1)
        for dimension, amount in decision.reserve.items():
            self._reserved.add(dimension, amount)
        for move in leases:
            self._slices.add((move.account, move.dimension), move.leased)

    def undo(self) -> None:
        for count in (self._reserved, self._slices, self._digests):
            count.undo()


class _Count(Generic[K]):
    """Amounts that are added for a while, by name."""

    def __init__(self, amounts: dict[K, int]) -> None:
        self._amounts = amounts
        self._added: dict[K, int] = {}
        self._new: set[K] = set()

    def add(self, name: K, amount: int) -> None:
        if name not in self._amounts:
            self._new.add(name)
        self._amounts[name] = self._amounts.get(name, 0) + amount
        self._added[name] = self._added.get(name, 0) + amount

    def undo(self) -> None:
        for name, amount in self._added.items():
            self._amounts[name] -= amount
            if name in self._new and not self._amounts[name]:
                del self._amounts[name]


Performing = Callable[[Held, list[Allowed], float], Awaitable[None]]
"""How allowed calls are performed: side by side and waited for, unless somebody else sees to it."""


async def act(held: Held, calls: tuple[str, ...], performing: Performing | None = None) -> Rest | None:
    """Decide on these calls and perform the allowed ones. ``None``: the loop looks at the new state."""
    if not held.program.spec.parallel_calls or held.state.contract.limits.approvals is not None:
        calls = calls[:1]
    proposals = [_propose(held, call) for call in calls]
    exhausted: str | None = None
    while True:
        exact = held.exact
        judged_by = (
            held.services.gate.versions
        )  # a wait for capacity may outlast them; then the store refuses, and we judge again
        if (drained := held.drained()) is not None:
            return drained
        batch = await _decide(held, proposals, exhausted, exact=exact)
        if batch.stop is not None:
            batch.release()
            return held.paused(batch.stop, exhausted) or Rest(held.ending(batch.stop), batch.denials())
        committed = False
        perform_by_us, until_s = held.window()
        now_us = held.services.clock.now_us()
        for item in batch.allowed:
            batch.happenings.append((_opened(item, now_us, perform_by_us), None))
        if not batch.happenings:
            return None  # all of it waits for what other calls of this run work on
        takes = tuple([Take(item.exclusive, item.proposal.call) for item in batch.allowed if item.exclusive])
        if batch.leases:
            batch.happenings.insert(0, (ev.BudgetMoved(now_us, tuple(batch.leases)), None))
        try:
            refused = await held.sequencer.commit(
                batch.happenings,
                facts=judged_by,
                charges=(*held.charges(batch.leases), *batch.counts) if batch.leases or batch.counts else (),
                asks=tuple(batch.asks),
                consumes=tuple(batch.consumes),
                takes=takes,
            )
            committed = refused is None
        finally:
            if not committed:
                batch.release()
        if refused is None:
            break
        if refused.guard == "exclusive":
            return _taken_elsewhere(held, refused.detail)
        if refused.guard == "account" and (rest := held.unheeded(refused.detail, exhausted)) is not None:
            return rest
        if refused.guard == "account" and refused.detail.startswith((PREFIX, ATTENTION)):
            exhausted = refused.detail if len(proposals) == 1 else None
            proposals = proposals[:1]  # which of several is too much is only known one by one
        elif refused.guard == "account":
            if exact and (rest := held.crowded(refused.detail, batch.leases)) is not None:
                return rest
            exhausted, held.exact = (refused.detail if exact else None), True
        proposals = [each for each in proposals if each.call in held.state.pending]
        if not proposals:
            return None  # an interrupt has withdrawn them
    for event, payload in batch.happenings:
        held.transcript.apply(event, payload)
    await (performing or _perform_all)(held, batch.allowed, until_s)
    return None


def _taken_elsewhere(held: Held, detail: str) -> Rest:
    """Another call, perhaps of another run, works on the same thing: the run rests, holding nothing, and asks again."""
    _, _, name = detail.rpartition("|")[0].partition("\n")
    wake_at_us = held.services.clock.now_us() + int(CROWDED_S * 1e6)
    return Rest(Wait(StopReason.BLOCKED, "exclusive.held", (f"exclusive:{name}"[:256],), wake_at_us))


def _propose(held: Held, call: str) -> Proposal:
    mark = held.state.calls[call]
    spec = held.services.gate.catalogue.spec(mark.tool)
    attempts = 1
    if spec is not None and spec.repeatable:
        attempts = held.services.tool_dependencies[spec.name].policy.retry.max_attempts
    return held.services.gate.catalogue.propose(held.state.contract, call, mark.tool, held.transcript.raw(call), attempts)


async def _decide(held: Held, proposals: list[Proposal], exhausted: str | None, *, exact: bool) -> _Batch:
    batch = _Batch()
    tentative = _Tentative(held.state) if len(proposals) > 1 else None
    try:
        for proposal in proposals:
            answer = held.services.gate.judge(
                proposal,
                held.state,
                held.standing,
                degrade=held.program.spec.degrade,
                exhausted=exhausted,
                exact=exact,
                origins=held.transcript.origins,
            )
            decision = answer.decision
            if decision.ruling is Ruling.ALLOW:
                found = await _hold(held, proposal, decision, batch)
                if found is None:
                    break
                decision = found
            detail = _encoder.encode(proposal.detail) if decision.ruling is Ruling.DENY and proposal.detail else None
            if decision.reasons == ("approval.answered",):
                detail = held.transcript.instead.get(proposal.call)
            batch.happenings.append((decided(held, proposal, decision), detail))
            if decision.ruling is Ruling.ASK:
                happening, asked = request_approval(held, proposal, decision)
                batch.happenings.append(happening)
                batch.asks.append(asked)
                if answer.counts:
                    moves = tuple([each.move for each in answer.counts])
                    batch.happenings.append((ev.BudgetMoved(held.services.clock.now_us(), moves), None))
                    batch.counts.extend(answer.counts)
            elif decision.ruling is Ruling.ALLOW:
                batch.leases.extend(answer.leases)
                if answer.counts:
                    moves = tuple([each.move for each in answer.counts])
                    batch.happenings.append((ev.BudgetMoved(held.services.clock.now_us(), moves, call=proposal.call), None))
                    batch.counts.extend(answer.counts)
                if tentative is not None:
                    tentative.count(proposal, decision, answer.leases)
            elif decision.stops:
                batch.stop = decision.reasons[0]
                break
    except BaseException:
        batch.release()
        raise
    finally:
        if tentative is not None:
            tentative.undo()
    return batch


async def _hold(held: Held, proposal: Proposal, decision: Decision, batch: _Batch) -> Decision | None:
    """Hold capacity for an allowed call before its commit; without capacity, the decision is a denial that names why.

    ``None``: there is none now, and calls before this one hold some already. Nobody waits for capacity while holding it: this call
    stays planned, and is decided after the others were performed.
    """
    services = held.services
    tool = services.gate.catalogue.tool(proposal.name)
    try:
        key = exclusive_key(held, tool, proposal.arguments)
    except UsageError as wrong:
        return Decision(Ruling.DENY, (wrong.code,))
    if key and (key in held.state.exclusive.values() or any(item.exclusive == key for item in batch.allowed)):
        return None
    dependency = services.tool_dependencies[proposal.name]
    permit = dependency.try_acquire()
    if permit is None and batch.allowed:
        return None
    if permit is None:
        await held.sequencer.flush()  # a wait for capacity may be long; what is known already must not wait with it
        try:
            permit = await dependency.acquire(held.deadline_s(proposal.call))
        except (Unavailable, Refused) as busy:
            stale = _stale(held, proposal.name, proposal.arguments)
            if stale is None:
                return Decision(Ruling.DENY, (busy.code,))
            batch.allowed.append(
                Allowed(
                    proposal,
                    tool,
                    dependency,
                    None,
                    f"{held.run_id}:{proposal.call}",
                    stale=stale,
                )
            )
            return decision
    if decision.approval is not None:
        now_us = services.clock.now_us()
        for approval in (*held.state.calls[proposal.call].endorsed, decision.approval):
            batch.consumes.append(Consume(approval, proposal.digest, now_us))
    own = f"{held.run_id}:{proposal.call}"
    batch.allowed.append(Allowed(proposal, tool, dependency, permit, own, key))
    return decision


def _stale(held: Held, name: str, arguments: bytes) -> bytes | None:
    """The last good answer of a read that may be answered late."""
    services = held.services
    spec = services.gate.catalogue.spec(name)
    if spec is None or not spec.stale_s:
        return None
    return services.answers.find(held.state.contract, name, arguments, services.clock.boottime_s(), spec.stale_s)


def _or_stale(held: Held, item: Allowed, closed: ev.ToolClosed, result: bytes) -> tuple[ev.ToolClosed, bytes]:
    """A good answer is kept; a failed call is answered with the last good one, unless it was revoked or the caller's own fault."""
    services, arguments, name = held.services, item.proposal.arguments, item.tool.spec.name
    if closed.status is ReceiptStatus.SUCCEEDED:
        services.answers.keep(held.state.contract, name, arguments, result, services.clock.boottime_s())
        return closed, result
    stale = None if held.state.cancelled_by else _stale(held, name, arguments)
    return (closed, result) if stale is None else stale_receipt(services, closed.call, item.tool, stale, closed.attempts)


def exclusive_key(held: Held, tool: Tool, arguments: bytes) -> str:
    """The key of what a call works on, among those of its tenant; empty where it needs none."""
    if not tool.spec.exclusive or not isinstance(tool, Exclusive):
        return ""
    named = tool.exclusive_key(arguments)
    return f"{held.state.contract.tenant}\n{named}" if named else ""


def request_approval(held: Held, proposal: Proposal, decision: Decision) -> tuple[Happening, Ask]:
    """What asks a person about one exact proposal: the event, and the approval's row."""
    contract = held.state.contract
    spec = held.services.gate.catalogue.spec(proposal.name)
    effect = spec.effect.value if spec is not None else ""
    shown = _encoder.encode(
        Shown(contract.tenant, contract.run_id, proposal.name, effect, msgspec.Raw(proposal.arguments), decision.reasons)
    )
    now_us = held.services.clock.now_us()
    route, mark = held.services.routes[contract.route], held.state.calls[proposal.call]
    expires_at_us = now_us + route.approval_timeout_s * 1_000_000
    again = f".{mark.asked + 1}" if mark.asked else ""
    approval = f"ap_{contract.run_id}_{proposal.call}{again}"
    escalates_at_us = None
    if route.escalation and route.escalate_after_s is not None:
        escalates_at_us = now_us + route.escalate_after_s * 1_000_000
    requested = ev.ApprovalRequested(
        now_us, approval, proposal.call, proposal.digest, expires_at_us, decision.reasons, route.owner, escalates_at_us
    )
    asker = mark.edited_by or contract.actor
    asked = Ask(approval, proposal.call, proposal.name, proposal.digest, asker, expires_at_us, shown)
    return (requested, shown), asked


def _opened(item: Allowed, now_us: int, perform_by_us: int) -> ev.ToolOpened:
    spec = item.tool.spec
    return ev.ToolOpened(
        now_us,
        item.proposal.call,
        spec.name,
        spec.effect,
        item.proposal.digest,
        item.key,
        perform_by_us,
        spec.idempotent,
        spec.reconcilable,
        spec.cancellable,
        item.exclusive,
    )


async def _perform_all(held: Held, allowed: list[Allowed], until_s: float) -> None:
    if len(allowed) == 1:
        await perform(held, allowed[0], until_s)
    elif allowed:
        ended = await asyncio.gather(*[perform(held, item, until_s) for item in allowed], return_exceptions=True)
        for outcome in ended:
            if outcome is not None:
                raise outcome


async def perform(held: Held, item: Allowed, until_s: float) -> None:
    """Perform one allowed call and note its receipt; durably, before anybody sees it, unless it could be repeated."""
    call, spec = item.proposal.call, item.tool.spec
    if item.stale is not None or item.permit is None:
        held.receive(*stale_receipt(held.services, call, item.tool, item.stale or b"null", 1))
        return
    opened_at_us = held.services.clock.now_us()

    def repeats() -> float:
        return held.repeats_until_s(spec, opened_at_us)

    before = held.guard(ProposalKind.TOOL, spec.name, until_s, repeats=repeats, undoes=held.undoes(call))
    held.sequencer.performing.add(call)
    asked = Transaction(held.services.topics) if spec.transactional else None
    closed, result = await perform_tool(
        held.services,
        call,
        item.tool,
        item.dependency,
        item.permit,
        item.proposal.arguments,
        held.context(call, item.key, asked),
        before,
        held.deadline_s(call),
        reins=held.reins(call, model=False),
    )
    if spec.stale_s:
        closed, result = _or_stale(held, item, closed, result)
    await settle(held, item.tool, closed, result, asked)
    if not spec.repeatable or closed.status is ReceiptStatus.UNKNOWN:
        await held.sequencer.flush()
