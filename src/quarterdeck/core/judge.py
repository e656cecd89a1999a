"""``judge(proposal, facts) -> Decision``: the rules, in their order, as pure functions.

Cheapest first: switches → run status and deadline → schema → allowed tools, autonomy, mode → evidence → budget → policy → labels →
approval. :func:`screen` is everything up to the policy, so that the gate asks the policy engine only about proposals that are
still alive; :func:`rule` is the rest. Capacity is no rule: the gate holds it after a decision to allow.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.budget import nearing, shortfall
from quarterdeck.core.controls import Controls
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.sinks import NO_CROSSING, Crossing
from quarterdeck.core.specs import Degrade, ToolSpec
from quarterdeck.core.state import ApprovalMark, RunState
from quarterdeck.core.vocabulary import AUTONOMY_RULES, EffectClass, Mode, ProposalKind, Ruling


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The gate's answer with its reason codes; ``reserve`` is what an allow sets aside. ``redact``: the model does not see the result;
    ``shadow`` is what policies in shadow would have said.
    """

    ruling: Ruling
    reasons: tuple[str, ...] = ()
    reserve: dict[str, int] = {}
    approval: str | None = None
    stops: bool = False
    redact: bool = False
    shadow: tuple[str, ...] = ()


class Answering(msgspec.Struct, frozen=True, gc=False):
    """What decides about a person's answer beside the answer itself. ``barred`` may not approve; ``endorsers`` have approved before, of the
    ``quorum`` that is needed, and the first of their answers ends at ``endorsed_until_us``; ``refuses`` are the answers that end the run.
    """

    barred: frozenset[str] = frozenset()
    quorum: int = 1
    endorsers: frozenset[str] = frozenset()
    endorsed_until_us: int | None = None
    refuses: frozenset[str] = frozenset()


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What a decision is judged by, beside the run's state. ``exhausted`` names a shared account that could not give a slice.

    ``undoes``: it compensates a step of this run. Then neither a cancel, nor the deadline, nor the run's own limits stand against it, and
    nobody is asked because of its autonomy or mode: what it takes back was allowed. ``crossing``: untrusted content decided about it.
    ``uncountable``: why a limit over history denies it.
    """

    now_us: int
    controls: Controls
    tool: ToolSpec | None = None
    approval: ApprovalMark | None = None
    approval_id: str | None = None
    exhausted: str | None = None
    degrade: Degrade | None = None
    undoes: bool = False
    crossing: Crossing = NO_CROSSING
    uncountable: str = ""
    degraded: bool = False
    answering: Answering = Answering()


_ALLOW = Decision(Ruling.ALLOW)


def _deny(code: str, *, stops: bool = False) -> Decision:
    return Decision(Ruling.DENY, (code,), stops=stops)


def screen(proposal: Proposal, state: RunState, facts: Facts) -> Decision | None:
    """Every check before policy: the denial (or degradation) that applies, or ``None`` if the proposal is still alive."""
    code = revoked(proposal.kind, proposal.name, state, facts.controls, facts.now_us, undoes=facts.undoes)
    if code is not None:
        return _deny(code, stops=code != "switch.tool_disabled")
    if proposal.kind is ProposalKind.TOOL:
        if (refused := _screen_tool(proposal, state, facts)) is not None:
            return refused
    elif proposal.problem:
        return _deny(proposal.problem)
    elif proposal.kind is ProposalKind.DELEGATION:
        if (refused := _screen_delegation(state)) is not None:
            return refused
    elif proposal.kind in (ProposalKind.MEMORY, ProposalKind.RETRIEVAL):
        return _deny("proposal.unsupported")
    if not facts.undoes and (dimension := shortfall(state, proposal.reserve)) is not None:
        return _deny(f"budget.{_budget_code(dimension)}", stops=dimension != "tool_calls")
    work_ms = state.contract.limits.work_ms
    if work_ms is not None and not facts.undoes and state.spent.get("work_ms", 0) >= work_ms:
        return _deny("budget.work", stops=True)
    if facts.uncountable:
        return _deny(facts.uncountable)
    if facts.exhausted is not None:
        return _deny(f"budget.{account_kind(facts.exhausted)}", stops=True)
    skips = facts.degrade is not None and proposal.kind is ProposalKind.TOOL and proposal.name in facts.degrade.skip
    if skips and facts.degrade is not None and (near := nearing(state, proposal.reserve, facts.degrade.at)) is not None:
        return _deny(f"budget.near_{_budget_code(near)}")
    if facts.degrade is not None and proposal.kind is ProposalKind.MODEL and proposal.name != facts.degrade.model:
        near = nearing(state, proposal.reserve, facts.degrade.at)
        if near is not None:
            return Decision(Ruling.DEGRADE, (f"budget.near_{_budget_code(near)}",))
    return None


def revoked(
    kind: ProposalKind, name: str, state: RunState, controls: Controls, now_us: int, *, undoes: bool = False
) -> str | None:
    """What forbids even something that was allowed before: switches, a cancel, the deadline. Looked at before every attempt."""
    contract = state.contract
    if controls.version:
        code = controls.stops(kind, name, contract.tenant, contract.route, now_us)
        if code is not None:
            return code
    if undoes:
        return None
    if state.cancelled_by:
        return "run.cancelled"
    if contract.deadline_at_us is not None and now_us >= contract.deadline_at_us:
        return "deadline.exceeded"
    return None


def _screen_delegation(state: RunState) -> Decision | None:
    contract = state.contract
    if contract.limits.depth is not None and contract.depth >= contract.limits.depth:
        return _deny("delegation.depth")
    if contract.limits.hops is not None and contract.hops >= contract.limits.hops:
        return _deny("delegation.hops")
    return None


def _screen_tool(proposal: Proposal, state: RunState, facts: Facts) -> Decision | None:
    contract, tool = state.contract, facts.tool
    if tool is None:
        return _deny("tool.unknown")
    if proposal.problem:
        return _deny(proposal.problem)
    if proposal.name not in contract.allowed_tools or (tool.withdraws and not facts.undoes):
        return _deny("tool.not_allowed")
    if facts.undoes:
        return None
    if AUTONOMY_RULES[contract.autonomy][tool.effect] is Ruling.DENY:
        return _deny(f"autonomy.{contract.autonomy}")
    if contract.mode is Mode.SYNC and tool.effect is EffectClass.IRREVERSIBLE:
        return _deny("mode.irreversible")
    for needed in tool.evidence:
        if needed not in state.succeeded_tools:
            return _deny("evidence.missing")
    repeats = contract.limits.repeats
    if repeats is not None and facts.approval is None and state.digests.get(proposal.digest, 0) >= repeats:
        return _deny("loop.repetition", stops=True)
    return None


def rule(
    proposal: Proposal,
    state: RunState,
    facts: Facts,
    outcome: str,
    reasons: tuple[str, ...],
    lifted: bool = False,
    redact: bool = False,
) -> Decision:
    """The decision on a proposal that passed :func:`screen`, given the policy's verdict.

    ``lifted``: a policy permits exactly this although untrusted content decided about it; ``redact``: a policy withholds the result.
    """
    if outcome != "allow" and outcome != "ask":
        if outcome == "redact" and proposal.kind is ProposalKind.TOOL:
            redact = True
        elif outcome == "degrade" and proposal.kind is ProposalKind.MODEL and (facts.degraded or facts.degrade is not None):
            if facts.degrade is not None and proposal.name != facts.degrade.model:
                return Decision(Ruling.DEGRADE, reasons)
        else:
            return Decision(Ruling.DENY, reasons or ("policy.denied",))
    asked = (reasons or ("policy.asked",)) if outcome == "ask" else ()
    if proposal.kind is ProposalKind.TOOL and facts.tool is not None:
        asked += _asks(state, facts.tool, facts.controls, facts.now_us, undoes=facts.undoes)
        if facts.crossing is not NO_CROSSING and not lifted and not facts.undoes:
            asked += facts.crossing.codes
    approval = facts.approval
    answering = facts.answering
    if approval is not None and approval.outcome in ("rejected", "expired", "answered"):
        return _deny(f"approval.{approval.outcome}", stops=approval.outcome in answering.refuses)
    if not asked:
        return Decision(Ruling.ALLOW, reasons, proposal.reserve, redact=redact)
    if approval is None:
        most = state.contract.limits.approvals
        if most is not None and len(state.approvals) >= most:
            return _deny("budget.approvals")
        return Decision(Ruling.ASK, asked)
    if approval.digest != proposal.digest:
        return _deny("approval.digest_differs")
    until_us = approval.expires_at_us
    if answering.endorsed_until_us is not None:
        until_us = min(until_us, answering.endorsed_until_us)
    if facts.now_us >= until_us:
        return _deny("approval.expired", stops="expired" in answering.refuses)
    if approval.outcome != "approved":
        return Decision(Ruling.ASK, asked)
    if approval.by in answering.barred:
        return _deny("approval.self")
    if len(answering.endorsers | {approval.by}) < answering.quorum:
        return Decision(Ruling.ASK, (*asked, "approval.quorum"))
    return Decision(Ruling.ALLOW, ("approval.granted",), proposal.reserve, facts.approval_id, redact=redact)


def _asks(state: RunState, tool: ToolSpec, controls: Controls, now_us: int, *, undoes: bool = False) -> tuple[str, ...]:
    contract = state.contract
    asks: tuple[str, ...] = ()
    forced = controls.asks(tool.name, contract.tenant, contract.route, now_us)
    if undoes:
        return ("switch.force_approval",) if forced else ()
    if AUTONOMY_RULES[contract.autonomy][tool.effect] is Ruling.ASK:
        asks += (f"autonomy.{contract.autonomy}",)
    if contract.mode is Mode.HUMAN_GATED and tool.effect is not EffectClass.READ:
        asks += ("mode.human_gated",)
    if forced:
        asks += ("switch.force_approval",)
    return asks


def account_kind(account: str) -> str:
    """What kind of account a name stands for, whatever its period.

    >>> account_kind("all@2026-03"), account_kind("tenant:acme|tokens")
    ('all', 'tenant')
    """
    return account.partition("|")[0].partition(":")[0].partition("@")[0]


def _budget_code(dimension: str) -> str:
    return "cost" if dimension == "cost_microusd" else "tools" if dimension == "tool_calls" else dimension
