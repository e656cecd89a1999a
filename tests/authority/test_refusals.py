"""What the store refuses again and again ends, and what could never be done is refused where it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quarterdeck import Budget, Quarterdeck, UsageError
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.ledger import differences
from quarterdeck.testing.mutants_runtime import mutant

HEEDLESS = mutant("", 0, "I3", ("core.judge:screen", "if facts.exhausted is not None:", "if False:"))


def desk(**limits: int) -> tuple[Quarterdeck, list[int]]:
    deck, paid = Quarterdeck("refusals"), list[int]()

    @deck.tool(effect="irreversible")
    async def pay(cents: int) -> str:
        """Pay."""
        paid.append(cents)
        return "paid"

    deck.agent("clerk", model=ScriptedModel([[("pay", {"cents": 5})], [("pay", {"cents": 6})], "over"]), tools=[pay])
    deck.agent("careful", model=ScriptedModel([[("pay", {"cents": 5})], "over"]), tools=[pay], autonomy="executes_after_approval")
    deck.budget("all", Budget(**limits))  # type: ignore[arg-type]
    return deck, paid


@pytest.mark.parametrize(("limits", "done"), [({"tools": 1}, 1), ({"model_calls": 2}, 2)])
async def test_a_run_ends_whose_judge_does_not_heed_an_empty_account(tmp_path: Path, limits: dict[str, int], done: int) -> None:
    deck, paid = desk(**limits)
    with HEEDLESS.planted():
        async with asyncio.timeout(30), deck.start(tmp_path / "s.db") as rt:
            result = await (await rt.submit("clerk", "go")).result()
            assert result.code == "budget.unheeded"
            assert len(paid) == done, "the store keeps the limit all the same"
            assert differences(rt.insights) == []


async def test_an_edit_that_the_tool_does_not_take_is_refused_and_decides_nothing(tmp_path: Path) -> None:
    deck, paid = desk()
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.submit("careful", "go", user="ada")
        await run.rest(20)
        [asked] = rt.approvals()
        for wrong in ({"cents": "many"}, {}, {"cents": 5, "to": "mal"}):
            with pytest.raises(UsageError, match=r"approval\.unfit"):
                await rt.edit(asked.approval, wrong, by="bob")
        with pytest.raises(UsageError, match=r"approval\.arguments"):
            await rt.edit(asked.approval, [5], by="bob")
        assert [row.approval for row in rt.approvals()] == [asked.approval], "it still waits"
        await rt.edit(asked.approval, {"cents": 3}, by="bob")
        await run.rest(20)
        [again] = rt.approvals()
        await rt.approve(again.approval, by="joe")
        assert (await run.result(20)).status == "succeeded"
    assert paid == [3]
