"""Admission's one rule: start, wait, refuse or go elsewhere, always with a code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.admission import (
    COUNTING,
    MAX_FALLBACKS,
    Conditions,
    accounts,
    admit,
    fallbacks,
    hindrance,
    problems,
    serves,
)
from quarterdeck.core.controls import Controls, Switch, from_rows
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.specs import RouteSpec
from quarterdeck.core.vocabulary import AdmissionAnswer, Mode, OnBudget

JOB, SYNC, GATED = Mode.ASYNC_JOB, Mode.SYNC, Mode.HUMAN_GATED
ROUTES = {
    "plain": RouteSpec("plain", "a"),
    "acme": RouteSpec("acme", "a", tenants=("acme",), owner="ann", refusal="write to desk@acme.example"),
    "jobs": RouteSpec("jobs", "a", modes=(JOB,)),
    "first": RouteSpec("first", "a", fallback="jobs", on_budget=OnBudget.REROUTE),
    "chain": RouteSpec("chain", "a", fallback="first"),
    "strict": RouteSpec("strict", "a", fallback="plain", on_budget=OnBudget.REFUSE),
    "lonely": RouteSpec("lonely", "a", fallback="acme"),
}


def switched(**fields: object) -> Controls:
    return Controls(1, **{name: value if isinstance(value, bool) else frozenset(value) for name, value in fields.items()})  # type: ignore[arg-type,call-overload]


STOPPED = switched(stopped_routes=["plain", "first", "chain", "lonely"])
BOUNDED = from_rows(
    1,
    (
        Switch("stop_route", "first", tenant="t", expires_at_us=90),
        Switch("freeze", tenant="acme", route="plain"),
        Switch("drain", route="jobs", expires_at_us=90),
        Switch("disable_tool", "plain"),
    ),
)
TABLE: tuple[tuple[str, str, str, Mode | None, Conditions, str, str, str], ...] = (
    # what is asked for, of which tenant, in which mode, as things stand → the answer, by which route, the code
    ("it starts", "plain", "t", None, Conditions(), "start", "plain", "admission.start"),
    ("it waits", "plain", "t", None, Conditions(waits="admission.capacity"), "wait", "plain", "admission.capacity"),
    ("no such route", "nothing", "t", None, Conditions(), "refuse", "", "route.unknown"),
    ("another tenant's", "acme", "globex", None, Conditions(), "refuse", "", "route.tenant"),
    ("its own tenant's", "acme", "acme", None, Conditions(), "start", "acme", "admission.start"),
    ("not in this mode", "jobs", "t", SYNC, Conditions(), "refuse", "", "route.mode"),
    ("frozen", "first", "t", None, Conditions(switched(frozen=True)), "refuse", "", "switch.frozen"),
    ("denied tenant", "first", "t", None, Conditions(switched(denied_tenants=["t"])), "refuse", "", "switch.tenant_denied"),
    ("stopped", "plain", "t", None, Conditions(STOPPED), "refuse", "", "switch.route_stopped"),
    ("stopped, falls back", "first", "t", None, Conditions(STOPPED), "elsewhere", "jobs", "switch.route_stopped"),
    ("two steps on", "chain", "t", None, Conditions(STOPPED), "elsewhere", "jobs", "switch.route_stopped"),
    ("not in a mode of the fallback", "first", "t", GATED, Conditions(STOPPED), "refuse", "", "switch.route_stopped"),
    ("the fallback is not for it", "lonely", "t", None, Conditions(STOPPED), "refuse", "", "switch.route_stopped"),
    ("and for whom it is", "lonely", "acme", None, Conditions(STOPPED), "elsewhere", "acme", "switch.route_stopped"),
    ("stopped for this tenant", "first", "t", None, Conditions(BOUNDED), "elsewhere", "jobs", "switch.route_stopped"),
    ("not for another", "first", "u", None, Conditions(BOUNDED), "start", "first", "admission.start"),
    ("not any more", "first", "t", None, Conditions(BOUNDED, now_us=90), "start", "first", "admission.start"),
    ("frozen there", "plain", "acme", None, Conditions(BOUNDED, now_us=90), "refuse", "", "switch.frozen"),
    ("not elsewhere", "plain", "t", None, Conditions(BOUNDED), "start", "plain", "admission.start"),
    ("a drain lets it wait", "jobs", "t", None, Conditions(BOUNDED, now_us=89), "wait", "jobs", "switch.draining"),
    ("until it is over", "jobs", "t", None, Conditions(BOUNDED, now_us=90), "start", "jobs", "admission.start"),
    ("spent", "first", "t", None, Conditions(exhausted=frozenset({"route:first"})), "elsewhere", "jobs", "admission.budget"),
    ("the tenant's", "first", "t", None, Conditions(exhausted=frozenset({"tenant:t"})), "elsewhere", "jobs", "admission.budget"),
    ("somebody else's", "first", "t", None, Conditions(exhausted=frozenset({"tenant:u"})), "start", "first", "admission.start"),
    ("spent and refused", "strict", "t", None, Conditions(exhausted=frozenset({"all"})), "refuse", "", "admission.budget"),
    (
        "spent and taken all the same",
        "plain",
        "t",
        None,
        Conditions(exhausted=frozenset({"all"})),
        "start",
        "plain",
        "admission.start",
    ),
)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case[0])
def test_every_answer_of_the_table(case: tuple[str, str, str, Mode | None, Conditions, str, str, str]) -> None:
    _, intent, tenant, mode, now, answer, route, code = case
    try:
        found = admit(ROUTES, intent, tenant, mode, now)
    except (Refused, UsageError) as refused:
        assert (answer, code) == ("refuse", refused.code)
    else:
        assert (answer, route, code) == (found.answer, found.route.intent, found.code)


def test_every_answer_is_in_the_table() -> None:
    assert {case[5] for case in TABLE} == set(AdmissionAnswer)


def test_a_refusal_says_whose_route_it_is_and_what_to_do() -> None:
    with pytest.raises(Refused) as refused:
        admit(ROUTES, "acme", "globex", None, Conditions())
    assert refused.value.detail == {"route": "acme", "owner": "ann", "refusal": "write to desk@acme.example"}
    assert refused.value.message.endswith("its owner is ann; write to desk@acme.example")


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([RouteSpec("a", "x", fallback="b")], "falls back to 'b', which does not exist"),
        ([RouteSpec("a", "x", fallback="a")], "go round: a → a"),
        ([RouteSpec("a", "x", fallback="b"), RouteSpec("b", "x", fallback="a")], "go round: a → b → a"),
        ([RouteSpec("a", "x", fallback="b"), RouteSpec("b", "x", fallback="b")], "go round: a → b → b"),
        ([RouteSpec("a", "x", on_budget=OnBudget.REROUTE)], "has no fallback"),
        ([RouteSpec("a", "x", fallback="b", tenants=("t",)), RouteSpec("b", "x", tenants=("u",))], "serves none of its tenants"),
        ([RouteSpec("a", "x", fallback="b", modes=(SYNC,)), RouteSpec("b", "x", modes=(JOB,))], "runs in none of its modes"),
        (
            [RouteSpec(f"r{n}", "x", fallback=f"r{n + 1}") for n in range(MAX_FALLBACKS + 1)] + [RouteSpec("r9", "x")],
            "more than 8",
        ),
    ],
)
def test_a_table_that_could_lead_nowhere_is_found(routes: list[RouteSpec], said: str) -> None:
    assert any(said in problem for problem in problems({route.intent: route for route in routes}))


def test_a_good_table_has_no_problems() -> None:
    longest = {f"r{n}": RouteSpec(f"r{n}", "x", fallback=f"r{n + 1}") for n in range(MAX_FALLBACKS)}
    assert problems(longest | {"r8": RouteSpec("r8", "x")}) == []
    assert problems(ROUTES) == []


NAMES = [f"r{number}" for number in range(5)]
TENANTS = ["t", "u"]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, RouteSpec]:
    def route(name: str) -> RouteSpec:
        return RouteSpec(
            name,
            "x",
            tenants=tuple(draw(st.sets(st.sampled_from(["*", *TENANTS]), min_size=1))),
            modes=tuple(draw(st.lists(st.sampled_from([JOB, SYNC, GATED]), min_size=1, unique=True))),
            fallback=draw(st.none() | st.sampled_from([*NAMES, "unknown"])),
            on_budget=draw(st.sampled_from(list(OnBudget))),
        )

    return {name: route(name) for name in NAMES}


@given(
    tables(),
    st.sampled_from(NAMES),
    st.sampled_from(TENANTS),
    st.none() | st.sampled_from([JOB, SYNC, GATED]),
    st.builds(
        Conditions,
        st.builds(
            Controls,
            st.just(1),
            stopped_routes=st.frozensets(st.sampled_from(NAMES)),
            denied_tenants=st.frozensets(st.sampled_from(TENANTS)),
            frozen=st.booleans(),
        ),
        st.frozensets(st.sampled_from([*(f"route:{name}" for name in NAMES), "tenant:t", "all"])),
        st.sampled_from(["", "admission.capacity"]),
    ),
)
def test_whatever_the_table_a_run_goes_only_where_nothing_stands_against_it(
    routes: dict[str, RouteSpec], intent: str, tenant: str, mode: Mode | None, now: Conditions
) -> None:
    asked = routes[intent]
    chain = list(fallbacks(routes, asked))
    assert len(chain) <= MAX_FALLBACKS and len({intent, *(route.intent for route in chain)}) == len(chain) + 1
    try:
        found = admit(routes, intent, tenant, mode, now)
    except Refused as refused:
        against = {"route.tenant"} if not serves(asked, tenant) else {"route.mode", hindrance(asked, tenant, now)}
        assert refused.code in against and refused.detail["route"] == intent
        return
    assert serves(found.route, tenant) and serves(asked, tenant), "no way around a tenant's scope"
    assert found.mode in found.route.modes and (mode is None or found.mode is mode)
    assert hindrance(found.route, tenant, now) is None
    assert found.code
    if found.answer is AdmissionAnswer.ELSEWHERE:
        assert found.route in chain and found.code == hindrance(asked, tenant, now)
        assert found.code != "admission.budget" or asked.on_budget is OnBudget.REROUTE
    else:
        assert found.route is asked and (found.answer is AdmissionAnswer.WAIT) == bool(now.waits)
    if found.route.on_budget in COUNTING:
        assert now.exhausted.isdisjoint(accounts(found.route.intent, tenant))
