"""The route that is in effect: what lists show is what admission gives."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.app import shown
from quarterdeck.app.admission import Admission, envelope_of
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
    row = shown.route(route, {"a": agent})
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


_AUTHORITY = [Ruling.DENY, Ruling.ASK, Ruling.ALLOW]


def _spec(name: str):
    from quarterdeck.core.specs import ToolSpec
    from quarterdeck.core.vocabulary import EffectClass

    return ToolSpec(name, name, EffectClass.READ, b"{}")
