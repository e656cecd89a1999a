"""Bugs on purpose in the replay: the tests above would notice each of them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from quarterdeck.testing.drawn import machine, outcome
from quarterdeck.testing.mutants_runtime import RuntimeMutant
from quarterdeck.testing.mutants_workflows import WORKFLOW_MUTANTS
from tests.workflows import test_divergence, test_forks, test_generations, test_interrupts, test_replay, test_sagas, test_waits
from tests.workflows.stage import staged


def crossed() -> None:
    """Branches that read what the others have done, crashed everywhere."""
    program = [
        "saga",
        [["par", [["seq", [["step", 1], ["pay", 2]]], ["seq", [["book", 3], ["child", 4]]], ["pay", 5]]], ["pay", 6]],
    ]
    plain, world, _ = staged(machine, "interpret", {"program": program})
    for point in range(1, world.points + 1):
        crashed, after, _ = staged(machine, "interpret", {"program": program}, crashes={point})
        assert outcome(crashed, after) == outcome(plain, world)


def diverged() -> None:
    for new in (test_divergence.other_arguments, test_divergence.other_order, test_divergence.shorter):
        test_divergence.test_other_code_parks_the_run_and_does_nothing(new)


def forked() -> None:
    folder = Path(tempfile.mkdtemp())
    test_forks.log.clear()
    asyncio.run(test_forks.test_an_edited_result_takes_another_way_and_undoing_leaves_the_source_alone(folder))


SHOWS: tuple[Callable[[], object], ...] = (
    crossed,
    diverged,
    lambda: [test_replay.test_it_survives_a_crash_at_every_point(point) for point in range(1, test_replay.POINTS + 1)],
    lambda: test_sagas.test_undoing_survives_a_crash_at_every_point("fails"),
    test_sagas.test_what_cannot_be_undone_waits_for_a_person,
    test_sagas.test_a_cancel_undoes,
    test_waits.test_messages_are_taken_once_in_order,
    test_waits.test_a_cancel_reaches_the_children,
    lambda: test_waits.test_children_share_the_budget(1),
    lambda: test_divergence.test_what_is_not_recorded_cannot_be_awaited(test_divergence.yields),
    test_generations.test_a_fresh_history_keeps_the_run_its_effects_and_what_was_not_taken,
    test_interrupts.test_a_cancel_stops_what_was_started_once_through_a_crash_at_every_point,
    test_interrupts.test_what_drains_and_what_is_done_is_left_alone,
    lambda: test_interrupts.test_an_interrupt_ends_a_wait_where_the_workflow_wants_it_so("timer"),
    forked,
)


@pytest.mark.parametrize("bug", WORKFLOW_MUTANTS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_noticed(bug: RuntimeMutant) -> None:
    with bug.planted():
        assert any(_fails(show) for show in SHOWS), f"nobody noticed: {bug.name}"


def _fails(show: Callable[[], object]) -> bool:
    try:
        show()
    except (Exception, ExceptionGroup):
        return True
    return False


def test_without_a_bug_nothing_is_noticed() -> None:
    assert not [show for show in SHOWS if _fails(show)]
