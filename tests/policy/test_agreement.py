"""The engine agrees with the library: what it leaves out (shards, unread attributes, remembered work) changes nothing.

The reference evaluates the whole set as text, with every attribute, every entity and the schema, once per request, and
maps the result by the rules as they are written down.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.policy import CedarEngine
from quarterdeck.ports.policy import PolicyRequest
from tests.policy.cases import MANIFEST, PERMIT, engine, request

ANYWHERE = [
    "principal.tenant == context.tenant",
    "principal has tenant && principal.tenant != context.tenant",
    "context.turn > 3",
    "context.labels.untrusted",
    "context has labels && context.labels has sensitive && context.labels.sensitive",
    "context.spent.tokens + context.spent.tool_calls > 10",
    "context.spent.tokens * 4611686018427387904 > 0",
    'context.spent == {"tokens": 1, "tool_calls": 1, "cost_microusd": 1}',
    "context.args has amount_cents && context.args.amount_cents > 50",
    "context.args has customer && context.args.customer has vip && context.args.customer.vip",
    "context.args has query",
    'context.user like "a*"',
    'principal == Agent::"support"',
    'principal is Agent in Agent::"sales"',
    'principal in [Agent::"sales", Agent::"support"]',
    '["low", "high"].contains(principal.risk)',
    'resource is Tool && resource.effect == "write"',
    "resource has cost_microusd && resource.cost_microusd > 1000000",
    'resource has permissions && resource.permissions.contains("money")',
    'resource is Destination',
    'action in Action::"tool"',
    'action == Action::"tool:search" && context.args.query == "x"',
    'action == Action::"reply"',
    'if context.labels.sensitive then context.tenant == "t1" else principal.route == "r1"',
    '(if context.turn > 2 then principal else principal).tenant == "t1"',
]  # fmt: skip
REFUNDS = [
    "context.args.amount_cents > 50",
    "context.args.amount_cents + 9223372036854775800 > 0",
    'context.args has note && context.args.note like "*x*"',
    'context.args.tags.contains("a")',
    'context.args.tags.containsAll(["a", "b"])',
    'context.args.tags == ["a"]',
    'context.args has rate && context.args.rate.greaterThan(decimal("1.5"))',
    'context.args.customer.tier == "gold"',
    "context.args.customer has vip && context.args.customer.vip",
    "(if context.turn > 2 then context.args else context.args).amount_cents == 100",
]
SCOPES = [
    "(principal, action, resource)",
    '(principal, action in Action::"tool", resource)',
    '(principal == Agent::"sales", action, resource)',
    '(principal is Agent, action, resource is Tool)',
    '(principal, action, resource is Destination)',
    '(principal in Agent::"support", action in [Action::"reply", Action::"tool:search"], resource)',
    '(principal, action == Action::"reply", resource == Destination::"press")',
    '(principal, action, resource == Tool::"search")',
]  # fmt: skip
OF_REFUNDS = [
    '(principal, action in Action::"tool", resource == Tool::"issue_refund")',
    '(principal == Agent::"support", action == Action::"tool:issue_refund", resource)',
    '(principal, action, resource is Tool in Tool::"issue_refund")',
]  # fmt: skip


@functools.cache
def valid(policy: str) -> bool:
    """Some conditions cannot be typed in some scopes; those policies are not part of the game."""
    try:
        engine(PERMIT + policy)
    except Exception:
        return False
    return True


@st.composite
def policy_texts(draw: st.DrawFn) -> str:
    about_refunds = draw(st.booleans())
    scope = draw(st.sampled_from(OF_REFUNDS if about_refunds else SCOPES))
    pool = st.sampled_from([*ANYWHERE, *REFUNDS] if about_refunds else ANYWHERE)
    condition = draw(st.recursive(
        pool,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: "({}) {} ({})".format(*parts)),
            inner.map("!({})".format),
        ),
        max_leaves=3,
    ))  # fmt: skip
    effect, outcome = draw(st.sampled_from([("permit", ""), ("forbid", ""), ("forbid", '@outcome("ask") ')]))
    word = draw(st.sampled_from(["when", "unless"]))
    reason = draw(st.sampled_from(["", '@reason("one.thing") ', '@reason("other.thing") ']))
    return f"{outcome}{reason}{effect}{scope} {word} {{ {condition} }};"


@st.composite
def requests(draw: st.DrawFn) -> PolicyRequest:
    action, resource = draw(
        st.sampled_from(
            [
                ("tool", "issue_refund"),
                ("tool", "issue_refund"),
                ("tool", "search"),
                ("model", "small"),
                ("reply", "press"),
                ("reply", "customer"),
                ("memory", "press"),
                ("stop", "run"),
            ]
        )
    )
    word = st.sampled_from
    arguments: dict[str, object] = {}
    if resource == "issue_refund":
        optional = {"note": word(["", "x", "axb"]), "rate": word([1, 1.5, 1.5001, -3.25])}
        customer = st.fixed_dictionaries({"tier": word(["gold", "x"])}, optional={"vip": st.booleans()})
        always = {"amount_cents": word([0, 50, 51, 100, 2**63 - 1]), "tags": st.lists(word(["a", "b"]), max_size=3)}
        arguments = draw(st.fixed_dictionaries({**always, "customer": customer}, optional=optional))
    elif resource == "search":
        arguments = {"query": draw(word(["x", "y"]))}
    spent = {"tokens": draw(word([0, 1, 10])), "tool_calls": draw(word([1, 5])), "cost_microusd": draw(word([1, 2]))}
    return request(
        action,
        resource,
        principal=draw(word(["support", "sales"])),
        principal_attributes={name: draw(word(["t1", "r1", "low"])) for name in ("tenant", "risk", "route")},
        resource_attributes={
            "effect": draw(word(["read", "write"])),
            "permissions": draw(word([(), ("money",)])),
            "cost_microusd": draw(word([0, 10_000, 5_000_000])),
        },
        context={
            "tenant": draw(word(["t1", "t2"])),
            "user": draw(word(["ann", "bob"])),
            "turn": draw(word([1, 3, 6])),
            "spent": spent,
            "labels": {
                "untrusted": draw(st.booleans()),
                "sensitive": draw(st.booleans()),
                "crossing": draw(st.booleans()),
                "arguments": draw(st.lists(word(["to", "note"]), max_size=2)),
            },
        },
        arguments=arguments,
    )


def reference(texts: list[str], schema: str, asked: PolicyRequest) -> tuple[str, set[str]]:
    """Outcome and reasons by the written rules; without a shard, a view or a memory."""
    first = _whole("\n".join(texts), schema, asked)
    if first.diagnostics.errors or first.decision is cedarpy.Decision.NoDecision:
        return "deny", {"policy.error"}
    grounds = [texts[int(id_.removeprefix("policy"))] for id_ in first.diagnostics.reasons]
    if first.decision is cedarpy.Decision.Allow:
        return "allow", {_code(text, "") for text in grounds} - {""}
    firm = [text for text in grounds if "@outcome" not in text]
    if not grounds:
        return "deny", {"policy.no_permit"}
    if firm:
        return "deny", {_code(text, "policy.denied") for text in firm}
    second = _whole("\n".join(text for text in texts if "@outcome" not in text), schema, asked)
    if second.decision is cedarpy.Decision.Allow and not second.diagnostics.errors:
        return "ask", {_code(text, "policy.ask") for text in grounds}
    return "deny", {"policy.no_permit"}


def _code(text: str, otherwise: str) -> str:
    return text.split('@reason("')[1].split('"', maxsplit=1)[0] if "@reason" in text else otherwise


def _whole(policies: str, schema: str, asked: PolicyRequest) -> cedarpy.AuthzResult:
    arguments: dict[str, Any] = dict(asked.arguments)
    if "rate" in arguments:
        arguments["rate"] = {"__extn": {"fn": "decimal", "arg": f"{float(arguments['rate'])}"}}
    action = f"tool:{asked.resource}" if asked.action == "tool" else asked.action
    question = {
        "principal": {"type": "Agent", "id": asked.principal},
        "action": {"type": "Action", "id": action},
        "resource": {"type": asked.resource_kind, "id": asked.resource},
        "context": json.dumps({**asked.context, "args": arguments}),
    }
    parents = [{"type": "Action", "id": "tool"}] if asked.action == "tool" else []
    entities = [
        {"uid": question["principal"], "attrs": dict(asked.principal_attributes), "parents": []},
        {"uid": question["resource"], "attrs": dict(asked.resource_attributes), "parents": []},
        {"uid": question["action"], "attrs": {}, "parents": parents},
    ]
    return cedarpy.is_authorized(question, policies, json.dumps(entities), schema)


@settings(max_examples=150)
@given(st.lists(policy_texts().filter(valid), max_size=6), st.booleans(), st.lists(requests(), min_size=1, max_size=6))
def test_verdicts_equal_those_of_the_whole_set_on_the_whole_request(
    policies: list[str], permitted: bool, asked: list[PolicyRequest]
) -> None:
    base = PERMIT if permitted else 'permit(principal, action == Action::"reply", resource);'
    texts = [base.strip(), *policies]
    built = CedarEngine.build("\n".join(texts), MANIFEST)
    for each in [*asked, *asked]:
        verdict = built.judge(each)
        assert (verdict.outcome, set(verdict.reasons)) == reference(texts, built.schema, each)
        assert built.explain(each).verdict == verdict


def test_every_condition_of_the_game_is_in_it() -> None:
    everywhere = [f"forbid(principal, action, resource) when {{ {condition} }};" for condition in ANYWHERE]
    refunds = [f"forbid{OF_REFUNDS[0]} when {{ {condition} }};" for condition in REFUNDS]
    assert [text for text in [*everywhere, *refunds] if not valid(text)] == []
