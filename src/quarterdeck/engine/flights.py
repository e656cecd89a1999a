"""Attempts that wait for an answer, and what may end them before it comes: a cancel, an interrupt.

An attempt is under way for as long as its provider takes. What others put into the run's inbox meanwhile is looked at here, now and
then and at once when this process itself delivered it, by whoever holds the run; so a model call is not paid to its end for a run that
was cancelled, and an attempt that is to stop does. An attempt that never waits is never seen here and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from quarterdeck.resilience.eager import Reins

LOOKED_AT = 128
"""Runs that are looked at in one look: each costs a read of its inbox."""

Look = Callable[[], str]
"""Reads what is new for the run, and says with which code its attempt ends now; empty: it goes on."""


class Flights:
    """The waiting attempts of one process, by run."""

    def __init__(self) -> None:
        self._by_run: dict[str, dict[Reins, Look]] = {}

    def reins(self, run_id: str, look: Look) -> Reins:
        """Reins for one call of a run; they are seen here only while an attempt waits."""

        def taken(reins: Reins) -> None:
            self._by_run.setdefault(run_id, {})[reins] = look

        def dropped(reins: Reins) -> None:
            waiting = self._by_run.get(run_id)
            if waiting is not None and waiting.pop(reins, None) is not None and not waiting:
                del self._by_run[run_id]

        return Reins(taken, dropped)

    def look_at(self, run_id: str) -> None:
        """Something has come for this run: end those of its attempts that must not go on."""
        for reins, look in list(self._by_run.get(run_id, {}).items()):
            code = look()
            if code:
                reins.cut(code)

    def look(self) -> None:
        """Look at the runs that have an attempt waiting: at so many at once, those first that were not looked at for longest."""
        for run_id in list(islice(self._by_run, LOOKED_AT)):
            self._by_run[run_id] = self._by_run.pop(run_id)
            self.look_at(run_id)
