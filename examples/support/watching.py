"""Watching a store from outside, while a worker owns it: reads the journals, decides nothing.

Everything that the demo shows comes from here, so it is exactly what anyone can find out who looks at the journals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.views import state_of
from quarterdeck.core import events as ev
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ProposalKind
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
    """One event of one run, with the arguments of the call that it is about, where it is about one."""

    run: str
    event: ev.Event
    arguments: str = ""


@dataclass(slots=True)
class _Tail:
    after: int = 0
    arguments: dict[str, str] = field(default_factory=dict)


class Watch:
    """Follows all journals of one store. ``names`` tells which ticket or case each run is."""

    def __init__(self, store: Path) -> None:
        self._insights = SqliteInsights(store)
        self._tails: dict[str, _Tail] = {}
        self.names: dict[str, str] = {}

    def close(self) -> None:
        """Stop watching."""
        self._insights.close()

    def runs(self) -> list[RunRow]:
        """Every run, oldest first."""
        rows = list(reversed(self._insights.runs(limit=MAX_RUNS)))
        self.names.update({row.run_id: row.correlation_id for row in rows})
        return rows

    def approvals(self) -> list[ApprovalRow]:
        """Everything that waits for a person, the nearest deadline first."""
        return list(self._insights.approvals(limit=MAX_RUNS))

    def state(self, run_id: str) -> RunState:
        """What is known of one run now."""
        return state_of(self._insights.events(run_id))

    def journal(self, run_id: str) -> list[ev.Event]:
        """One run's events."""
        return [ev.decode(stored.body) for stored in self._insights.events(run_id)]

    def news(self) -> Iterator[Seen]:
        """What was journaled since the last call."""
        for row in self.runs():
            tail = self._tails.setdefault(row.run_id, _Tail())
            if row.seq <= tail.after:
                continue
            for stored in self._insights.events(row.run_id, tail.after):
                tail.after = stored.seq
                event = ev.decode(stored.body)
                if isinstance(event, ev.ModelClosed) and stored.payload is not None:
                    written = msgspec.json.decode(stored.payload, type=ModelPayload)
                    pairs = zip(event.calls, written.calls, strict=False)
                    tail.arguments.update({planned.call: call.arguments for planned, call in pairs})
                yield Seen(row.correlation_id, event, tail.arguments.get(getattr(event, "call", ""), ""))

    def open_effects(self) -> list[tuple[str, str, str]]:
        """What is under way now, as (ticket, call, name of the tool or model): intents that have no receipt yet."""
        found = []
        for row in self.runs():
            if row.status == "running":
                found += [(row.correlation_id, effect.call, effect.name) for effect in self.state(row.run_id).open.values()]
        return found

    def refunds_opened(self) -> int:
        """How many refunds have been started in all."""
        return sum(
            isinstance(event, ev.ToolOpened) and event.tool == "issue_refund"
            for row in self.runs()
            for event in self.journal(row.run_id)
        )

    def at_rest(self, count: int) -> bool:
        """Whether at least ``count`` runs exist, and each has ended or waits for something outside."""
        rows = self.runs()
        return len(rows) >= count and all(row.status in AT_REST and not _soon(row) for row in rows)


def _soon(row: RunRow) -> bool:
    """Whether a waiting run goes on by itself in a moment: a back-off, or a person's time that is almost over."""
    return row.status == "waiting" and row.wake_at_us is not None and row.wake_at_us < clock.now_us() + SOON_US


def is_tool_decision(event: ev.Event) -> bool:
    """Whether this is the gate's answer to a tool call."""
    return isinstance(event, ev.GateDecided) and event.proposal is ProposalKind.TOOL
