"""A set is checked whole before it exists: each mistake with its place, and a set with one never becomes an engine."""

from __future__ import annotations

import pytest

from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy import CedarEngine, PolicyManifest, PolicyTool, source
from tests.policy.cases import MANIFEST, PERMIT, engine, refund, request

TOOLS = '(principal, action in Action::"tool", resource)'
REFUNDS = '(principal, action in Action::"tool", resource == Tool::"issue_refund")'


def problems(policies: object, manifest: PolicyManifest = MANIFEST) -> list[str]:
    with pytest.raises(UsageError) as raised:
        CedarEngine.build(policies, manifest)  # type: ignore[arg-type]
    assert raised.value.code == "policy.invalid"
    found = raised.value.detail["problems"]
    assert isinstance(found, list)
    assert all(problem in raised.value.message for problem in found)
    return found


@pytest.mark.parametrize(
    "policy",
    [
        f"forbid{REFUNDS} when {{ context.args.amount_cents > 5000 }};",
        'forbid(principal, action, resource == Tool::"issue_refund") when { context.args.amount_cents > 5000 };',
        'forbid(principal, action, resource in Tool::"issue_refund") when { context.args.amount_cents > 5000 };',
        'forbid(principal, action, resource is Tool in Tool::"issue_refund") when { context.args.amount_cents > 1 };',
        'forbid(principal, action == Action::"tool:issue_refund", resource) when { context.args.amount_cents > 1 };',
        f"forbid{TOOLS} when {{ context.args has amount_cents && context.args.amount_cents > 5000 }};",
        "forbid(principal, action, resource) when { context.args has amount_cents && context.args.amount_cents > 9 };",
        f'forbid{TOOLS} when {{ action == Action::"tool:issue_refund" && context.args.amount_cents > 5000 }};',
    ],
)
def test_every_way_to_speak_of_an_argument_works(policy: str) -> None:
    built = engine(PERMIT + policy)
    assert built.judge(refund(amount_cents=1)).outcome == "allow"
    assert built.judge(refund(amount_cents=5001)).outcome == "deny"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (f"forbid{TOOLS} when {{ context.args.amount_cents > 1 }};", "name the tool in the scope"),
        (f'forbid{REFUNDS} when {{ context.args.amount_cents > "1" }};', "Long"),
        (f'forbid{REFUNDS} when {{ context.args.note == "" }};', "optional"),
        (f"forbid{REFUNDS} when {{ context.args.amount_cent > 1 }};", "did you mean 'amount_cents'?"),
        (f"forbid{REFUNDS} when {{ context.args has amount_cent }};", "did you mean 'amount_cents'?"),
        (f"forbid{TOOLS} when {{ context.args has amount_cent }};", "did you mean 'amount_cents'?"),
        (f"forbid{REFUNDS} when {{ context.args has free }};", "reads context.args.free"),
        ("forbid(principal, action, resource) when { principal has tenants };", "did you mean 'tenant'?"),
        ("forbid(principal, action, resource) when { context.spent.token > 1 };", "did you mean 'tokens'?"),
        (
            'forbid(principal, action == Action::"reply", resource) when { resource has effect };',
            "reads resource.effect",
        ),
        ('forbid(principal, action, resource == Tool::"isue_refund");', "did you mean 'issue_refund'?"),
        ('forbid(principal, action == Action::"tool:isue_refund", resource);', "did you mean 'tool:issue_refund'?"),
        ('forbid(principal == Agent::"suport", action, resource);', "did you mean 'support'?"),
        ('forbid(principal, action == Action::"model", resource == Model::"x");', "known are: large, small"),
        ('forbid(principal, action, resource) when { principal == Agent::"sale" };', "did you mean 'sales'?"),
        ('forbid(principal, action == Action::"tool", resource);', 'write `action in Action::"tool"`'),
        ('forbid(principal, action, resource) when { action == Action::"tool" };', 'write `action in Action::"tool"`'),
        ('forbid(principal, action == Action::"model", resource == Tool::"search");', "can never match"),
        ('forbid(principal, action == Action::"tool:search", resource == Tool::"issue_refund");', "can never match"),
        ('forbid(principal, action == Action::"reply", resource is Model);', "can never match"),
        ('forbid(principal == User::"x", action, resource);', "User"),
        (f'forbid{TOOLS} when {{ resource.effect == "irreversable" }};', "irreversible"),
        (f'forbid{TOOLS} when {{ "delete" != resource.effect }};', "compares resource.effect with 'delete'"),
        ('forbid(principal, action, resource) when { ["low", "lowest"].contains(context.risk) };', "'lowest'"),
        (f'forbid{TOOLS} when {{ Tool::"search".effect == "read" }};', "reads an attribute of Tool"),
        (f'forbid{TOOLS} when {{ Tool::"search" has effect }};', "reads an attribute of Tool"),
        ("forbid(principal == ?principal, action, resource);", "is a template"),
        ('@reason("Too Large") forbid(principal, action, resource);', "is not a code of your own"),
        ('@reason("Too Large") forbid(principal, action, resource);', "is not a code of your own"),
        ('@reason("policy.denied") forbid(principal, action, resource);', "is not a code of your own"),
        ('@outcome("maybe") forbid(principal, action, resource);', 'it is "ask", "degrade", "redact" or "deny"'),
        ('@outcome("ask") permit(principal, action, resource);', "belongs on a forbid"),
        ('@outcom("ask") forbid(principal, action, resource);', "did you mean @outcome?"),
        ('@reasons("a.b") forbid(principal, action, resource);', "did you mean @reason?"),
    ],
)
def test_a_mistake_is_named_with_its_place(policy: str, said: str) -> None:
    found = problems({"a.cedar": PERMIT, "b.cedar": "// about refunds\n\n" + policy})
    assert all(problem.startswith("b.cedar:3: ") for problem in found)
    assert any(said in problem for problem in found)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("permit(principal, action, resource)", "p:1"),
        ("permit(principal, action, resource);\nforbid(principal,\n  action,\n  resouce);", "p:4"),
        ('// a "quote; in a comment\npermit(principal, action, resource);\n\nforbid(principal, action) ;', "p:4"),
        ('@id("a;b//c")\npermit(principal, action, resource)\nwhen { context.turn >> 3 };', "p:3"),
        ("permit(principal, action, resource)\n\nforbid(principal, action, resource);", "p:3"),
        ('permit(principal, action, resource) when { context.user == "open };', "p:1"),
    ],
)
def test_a_parse_error_has_its_line(text: str, place: str) -> None:
    assert [problem.split(" ")[0] for problem in problems({"p": text})] == [place + ":"]


