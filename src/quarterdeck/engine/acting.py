"""The tool stage of a turn: decide on every planned call, commit all decisions and intents at once, perform what was allowed.

Calls that the gate asks about become approvals in the same commit; calls that it denies get their answer for the model. Allowed
calls of one turn are performed side by side. The receipt of an effect that is not idempotent is committed before anybody sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import Ask, Consume
from quarterdeck.core.errors import Refused, Unavailable
from quarterdeck.core.judge import Decision
from quarterdeck.core.loop import ending
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.asking import decided
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.performing import perform_tool
from quarterdeck.engine.sequencer import Happening
from quarterdeck.ports.tools import Tool
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
    """One call that may be performed now: its intent is durable, its capacity held."""

    proposal: Proposal
    tool: Tool
    dependency: Dependency
    permit: Permit
    key: str


@dataclass(slots=True)
class _Batch:
    """Decisions on the calls of one turn, as one commit."""

    happenings: list[Happening] = field(default_factory=list)
    allowed: list[Allowed] = field(default_factory=list)
    leases: list[ev.Move] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    consumes: list[Consume] = field(default_factory=list)
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
            item.dependency.release(item.permit)


class _Tentative:
    """Reservations of earlier calls of the same batch, counted while the later ones are judged; taken back at the end."""

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._reserved = dict(state.reserved)
        self._slices = dict(state.slices)
        self._digests: list[str] = []

    def count(self, proposal: Proposal, decision: Decision, leases: tuple[ev.Move, ...]) -> None:
        state = self._state
        state.digests[proposal.digest] = state.digests.get(proposal.digest, 0) + 1
        self._digests.append(proposal.digest)
        for dimension, amount in decision.reserve.items():
            state.reserved[dimension] = state.reserved.get(dimension, 0) + amount
        for move in leases:
            held = (move.account, move.dimension)
            state.slices[held] = state.slices.get(held, 0) + move.leased

    def undo(self) -> None:
        self._state.reserved = self._reserved
        self._state.slices = self._slices
        for digest in self._digests:
            self._state.digests[digest] -= 1


Performing = Callable[[Held, list[Allowed], float], Awaitable[None]]
"""How allowed calls are performed: side by side and waited for, unless somebody else sees to it."""


async def act(held: Held, calls: tuple[str, ...], performing: Performing | None = None) -> Rest | None:
    """Decide on these calls and perform the allowed ones. ``None``: the loop looks at the new state."""
    if not held.program.spec.parallel_calls:
        calls = calls[:1]
    proposals = [_propose(held, call) for call in calls]
    exhausted: str | None = None
    while True:
        exact = held.exact
        judged_by = (
            held.services.gate.versions
        )  # a wait for capacity may outlast them; then the store refuses, and we judge again
        batch = await _decide(held, proposals, exhausted, exact=exact)
        if batch.stop is not None:
            batch.release()
            return Rest(ending(held.state, batch.stop), batch.denials())
        committed = False
        perform_by_us, until_s = held.window()
        now_us = held.services.clock.now_us()
        for item in batch.allowed:
            batch.happenings.append((_opened(item, now_us, perform_by_us), None))
        if batch.leases:
            batch.happenings.insert(0, (ev.BudgetMoved(now_us, tuple(batch.leases)), None))
        try:
            refused = await held.sequencer.commit(
                batch.happenings,
                facts=judged_by,
                charges=held.charges(batch.leases) if batch.leases else (),
                asks=tuple(batch.asks),
                consumes=tuple(batch.consumes),
            )
            committed = refused is None
        finally:
            if not committed:
                batch.release()
        if refused is None:
            break
        if refused.guard == "account":
            if exact and (rest := held.crowded(refused.detail, batch.leases)) is not None:
                return rest
            exhausted, held.exact = (refused.detail if exact else None), True
    for event, payload in batch.happenings:
        held.transcript.apply(event, payload)
    await (performing or _perform_all)(held, batch.allowed, until_s)
    return None


def _propose(held: Held, call: str) -> Proposal:
    mark = held.state.calls[call]
    spec = held.services.gate.catalogue.spec(mark.tool)
    attempts = 1
    if spec is not None and (spec.idempotent or spec.effect is EffectClass.READ):
        attempts = held.services.tool_dependencies[spec.name].policy.retry.max_attempts
    return held.services.gate.catalogue.propose(held.state.contract, call, mark.tool, held.transcript.raw(call), attempts)


async def _decide(held: Held, proposals: list[Proposal], exhausted: str | None, *, exact: bool) -> _Batch:
    batch = _Batch()
    tentative = _Tentative(held.state) if len(proposals) > 1 else None
    try:
        for proposal in proposals:
            answer = held.services.gate.judge(proposal, held.state, held.standing, exhausted=exhausted, exact=exact)
            decision = answer.decision
            if decision.ruling is Ruling.ALLOW:
                found = await _hold(held, proposal, decision, batch)
                if found is None:
                    break
                decision = found
            detail = _encoder.encode(proposal.detail) if decision.ruling is Ruling.DENY and proposal.detail else None
            batch.happenings.append((decided(held, proposal, decision), detail))
            if decision.ruling is Ruling.ASK:
                happening, asked = request_approval(held, proposal, decision)
                batch.happenings.append(happening)
                batch.asks.append(asked)
            elif decision.ruling is Ruling.ALLOW:
                batch.leases.extend(answer.leases)
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
    dependency = services.tool_dependencies[proposal.name]
    permit = dependency.try_acquire()
    if permit is None and batch.allowed:
        return None
    if permit is None:
        await held.sequencer.flush()  # a wait for capacity may be long; what is known already must not wait with it
        try:
            permit = await dependency.acquire(held.deadline_s(proposal.call))
        except (Unavailable, Refused) as busy:
            return Decision(Ruling.DENY, (busy.code,))
    if decision.approval is not None:
        batch.consumes.append(Consume(decision.approval, proposal.digest, services.clock.now_us()))
    key = f"{held.run_id}:{proposal.call}"
    batch.allowed.append(Allowed(proposal, services.gate.catalogue.tool(proposal.name), dependency, permit, key))
    return decision


def request_approval(held: Held, proposal: Proposal, decision: Decision) -> tuple[Happening, Ask]:
    """What asks a person about one exact proposal: the event, and the approval's row."""
    contract = held.state.contract
    spec = held.services.gate.catalogue.spec(proposal.name)
    effect = spec.effect.value if spec is not None else ""
    shown = _encoder.encode(
        Shown(contract.tenant, contract.run_id, proposal.name, effect, msgspec.Raw(proposal.arguments), decision.reasons)
    )
    now_us = held.services.clock.now_us()
    expires_at_us = now_us + held.services.routes[contract.route].approval_timeout_s * 1_000_000
    approval = f"ap_{contract.run_id}_{proposal.call}"
    requested = ev.ApprovalRequested(now_us, approval, proposal.call, proposal.digest, expires_at_us, decision.reasons)
    asked = Ask(approval, proposal.call, proposal.name, proposal.digest, contract.actor, expires_at_us, shown)
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
    opened_at_us = held.services.clock.now_us()

    def repeats() -> float:
        return held.repeats_until_s(spec, opened_at_us)

    before = held.guard(ProposalKind.TOOL, spec.name, until_s, repeats=repeats, undoes=held.undoes(call))
    held.sequencer.performing.add(call)
    closed, result = await perform_tool(
        held.services,
        call,
        item.tool,
        item.dependency,
        item.permit,
        item.proposal.arguments,
        held.context(call, item.key),
        before,
        held.deadline_s(call),
    )
    held.receive(closed, result)
    if not (spec.idempotent or spec.effect is EffectClass.READ) or closed.status is ReceiptStatus.UNKNOWN:
        await held.sequencer.flush()
