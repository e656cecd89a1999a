"""The suites of sagas and cancels, at their short length."""

from __future__ import annotations

import pytest

from proof.programs import SUITES, cancel_trial, undone
from proof.result import Suite
from quarterdeck.core.vocabulary import CancelMode


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_nothing_is_wrong_and_every_planted_bug_is_caught(suite: Suite) -> None:
    result = suite.run(True)
    assert result.passed, result.detail


def test_a_wrong_order_is_seen() -> None:
    assert undone(["flight", "hotel", "undo flight", "undo hotel"]) == [
        "['flight', 'hotel'] was undone as ['undo flight', 'undo hotel']"
    ]
    assert undone(["flight", "flight", "undo flight"])[0] == "flight happened 2 times"


def test_a_cancel_in_the_middle_comes_in_time() -> None:
    assert cancel_trial(20, CancelMode.STOP) == ([], True)
