"""The short length of the suites about forged credentials and other tenants, with their planted bugs."""

from __future__ import annotations

import pytest

from proof.result import Suite
from proof.walls import SUITES


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_nothing_gets_through_but_where_a_check_is_missing(suite: Suite) -> None:
    result = suite.run(True)
    assert result.detail == {}
    assert result.passed, result
    assert result.trials > 100
