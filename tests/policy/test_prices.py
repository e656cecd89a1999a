"""Policies about what a call costs: what its tool declares, and what its arguments say."""

from __future__ import annotations

from pathlib import Path

from quarterdeck import Budget, Quarterdeck
from quarterdeck.testing import ScriptedModel

PRICES = """
permit(principal, action, resource);
@reason("price.high") @outcome("ask")
forbid(principal, action in Action::"tool", resource) when { resource.cost_microusd > 1000000 };
@reason("order.high") @outcome("ask")
forbid(principal, action in Action::"tool", resource == Tool::"order") when { context.args.cents > 10000 };
"""


async def test_a_person_is_asked_above_a_price(tmp_path: Path) -> None:
    deck = Quarterdeck("prices")
    done: list[str] = []

    @deck.tool(effect="external", sensitivity="public", cost="0.01")
    async def glance() -> str:
        """Look at it."""
        done.append("glance")
        return "seen"

    @deck.tool(effect="external", sensitivity="public", cost="1.01")
    async def survey() -> str:
        """Look at it for long."""
        done.append("survey")
        return "seen"

    @deck.tool(effect="external", sensitivity="public")
    async def order(cents: int) -> str:
        """Order it."""
        done.append(f"order {cents}")
        return "ordered"

    calls: list[object] = [[("glance", {})], [("survey", {})], [("order", {"cents": 9}), ("order", {"cents": 20_000})], "done"]
    tools, limits = [glance, survey, order], Budget(usd="50", turns=9, tools=9)
    deck.agent("looker", model=ScriptedModel(calls), tools=tools, budget=limits)  # type: ignore[arg-type]
    deck.policy(PRICES)
    asked: list[str] = []
    async with deck.start(tmp_path / "prices.db") as rt:
        run = await rt.submit("looker", "go")
        while (await run.rest(20.0)).code == "approval.needed":
            [row] = rt.approvals()
            asked.append(row.tool)
            assert row.tool not in done
            await rt.approve(row.approval, by="ann")
        assert (await run.result(20.0)).ok
    assert asked == ["survey", "order"]
    assert done == ["glance", "survey", "order 9", "order 20000"]
