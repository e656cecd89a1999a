"""The short length of the suite that fuzzes the interface by its own description, and its planted bugs."""

from __future__ import annotations

from proof.openapi import run


def test_generated_requests_find_nothing_but_planted_bugs() -> None:
    result = run(True)
    assert result.failures == 0, "\n".join(map(str, result.detail["found"]))  # type: ignore[arg-type]
    assert (result.mutants_caught, result.passed) == (2, True)
    assert result.trials > 300
