"""What journals say: the events of each run, the state that follows from them, and the same read from the store's file.

While the service is up, events come over HTTP (:mod:`examples.support.watching`). The file is read by itself where HTTP cannot
answer: right after a kill, when nobody is there to ask, and for the check at the end, which must not have to trust the service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from examples.support.shop import Shop
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold, start
from quarterdeck.core.state import OpenEffect, RunState
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.store.sqlite.reader import SqliteInsights

AT_REST = frozenset({"waiting", "succeeded", "failed", "refused", "cancelled"})
MAX_RUNS = 1_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One event of one run; where it is about a call of a tool, with the tool's name and the arguments as the model wrote them."""

    run: str
    event: ev.Event
    tool: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Journal:
    """One run's events so far, oldest first, and what they say together. It begins with ``run.admitted``."""

    run_id: str
    state: RunState
    events: list[ev.Event]
    opened: Counter[str] = field(default_factory=Counter)
    _calls: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def begun(cls, run_id: str, first: ev.Event) -> Journal:
        """The journal after its first event."""
        return cls(run_id, start(first), [first])

    @property
    def name(self) -> str:
        """Which ticket or case the run is for."""
        return self.state.contract.correlation_id

    def take(self, event: ev.Event) -> None:
        """Take in the next event; ``opened`` counts the started calls of each tool."""
        fold(self.state, event)
        self.events.append(event)
        if isinstance(event, ev.ToolOpened):
            self.opened[event.tool] += 1

    def seen(self, event: ev.Event, content: object) -> Seen:
        """An event as it is told; ``content`` is its payload, which has the arguments that the model wrote."""
        if isinstance(event, ev.ModelClosed) and content is not None:
            written = msgspec.convert(content, ModelPayload)
            pairs = zip(event.calls, written.calls, strict=False)
            self._calls = {planned.call: (planned.tool, call.arguments) for planned, call in pairs}
        return Seen(self.name, event, *self._calls.get(getattr(event, "call", ""), ("", "")))


def store_of(shop: Shop) -> Path:
    """The journals' file, beside the shop's."""
    return shop.path.with_name("quarterdeck.db")


def stored(store: Path) -> list[Journal]:
    """Every journal as it lies in the file, the oldest run first."""
    found = []
    with closing(SqliteInsights(store)) as insights:
        for row in insights.runs(limit=MAX_RUNS):
            first, *later = [ev.decode(event.body) for event in insights.events(row.run_id)]
            journal = Journal.begun(row.run_id, first)
            for event in later:
                journal.take(event)
            found.append(journal)
    return in_order(found)


def in_order(journals: Iterable[Journal]) -> list[Journal]:
    """The same, the oldest run first."""
    return sorted(journals, key=lambda journal: (journal.events[0].at_us, journal.run_id))


def under_way(journals: Iterable[Journal]) -> list[tuple[str, OpenEffect]]:
    """What was begun and has no receipt yet, of tools and models, each with the name of its ticket or case."""
    return [(journal.name, effect) for journal in journals for effect in journal.state.open.values()]
