"""Sets for one tenant or route, policies in shadow, and outcomes milder than a denial."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quarterdeck import Budget, Degrade, Quarterdeck, UsageError
from quarterdeck.app.wiring import policy_of
from quarterdeck.policy.source import within
from quarterdeck.testing import ScriptedModel
from tests.policy.cases import MANIFEST, PERMIT, answer, engine, refund, request

FORBID = '@reason("no.refunds") forbid(principal, action in Action::"tool", resource == Tool::"issue_refund");'


def softened(outcome: str) -> str:
    return f'{PERMIT}@reason("soft.{outcome}") @outcome("{outcome}")\nforbid(principal, action, resource);'


def test_a_set_for_a_tenant_or_a_route_speaks_about_nobody_else() -> None:
    acme = engine(PERMIT + within(FORBID, tenant="acme"))
    principal = request().principal_attributes
    mine = request(principal_attributes={**principal, "tenant": "acme"}, arguments=refund().arguments)
    assert answer(acme, refund()) == ("allow", ())
    assert answer(acme, mine) == ("deny", ("no.refunds",))
    only = engine(within(PERMIT, route="r9"))
    assert answer(only, refund()) == ("deny", ("policy.no_permit",))


def test_narrowing_keeps_lines_comments_and_texts() -> None:
    text = '// a; comment\npermit(principal, action, resource)\nwhen { context.user == "a;b" } // end; of it\n;\n' + FORBID
    narrowed = within(text, tenant="acme", shadow=True)
    assert narrowed.count("\n") == text.count("\n") and narrowed.count('principal.tenant == "acme"') == 2
    assert narrowed.count('@shadow("set")') == 2
    engine(PERMIT + narrowed)


def test_what_is_in_shadow_is_told_and_not_obeyed() -> None:
    built = engine(PERMIT + '@shadow("try") ' + FORBID)
    verdict = built.judge(refund())
    assert (verdict.outcome, verdict.shadow) == ("allow", ("deny", "no.refunds"))
    assert built.judge(request("reply", "customer")).shadow == ()


@pytest.mark.parametrize("outcome", ["ask", "degrade", "redact"])
def test_a_forbid_may_do_something_milder(outcome: str) -> None:
    verdict = engine(softened(outcome)).judge(refund())
    assert (verdict.outcome, verdict.reasons) == (outcome, (f"soft.{outcome}",))
    firm = engine(softened(outcome) + FORBID).judge(refund())
    assert (firm.outcome, firm.reasons) == ("deny", ("no.refunds",))


def test_asking_and_withholding_hold_together() -> None:
    both = softened("ask") + '@outcome("redact") forbid(principal, action, resource);'
    verdict = engine(both).judge(refund())
    assert (verdict.outcome, verdict.redact) == ("ask", True)


def test_routes_and_tenants_are_closed_words_where_they_are_known() -> None:
    manifest = msgspec.structs.replace(MANIFEST, routes=("triage",), tenants=("acme",))
    engine(PERMIT + 'forbid(principal, action, resource) when { principal.tenant == "acme" };', manifest)
    for wrong in ('principal.tenant == "acne"', 'context.route == "tirage"'):
        with pytest.raises(UsageError) as caught:
            engine(PERMIT + f"forbid(principal, action, resource) when {{ {wrong} }};", manifest)
        assert "it is one of" in caught.value.message


@pytest.mark.parametrize("text", ['@lifts("everything") permit(principal, action, resource);', '@lifts("labels") ' + FORBID])
def test_lifting_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        engine(PERMIT + text)


def desk(policy: str, **scope: object) -> Quarterdeck:
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look(order: str) -> str:
        """Look."""
        return "the card number is 4111"

    turns = ScriptedModel(lambda messages: "said: " + messages[-1].content if len(messages) > 2 else [("look", {"order": "A"})])
    deck.agent("clerk", model=turns, tools=[look], budget=Budget(turns=5), degrade=Degrade("small"))
    deck.model("small", ScriptedModel(lambda messages: "small one", name="small"))
    deck.policy(PERMIT)
    deck.policy(policy, "more", **scope)  # type: ignore[arg-type]
    return deck


async def told(deck: Quarterdeck, path: Path) -> tuple[str, list[dict[str, object]]]:
    async with deck.start(path / "s.db") as rt:
        run = await rt.submit("clerk", "look")
        result = await run.result()
        return result.text, [event.body for event in run.events() if event.kind == "gate.decided"]


async def test_a_withheld_result_never_reaches_the_model(tmp_path: Path) -> None:
    policy = '@reason("card.kept") @outcome("redact") forbid(principal, action in Action::"tool", resource == Tool::"look");'
    text, decided = await told(desk(policy), tmp_path)
    assert text == 'said: {"withheld":["card.kept"]}'
    assert [body["ruling"] for body in decided if body["name"] == "look"] == ["redact"]


async def test_a_policy_chooses_the_lesser_model(tmp_path: Path) -> None:
    policy = '@reason("cheap.enough") @outcome("degrade") forbid(principal, action == Action::"model", resource);'
    text, decided = await told(desk(policy), tmp_path)
    assert text == "small one"
    assert [(body["ruling"], body["name"]) for body in decided[:2]] == [("degrade", "clerk"), ("allow", "small")]


async def test_a_set_in_shadow_is_journaled(tmp_path: Path) -> None:
    policy = '@reason("never.look") forbid(principal, action in Action::"tool", resource == Tool::"look");'
    text, decided = await told(desk(policy, shadow=True), tmp_path)
    assert "4111" in text
    assert [body.get("shadow") for body in decided if body["name"] == "look"] == [["deny", "never.look"]]


def test_a_scope_is_checked() -> None:
    with pytest.raises(UsageError):
        desk(FORBID, tenant='x" || true')
    assert policy_of(desk('forbid(principal, action == Action::"model", resource);', route="clerk")).version
