"""What is otherwise for one tenant: its runs have that authority and those limits, and a deck that says something impossible is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck import Budget, Quarterdeck, UsageError
from quarterdeck.app.beside import fork_beside
from quarterdeck.app.forking import Fork
from quarterdeck.app.wiring import check_deck
from quarterdeck.core.events import RunAdmitted, decode
from quarterdeck.testing import ScriptedModel


def desk(paid: list[str]) -> Quarterdeck:
    deck = Quarterdeck("desk")

    async def return_it(result: str) -> None:
        """Take it back."""

    @deck.tool(effect="irreversible", compensate=return_it)
    async def refund(order: str) -> str:
        """Pay money back."""
        paid.append(order)
        return "refunded"

    deck.agent("clerk", model=ScriptedModel([[("refund", {"order": "A1"})], "done"]), tools=[refund])
    deck.route("claim", "clerk")
    deck.tenant("trial", "claim", autonomy="executes_after_approval", tools=[refund])
    deck.tenant("reader", tools=())
    deck.tenant("small", budget=Budget(turns=1))
    return deck


async def test_runs_of_a_tenant_have_its_terms(tmp_path: Path) -> None:
    paid: list[str] = []
    async with desk(paid).start(tmp_path / "store.db") as rt:
        ended = {}
        for tenant in ("acme", "reader", "small"):
            ended[tenant] = await (await rt.submit("claim", "A1", tenant=tenant)).result()
        assert [each.status for each in ended.values()] == ["succeeded"] * 3
        assert (ended["acme"].reason, ended["small"].reason, ended["small"].code) == ("completed", "partial", "budget.turns")
        assert len(paid) == 2
        journal = [each.body for each in rt.insights.events(ended["reader"].run_id)]
        assert any(b"tool.not_allowed" in body for body in journal)
        run = await rt.submit("claim", "A1", tenant="trial")
        waits = await run.rest()
        assert (waits.status, waits.reason, len(paid)) == ("waiting", "needs_approval", 2)
        contract = next(
            event.contract for each in rt.insights.events(run.id) if isinstance(event := decode(each.body), RunAdmitted)
        )
        assert contract.allowed_tools == rt.deck.agents["clerk"].tools


async def test_a_fork_that_is_asked_for_beside_a_runtime_has_the_terms_and_the_model_of_its_tenant(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    deck.model("small", ScriptedModel(["a short answer"]))
    deck.model("large", ScriptedModel(["a long answer"]))
    deck.agent("clerk", model={"simple": "small", "standard": "large"}, instructions="Answer.")
    deck.tenant("trial", budget=Budget(turns=2))
    async with deck.start(tmp_path / "store.db") as rt:
        ended = await (await rt.submit("clerk", "what is my balance?", tenant="trial")).result()
        journal = rt.parts.services.journal
        made = await fork_beside(
            deck, journal.submit, rt.insights, ended.run_id, Fork("m0"), by="ada", incarnation=journal.incarnation
        )
        first = rt.show(made).contract
    assert (first["limits"]["turns"], first["version_set"]["model"], first["task_class"]) == (2, "small", "simple")


SAYS = [
    (lambda deck: deck.tenant("acme"), "tenant.nothing", "acme"),
    (lambda deck: [deck.tenant("acme", risk="high") for _ in range(2)], "tenant.twice", "'*'"),
    (lambda deck: deck.tenant("no tenant", risk="high"), "name.invalid", "no tenant"),
    (lambda deck: deck.tenant("acme", autonomy="wild"), "word.unknown", "wild"),
    (lambda deck: deck.tenant("acme", "clam", risk="high"), "deck.invalid", "'clam', which does not exist"),
    (lambda deck: deck.tenant("acme", tools=["fly"]), "deck.invalid", "'fly', which does not exist"),
    (lambda deck: deck.tenant("acme", "vip", risk="high"), "deck.invalid", "the route vip does not serve it"),
]


@pytest.mark.parametrize(("say", "code", "said"), SAYS)
def test_terms_that_cannot_be_are_refused(say, code: str, said: str) -> None:
    deck = desk([])
    deck.route("vip", "clerk", tenants=["globex"])
    with pytest.raises(UsageError) as refused:
        say(deck)
        check_deck(deck)
    assert refused.value.code == code
    assert said in refused.value.message