def test_all_problems_come_at_once_and_in_order() -> None:
    found = problems(
        {
            "a.cedar": 'permit(principal, action, resource);\nforbid(principal, action, resource == Tool::"serch");',
            "b.cedar": "forbid(;\nforbid(principal, action, resource) when { context.turn };",
        }
    )
    assert sorted(problem.split(" ")[0] for problem in found) == ["a.cedar:2:", "b.cedar:1:", "b.cedar:2:"]


@pytest.mark.parametrize("text", ["", "  \n// only words\n", "forbid(principal, action, resource);"])
def test_a_set_that_permits_nothing_is_a_mistake(text: str) -> None:
    assert "no policy permits anything" in problems(text)[0]


def test_semicolons_quotes_and_slashes_in_strings_do_not_end_a_statement() -> None:
    condition = r'context.user == "a;b \" // ; c"'
    built = engine(f"permit(principal, action, resource) when {{ {condition} }}; // done; really\n{PERMIT}")
    assert built.explain(refund()).considered == 2


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_POLICIES", 2)
    assert engine(PERMIT * 2).judge(refund()).outcome == "allow"
    assert "the limit is 2" in problems(PERMIT * 3)[0]
    monkeypatch.setattr(source, "MAX_SOURCE_BYTES", 10)
    assert "larger than 10 bytes" in problems(PERMIT)[0]


