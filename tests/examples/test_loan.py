"""The loan example: granted; denied, rolled back and told; unanswered, rolled back and told to an administrator; through every crash."""

from __future__ import annotations

import pytest

from examples.loan import deck as loan
from quarterdeck import Quarterdeck
from quarterdeck.app import wiring
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.views import RunResult
from quarterdeck.dispatch import embedded
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.patching import patched
from tests.workflows.stage import Scene, World, cached_policy, opening, play


def example(world: World) -> Quarterdeck:
    """The deck of the example; the points to crash at are those of the store."""
    return loan.deck


def played(scene: Scene | None, crashes: set[int] | None = None) -> tuple[RunResult, int]:
    """How it ended, and how many points there were to crash at. What was told has to have left within a while."""

    async def whole(runtime: Runtime, run_id: str) -> None:
        if scene is not None:
            await scene(runtime, run_id)

    async def main(world: World, clock: VirtualClock) -> RunResult:
        result, store = await play(example, "loan", APPLICATION, world, clock, scene=whole)
        async with opening(loan.deck, store.connect("last"), clock, 999) as runtime:
            while runtime.insights.posts(status="queued"):
                await clock.sleep(1)
        return result

    loan.held.clear()
    loan.paid.clear()
    loan.told.clear()
    world, clock = World(crashes or set()), VirtualClock()
    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 20.0):
        return run(main(world, clock), clock=clock, max_ticks=100_000), world.points


APPLICATION = {"application_id": "A1", "patience_s": 1_200.0}


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
    result, _ = played(answering("underwriter", approve=True))
    assert result.status == "succeeded"
    assert '"approved_by":"underwriter","escalated":false' in result.text
    assert (list(loan.held.values()), list(loan.paid.values())) == ([12_000], [12_000])
    assert not loan.told


def test_denied_is_rolled_back() -> None:
    result, _ = played(answering("underwriter", approve=False))
    assert (result.status, result.code, result.effects["compensated"]) == ("refused", "approval.rejected", 1)
    assert not loan.held
    assert not loan.paid
    assert [(who, note["code"]) for who, note in loan.told.values()] == [("applicant", "approval.rejected")]


@pytest.mark.parametrize("approve", [True, False])
def test_nobody_answers_and_it_is_escalated(approve: bool) -> None:
    result, _ = played(answering("head of risk", approve=approve, ending=".escalated"))
    assert result.status == ("succeeded" if approve else "refused")
    assert bool(loan.paid) is approve
    assert bool(loan.held) is approve


def test_nobody_ever_answers() -> None:
    result, _ = played(None)
    assert (result.status, result.code, result.effects["compensated"]) == ("refused", "approval.expired", 1)
    assert not loan.held
    assert not loan.paid
    note = {"application": "A1", "code": "approval.expired", "why": "clock answered"}
    assert list(loan.told.values()) == [("administrator", note)]


@pytest.mark.parametrize("point", range(3))
def test_an_unanswered_one_ends_the_same_through_crashes(point: int) -> None:
    """Every third point of all in three parts."""
    _, points = played(None)
    for crash in range(3 * point + 1, points + 1, 9):
        result, _ = played(None, {crash})
        assert (result.code, result.effects["compensated"]) == ("approval.expired", 1), f"crash at {crash}"
        assert [who for who, _ in loan.told.values()] == ["administrator"], f"crash at {crash}"
        assert not loan.held
