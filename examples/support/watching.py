"""Watching a store from outside, while a worker owns it: reads the journals, decides nothing.

Everything that the demo shows comes from here, so it is exactly what anyone can find out who looks at the journals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quarterdeck.app.clock import SystemClock
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold, start
from quarterdeck.core.state import OpenEffect, RunState
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.ports.store import ApprovalRow, RunRow
from quarterdeck.store.sqlite.reader import SqliteInsights

AT_REST = frozenset({"waiting", "succeeded", "failed", "refused", "cancelled"})
MAX_RUNS = 1_000
SOON_US = 15_000_000
"""A run that wakes by itself within this time is not at rest."""

clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Seen:
    """One event of one run; where it is about a call of a tool, with the tool's name and the arguments as the model wrote them."""

    run: str
    event: ev.Event
    tool: str = ""
    arguments: str = ""


@dataclass(slots=True)
class _Tail:
    """How far one journal was read, and what it says up to there."""

    name: str
    state: RunState
    calls: dict[str, tuple[str, str]] = field(default_factory=dict)


class Watch:
    """Follows all journals of one store. What it knows is as of the last :meth:`news`."""

    def __init__(self, store: Path) -> None:
        self._insights = SqliteInsights(store)
        self._tails: dict[str, _Tail] = {}
        self.opened: Counter[str] = Counter()

    def close(self) -> None:
        """Stop watching."""
        self._insights.close()

    def runs(self) -> list[RunRow]:
        """Every run, oldest first."""
        return list(reversed(self._insights.runs(limit=MAX_RUNS)))

    def approvals(self) -> list[ApprovalRow]:
        """Everything that waits for a person, the nearest deadline first."""
        return list(self._insights.approvals(limit=MAX_RUNS))

    def journal(self, run_id: str) -> list[ev.Event]:
        """One run's events."""
        return [ev.decode(stored.body) for stored in self._insights.events(run_id)]

    def name(self, run_id: str) -> str:
        """Which ticket or case a run is."""
        return self._tails[run_id].name

    def state(self, run_id: str) -> RunState:
        """What is known of one run."""
        return self._tails[run_id].state

    def news(self) -> Iterator[Seen]:
        """What was journaled since the last call; ``opened`` counts the started calls of each tool."""
        for row in self.runs():
            tail = self._tails.get(row.run_id)
            if tail is None or row.seq > tail.state.seq:
                for stored in self._insights.events(row.run_id, tail.state.seq if tail is not None else 0):
                    event = ev.decode(stored.body)
                    if tail is None:
                        tail = self._tails[row.run_id] = _Tail(row.correlation_id, start(event))
                    else:
                        fold(tail.state, event)
                    yield self._seen(tail, event, stored.payload)

    def _seen(self, tail: _Tail, event: ev.Event, payload: bytes | None) -> Seen:
        if isinstance(event, ev.ModelClosed) and payload is not None:
            written = msgspec.json.decode(payload, type=ModelPayload)
            pairs = zip(event.calls, written.calls, strict=False)
            tail.calls = {planned.call: (planned.tool, call.arguments) for planned, call in pairs}
        elif isinstance(event, ev.ToolOpened):
            self.opened[event.tool] += 1
        return Seen(tail.name, event, *tail.calls.get(getattr(event, "call", ""), ("", "")))

    def under_way(self) -> list[tuple[str, OpenEffect]]:
        """Intents that have no receipt yet, of tools and models, each with the name of its ticket or case."""
        return [(tail.name, effect) for tail in self._tails.values() for effect in tail.state.open.values()]

    def at_rest(self, count: int) -> bool:
        """Whether at least ``count`` runs exist, and each has ended or waits for something outside."""
        rows = self.runs()
        return len(rows) >= count and all(row.status in AT_REST and not _soon(row) for row in rows)


def _soon(row: RunRow) -> bool:
    """Whether a waiting run goes on by itself in a moment: a back-off, or a person's time that is almost over."""
    return row.status == "waiting" and row.wake_at_us is not None and row.wake_at_us < clock.now_us() + SOON_US
