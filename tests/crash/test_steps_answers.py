"""R14, R26, R27, B02 and B03 at test length: every case of the suites that run inside one process, and their planted bugs."""

from __future__ import annotations

import pytest

from proof import answers, hostile, late, revokes
from proof.answers import Case
from proof.plants import BUGS
from proof.steps import SUITES, TELLING_CASES, in_process

SETS = {
    "lost-tool-answer": answers.CASES,
    "revoke-in-retry": revokes.CASES,
    "late-receipt": late.CASES,
    "hostile-input": {**hostile.CASES, **dict(hostile.flips(20))},
}
EVERY = [pytest.param(body, id=f"{suite}: {name}") for suite, cases in SETS.items() for name, body in cases.items()]


@pytest.mark.parametrize("body", EVERY)
async def test_case(body: Case) -> None:
    assert await body() == []


@pytest.mark.parametrize("suite", TELLING_CASES)
def test_every_planted_bug_is_noticed(suite: str) -> None:
    telling = TELLING_CASES[suite]
    result = in_process(suite, {case: SETS[suite][case] for case in telling.values()}, telling)
    assert result.passed, result.detail


def test_every_bug_belongs_to_a_suite_and_every_suite_plants_some() -> None:
    planted = {(bug.name, bug.suite) for bug in BUGS if bug.suite != "step-failpoints"}
    assert planted == {(bug, suite) for suite, telling in TELLING_CASES.items() for bug in telling}
    assert {suite.name for suite in SUITES} == {bug.suite for bug in BUGS}
