"""What runs begin with that were claimed together is read together: a read for each of them would cost more than their first steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from quarterdeck.core.commit import ClaimedRun
from quarterdeck.ports.store import Insights, Opening

SHORT = 50
"""The longest journal that is read together with others', in events."""
TOGETHER = 64
"""So many are read at once: one read takes a few milliseconds, in which nothing else goes on in this process."""


class Openings:
    """What runs that were claimed together begin with, read together. A run's journal is its holder's alone, so what was read under the
    epoch of the claim stands; its control is compared by every commit.
    """

    def __init__(self) -> None:
        self._expected: dict[str, int] = {}
        self._read: dict[str, Opening] = {}

    def expect(self, claimed: Sequence[ClaimedRun]) -> None:
        """These are about to be driven; whatever was read for those before them is forgotten."""
        self._expected = {run.run_id: run.epoch for run in claimed if run.seq <= SHORT}
        self._read.clear()

    def take(self, insights: Insights, claimed: ClaimedRun) -> Opening | None:
        """What this run begins with, once; ``None``: it is to be read by itself."""
        if claimed.run_id in self._expected:
            names = [claimed.run_id, *[name for name in islice(self._expected, TOGETHER) if name != claimed.run_id]]
            for name in names:
                del self._expected[name]
            for opening in insights.openings(names):
                self._read[opening.run_id] = opening
        found = self._read.pop(claimed.run_id, None)
        return found if found is not None and found.epoch == claimed.epoch else None