@pytest.mark.parametrize("name", ["", "\n", "a" * 300, "\x00", "é", 'Tool::"x"'])
def test_any_name_can_be_used_and_spoken_of(name: str) -> None:
    schema = {"properties": {name: {"type": "integer"}}, "required": [name]}
    manifest = PolicyManifest((PolicyTool(name, EffectClass.READ, schema),), (name,), (name,))
    assert engine(PERMIT, manifest).judge(request(resource=name, principal=name, arguments={name: 1})).outcome == "allow"


def test_a_name_that_is_no_text_is_a_problem() -> None:
    for manifest in (PolicyManifest((PolicyTool("\ud800", EffectClass.READ),)), PolicyManifest(agents=("\ud800",))):
        assert "cannot be written as UTF-8" in problems(PERMIT, manifest)[0]
    schema = {"properties": {"\ud800": {"type": "integer"}}}
    manifest = PolicyManifest((PolicyTool("odd", EffectClass.READ, schema),), ("support",))
    assert engine(PERMIT, manifest).judge(request(resource="odd", arguments={})).outcome == "allow"
    assert "cannot be parsed" in problems(PERMIT + 'permit(principal == Agent::"\ud800", action, resource);')[0]


def test_very_deep_conditions_are_a_problem_and_no_crash() -> None:
    assert len(problems(PERMIT + "forbid(principal, action, resource) when { " + "!" * 20_000 + "true };")) == 1
    assert len(problems(PERMIT + "forbid(principal, action, resource) when { " + "true && " * 300 + "true };")) == 1


def test_a_manifest_is_checked_too() -> None:
    tool = PolicyTool("search", EffectClass.READ)
    assert "listed twice" in problems(PERMIT, PolicyManifest((tool, tool)))[0]
    odd = PolicyTool("search", "sideways")  # type: ignore[arg-type]
    assert "effect class 'sideways'" in problems(PERMIT, PolicyManifest((odd,)))[0]


@pytest.mark.parametrize("quorum", ["1", "0", "-2", "11", "two", "2.0", " 2", "٢", "02", ""])
def test_a_quorum_is_a_number_of_people(quorum: str) -> None:
    [problem] = problems(PERMIT + f'@outcome("ask") @quorum("{quorum}") forbid{REFUNDS};')
    assert "@quorum" in problem and problem.startswith("policies:")


@pytest.mark.parametrize(
    "policy",
    [
        '@quorum("2") forbid',
        '@outcome("deny") @quorum("2") forbid',
        '@outcome("redact") @quorum("2") forbid',
        '@quorum("2") permit',
        '@outcome("ask") @quorums("2") forbid',
    ],
)
def test_a_quorum_stands_where_somebody_is_asked(policy: str) -> None:
    assert "@quorum" in problems(PERMIT + f"{policy}{REFUNDS};")[0]


def test_the_version_is_the_content() -> None:
    rule = f'@reason("a.b") forbid{REFUNDS} when {{ context.args.amount_cents > 5000 }};'
    laid_out = f"// a comment\n{rule.replace(' when', chr(10) + '   when')}\n{PERMIT}"
    one = engine(PERMIT + rule).version
    assert one == engine(laid_out).version
    assert one == CedarEngine.build({"x": rule, "y": PERMIT}, MANIFEST).version
    assert len(one) == 64
    others = [
        engine(PERMIT + rule.replace("5000", "5001")).version,
        engine(PERMIT + rule.replace("a.b", "a.c")).version,
        engine(PERMIT + rule.replace("@reason", '@outcome("ask") @reason')).version,
        engine(PERMIT + rule + rule).version,
        engine(PERMIT + rule.replace("@reason", '@outcome("ask") @quorum("2") @reason')).version,
        engine(PERMIT + rule.replace("@reason", '@outcome("ask") @quorum("3") @reason')).version,
        engine(PERMIT + rule, PolicyManifest(MANIFEST.tools, ("support",), MANIFEST.models)).version,
        engine(PERMIT + rule, PolicyManifest(MANIFEST.tools, MANIFEST.agents, ("small",))).version,
        engine(PERMIT + rule, PolicyManifest(MANIFEST.tools[:1], MANIFEST.agents, MANIFEST.models)).version,
    ]
    assert len({one, *others}) == len(others) + 1
