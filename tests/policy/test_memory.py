"""Remembered verdicts: by exactly what the policies read, bounded, and always equal to a fresh one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from quarterdeck.policy import CedarEngine, cedar
from quarterdeck.ports.policy import PolicyRequest
from tests.policy.cases import ARGUMENTS, PERMIT, engine, refund, request

READS = """
forbid(principal, action in Action::"tool", resource == Tool::"issue_refund")
when { context.args.amount_cents > 5000 && context.tenant != principal.tenant && context.labels.untrusted };
"""


def evaluations(built: CedarEngine, *asked: PolicyRequest) -> int:
    """How many of these requests needed an evaluation."""
    before = built.counts[1]
    for each in asked:
        built.judge(each)
    return built.counts[1] - before


@pytest.mark.parametrize(
    "unread",
    [
        refund(note="other", rate=3.25, tags=["b"]),
        request(context={"turn": 9, "user": "bob", "spent": {}, "labels": {"untrusted": False, "sensitive": True}}),
        request(principal="sales", principal_attributes={"risk": "high", "route": "r2"}),
        request(resource_attributes={"effect": "write", "permissions": (), "cost_microusd": 0}),
    ],
)
def test_what_no_policy_reads_does_not_count(unread: PolicyRequest) -> None:
    built = engine(PERMIT + READS)
    assert evaluations(built, refund(), refund(), unread) == 1


@pytest.mark.parametrize(
    "read",
    [
        refund(amount_cents=101),
        request(context={"tenant": "t2"}),
        request(context={"labels": {"untrusted": True, "sensitive": False}}),
        request(principal_attributes={"tenant": "t2"}),
        request(resource="search", arguments={"query": "x"}),
    ],
)
def test_what_a_policy_reads_counts(read: PolicyRequest) -> None:
    built = engine(PERMIT + READS)
    assert evaluations(built, refund(), read, read, refund()) == 2


@pytest.mark.parametrize(
    ("condition", "other"),
    [
        ("context.args has note", {"note": "x"}),
        ("context.args.customer has vip", {"customer": {"tier": "gold", "vip": True}}),
        ("context.args.customer == context.args.customer", {"customer": {"tier": "silver"}}),
        ("context.args == context.args", {"rate": 1.5}),
        ("context == context", {"tags": ["a", "b"]}),
        ('context.args.tags.contains("b")', {"tags": ["b"]}),
        ("(if context.turn > 5 then context.args else context.args) has note", {"note": "x"}),
        ("(if context.turn > 5 then context.args else context.args).amount_cents > 3", {"amount_cents": 1}),
    ],
)
def test_presence_and_whole_records_are_read_too(condition: str, other: dict[str, object]) -> None:
    built = engine(PERMIT + f'forbid(principal, action, resource == Tool::"issue_refund") when {{ {condition} }};')
    assert evaluations(built, refund(), refund(**other), refund(**other)) == 2


@pytest.mark.parametrize(
    "condition",
    [
        'principal == Agent::"sales"',
        'Agent::"sales" == principal',
        'principal in [Agent::"sales"]',
        'principal is Agent in Agent::"sales"',
        '[Agent::"sales"].contains(principal)',
        '(if context.turn > 5 then Agent::"support" else principal) == Agent::"sales"',
    ],
)
def test_an_agent_that_is_read_by_identity_counts(condition: str) -> None:
    built = engine(PERMIT + f"forbid(principal, action, resource) when {{ {condition} }};")
    assert [built.judge(request(principal=name)).outcome for name in ("support", "sales", "support")] == [
        "allow",
        "deny",
        "allow",
    ]
    assert evaluations(built, request(principal="support"), request(principal="sales")) == 0


def test_a_resource_that_is_read_by_identity_counts() -> None:
    built = engine(PERMIT + 'forbid(principal, action == Action::"reply", resource) when { resource == Destination::"press" };')
    outcomes = [built.judge(request("reply", name)).outcome for name in ("customer", "press", "customer")]
    assert outcomes == ["allow", "deny", "allow"]


@pytest.mark.parametrize("remember", [0, 100])
def test_attributes_that_change_between_requests_are_seen(remember: int) -> None:
    built = engine(
        PERMIT
        + '@reason("other.tenant") forbid(principal, action, resource) when { principal.tenant != context.tenant };'
        + '@reason("not.read") forbid(principal, action in Action::"tool", resource) when { resource.effect != "read" };',
        remember=remember,
    )
    readable: dict[str, object] = {"effect": "read"}
    assert built.judge(request(resource_attributes=readable)).outcome == "allow"
    assert built.judge(request(resource_attributes=readable, principal="sales")).outcome == "allow"
    assert built.judge(request(resource_attributes={"effect": "write"})).reasons == ("not.read",)
    elsewhere = request(resource_attributes=readable, principal_attributes={"tenant": "t2"})
    assert built.judge(elsewhere).reasons == ("other.tenant",)
    assert built.judge(request("reply", "ann", principal_attributes={"tenant": "t2"})).reasons == ("other.tenant",)
    assert built.judge(request("reply", "bob", principal_attributes={"tenant": "t1"})).outcome == "allow"


def test_a_destination_may_be_called_like_a_tool() -> None:
    built = engine(PERMIT + 'forbid(principal, action, resource) when { action in Action::"tool" };')
    asked = [request("reply", "search"), request(resource="search"), request("memory", "search")]
    assert [built.judge(each).outcome for each in asked] == ["allow", "deny", "allow"]


def test_equal_looking_values_of_other_types_are_never_confused() -> None:
    built = engine(PERMIT + 'forbid(principal, action, resource == Tool::"issue_refund") when { context.args.amount_cents > 1 };')
    assert built.judge(refund(amount_cents=1)).outcome == "allow"
    assert built.judge(refund(amount_cents=True)).reasons == ("policy.error",)
    assert built.judge(refund(amount_cents=1.0)).outcome == "allow"


def test_memory_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    built = engine(PERMIT + READS, remember=2)
    one, two, three = (refund(amount_cents=amount) for amount in (1, 2, 3))
    assert evaluations(built, one, two, one, three) == 3
    assert evaluations(built, one, three) == 0
    assert evaluations(built, two) == 1


def test_nothing_is_remembered_if_so_asked() -> None:
    assert evaluations(engine(PERMIT, remember=0), refund(), refund()) == 2


def test_large_contexts_are_judged_each_time() -> None:
    built = engine(
        PERMIT + 'forbid(principal, action, resource == Tool::"issue_refund") '
        'when { context.args has note && context.args.note == "x" };'
    )
    large = refund(note="y" * (cedar.MAX_REMEMBERED_BYTES + 1))
    assert evaluations(built, large, large) == 2


def test_an_explanation_is_always_fresh_and_leaves_memory_alone() -> None:
    built = engine(PERMIT + READS)
    built.explain(refund())
    assert evaluations(built, refund(), refund()) == 1
    assert built.counts[1] == 2


def test_compiled_shards_and_entities_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar, "MAX_SHARDS", 2)
    monkeypatch.setattr(cedar, "MAX_ENTITIES", 2)
    text = PERMIT + READS + 'forbid(principal, action == Action::"reply", resource == Destination::"press");'
    built = engine(text, remember=0)
    free = engine(text)
    asked = [
        refund(),
        request("reply", "press"),
        request("reply", "customer"),
        request(resource="search", arguments={}),
        request("stop", "run"),
        request(context={"labels": {"untrusted": True}, "tenant": "t2"}, arguments={**ARGUMENTS, "amount_cents": 5001}),
    ] * 2
    assert [built.judge(each) for each in asked] == [free.judge(each) for each in asked]
    assert len(built._shards) == 2
    assert len(built._seen) <= 2


def test_threads_share_one_engine() -> None:
    built = engine(PERMIT + READS, remember=8)
    asked = [
        request(
            principal=("support", "sales")[number % 2],
            context={"tenant": f"t{number % 3}", "labels": {"untrusted": True}},
            arguments={**ARGUMENTS, "amount_cents": 4990 + number % 20},
        )
        for number in range(400)
    ]
    alone = engine(PERMIT + READS)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(built.judge, asked)) == [alone.judge(each) for each in asked]
