"""The gate itself: gather facts, let the core decide, return the decision and its part of a commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quarterdeck.core import budget
from quarterdeck.core.budget import Account, Bound
from quarterdeck.core.contract import RunContract
from quarterdeck.core.controls import Controls
from quarterdeck.core.events import Move
from quarterdeck.core.judge import Decision, Facts, rule, screen
from quarterdeck.core.labels import NO_LABELS, Confidentiality, Integrity
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.specs import Degrade, ToolSpec
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, Ruling
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.ports.policy import PolicyEngine, PolicyRequest

RESOURCE_KINDS = dict.fromkeys(ProposalKind, "Destination") | {
    ProposalKind.TOOL: "Tool",
    ProposalKind.MODEL: "Model",
}
"""What a proposal of each kind acts upon, in the policy language's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision and the slices of shared accounts that must be leased in the same commit."""

    decision: Decision
    leases: tuple[Move, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What never changes for one run: who acts, where, with what authority, under which shared limits."""

    agent: str
    principal: dict[str, object]
    context: dict[str, object]
    limited: tuple[Bound, ...]


class Gate:
    """Judges every proposal of one runtime. ``versions`` and ``controls`` are replaced when the facts in the store change."""

    def __init__(
        self,
        catalogue: Catalogue,
        policy: PolicyEngine,
        accounts: Callable[[RunContract], Sequence[Account]],
        now_us: Callable[[], int],
    ) -> None:
        self.catalogue = catalogue
        self.policy = policy
        self.policy_version = policy.version[:16]
        self.controls = Controls()
        self.versions: dict[str, int] = {}
        self._accounts = accounts
        self._now_us = now_us
        self._attributes = {
            name: {"effect": EffectClass(spec.effect).value, "permissions": list(spec.permissions)}
            for name, spec in catalogue.specs()
        }

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

    def forbidden(self, proposal: Proposal, state: RunState, standing: Standing) -> str | None:
        """The reason for which the policy in force denies what was allowed before; an approval already given still counts."""
        verdict = self.policy.judge(self._request(proposal, state, standing, self.catalogue.spec(proposal.name)))
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
    ) -> Answer:
        """Decide on one proposal of a run, now.

        ``exhausted`` names the account that refused a slice for this very proposal; ``exact`` asks for the smallest slices. The
        answer is worth nothing until a commit under ``versions`` has made it durable.
        """
        tool = self.catalogue.spec(proposal.name) if proposal.kind is ProposalKind.TOOL else None
        mark = state.calls.get(proposal.call)
        approval_id = mark.approval if mark is not None else None
        facts = Facts(
            self._now_us(),
            self.controls,
            tool,
            state.approvals[approval_id] if approval_id is not None else None,
            approval_id,
            exhausted,
            degrade,
            mark is not None and mark.undoes != "",
        )
        decision = screen(proposal, state, facts)
        if decision is None:
            verdict = self.policy.judge(self._request(proposal, state, standing, tool))
            decision = rule(proposal, state, facts, verdict.outcome, verdict.reasons)
        if decision.ruling is not Ruling.ALLOW or not standing.limited:
            return Answer(decision)
        return Answer(decision, budget.leases(state, decision.reserve, standing.limited, exact=exact))

    def _request(self, proposal: Proposal, state: RunState, standing: Standing, tool: ToolSpec | None) -> PolicyRequest:
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
                "untrusted": labels.integrity is Integrity.UNTRUSTED,
                "sensitive": labels.confidentiality is not Confidentiality.PUBLIC,
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


_ACTIONS = {kind: kind.value for kind in ProposalKind}
_NOTHING: dict[str, object] = {}
_UNLABELLED = {"untrusted": False, "sensitive": False}
