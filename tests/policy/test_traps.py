"""Known traps of the policy library, each shown as it is and then as the engine answers it."""

from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy import PolicyManifest, PolicyTool
from quarterdeck.ports.policy import PolicyRequest
from tests.policy.cases import PERMIT, answer, engine, refund, request

ENTITY = {"__entity": {"type": "Agent", "id": "support"}}
EXTENSION = {"__extn": {"fn": "decimal", "arg": "0.0"}}
AMOUNT = 'forbid(principal, action in Action::"tool", resource == Tool::"issue_refund") when { %s };'


EVERYTHING = engine(PERMIT + AMOUNT % "context.args != context.args")


def bare(policies: str, context: object) -> cedarpy.Decision:
    """What the library itself says."""
    asked = {
        "principal": 'Agent::"a"',
        "action": 'Action::"x"',
        "resource": 'Tool::"t"',
        "context": json.dumps(context),
    }
    return cedarpy.is_authorized(asked, policies, "[]").decision


def test_a_forbid_that_raises_is_skipped_by_the_library_and_denies_here() -> None:
    overflow = "forbid(principal, action, resource) when { context.n + 1 > 0 };"
    assert bare(PERMIT + overflow, {"n": 2**63 - 1}) is cedarpy.Decision.Allow
    built = engine(PERMIT + AMOUNT % "context.args.amount_cents + 1 > 9000")
    assert answer(built, refund(amount_cents=5)) == ("allow", ())
    assert answer(built, refund(amount_cents=2**63 - 1)) == ("deny", ("policy.error",))


def test_a_permit_that_raises_denies_although_another_permits() -> None:
    built = engine(PERMIT + "permit(principal, action, resource) when { context.turn + 1 > 0 };")
    assert answer(built, request(context={"turn": 2**63 - 1})) == ("deny", ("policy.error",))


def test_an_ask_whose_permits_raise_denies() -> None:
    text = """
    permit(principal, action, resource) when { context.turn + 1 > 0 };
    @outcome("ask") forbid(principal, action, resource);
    """
    assert answer(engine(text), request()) == ("ask", ("policy.ask",))
    assert answer(engine(text), request(context={"turn": 2**63 - 1})) == ("deny", ("policy.error",))


@pytest.mark.parametrize("missing", ["tenant", "labels", "turn"])
def test_an_attribute_that_a_policy_reads_and_the_request_lacks_denies(missing: str) -> None:
    assert bare(PERMIT + "forbid(principal, action, resource) when { context.turn > 3 };", {}) is cedarpy.Decision.Allow
    reads = {"tenant": 'context.tenant == "x"', "labels": "context.labels.untrusted", "turn": "context.turn > 3"}[missing]
    built = engine(PERMIT + f"forbid(principal, action, resource) when {{ {reads} }};")
    whole = request()
    partial = {name: value for name, value in whole.context.items() if name != missing}
    lacking = PolicyRequest("support", {}, "tool", "Tool", "search", {}, partial, {})
    assert answer(built, whole) == ("allow", ())
    assert answer(built, lacking) == ("deny", ("policy.error",))


def test_a_missing_attribute_of_the_principal_or_the_resource_denies() -> None:
    asked = PolicyRequest("support", {}, "tool", "Tool", "search", {}, {}, {})
    for condition in ('principal.tenant == "x"', "principal has tenant"):
        built = engine(PERMIT + f"forbid(principal, action, resource) when {{ {condition} }};")
        assert answer(built, asked) == ("deny", ("policy.error",))
    built = engine(PERMIT + 'forbid(principal, action in Action::"tool", resource) when { resource.effect == "write" };')
    assert answer(built, asked) == ("deny", ("policy.error",))


@pytest.mark.parametrize("value", [1.5, None, 2**63])
def test_floats_nulls_and_large_integers_are_no_values_for_the_library(value: object) -> None:
    assert bare(PERMIT, {"n": value}) is cedarpy.Decision.NoDecision


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63 - 1, ("allow", ())),
        (-(2**63), ("allow", ())),
        (7.0, ("allow", ())),
        (2**63, ("deny", ("policy.unrepresentable",))),
        (-(2**63) - 1, ("deny", ("policy.unrepresentable",))),
        (10**400, ("deny", ("policy.unrepresentable",))),
        (1e300, ("deny", ("policy.unrepresentable",))),
        (1.5, ("deny", ("policy.error",))),
        (float("nan"), ("deny", ("policy.error",))),
        (None, ("deny", ("policy.error",))),
        (True, ("deny", ("policy.error",))),
        ("7", ("deny", ("policy.error",))),
        ([7], ("deny", ("policy.error",))),
    ],
)
def test_an_integer_is_read_exactly_or_denied(value: object, expected: tuple[str, tuple[str, ...]]) -> None:
    built = engine(PERMIT + AMOUNT % "context.args.amount_cents == 12345")
    assert answer(built, refund(amount_cents=12345)) == ("deny", ("policy.denied",))
    assert answer(built, refund(amount_cents=value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, ("allow", ())),
        (1.5, ("allow", ())),
        (1.5001, ("deny", ("policy.denied",))),
        (2, ("deny", ("policy.denied",))),
        (None, ("allow", ())),
        (-0.0, ("allow", ())),
        (922337203685477, ("deny", ("policy.denied",))),
        (922337203685478, ("deny", ("policy.unrepresentable",))),
        (0.00001, ("deny", ("policy.unrepresentable",))),
        (10**400, ("deny", ("policy.unrepresentable",))),
        (float("inf"), ("deny", ("policy.unrepresentable",))),
        (float("nan"), ("deny", ("policy.unrepresentable",))),
        ("1.0", ("deny", ("policy.error",))),
        (False, ("deny", ("policy.error",))),
    ],
)
def test_a_number_is_read_as_an_exact_decimal_or_denied(value: object, expected: tuple[str, tuple[str, ...]]) -> None:
    built = engine(PERMIT + AMOUNT % 'context.args has rate && context.args.rate.greaterThan(decimal("1.5"))')
    assert answer(built, refund(rate=value)) == expected


