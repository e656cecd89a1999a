"""The loan example: granted, denied (and rolled back), and escalated when nobody answers."""

from __future__ import annotations

import pytest

from examples.loan import deck as loan
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.views import RunResult
from tests.workflows.stage import Scene, staged


def played(scene: Scene | None) -> RunResult:
    loan.held.clear()
    loan.paid.clear()
    result, _, _ = staged(lambda world: loan.deck, "loan", {"application_id": "A1", "patience_s": 1_200.0}, scene=scene)
    return result


def answering(by: str, *, approve: bool, ending: str = "") -> Scene:
    """A person who answers; with ``ending``, only what was escalated to them."""

    async def person(runtime: Runtime, run_id: str) -> None:
        while True:
            await runtime.parts.clock.sleep(10)
            for row in runtime.approvals():
                if row.approval.endswith(ending):
                    await runtime.decide(row.approval, approve=approve, by=by, reason="looked at it")

    return person


def test_granted() -> None:
    result = played(answering("underwriter", approve=True))
    assert result.status == "succeeded"
    assert '"approved_by":"underwriter","escalated":false' in result.text
    assert (list(loan.held.values()), list(loan.paid.values())) == ([12_000], [12_000])


def test_denied_is_rolled_back() -> None:
    result = played(answering("underwriter", approve=False))
    assert (result.status, result.code, result.effects["compensated"]) == ("refused", "approval.rejected", 1)
    assert not loan.held
    assert not loan.paid


@pytest.mark.parametrize("approve", [True, False])
def test_nobody_answers_and_it_is_escalated(approve: bool) -> None:
    result = played(answering("head of risk", approve=approve, ending=".escalated"))
    assert result.status == ("succeeded" if approve else "refused")
    assert bool(loan.paid) is approve
    assert bool(loan.held) is approve


def test_nobody_ever_answers() -> None:
    result = played(None)
    assert (result.status, result.code) == ("refused", "approval.expired")
    assert not loan.held
