"""T05, T06, T10, T11 and T14 at test length: no attempt succeeds, and each planted hole lets one in."""

from __future__ import annotations

import pytest

from proof import binding, cascade, detours, leaks, tampering
from proof.result import Suite

SUITES = [*binding.SUITES, *detours.SUITES, *cascade.SUITES, *tampering.SUITES, *leaks.SUITES]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_no_attempt_succeeds_but_where_a_hole_is_planted(suite: Suite) -> None:
    result = suite.run(True)
    assert result.passed, result
    assert result.trials >= 30
