"""What the engine answers: allow, deny and ask, with reasons; and that everything doubtful denies."""

from __future__ import annotations

import pytest

from quarterdeck.policy import CedarEngine, PolicyManifest, default_policies
from quarterdeck.ports.policy import PolicyEngine, PolicyRequest
from tests.policy.cases import MANIFEST, PERMIT, answer, engine, refund, request

LARGE = """
@reason("refund.too_large") @outcome("ask")
forbid(principal, action in Action::"tool", resource == Tool::"issue_refund")
when { context.args.amount_cents > 5000 };
"""
FIRM = """
@reason("content.untrusted")
forbid(principal, action in Action::"tool", resource) when { context.labels.untrusted };
"""
UNTRUSTED = {"labels": {"untrusted": True, "sensitive": False}}


def test_the_engine_is_a_policy_engine() -> None:
    built: PolicyEngine = engine(PERMIT)
    assert built.judge(refund()).version == built.version


def test_the_default_set_permits_every_kind_of_proposal() -> None:
    built = CedarEngine.build(default_policies(), MANIFEST)
    for action, resource in (("tool", "search"), ("model", "small"), ("memory", "notes"), ("retrieval", "handbook"),
                             ("delegation", "sales"), ("reply", "customer"), ("stop", "run")):  # fmt: skip
        assert answer(built, request(action, resource)) == ("allow", ())


def test_a_forbid_with_a_reason_denies_with_that_reason() -> None:
    built = engine(PERMIT + FIRM)
    assert answer(built, refund()) == ("allow", ())
    assert answer(built, request(context=UNTRUSTED)) == ("deny", ("content.untrusted",))


def test_a_forbid_without_a_reason_denies_with_the_general_one() -> None:
    assert answer(engine(PERMIT + 'forbid(principal, action == Action::"reply", resource);'), request("reply", "x")) == (
        "deny",
        ("policy.denied",),
    )


def test_a_permit_may_name_its_reason() -> None:
    assert answer(engine('@reason("team.tools") permit(principal, action, resource);'), refund()) == (
        "allow",
        ("team.tools",),
    )


def test_without_a_permit_it_is_denied() -> None:
    built = engine('permit(principal == Agent::"sales", action, resource);')
    assert answer(built, refund()) == ("deny", ("policy.no_permit",))
    assert answer(built, request(principal="sales")) == ("allow", ())


def test_a_forbid_that_asks_asks() -> None:
    built = engine(PERMIT + LARGE)
    assert answer(built, refund(amount_cents=5000)) == ("allow", ())
    assert answer(built, refund(amount_cents=5001)) == ("ask", ("refund.too_large",))


def test_of_several_that_ask_the_largest_quorum_counts() -> None:
    larger = LARGE.replace("5000", "9000").replace('@outcome("ask")', '@outcome("ask") @quorum("3")')
    large = LARGE.replace('@outcome("ask")', '@outcome("ask") @quorum("2")')
    built = engine(PERMIT + LARGE + large.replace("5000", "7000") + larger)
    found = {cents: built.judge(refund(amount_cents=cents)) for cents in (5001, 7001, 9001)}
    assert {cents: (verdict.outcome, verdict.quorum) for cents, verdict in found.items()} == {
        5001: ("ask", 1),
        7001: ("ask", 2),
        9001: ("ask", 3),
    }
    firm = engine(PERMIT + larger + "forbid(principal, action, resource);").judge(refund(amount_cents=9001))
    assert (firm.outcome, firm.quorum) == ("deny", 1)


def test_an_ask_without_a_reason_has_the_general_one() -> None:
    built = engine(PERMIT + '@outcome("ask") forbid(principal, action == Action::"reply", resource);')
    assert answer(built, request("reply", "x")) == ("ask", ("policy.ask",))


def test_several_asks_give_all_their_reasons_in_the_order_of_the_set() -> None:
    more = '@reason("night.shift") @outcome("ask") forbid(principal, action, resource);'
    assert answer(engine(PERMIT + LARGE + more + LARGE), refund(amount_cents=9000)) == (
        "ask",
        ("refund.too_large", "night.shift"),
    )


def test_one_firm_forbid_makes_an_ask_a_denial() -> None:
    verdict = engine(PERMIT + LARGE + FIRM).judge(
        request(context=UNTRUSTED, arguments={"amount_cents": 9000, "tags": [], "customer": {"tier": "x"}})
    )
    assert (verdict.outcome, verdict.reasons) == ("deny", ("content.untrusted",))


def test_nobody_is_asked_about_what_no_permit_covers() -> None:
    built = engine('permit(principal == Agent::"sales", action, resource);' + LARGE)
    assert answer(built, refund(amount_cents=9000)) == ("deny", ("policy.no_permit",))


def test_outcome_deny_is_the_same_as_none() -> None:
    built = engine(PERMIT + '@outcome("deny") @reason("a.b") forbid(principal, action, resource);')
    assert answer(built, refund()) == ("deny", ("a.b",))


@pytest.mark.parametrize(
    "asked",
    [
        request(principal="nobody"),
        request(resource="unknown_tool"),
        request("model", "unknown_model"),
        request("tool:issue_refund", "issue_refund", resource_kind="Tool"),
        request("fly", "moon"),
        request("tool", "issue_refund", resource_kind="Model"),
        request("reply", "x", resource_kind="Tool"),
        PolicyRequest(["support"], {}, "tool", "Tool", "search", {}, {}, {}),  # type: ignore[arg-type]
        PolicyRequest("support", {}, "reply", "Destination", "\ud800", {}, {}, {}),
        PolicyRequest("support", {}, "reply", "Destination", 3, {}, {}, {}),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_read_is_denied_and_never_raised(asked: PolicyRequest) -> None:
    assert answer(engine(PERMIT), asked) == ("deny", ("policy.error",))


def test_the_kind_of_a_resource_may_be_written_small() -> None:
    assert answer(engine(PERMIT), request(resource_kind="tool")) == ("allow", ())


def test_an_explanation_names_places_and_errors() -> None:
    built = CedarEngine.build({"a.cedar": PERMIT, "b.cedar": "// first\n" + LARGE}, MANIFEST)
    found = built.explain(refund(amount_cents=9000))
    assert (found.policies, found.considered, found.errors) == (("b.cedar:3",), 2, ())
    assert built.explain(refund()).policies == ("a.cedar:1",)
    assert "unknown_tool" in built.explain(request(resource="unknown_tool")).errors[0]


def test_an_agent_model_and_destination_can_be_singled_out() -> None:
    built = engine(
        PERMIT
        + '@reason("no.large") '
        + 'forbid(principal == Agent::"sales", action == Action::"model", resource == Model::"large");'
        + '@reason("no.vault") forbid(principal, action in [Action::"memory", Action::"retrieval"], '
        + 'resource == Destination::"vault");'
    )
    assert answer(built, request("model", "large")) == ("allow", ())
    assert answer(built, request("model", "large", principal="sales")) == ("deny", ("no.large",))
    assert answer(built, request("model", "small", principal="sales")) == ("allow", ())
    assert answer(built, request("memory", "vault")) == ("deny", ("no.vault",))
    assert answer(built, request("memory", "notes")) == ("allow", ())
    assert answer(built, request("reply", "vault")) == ("allow", ())


def test_a_manifest_without_anything_denies_all_agents() -> None:
    assert engine(PERMIT, PolicyManifest()).judge(refund()).outcome == "deny"
