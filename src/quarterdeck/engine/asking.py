"""The model stage of a turn: assemble the working set, propose the call, commit its intent, perform, note the receipt."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.context import first_turn, room
from quarterdeck.core.errors import Refused, Unavailable
from quarterdeck.core.judge import Decision
from quarterdeck.core.loop import Finish, Wait
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.specs import Degrade
from quarterdeck.core.vocabulary import ProposalKind, Ruling, Status, StopReason
from quarterdeck.engine.compacting import compact
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.performing import cost_microusd, perform_model
from quarterdeck.engine.sequencer import Happening
from quarterdeck.gate.proposals import propose_model
from quarterdeck.ports.model import Model, ModelRequest, Usage
from quarterdeck.resilience.dependency import Permit

MIN_OUTPUT_TOKENS = 32
"""A model is not asked for an answer shorter than this; the budget denies instead."""


_encoder = msgspec.json.Encoder()


class _Draft:
    """One candidate for the model call of this turn: a model, a request, its worst case and its proposal."""

    def __init__(self, held: Held, call: str, model_name: str, max_output_tokens: int, narrowed: int | None = None) -> None:
        state, program = held.state, held.program
        contract = state.contract
        self.model: Model = held.services.models[model_name]
        self.name = model_name
        context = contract.limits.context or max_output_tokens * 8
        context = context if narrowed is None else min(context, narrowed)
        fixed = program.fixed_tokens + state.input_tokens + state.summary_tokens
        budget = context - max_output_tokens
        self.first = first_turn(state.turns, fixed=fixed, budget=budget) + (state.turns[0].turn if state.turns else 0)
        messages = held.transcript.window(program.system, self.first, room(state.turns, fixed=fixed, budget=budget))
        tools = tuple([program.declarations[name] for name in contract.allowed_tools if name in program.declarations])
        key = f"{contract.run_id}:{call}"
        timeout_s = held.services.model_dependencies[model_name].policy.timeout_s
        self.request = ModelRequest(messages, tools, max_output_tokens, key, timeout_s, state.turn)
        self.worst = self.model.worst_case(self.request)
        self.reserve = {"turns": 1, "model_calls": 1, "tokens": self.worst.input_tokens + self.worst.output_tokens}
        cost = cost_microusd(self.model.price, self.worst)
        if cost:
            self.reserve["cost_microusd"] = cost
        self.proposal: Proposal = propose_model(
            contract,
            call,
            model_name,
            first=self.first,
            turn=state.turn,
            max_output_tokens=max_output_tokens,
            reserve=self.reserve,
        )


def _fitting_output(held: Held, wanted: int, worst: Usage) -> int:
    """As much output as the run's token limit leaves after the input; never less than is worth asking for."""
    limit = held.state.contract.limits.tokens
    if limit is None:
        return wanted
    state = held.state
    left = limit - state.spent.get("tokens", 0) - state.reserved.get("tokens", 0) - worst.input_tokens
    return min(wanted, max(MIN_OUTPUT_TOKENS, left))


