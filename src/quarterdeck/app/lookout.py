"""What other processes do to runs that somebody here watches.

Whoever waits for a run is told at once what this process does to it. A run may as well be driven, and ended, elsewhere, on the same
store; then only the journal says so. So a runtime looks now and then at the runs that are watched and that it does not drive itself,
all of them in one read: a run that nobody watches costs nothing, and one that has not moved since its watcher last looked costs a
row of that read.

It only wakes: who is woken reads the journal, so a look that is late, or superfluous, does no harm.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

from quarterdeck.app.views import is_at_rest
from quarterdeck.core.commit import Record
from quarterdeck.engine.stream import Hub
from quarterdeck.ports.store import Insights, RunPosition

PAGE = 1_000
"""Runs looked at in one read."""


class Sight:
    """One watcher of one run, and how far it has seen."""

    __slots__ = ("seen",)

    def __init__(self, seen: int) -> None:
        self.seen = seen


class Lookout:
    """Looks for what the hub cannot know, and tells it."""

    def __init__(self, insights: Insights, hub: Hub) -> None:
        self._insights = insights
        self._hub = hub
        self._sights: dict[str, list[Sight]] = {}

    @contextmanager
    def watching(self, run_id: str, seen: int) -> Iterator[None]:
        """While this lasts, whatever is appended after the sequence ``seen`` wakes whoever the hub knows to wait for the run."""
        sight = Sight(seen)
        sights = self._sights.setdefault(run_id, [])
        sights.append(sight)
        try:
            yield
        finally:
            sights.remove(sight)
            if not sights and self._sights.get(run_id) is sights:
                del self._sights[run_id]

    def look(self, driven: Container[str]) -> None:
        """Look once at every watched run that is not among ``driven``; never waits."""
        wanted = [run_id for run_id in self._sights if run_id not in driven]
        for start in range(0, len(wanted), PAGE):
            for position in self._insights.positions(wanted[start : start + PAGE]):
                self._tell(position)

    def _tell(self, position: RunPosition) -> None:
        behind = [sight for sight in self._sights.get(position.run_id, ()) if sight.seen < position.seq]
        if not behind:
            return
        for sight in behind:
            sight.seen = position.seq
        # Followers know by its sequence whether the newest event is the next one for them, or whether they have to read what is between.
        newest = self._insights.events(position.run_id, position.seq - 1, 1)
        self._hub.committed(position.run_id, position.seq - 1, [Record(stored.body, stored.payload) for stored in newest])
        if is_at_rest(position):
            self._hub.rested(position.run_id)
