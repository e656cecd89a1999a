"""The route that is in effect: what lists show is what admission gives."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.app import shown
from quarterdeck.app.admission import Admission, envelope_of
from quarterdeck.app.routing import Terms
from quarterdeck.core.contract import Limits
from quarterdeck.core.specs import AgentSpec, RouteSpec
from quarterdeck.core.vocabulary import AUTONOMY_RULES, Autonomy, Risk, Ruling
from quarterdeck.testing.clock import SeededEntropy, VirtualClock

LEVELS = list(Autonomy)
RISKS = [Risk.LOW, Risk.MEDIUM, Risk.HIGH]


@given(
    st.sampled_from(LEVELS),
    st.none() | st.sampled_from(LEVELS),
    st.sampled_from(RISKS),
    st.none() | st.sampled_from(RISKS),
    st.none() | st.lists(st.sampled_from(["look", "pay", "other"]), unique=True),
)
def test_what_a_list_shows_is_what_a_run_gets_and_it_is_never_more_than_either_says(
    own: Autonomy, routed: Autonomy | None, risk: Risk, routed_risk: Risk | None, tools: list[str] | None
) -> None:
    agent = AgentSpec("a", "m", "", ("look", "pay"), own, risk)
    route = RouteSpec("r", "a", autonomy=routed, risk=routed_risk, tools=None if tools is None else tuple(tools))
    row = shown.route(route, {"a": agent}, {})
    specs = {name: _spec(name) for name in agent.tools}
    admission = Admission("deck", {"r": route}, {"a": agent}, specs, VirtualClock(), SeededEntropy(1))
    contract, _ = admission.contract(envelope_of("r"), "p", "b")
    limits = msgspec.to_builtins(contract.limits)
    assert (row["autonomy"], row["risk"], row["tools"]) == (contract.autonomy, contract.risk, contract.allowed_tools)
    assert {name: limits[name] for name in row["limits"]} == row["limits"]
    assert RISKS.index(contract.risk) == max(RISKS.index(risk), RISKS.index(routed_risk or Risk.LOW))
    strict = [AUTONOMY_RULES[level] for level in (own, routed or own)]
    for effect, ruling in AUTONOMY_RULES[contract.autonomy].items():
        assert _AUTHORITY.index(ruling) <= min(_AUTHORITY.index(rules[effect]) for rules in strict)


TERMS = st.builds(
    Terms,
    st.none() | st.sampled_from(LEVELS),
    st.none() | st.sampled_from(RISKS),
    st.none() | st.lists(st.sampled_from(["look", "pay"]), unique=True).map(tuple),
    st.builds(Limits, turns=st.none() | st.integers(0, 20)),
)


@given(st.sampled_from(LEVELS), st.sampled_from(RISKS), st.integers(1, 20), TERMS, TERMS, TERMS)
def test_the_terms_of_a_tenant_only_tighten_authority_and_the_narrowest_limit_holds(
    level: Autonomy, risk: Risk, turns: int, every: Terms, here: Terms, there: Terms
) -> None:
    agent = AgentSpec("a", "m", "", ("look", "pay"), level, risk)
    route = RouteSpec("r", "a", limits=Limits(turns=turns))
    terms = {("acme", "*"): every, ("acme", "r"): here, ("acme", "other"): there, ("globex", "r"): there}
    specs = {name: _spec(name) for name in agent.tools}
    admission = Admission("deck", {"r": route}, {"a": agent}, specs, VirtualClock(), SeededEntropy(1), terms=terms)
    mine, _ = admission.contract(envelope_of("r", tenant="acme"), "p", "b")
    usual, _ = admission.contract(envelope_of("r", tenant="new"), "p", "b")
    assert (usual.autonomy, usual.risk, usual.allowed_tools, usual.limits.turns) == (level, risk, agent.tools, turns)
    row = shown.route(route, {"a": agent}, terms, "acme")
    assert (row["autonomy"], row["risk"], row["tools"]) == (mine.autonomy, mine.risk, mine.allowed_tools)
    assert row["terms"] == ["acme", "globex"]
    strict = [AUTONOMY_RULES[each] for each in (level, every.autonomy, here.autonomy) if each is not None]
    for effect, ruling in AUTONOMY_RULES[mine.autonomy].items():
        assert _AUTHORITY.index(ruling) <= min(_AUTHORITY.index(rules[effect]) for rules in strict)
    assert RISKS.index(mine.risk) == max(RISKS.index(each or Risk.LOW) for each in (risk, every.risk, here.risk))
    named = [set(each) for each in (agent.tools, every.tools, here.tools) if each is not None]
    assert set(mine.allowed_tools) == set.intersection(*named)
    limits = [each.limits.turns for each in (here, every) if each.limits.turns is not None]
    assert mine.limits.turns == (limits[0] if limits else turns)


_AUTHORITY = [Ruling.DENY, Ruling.ASK, Ruling.ALLOW]


def _spec(name: str):
    from quarterdeck.core.specs import ToolSpec
    from quarterdeck.core.vocabulary import EffectClass

    return ToolSpec(name, name, EffectClass.READ, b"{}")
