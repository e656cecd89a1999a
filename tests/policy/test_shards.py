"""A verdict costs what the policies about its tool cost, however many others there are."""

from __future__ import annotations

from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy import CedarEngine, PolicyManifest, PolicyTool
from tests.policy.cases import MANIFEST, PERMIT, REFUND, engine, refund, request

NAMES = [f"tool_{number}" for number in range(100)]
MANY = PolicyManifest(tuple(PolicyTool(name, EffectClass.EXTERNAL, REFUND) for name in NAMES), ("support", "sales"))


def large_set(manifest: PolicyManifest = MANY) -> CedarEngine:
    """500 policies: two about everything, the rest about one tool each."""
    rules = [
        f'@reason("tool.r{number}") '
        f'forbid(principal, action in Action::"tool", resource == Tool::"{NAMES[number % 100]}") '
        f"when {{ context.args.amount_cents == {number} }};"
        for number in range(498)
    ]
    wild = '@reason("always.here") forbid(principal, action, resource) when { context.labels.untrusted };'
    return CedarEngine.build("\n".join([*rules, wild, PERMIT]), manifest)


def test_only_the_policies_about_a_tool_are_considered_for_it_and_wildcards_always() -> None:
    built = large_set()
    asked = request(resource="tool_7", arguments={"amount_cents": 207})
    assert built.explain(asked).considered == 5 + 2
    assert built.judge(asked).reasons == ("tool.r207",)
    assert built.judge(request(resource="tool_7", arguments={"amount_cents": 208})).outcome == "allow"
    assert built.judge(request(resource="tool_8", arguments={"amount_cents": 208})).reasons == ("tool.r208",)
    untrusted = request("reply", "customer", context={"labels": {"untrusted": True}})
    assert built.explain(untrusted).considered == 2
    assert built.judge(untrusted).reasons == ("always.here",)


def test_agents_actions_and_destinations_divide_the_set_too() -> None:
    built = engine(
        PERMIT
        + 'forbid(principal == Agent::"sales", action, resource);'
        + 'forbid(principal, action == Action::"stop", resource);'
        + 'forbid(principal, action in [Action::"reply", Action::"memory"], resource == Destination::"press");'
        + 'forbid(principal, action, resource is Model);'
    )  # fmt: skip
    considered = {
        (who, action, what): built.explain(request(action, what, principal=who)).considered
        for who in ("support", "sales")
        for action, what in (
            ("stop", "run"),
            ("reply", "press"),
            ("reply", "x"),
            ("model", "small"),
            ("tool", "search"),
        )
    }
    assert considered == {
        ("support", "stop", "run"): 2,
        ("support", "reply", "press"): 2,
        ("support", "reply", "x"): 1,
        ("support", "model", "small"): 2,
        ("support", "tool", "search"): 1,
        ("sales", "stop", "run"): 3,
        ("sales", "reply", "press"): 3,
        ("sales", "reply", "x"): 2,
        ("sales", "model", "small"): 3,
        ("sales", "tool", "search"): 2,
    }


def test_destinations_that_no_policy_names_share_one_shard() -> None:
    built = engine(PERMIT + 'forbid(principal, action, resource == Destination::"press");', MANIFEST)
    for number in range(50):
        assert built.judge(request("reply", f"customer-{number}")).outcome == "allow"
    assert len(built._shards) == 1
    assert built.counts == (49, 1)
    assert built.judge(request("reply", "press")).outcome == "deny"


def test_tools_with_the_same_policies_share_what_was_compiled() -> None:
    built = engine(PERMIT)
    built.judge(refund())
    built.judge(request(resource="search", arguments={"query": "x"}))
    one, two = built._shards.values()
    assert one.handles is two.handles
    assert one.number != two.number
