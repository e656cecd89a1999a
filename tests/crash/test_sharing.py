"""R17, R20 and R30 at test length, with their planted bugs."""

from __future__ import annotations

import pytest

from proof.result import Suite
from proof.sharing import PLANTS, SUITES


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_nothing_fails_and_every_planted_bug_is_noticed(suite: Suite) -> None:
    result = suite.run(True)
    assert result.passed, result.detail


def test_every_suite_plants_some() -> None:
    assert {suite.name for suite in SUITES} == PLANTS.keys()
