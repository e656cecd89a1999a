"""The gate itself: gather facts, let the core decide, return the decision and its part of a commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from quarterdeck.core import budget
from quarterdeck.core.budget import Account, Bound
from quarterdeck.core.commit import Charge
from quarterdeck.core.contract import RunContract
from quarterdeck.core.controls import Controls
from quarterdeck.core.events import Move
from quarterdeck.core.judge import Answering, Decision, Facts, rule, screen
from quarterdeck.core.labels import NO_LABELS, Integrity
from quarterdeck.core.origins import Origins
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.sinks import NO_CROSSING, Crossing, Sinks, crossing, sinks_of
from quarterdeck.core.specs import Degrade, RouteSpec, ToolSpec
from quarterdeck.core.state import CallMark, RunState
from quarterdeck.core.vocabulary import EffectClass, OnBudget, ProposalKind, Ruling
from quarterdeck.core.windows import ATTENTION, PREFIX, Attention, WindowLimit, attended, counted
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.ports.policy import PolicyEngine, PolicyRequest

RESOURCE_KINDS = dict.fromkeys(ProposalKind, "Destination") | {
    ProposalKind.TOOL: "Tool",
    ProposalKind.MODEL: "Model",
}
"""What a proposal of each kind acts upon, in the policy language's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision, the slices of shared accounts that must be leased in the same commit, and what it counts as over history."""

    decision: Decision
    leases: tuple[Move, ...] = ()
    counts: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What never changes for one run: who acts, where, with what authority, under which shared limits."""

    agent: str
    principal: dict[str, object]
    context: dict[str, object]
    limited: tuple[Bound, ...]


class Gate:
    """Judges every proposal of one runtime. ``versions`` and ``controls`` are replaced when the facts in the store change.

    ``trusted`` are values that the operator lets actions have, whatever a run has read; ``labelled`` whether any tool reads what is not
    trusted. ``limits`` are conditions over history.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        policy: PolicyEngine,
        accounts: Callable[[RunContract], Sequence[Account]],
        now_us: Callable[[], int],
        trusted: tuple[str, ...] = (),
        limits: Sequence[WindowLimit] = (),
    ) -> None:
        self.catalogue = catalogue
        self.policy = policy
        self.policy_version = policy.version[:16]
        self.controls = Controls()
        self.versions: dict[str, int] = {}
        self.routes: Mapping[str, RouteSpec] = {}
        self.attentions: Sequence[Attention] = ()
        self._accounts = accounts
        self._now_us = now_us
        self._attributes = {
            name: {
                "effect": EffectClass(spec.effect).value,
                "permissions": list(spec.permissions),
                "cost_microusd": spec.cost_microusd,
            }
            for name, spec in catalogue.specs()
        }
        self._sinks: dict[str, Sinks] = {}
        self.trusted: tuple[str, ...] = trusted
        self._limits = {name: tuple([each for each in limits if name in each.tools]) for each in limits for name in each.tools}
        self.labelled = any(spec.integrity is Integrity.UNTRUSTED for _, spec in catalogue.specs())

    def accounts(self, contract: RunContract) -> Sequence[Account]:
        """The shared accounts above a run, in the one order in which they are taken."""
        return self._accounts(contract)

    def standing(self, contract: RunContract) -> Standing:
        """What stays the same for all decisions on one run."""
        words: dict[str, object] = {
            "tenant": contract.tenant,
            "route": contract.route,
            "autonomy": contract.autonomy.value,
            "risk": contract.risk.value,
        }
        context = words | {"user": contract.actor, "mode": contract.mode.value}
        return Standing(contract.agent, words, context, budget.bounds(self._accounts(contract)))

    def forbidden(self, proposal: Proposal, state: RunState, standing: Standing, origins: Origins | None = None) -> str | None:
        """The reason for which the policy in force denies what was allowed before; an approval already given still counts."""
        tool = self.catalogue.spec(proposal.name)
        verdict = self.policy.judge(self.request(proposal, state, standing, tool, self.crossing(proposal, state, tool, origins)))
        return (verdict.reasons or ("policy.denied",))[0] if verdict.outcome == "deny" else None

    def judge(
        self,
        proposal: Proposal,
        state: RunState,
        standing: Standing,
        *,
        degrade: Degrade | None = None,
        exhausted: str | None = None,
        exact: bool = False,
        origins: Origins | None = None,
        degraded: bool = False,
    ) -> Answer:
        """Decide on one proposal of a run, now.

        ``origins`` says which values the run may trust; without it, and once it has read something untrusted, none.
        ``degraded``: a lesser model is proposed already.

        ``exhausted`` names the account that refused a slice for this very proposal; ``exact`` asks for the smallest slices. The
        answer is worth nothing until a commit under ``versions`` has made it durable.
        """
        tool = self.catalogue.spec(proposal.name) if proposal.kind is ProposalKind.TOOL else None
        mark = state.calls.get(proposal.call)
        approval_id = mark.approval if mark is not None else None
        now_us = self._now_us()
        counts: tuple[Charge, ...] = ()
        uncountable = ""
        unattended = exhausted is not None and exhausted.startswith(ATTENTION)
        exhausted = None if unattended else exhausted
        if self._limits and tool is not None and proposal.name in self._limits and not proposal.problem:
            counts, uncountable = self._counted(proposal, state, now_us, exhausted)
            exhausted = None if exhausted is not None and exhausted.startswith(PREFIX) else exhausted
        crossed = NO_CROSSING if state.labels is NO_LABELS else self.crossing(proposal, state, tool, origins)
        facts = Facts(
            now_us,
            self.controls,
            tool,
            state.approvals[approval_id] if approval_id is not None else None,
            approval_id,
            exhausted,
            degrade,
            mark is not None and mark.undoes != "",
            crossed,
            uncountable,
            degraded,
            _NO_ANSWER if mark is None or approval_id is None else self._answering(state, mark),
        )
        decision = screen(proposal, state, facts)
        if decision is None:
            verdict = self.policy.judge(self.request(proposal, state, standing, tool, crossed))
            if verdict.quorum > facts.answering.quorum:
                more = msgspec.structs.replace(facts.answering, quorum=verdict.quorum)
                facts = msgspec.structs.replace(facts, answering=more)
            decision = rule(proposal, state, facts, verdict.outcome, verdict.reasons, verdict.lifts, verdict.redact)
            if verdict.shadow:
                decision = msgspec.structs.replace(decision, shadow=verdict.shadow)
        if decision.ruling is Ruling.ASK and self.attentions and tool is not None:
            return self._attended(decision, state, now_us, unattended=unattended)
        if decision.ruling is not Ruling.ALLOW or not (standing.limited or counts):
            return Answer(decision)
        return Answer(decision, budget.leases(state, decision.reserve, standing.limited, exact=exact), counts)

    def _answering(self, state: RunState, mark: CallMark) -> Answering:
        contract, route = state.contract, self.routes.get(state.contract.route)
        earlier = [state.approvals[name] for name in mark.endorsed]
        answers = {"rejected": "tell", "expired": "tell"}
        if route is not None:
            answers = {"rejected": route.on_denial, "expired": route.on_expiry}
        return Answering(
            frozenset({contract.actor, contract.submitted_by, mark.edited_by} - {""}),
            1 if route is None else route.quorum,
            frozenset([each.by for each in earlier]),
            min([each.expires_at_us for each in earlier], default=None),
            frozenset([name for name, how in answers.items() if how != "tell"]),
        )

    def _attended(self, decision: Decision, state: RunState, now_us: int, *, unattended: bool) -> Answer:
        """Asking costs attention: what it counts as; or the denial, where whoever would be asked was asked too often already."""
        route = self.routes.get(state.contract.route)
        if unattended:
            pauses = route is not None and route.on_budget is OnBudget.PAUSE
            return Answer(Decision(Ruling.DENY, ("budget.approver",), stops=pauses))
        return Answer(decision, (), attended(self.attentions, route.owner if route is not None else "", now_us))

    def _counted(self, proposal: Proposal, state: RunState, now_us: int, exhausted: str | None) -> tuple[tuple[Charge, ...], str]:
        """What a call counts as against the limits over history, and why one of them denies it; empty if none does."""
        contract = state.contract
        facts = {"user": contract.actor, "route": contract.route, "agent": contract.agent}
        arguments = proposal.value if isinstance(proposal.value, dict) else _NOTHING
        charges: list[Charge] = []
        for limit in self._limits[proposal.name]:
            found = counted(limit, arguments, contract.tenant, facts, now_us)
            if isinstance(found, str):
                return (), found
            if exhausted is not None and any(f"{each.move.account}|{each.move.dimension}" == exhausted for each in found):
                return (), limit.reason
            charges += found
        return tuple(charges), ""

    def crossing(self, proposal: Proposal, state: RunState, tool: ToolSpec | None, origins: Origins | None) -> Crossing:
        """Why untrusted content that the run has read stands against a call; looked at only where it has read any."""
        if tool is None or proposal.problem or not state.labels.untrusted:
            return NO_CROSSING
        sinks = self._sinks.get(tool.name)
        if sinks is None:
            sinks = self._sinks[tool.name] = sinks_of(tool)
        return crossing(sinks, proposal.value, state.labels, origins)

    def request(
        self,
        proposal: Proposal,
        state: RunState,
        standing: Standing,
        tool: ToolSpec | None,
        crossed: Crossing = NO_CROSSING,
    ) -> PolicyRequest:
        """What the policies are asked about one proposal."""
        spent, labels = state.spent, state.labels
        context = standing.context | {
            "turn": state.turn,
            "spent": {
                "tokens": spent.get("tokens", 0),
                "tool_calls": spent.get("tool_calls", 0),
                "cost_microusd": spent.get("cost_microusd", 0),
            },
            "labels": _UNLABELLED
            if labels is NO_LABELS
            else {
                "untrusted": labels.untrusted,
                "sensitive": labels.sensitive,
                "crossing": crossed is not NO_CROSSING and crossed.codes != (),
                "arguments": list(crossed.arguments),
            },
        }
        return PolicyRequest(
            standing.agent,
            standing.principal,
            _ACTIONS[proposal.kind],
            RESOURCE_KINDS[proposal.kind],
            proposal.name,
            self._attributes.get(proposal.name, _NOTHING) if tool is not None else _NOTHING,
            context,
            proposal.value if isinstance(proposal.value, dict) else _NOTHING,
        )


_NO_ANSWER = Answering()
_ACTIONS = {kind: kind.value for kind in ProposalKind}
_NOTHING: dict[str, object] = {}
_UNLABELLED: dict[str, object] = {"untrusted": False, "sensitive": False, "crossing": False, "arguments": []}
