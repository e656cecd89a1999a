"""The rules of the gate: their order, their codes, and that more strictness never allows more."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.core import events as ev
from quarterdeck.core import judge
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.controls import Controls
from quarterdeck.core.fold import start
from quarterdeck.core.judge import Answering, Decision, Facts, revoked, rule, screen
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.sinks import NO_CROSSING, Crossing
from quarterdeck.core.specs import Degrade, ToolSpec
from quarterdeck.core.state import ApprovalMark, RunState
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, ProposalKind, Ruling
from quarterdeck.testing.samples import T0_US, contract

REFUND = ToolSpec("refund", "pays money back", EffectClass.WRITE, b"{}")
RANK = {Ruling.ALLOW: 0, Ruling.DEGRADE: 1, Ruling.ASK: 1, Ruling.DENY: 2}


@dataclass(frozen=True)
class Case:
    """One proposal with everything that it is judged by; by default a tool call that is allowed."""

    kind: ProposalKind = ProposalKind.TOOL
    name: str = "refund"
    problem: str = ""
    reserve: dict[str, int] = field(default_factory=lambda: {"tool_calls": 1})
    contract: RunContract = field(default_factory=contract)
    controls: Controls = field(default_factory=Controls)
    tool: ToolSpec | None = REFUND
    approval: ApprovalMark | None = None
    exhausted: str | None = None
    degrade: Degrade | None = None
    outcome: str = "allow"
    reasons: tuple[str, ...] = ()
    digests: dict[str, int] = field(default_factory=dict)
    succeeded: frozenset[str] = frozenset()
    cancelled_by: str = ""
    now_us: int = T0_US
    crossing: Crossing = NO_CROSSING
    uncountable: str = ""
    answering: Answering = field(default_factory=Answering)

    def with_contract(self, **changes: object) -> Case:
        return replace(self, contract=msgspec.structs.replace(self.contract, **changes))

    def with_controls(self, **changes: object) -> Case:
        changed = msgspec.structs.replace(self.controls, version=self.controls.version + 1, **changes)
        return replace(self, controls=changed)

    def with_tool(self, **changes: object) -> Case:
        assert self.tool is not None
        return replace(self, tool=msgspec.structs.replace(self.tool, **changes))

    @property
    def state(self) -> RunState:
        state = start(ev.RunAdmitted(T0_US, self.contract))
        state.digests = dict(self.digests)
        state.succeeded_tools = set(self.succeeded)
        state.cancelled_by = self.cancelled_by
        return state

    @property
    def facts(self) -> Facts:
        identity = "a1" if self.approval is not None else None
        tool = self.tool if self.kind is ProposalKind.TOOL else None
        return Facts(
            self.now_us,
            self.controls,
            tool,
            self.approval,
            identity,
            self.exhausted,
            self.degrade,
            crossing=self.crossing,
            uncountable=self.uncountable,
            answering=self.answering,
        )

    @property
    def proposal(self) -> Proposal:
        return Proposal(self.kind, "t0.0", self.name, "d1", b"{}", {}, self.reserve, self.problem)

    def judged(self) -> Decision:
        screened = screen(self.proposal, self.state, self.facts)
        if screened is not None:
            return screened
        return rule(self.proposal, self.state, self.facts, self.outcome, self.reasons)


PLAIN = Case()
MODEL = Case(kind=ProposalKind.MODEL, name="model-1", reserve={"model_calls": 1, "tokens": 80})
APPROVED = ApprovalMark("t0.0", "d1", T0_US + 100, "approved", "grace")


def forced(approval: ApprovalMark | None) -> Case:
    return replace(PLAIN, approval=approval).with_controls(forced_approval=frozenset({"refund"}))


def mark(**changes: object) -> ApprovalMark:
    return replace(APPROVED, **changes)  # type: ignore[arg-type]


REASONS: dict[str, tuple[Case, Ruling, bool]] = {
    "switch.frozen": (PLAIN.with_controls(frozen=True), Ruling.DENY, True),
    "switch.route_stopped": (PLAIN.with_controls(stopped_routes=frozenset({"support"})), Ruling.DENY, True),
    "switch.tenant_denied": (PLAIN.with_controls(denied_tenants=frozenset({"acme"})), Ruling.DENY, True),
    "switch.tool_disabled": (PLAIN.with_controls(disabled_tools=frozenset({"refund"})), Ruling.DENY, False),
    "switch.model_blocked": (MODEL.with_controls(blocked_models=frozenset({"model-1"})), Ruling.DENY, True),
    "run.cancelled": (replace(PLAIN, cancelled_by="ada"), Ruling.DENY, True),
    "deadline.exceeded": (PLAIN.with_contract(deadline_at_us=T0_US), Ruling.DENY, True),
    "tool.unknown": (replace(PLAIN, tool=None), Ruling.DENY, False),
    "schema.invalid": (replace(PLAIN, problem="schema.invalid"), Ruling.DENY, False),
    "model.unknown": (replace(MODEL, problem="model.unknown"), Ruling.DENY, False),
    "tool.not_allowed": (PLAIN.with_contract(allowed_tools=("lookup",)), Ruling.DENY, False),
    "autonomy.advisory": (PLAIN.with_contract(autonomy=Autonomy.ADVISORY), Ruling.DENY, False),
    "mode.irreversible": (
        PLAIN.with_contract(mode=Mode.SYNC).with_tool(effect=EffectClass.IRREVERSIBLE),
        Ruling.DENY,
        False,
    ),
    "evidence.missing": (PLAIN.with_tool(evidence=("lookup",)), Ruling.DENY, False),
    "loop.repetition": (
        replace(PLAIN, digests={"d1": 3}).with_contract(limits=Limits(repeats=3)),
        Ruling.DENY,
        True,
    ),
    "proposal.unsupported": (replace(PLAIN, kind=ProposalKind.MEMORY), Ruling.DENY, False),
    "delegation.depth": (
        replace(PLAIN, kind=ProposalKind.DELEGATION).with_contract(depth=5, limits=Limits(depth=5)),
        Ruling.DENY,
        False,
    ),
    "delegation.hops": (
        replace(PLAIN, kind=ProposalKind.DELEGATION).with_contract(hops=3, limits=Limits(hops=3)),
        Ruling.DENY,
        False,
    ),
    "budget.tools": (PLAIN.with_contract(limits=Limits(tool_calls=0)), Ruling.DENY, False),
    "budget.work": (PLAIN.with_contract(limits=Limits(work_ms=0)), Ruling.DENY, True),
    "budget.cost": (
        replace(MODEL, reserve={"cost_microusd": 2}).with_contract(limits=Limits(cost_microusd=1)),
        Ruling.DENY,
        True,
    ),
    "budget.tokens": (MODEL.with_contract(limits=Limits(tokens=79)), Ruling.DENY, True),
    "budget.tenant": (replace(PLAIN, exhausted="tenant:acme"), Ruling.DENY, True),
    "budget.near_tokens": (
        replace(MODEL, degrade=Degrade("model-0")).with_contract(limits=Limits(tokens=99)),
        Ruling.DEGRADE,
        False,
    ),
    "policy.denied": (replace(PLAIN, outcome="deny"), Ruling.DENY, False),
    "policy.named": (replace(PLAIN, outcome="deny", reasons=("policy.named",)), Ruling.DENY, False),
    "policy.asked": (replace(PLAIN, outcome="ask"), Ruling.ASK, False),
    "policy.asks": (replace(PLAIN, outcome="ask", reasons=("policy.asks",)), Ruling.ASK, False),
    "autonomy.drafts_for_review": (PLAIN.with_contract(autonomy=Autonomy.DRAFTS_FOR_REVIEW), Ruling.ASK, False),
    "mode.human_gated": (PLAIN.with_contract(mode=Mode.HUMAN_GATED), Ruling.ASK, False),
    "switch.force_approval": (forced(None), Ruling.ASK, False),
    "budget.approvals": (
        forced(None).with_contract(limits=Limits(approvals=0)),
        Ruling.DENY,
        False,
    ),
    "limit.refunds": (replace(PLAIN, uncountable="limit.refunds"), Ruling.DENY, False),
    "label.untrusted_target": (replace(PLAIN, crossing=Crossing(("label.untrusted_target",), ("to",))), Ruling.ASK, False),
    "approval.digest_differs": (forced(mark(digest="d2")), Ruling.DENY, False),
    "approval.rejected": (forced(mark(outcome="rejected")), Ruling.DENY, False),
    "approval.expired": (forced(mark(expires_at_us=T0_US)), Ruling.DENY, False),
    "approval.self": (replace(forced(APPROVED), answering=Answering(barred=frozenset({"grace"}))), Ruling.DENY, False),
    "approval.granted": (forced(APPROVED), Ruling.ALLOW, False),
}


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_can_be_given(code: str) -> None:
    case, ruling, stops = REASONS[code]
    decision = case.judged()
    assert (decision.ruling, decision.reasons, decision.stops) == (ruling, (code,), stops)
    assert decision.reserve == (case.reserve if ruling is Ruling.ALLOW else {})


def test_every_code_that_the_rules_can_say_is_tested() -> None:
    tree = ast.parse(inspect.getsource(judge))
    said = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value and " " not in node.value
    }
    assert {code for code in said if not code.endswith((".", "_"))} <= {*REASONS, "approval.quorum"}
    assert len(said) > 15


def test_a_quorum_is_counted_in_people_and_in_time() -> None:
    one = replace(forced(APPROVED), answering=Answering(quorum=2))
    assert one.judged() == Decision(Ruling.ASK, ("switch.force_approval", "approval.quorum"))
    same = replace(one, answering=Answering(quorum=2, endorsers=frozenset({"grace"})))
    assert same.judged().ruling is Ruling.ASK
    two = replace(one, answering=Answering(quorum=2, endorsers=frozenset({"ada"}), endorsed_until_us=T0_US + 1))
    assert two.judged().ruling is Ruling.ALLOW
    assert replace(two, now_us=T0_US + 1).judged().reasons == ("approval.expired",), "the first answer has expired"


def test_what_nothing_forbids_is_allowed_with_its_reservation() -> None:
    assert PLAIN.judged() == Decision(Ruling.ALLOW, (), {"tool_calls": 1})
    assert MODEL.judged() == Decision(Ruling.ALLOW, (), MODEL.reserve)
    for kind in (ProposalKind.REPLY, ProposalKind.STOP):
        assert replace(PLAIN, kind=kind, reserve={}).judged().ruling is Ruling.ALLOW


Tightening = Callable[[Case], Case]


def disabled(case: Case) -> Case:
    return case.with_controls(disabled_tools=frozenset({"refund"}))


IN_ORDER: list[tuple[str, Tightening]] = [
    ("switch.frozen", lambda case: case.with_controls(frozen=True)),
    ("switch.route_stopped", lambda case: case.with_controls(stopped_routes=frozenset({"support"}))),
    ("switch.tenant_denied", lambda case: case.with_controls(denied_tenants=frozenset({"acme"}))),
    ("switch.tool_disabled", disabled),
    ("run.cancelled", lambda case: replace(case, cancelled_by="ada")),
    ("deadline.exceeded", lambda case: case.with_contract(deadline_at_us=T0_US)),
    ("schema.invalid", lambda case: replace(case, problem="schema.invalid")),
    ("tool.not_allowed", lambda case: case.with_contract(allowed_tools=())),
    ("autonomy.advisory", lambda case: case.with_contract(autonomy=Autonomy.ADVISORY)),
    (
        "mode.irreversible",
        lambda case: case.with_contract(mode=Mode.SYNC).with_tool(effect=EffectClass.IRREVERSIBLE),
    ),
    ("evidence.missing", lambda case: case.with_tool(evidence=("lookup",))),
    (
        "loop.repetition",
        lambda case: replace(case, digests={"d1": 3}).with_contract(
            limits=msgspec.structs.replace(case.contract.limits, repeats=3)
        ),
    ),
    (
        "budget.tools",
        lambda case: case.with_contract(limits=msgspec.structs.replace(case.contract.limits, tool_calls=0)),
    ),
    ("budget.tenant", lambda case: replace(case, exhausted="tenant:acme")),
    ("policy.denied", lambda case: replace(case, outcome="deny")),
    ("switch.force_approval", lambda case: case.with_controls(forced_approval=frozenset({"refund"}))),
]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(len(IN_ORDER)), 2)))
def test_of_two_objections_the_cheaper_one_is_given(first: int, second: int) -> None:
    code = IN_ORDER[first][0]
    for order in ((first, second), (second, first)):
        case = PLAIN
        for place in order:
            case = IN_ORDER[place][1](case)
        assert case.judged().reasons == (code,)


AUTONOMY = {
    Autonomy.ADVISORY: ("allow", "deny", "deny", "deny"),
    Autonomy.DRAFTS_FOR_REVIEW: ("allow", "ask", "deny", "deny"),
    Autonomy.EXECUTES_AFTER_APPROVAL: ("allow", "ask", "ask", "ask"),
    Autonomy.BOUNDED_AUTONOMOUS: ("allow", "allow", "allow", "allow"),
}


@pytest.mark.parametrize("autonomy", Autonomy)
def test_autonomy_decides_by_effect_class(autonomy: Autonomy) -> None:
    case = PLAIN.with_contract(autonomy=autonomy)
    rulings = tuple(case.with_tool(effect=effect).judged().ruling for effect in EffectClass)
    assert rulings == AUTONOMY[autonomy]


@pytest.mark.parametrize("effect", EffectClass)
def test_a_human_gated_run_asks_for_everything_but_reading(effect: EffectClass) -> None:
    case = PLAIN.with_contract(mode=Mode.HUMAN_GATED).with_tool(effect=effect)
    assert case.judged().ruling is (Ruling.ALLOW if effect is EffectClass.READ else Ruling.ASK)


def test_every_reason_to_ask_is_named() -> None:
    case = replace(PLAIN, outcome="ask", reasons=("policy.asks",))
    case = case.with_contract(autonomy=Autonomy.DRAFTS_FOR_REVIEW, mode=Mode.HUMAN_GATED)
    decision = case.with_controls(forced_approval=frozenset({"refund"})).judged()
    expected = ("policy.asks", "autonomy.drafts_for_review", "mode.human_gated", "switch.force_approval")
    assert decision == Decision(Ruling.ASK, expected)


def test_an_approval_is_named_by_the_decision_that_uses_it() -> None:
    assert forced(APPROVED).judged().approval == "a1"
    assert replace(PLAIN, approval=APPROVED).judged().approval is None, "what needs no approval uses none"
    assert forced(mark(outcome="pending")).judged().ruling is Ruling.ASK


def test_an_approved_call_is_no_repetition_of_itself() -> None:
    case = replace(forced(APPROVED), digests={"d1": 3}).with_contract(limits=Limits(repeats=3))
    assert case.judged().ruling is Ruling.ALLOW


def test_an_approval_heals_nothing_else() -> None:
    for code, tighten in IN_ORDER:
        if code not in ("switch.force_approval", "loop.repetition"):
            assert tighten(forced(APPROVED)).judged().reasons == (code,)


def test_switches_are_not_looked_at_before_there_are_any() -> None:
    controls = Controls(version=0, frozen=True)
    assert replace(PLAIN, controls=controls).judged().ruling is Ruling.ALLOW


@pytest.mark.parametrize("code", [code for code, _ in IN_ORDER[:6]])
def test_what_revokes_a_proposal_also_revokes_a_later_attempt(code: str) -> None:
    case = REASONS[code][0]
    assert revoked(case.kind, case.name, case.state, case.controls, case.now_us) == code
    assert revoked(PLAIN.kind, PLAIN.name, PLAIN.state, PLAIN.controls, T0_US) is None


def test_a_degraded_model_is_not_degraded_again() -> None:
    case, _, _ = REASONS["budget.near_tokens"]
    assert replace(case, name="model-0").judged().ruling is Ruling.ALLOW
    assert case.with_contract(limits=Limits(tokens=100)).judged().ruling is Ruling.ALLOW, "80 of 100 is not beyond 0.8"


NARROWER = {
    Autonomy.BOUNDED_AUTONOMOUS: Autonomy.EXECUTES_AFTER_APPROVAL,
    Autonomy.EXECUTES_AFTER_APPROVAL: Autonomy.DRAFTS_FOR_REVIEW,
    Autonomy.DRAFTS_FOR_REVIEW: Autonomy.ADVISORY,
    Autonomy.ADVISORY: Autonomy.ADVISORY,
}
STRICTER_OUTCOME = {"allow": "ask", "ask": "deny", "deny": "deny"}


def lower(case: Case, dimension: str) -> Case:
    limit = getattr(case.contract.limits, dimension)
    changed = msgspec.structs.replace(case.contract.limits, **{dimension: 3 if limit is None else max(limit - 1, 0)})
    return case.with_contract(limits=changed)


TIGHTENINGS: list[Tightening] = [
    *[tighten for code, tighten in IN_ORDER if code not in ("mode.irreversible", "loop.repetition")],
    lambda case: case.with_contract(autonomy=NARROWER[case.contract.autonomy]),
    lambda case: case.with_contract(mode=Mode.HUMAN_GATED) if case.contract.mode is not Mode.SYNC else case,
    lambda case: case.with_contract(deadline_at_us=min(case.contract.deadline_at_us or T0_US + 5, T0_US + 5)),
    lambda case: replace(case, outcome=STRICTER_OUTCOME[case.outcome]),
    lambda case: replace(case, now_us=case.now_us + 50),
    lambda case: lower(case, "tool_calls"),
    lambda case: lower(case, "cost_microusd"),
    lambda case: lower(case, "tokens"),
    lambda case: lower(case, "repeats"),
    lambda case: replace(case, digests={"d1": case.digests.get("d1", 0) + 1}),
    lambda case: replace(case, approval=None),
    lambda case: replace(case, approval=case.approval and replace(case.approval, outcome="rejected")),
    lambda case: replace(case, approval=case.approval and replace(case.approval, digest="d2")),
    lambda case: replace(case, approval=case.approval and replace(case.approval, expires_at_us=T0_US)),
    lambda case: replace(case, succeeded=frozenset()),
    lambda case: replace(case, problem="schema.invalid"),
    lambda case: replace(case, tool=None),
]

approvals = st.none() | st.builds(
    ApprovalMark,
    st.just("t0.0"),
    st.sampled_from(["d1", "d1", "d1", "d2"]),
    st.sampled_from([T0_US, T0_US + 20, T0_US + 900]),
    st.sampled_from(["approved", "approved", "pending", "rejected", "expired"]),
)
limits = st.builds(
    Limits,
    tool_calls=st.none() | st.integers(0, 3),
    tokens=st.none() | st.integers(0, 5),
    cost_microusd=st.none() | st.integers(0, 5),
    repeats=st.none() | st.integers(0, 4),
)
contracts = st.builds(
    contract,
    autonomy=st.sampled_from(Autonomy),
    mode=st.sampled_from(Mode),
    limits=limits,
    deadline_at_us=st.sampled_from([None, T0_US, T0_US + 10, T0_US + 999]),
)
names = st.sets(st.sampled_from(["refund", "model-1", "support", "acme"])).map(frozenset)
cases = st.builds(
    Case,
    kind=st.sampled_from([ProposalKind.TOOL] * 4 + list(ProposalKind)),
    name=st.sampled_from(["refund", "refund", "other"]),
    reserve=st.fixed_dictionaries({"tool_calls": st.integers(0, 2), "tokens": st.integers(0, 4)}),
    contract=contracts,
    controls=st.just(Controls()) | st.builds(Controls, st.just(1), names, names, names, names, names),
    tool=st.builds(
        ToolSpec,
        st.just("refund"),
        st.just(""),
        st.sampled_from(EffectClass),
        st.just(b"{}"),
        evidence=st.sampled_from([(), (), ("lookup",)]),
    ),
    approval=approvals,
    degrade=st.none() | st.just(Degrade("model-0")),
    outcome=st.sampled_from(["allow", "allow", "ask", "deny"]),
    reasons=st.sampled_from([("policy.x",)]),
    digests=st.builds(lambda count: {"d1": count}, st.integers(0, 3)),
    succeeded=st.sampled_from([frozenset(), frozenset({"lookup"})]),
)


@given(cases, st.lists(st.sampled_from(range(len(TIGHTENINGS))), min_size=1, max_size=3))
@settings(max_examples=500)
def test_more_strictness_never_allows_more(case: Case, places: list[int]) -> None:
    before = case.judged().ruling
    for place in places:
        case = TIGHTENINGS[place](case) if case.tool is not None else case
    assert RANK[case.judged().ruling] >= RANK[before]


@pytest.mark.parametrize("place", range(len(TIGHTENINGS)))
def test_every_tightening_can_matter(place: int) -> None:
    """Otherwise the property above would say nothing about it."""
    relaxed = [
        PLAIN,
        forced(APPROVED),
        forced(replace(APPROVED, expires_at_us=T0_US + 20)),
        PLAIN.with_tool(evidence=("lookup",)),
        replace(PLAIN, reserve={"tool_calls": 1, "tokens": 4, "cost_microusd": 4}),
        replace(PLAIN, digests={"d1": 2}).with_contract(limits=Limits(repeats=3)),
        PLAIN.with_contract(limits=Limits(tool_calls=1, repeats=1)),
        PLAIN.with_contract(deadline_at_us=T0_US + 10),
        replace(PLAIN, now_us=T0_US + 7),
    ]
    relaxed = [PLAIN, *[replace(case, succeeded=frozenset({"lookup"}), reasons=("policy.x",)) for case in relaxed]]
    assert all(case.judged().ruling is Ruling.ALLOW for case in relaxed)
    assert any(TIGHTENINGS[place](case).judged().ruling is not Ruling.ALLOW for case in relaxed)


def test_a_policy_may_lift_what_labels_ask_and_nothing_else() -> None:
    crossed = replace(PLAIN, crossing=Crossing(("label.untrusted_target",), ("to",)))
    assert rule(crossed.proposal, crossed.state, crossed.facts, "allow", (), lifted=True).ruling is Ruling.ALLOW
    asked = crossed.with_controls(forced_approval=frozenset({"refund"}))
    assert rule(asked.proposal, asked.state, asked.facts, "allow", (), lifted=True).reasons == ("switch.force_approval",)


def test_what_is_redacted_is_allowed_and_withheld() -> None:
    decision = rule(PLAIN.proposal, PLAIN.state, PLAIN.facts, "redact", ("secret.kept",))
    assert (decision.ruling, decision.redact) == (Ruling.ALLOW, True)
    assert rule(MODEL.proposal, MODEL.state, MODEL.facts, "redact", ("secret.kept",)).ruling is Ruling.DENY


def test_a_policy_degrades_only_where_there_is_a_lesser_model() -> None:
    assert rule(MODEL.proposal, MODEL.state, MODEL.facts, "degrade", ("cheap.enough",)).ruling is Ruling.DENY
    lesser = replace(MODEL, degrade=Degrade("small"))
    assert rule(lesser.proposal, lesser.state, lesser.facts, "degrade", ("cheap.enough",)).ruling is Ruling.DEGRADE
    already = msgspec.structs.replace(MODEL.facts, degraded=True)
    assert rule(MODEL.proposal, MODEL.state, already, "degrade", ("cheap.enough",)).ruling is Ruling.ALLOW