def test_values_that_no_policy_reads_cannot_deny() -> None:
    built = engine(PERMIT + AMOUNT % "context.args.amount_cents > 5000")
    assert answer(built, refund(rate=0.000001, note=2**80, tags=ENTITY, free={"deep": [[[[None]]]]})) == ("allow", ())


def test_the_library_reads_entities_and_extensions_out_of_plain_data() -> None:
    policy = PERMIT + 'forbid(principal, action, resource) unless { context.a.owner == Agent::"support" };'
    assert bare(policy, {"a": {"owner": ENTITY}}) is cedarpy.Decision.Allow


@pytest.mark.parametrize("smuggled", [ENTITY, EXTENSION])
@pytest.mark.parametrize(
    "arguments",
    [
        lambda it: {"note": it},
        lambda it: {"tags": [it]},
        lambda it: {"tags": it},
        lambda it: {"customer": {"tier": it}},
        lambda it: {"customer": it},
        lambda it: {"amount_cents": it},
        lambda it: {"rate": it},
    ],
)
def test_an_entity_in_the_arguments_never_becomes_one(smuggled: dict[str, object], arguments: object) -> None:
    reads = (
        'context.args has note && context.args.note == "x" || context.args.tags.contains("zz") || '
        'context.args.customer.tier == "zz" || context.args.amount_cents == 3 || '
        'context.args has rate && context.args.rate.greaterThan(decimal("9.9"))'
    )
    built = engine(PERMIT + AMOUNT % reads)
    assert answer(built, refund()) == ("allow", ())
    assert answer(built, refund(**arguments(smuggled))) == ("deny", ("policy.error",))  # type: ignore[operator]


def test_undeclared_properties_never_reach_a_policy() -> None:
    built = engine(PERMIT + AMOUNT % 'context.args.customer == context.args.customer && context.args.customer.tier == "gold"')
    extra = {"tier": "silver", **ENTITY, "__extn": 1}
    assert answer(built, refund(customer=extra)) == ("allow", ())
    assert answer(built, refund(customer={**extra, "tier": "gold"})) == ("deny", ("policy.denied",))


def test_a_declared_property_with_an_interpreted_name_is_plain_data_under_an_escaped_name() -> None:
    inner = {"type": "object", "properties": {"__entity": {"type": "string"}}, "required": ["__entity"]}
    schema = {"properties": {"__extn": inner, "___entity": {"type": "integer"}}, "required": ["__extn", "___entity"]}
    manifest = PolicyManifest((PolicyTool("odd", EffectClass.READ, schema),), agents=("support",))
    built = engine(
        PERMIT
        + """
        @reason("it.is") forbid(principal, action, resource == Tool::"odd")
        when { context.args.___extn.___entity == "x" && context.args["____entity"] == 1 };
        """,
        manifest,
    )
    arguments = {"__extn": {"__entity": "x"}, "___entity": 1}
    assert answer(built, request(resource="odd", arguments=arguments)) == ("deny", ("it.is",))
    assert answer(built, request(resource="odd", arguments={**arguments, "___entity": 2})) == ("allow", ())


UNTRUSTED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["tier", "vip", "__entity", "__extn", "type", "id", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"amount_cents": st.one_of(st.integers(), UNTRUSTED), "tags": UNTRUSTED, "customer": UNTRUSTED},
        optional={"note": UNTRUSTED, "rate": st.one_of(st.floats(), UNTRUSTED), "free": UNTRUSTED},
    )
)
def test_whatever_is_read_at_all_is_something_that_the_library_takes(arguments: dict[str, object]) -> None:
    found = EVERYTHING.explain(request(arguments=arguments))
    if found.considered:
        assert (found.verdict.outcome, found.errors) == ("allow", ())
    else:
        assert found.verdict.reasons[0] in {"policy.error", "policy.unrepresentable", "policy.too_large"}
        assert "Error:" not in found.errors[0]


def test_too_much_is_denied() -> None:
    built = engine(PERMIT + AMOUNT % 'context.args.tags.contains("x") || context.args has note && context.args.note == "x"')
    assert answer(built, refund(tags=["a"] * 4096)) == ("allow", ())
    assert answer(built, refund(tags=["a"] * 4097)) == ("deny", ("policy.too_large",))
    assert answer(built, refund(note="y" * 60_000)) == ("allow", ())
    assert answer(built, refund(note="y" * 70_000)) == ("deny", ("policy.too_large",))


def test_a_lone_surrogate_is_denied() -> None:
    built = engine(PERMIT + AMOUNT % 'context.args has note && context.args.note == "x"')
    assert answer(built, refund(note="\ud800")) == ("deny", ("policy.unrepresentable",))


def test_a_set_that_cannot_be_parsed_gives_no_decision_in_the_library() -> None:
    assert bare("permi", {}) is cedarpy.Decision.NoDecision


def test_no_decision_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    built = engine(PERMIT)
    monkeypatch.setattr(cedarpy.AuthzResult, "decision", cedarpy.Decision.NoDecision)
    assert answer(built, refund()) == ("deny", ("policy.error",))


def test_an_exception_of_the_library_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    built = engine(PERMIT)

    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(cedarpy, "is_authorized", broken)
    assert answer(built, refund()) == ("deny", ("policy.error",))
    assert built.explain(refund()).errors == ("RuntimeError: out of order",)
