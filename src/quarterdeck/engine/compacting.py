"""Compaction: when the transcript nears what the context may hold, a model tells its older turns in a few words.

There are three layers. Before every model call the working set is selected so that it fits, and what cannot fit is refused before anything
is spent (the hard limit). Below that, at a threshold, a summarising call is proposed like any other: it passes the gate, reserves its worst
case, has its intent and its receipt, and counts as a *compaction* with a limit of its own. It is never needed: where it is denied, has no
budget or fails, the oldest turns are left out as before. Turns are told whole, so a call is never parted from its answer.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.budget import shortfall
from quarterdeck.core.context import compaction_due, estimate
from quarterdeck.core.judge import Decision
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.specs import Compaction
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.held import Held
from quarterdeck.engine.performing import cost_microusd, perform_model
from quarterdeck.engine.sequencer import Happening
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.gate.proposals import propose_model_call
from quarterdeck.ports.model import Message, Model, ModelRequest, Usage
from quarterdeck.resilience.dependency import Permit

_encoder = msgspec.json.Encoder()


class _Draft:
    """One summarising call: what it tells, its request, worst case and proposal."""

    def __init__(self, held: Held, how: Compaction, upto: int, context: int) -> None:
        contract, state = held.state.contract, held.state
        self.upto = upto
        self.name = held.model_name(how.model or held.program.spec.model)
        self.model: Model = held.services.models[self.name]
        self.call = f"s{state.spent.get('compactions', 0)}"
        room = max(0, context - how.max_output_tokens - estimate(how.instructions)) * 4
        told = held.transcript.told(upto)
        if len(told) > room:
            told = f"{told[: room // 2]}\n[cut]\n{told[len(told) - room // 2 :]}"
        messages = (Message("system", how.instructions), Message("user", told))
        key = f"{contract.run_id}:{self.call}"
        timeout_s = held.services.model_dependencies[self.name].policy.timeout_s
        self.request = ModelRequest(messages, (), how.max_output_tokens, key, timeout_s, state.turn)
        self.worst: Usage = self.model.worst_case(self.request)
        reserve = {"compactions": 1, "model_calls": 1, "tokens": self.worst.input_tokens + self.worst.output_tokens}
        cost = cost_microusd(self.model.price, self.worst)
        if cost:
            reserve["cost_microusd"] = cost
        said = b'{"max_output_tokens":%d,"summarises":%d}' % (how.max_output_tokens, upto)
        self.proposal: Proposal = propose_model_call(contract, self.call, self.name, said, reserve)


async def compact(held: Held, *, fixed: int, context: int, reserve_tokens: int) -> None:
    """Have the older turns summarised, if that is due and can be had now; once for each turn at most."""
    how, state = held.program.spec.compaction, held.state
    if how is None or held.compacted == state.turn:
        return
    upto = compaction_due(state.turns, fixed=fixed, budget=context - reserve_tokens, at=how.at, keep=how.keep)
    if upto is None:
        return
    held.compacted = state.turn
    draft = _Draft(held, how, upto, context)
    if shortfall(state, draft.proposal.reserve) is not None:
        return  # what is left is for the work itself
    await _ask(held, draft)


async def _ask(held: Held, draft: _Draft) -> None:
    gate = held.services.gate
    judged_by = gate.versions
    answer = gate.judge(draft.proposal, held.state, held.standing, exact=held.exact)
    if answer.decision.ruling is not Ruling.ALLOW:
        if not answer.decision.stops:
            held.note(_decided(held, draft.proposal, answer.decision))
        return
    permit = held.services.model_dependencies[draft.name].try_acquire()
    if permit is None:
        return
    if await _commit(held, draft, answer.decision, answer.leases, permit, judged_by):
        return
    held.compacted = -1  # something has come that the loop looks at first


def _decided(held: Held, proposal: Proposal, decision: Decision) -> ev.GateDecided:
    ruling = Ruling.ALLOW if decision.ruling is Ruling.ALLOW else Ruling.DENY
    return ev.GateDecided(
        held.services.clock.now_us(),
        proposal.call,
        proposal.kind,
        proposal.name,
        proposal.digest,
        ruling,
        decision.reasons,
        decision.reserve,
        held.services.gate.policy_version,
    )


async def _commit(
    held: Held, draft: _Draft, decision: Decision, leases: tuple[ev.Move, ...], permit: Permit, judged_by: dict[str, int]
) -> bool:
    """Commit the intent, perform it and note what came of it; false if the commit was refused, for another reason than an account."""
    dependency = held.services.model_dependencies[draft.name]
    perform_by_us, until_s = held.window()
    now_us = held.services.clock.now_us()
    request = draft.request
    opened = ev.ModelOpened(
        now_us, draft.call, draft.name, request.idempotency_key, perform_by_us, request.max_output_tokens, summarises=draft.upto
    )
    happenings: list[Happening] = [(_decided(held, draft.proposal, decision), None), (opened, None)]
    if leases:
        happenings.insert(0, (ev.BudgetMoved(now_us, leases), None))
    committed = False
    try:
        refused = await held.sequencer.commit(happenings, facts=judged_by, charges=held.charges(leases))
        committed = refused is None
    finally:
        if not committed:
            dependency.release(permit)
    if refused is not None:
        return refused.guard == "account"
    closed, reply = await perform_model(
        held.services,
        held.run_id,
        draft.call,
        draft.model,
        dependency,
        permit,
        request,
        draft.worst,
        held.guard(ProposalKind.MODEL, draft.name, until_s),
        held.deadline_s(),
        held.reins(draft.call, model=True),
        quiet=True,
    )
    held.sequencer.note(msgspec.structs.replace(closed, calls=()), _encoder.encode(ModelPayload(reply.text)))
    summary = reply.text.strip()[: request.max_output_tokens * 4]
    if closed.status is ReceiptStatus.SUCCEEDED and summary:
        before = sum([mark.tokens for mark in held.state.turns if mark.turn < draft.upto])
        told = ev.ContextCompacted(held.services.clock.now_us(), draft.call, draft.upto, before, estimate(summary))
        held.note(told, _encoder.encode(summary))
    return True