def _draft(held: Held, call: str, model_name: str, max_output_tokens: int, narrowed: int | None = None) -> _Draft:
    draft = _Draft(held, call, model_name, max_output_tokens, narrowed)
    fitting = _fitting_output(held, max_output_tokens, draft.worst)
    return draft if fitting == max_output_tokens else _Draft(held, call, model_name, fitting, narrowed)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A draft that was allowed, with the decisions that led to it, and capacity for it."""

    draft: _Draft
    happenings: list[Happening]
    leases: tuple[ev.Move, ...]
    permit: Permit
    judged_by: dict[str, int]


async def ask_model(held: Held, call: str) -> Rest | None:
    """Take one model call through gate, commit and performance. ``None``: its receipt is noted, the loop goes on."""
    exhausted: str | None = None
    while True:
        if (drained := held.drained()) is not None:
            return drained
        exact = held.exact
        if held.program.spec.compaction is not None:
            await _compact(held)
        chosen = await _choose(held, call, exhausted, exact=exact)
        if isinstance(chosen, Rest):
            return chosen
        refused_by = await _commit(held, chosen.draft, chosen.happenings, chosen.leases, chosen.permit, chosen.judged_by)
        if refused_by is None:
            return None
        if refused_by.startswith("account:"):
            account = refused_by.partition(":")[2]
            if (ended := held.unheeded(account, exhausted)) is not None:
                return ended
            if exact and (rest := held.crowded(account, chosen.leases)) is not None:
                return rest
            exhausted, held.exact = (account if exact else None), True


async def _choose(held: Held, call: str, exhausted: str | None, *, exact: bool) -> _Chosen | Rest:
    """The first model of the agent's chain that is allowed and can serve; those before it that failed in this turn are passed over.

    Each is a proposal of its own: what kept one from serving is journaled before the next one is judged.
    """
    spec, gate = held.program.spec, held.services.gate
    chain = (spec.model, *spec.fallbacks)
    chain = chain[min(held.state.model_fallen, len(chain) - 1) :]
    chain = tuple(dict.fromkeys([held.model_name(name) for name in chain]))  # one, where an operator has pinned this run
    happenings: list[Happening] = []
    for name in chain:
        last = name == chain[-1]
        try:
            draft = _draft(held, call, name, spec.max_output_tokens)
        except Refused as too_large:
            return Rest(Finish(Status.REFUSED, StopReason.REFUSED, too_large.code))
        judged_by = gate.versions
        answer = gate.judge(draft.proposal, held.state, held.standing, degrade=spec.degrade, exhausted=exhausted, exact=exact)
        if answer.decision.ruling is Ruling.DEGRADE and spec.degrade is not None:
            happenings.append((decided(held, draft.proposal, answer.decision), None))
            draft = _degraded(held, call, spec.degrade)
            answer = gate.judge(draft.proposal, held.state, held.standing, exhausted=exhausted, exact=exact, degraded=True)
        decision = answer.decision
        if decision.ruling is not Ruling.ALLOW:
            happenings.append((decided(held, draft.proposal, decision), None))
            if not last and decision.reasons[0] == "switch.model_blocked":
                continue
            if (rest := held.paused(decision.reasons[0], exhausted)) is not None:
                return rest
            return Rest(held.ending(decision.reasons[0]), tuple(happenings))
        permit = await _capacity(held, draft.name, last=last)
        if isinstance(permit, Permit):
            happenings.append((decided(held, draft.proposal, decision), None))
            return _Chosen(draft, happenings, answer.leases, permit, judged_by)
        if isinstance(permit, Rest):
            return permit
        passed = Decision(Ruling.DEGRADE, (permit,))
        happenings.append((decided(held, draft.proposal, passed), None))
    raise AssertionError("the last model of a chain is allowed, denied or waited for")


async def _capacity(held: Held, name: str, *, last: bool) -> Permit | Rest | str:
    """Capacity for a call of this model; else the code of what it lacks, or, for the last of a chain, how the run rests."""
    dependency = held.services.model_dependencies[name]
    permit = dependency.try_acquire()
    if permit is not None:
        return permit
    await held.sequencer.flush()  # a wait for capacity may be long; what is known already must not wait with it
    try:
        return await dependency.acquire(held.deadline_s())
    except Unavailable as busy:
        return Rest(later(held, name, busy)) if last else busy.code
    except Refused as late:
        return Rest(held.ending(late.code))


async def _compact(held: Held) -> None:
    state, program = held.state, held.program
    spec = program.spec
    context = state.contract.limits.context or spec.max_output_tokens * 8
    fixed = program.fixed_tokens + state.input_tokens + state.summary_tokens
    await compact(held, fixed=fixed, context=context, reserve_tokens=spec.max_output_tokens)


async def _commit(
    held: Held,
    draft: _Draft,
    happenings: list[Happening],
    leases: tuple[ev.Move, ...],
    permit: Permit,
    judged_by: dict[str, int],
) -> str | None:
    """Commit the intent and perform it; or give the permit back and say what refused (``account:<name>``, else the guard)."""
    dependency = held.services.model_dependencies[draft.name]
    call = draft.proposal.call
    perform_by_us, until_s = held.window()
    opened = ev.ModelOpened(
        held.services.clock.now_us(),
        call,
        draft.name,
        draft.request.idempotency_key,
        perform_by_us,
        draft.request.max_output_tokens,
        draft.first,
        draft.first,
    )
    if leases:
        happenings.insert(0, (ev.BudgetMoved(opened.at_us, leases), None))
    committed = False
    try:
        refused = await held.sequencer.commit((*happenings, (opened, None)), facts=judged_by, charges=held.charges(leases))
        committed = refused is None
    finally:
        if not committed:
            dependency.release(permit)
    if refused is not None:
        return f"account:{refused.detail}" if refused.guard == "account" else refused.guard
    held.transcript.heard()
    held.transcript.forget(draft.first)
    before = held.guard(ProposalKind.MODEL, draft.name, until_s)
    closed, reply = await perform_model(
        held.services,
        held.run_id,
        call,
        draft.model,
        dependency,
        permit,
        draft.request,
        draft.worst,
        before,
        held.deadline_s(),
        held.reins(call, model=True),
    )
    held.sequencer.note(closed, _encoder.encode(reply))
    held.transcript.model(closed, reply)
    return None


def decided(held: Held, proposal: Proposal, decision: Decision) -> ev.GateDecided:
    """The event of a decision."""
    if decision.ruling is not Ruling.ALLOW:
        held.services.refusals.count(decision.ruling.value, decision.reasons)
    return ev.GateDecided(
        held.services.clock.now_us(),
        proposal.call,
        proposal.kind,
        proposal.name,
        proposal.digest,
        Ruling.REDACT if decision.redact and decision.ruling is Ruling.ALLOW else decision.ruling,
        decision.reasons,
        decision.reserve,
        held.services.gate.policy_version,
        decision.approval,
        decision.shadow,
    )


def _degraded(held: Held, call: str, degrade: Degrade) -> _Draft:
    model = held.model_name(degrade.model)
    try:
        return _draft(held, call, model, degrade.max_output_tokens, degrade.context)
    except Refused:  # what must be in sight does not fit into the shorter context
        return _draft(held, call, model, degrade.max_output_tokens)


def later(held: Held, name: str, busy: Unavailable) -> Wait:
    """The run rests until the model may serve again; nothing is held meanwhile."""
    wake_at_us = held.services.clock.now_us() + int(max(0.05, busy.retry_after_s) * 1e6)
    return Wait(StopReason.BLOCKED, busy.code, (f"model:{name}",), wake_at_us)
