"""What a workflow returns leaves only if the gate allows it; what comes too late ends the run, and its journal still folds."""

from __future__ import annotations

from quarterdeck import Budget, Context, Denied, Quarterdeck
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold_all
from tests.workflows.stage import World, desk, staged


def late(world: World) -> Quarterdeck:
    deck = desk(world)

    @deck.workflow("late", budget=Budget(deadline=10))
    async def late(ctx: Context) -> str:
        try:
            await ctx.sleep(60)
        except Denied as denied:
            return f"too late: {denied.code}"
        return "in time"

    return deck


def test_a_result_after_the_deadline_is_denied_and_the_journal_folds() -> None:
    result, _, store = staged(late, "late", None)
    assert (result.status, result.reason, result.code) == ("failed", "timed_out", "deadline.exceeded")
    state = fold_all([ev.decode(one.body) for one in store.events(result.run_id)])
    assert (state.status, state.denied_replies) == ("failed", 0)


def test_the_same_through_a_crash_at_every_point() -> None:
    _, plain, _ = staged(late, "late", None)
    for point in range(1, plain.points + 1):
        result, _, _ = staged(late, "late", None, crashes={point})
        assert (result.status, result.code) == ("failed", "deadline.exceeded")
