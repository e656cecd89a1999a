"""R10 and R24 at test length: processes that run agents are killed at their durable steps; `python -m proof` does it at length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from proof.plants import BUGS
from proof.steps import TELLING, Nursery, Strike, failpoints, nursery, trial


@pytest.fixture(scope="module")
def nurse() -> Iterator[Nursery]:
    with nursery() as opened:
        yield opened


@pytest.fixture(scope="module")
def points(nurse: Nursery) -> Counter[str]:
    return failpoints(nurse, 1)


PLANS = (
    (Strike("before:run.started+budget.moved+model.opened"),),
    (Strike("sent:model.closed+tool.opened"),),
    (Strike("tool.at:mail"),),
    (Strike("tool.within:pay"), Strike("ask:pay", who="both")),
    (Strike("tool.within:mail"), Strike("before:claim")),
    (Strike("after:tool.closed"),),
    (Strike("tool.within:note"), Strike("tool.before:note", who="both")),
    (Strike("after:decideapproval"),),
    (Strike("model.after:2", who="both"),),
    (Strike("after:model.closed+budget.moved+run.finished"),),
    (Strike("tool.after:note", who="writer"),),
)


def test_a_dry_run_passes_every_failpoint_that_the_plans_strike(points: Counter[str]) -> None:
    recovery_only = {"ask:pay", "asked:pay"}
    assert {strike.point for plan in PLANS for strike in plan} - recovery_only <= set(points)
    assert {strike.point for strike in TELLING} <= set(points)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: " then ".join(map(str, plan)))
def test_nothing_is_lost_or_doubled(nurse: Nursery, plan: tuple[Strike, ...]) -> None:
    found = trial(nurse, plan, 1, outside=len(plan) == 1)
    assert not found.findings
    assert found.kills == len(plan), "a kill that was planned did not strike; the plan is stale"


STEP_BUGS = [bug.name for bug in BUGS if bug.suite == "step-failpoints"]
SHOWN_BY = dict(
    zip(STEP_BUGS, ("tool.within:mail", "tool.within:pay", "tool.within:note", "tool.within:mail", "tool.at:mail"), strict=True)
)


@pytest.mark.parametrize("bug", STEP_BUGS)
def test_a_planted_bug_is_noticed(nurse: Nursery, bug: str) -> None:
    assert trial(nurse, (Strike(SHOWN_BY[bug]),), 1, plant=bug).findings
