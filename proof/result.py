"""What a suite reports, and how a module offers its suites."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class SuiteResult(msgspec.Struct, frozen=True):
    """One suite's account: trials, how many failed, and how many of the planted bugs turned it red.

    ``detail`` holds the figures that ``docs/proof.md`` prints, and, for a failure, what reproduces it.
    """

    name: str
    trials: int
    failures: int
    mutants_planted: int
    mutants_caught: int
    minutes: float
    detail: dict[str, object] = {}

    @property
    def passed(self) -> bool:
        """Whether nothing failed, something was tried, and every planted bug was caught."""
        return self.trials > 0 and self.failures == 0 and self.mutants_caught == self.mutants_planted


class Suite(msgspec.Struct, frozen=True):
    """A suite as a module registers it in its ``SUITES``; ``run`` gets ``True`` for the quick length."""

    name: str
    run: Callable[[bool], SuiteResult]
