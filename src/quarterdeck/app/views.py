"""Runs as people see them: the folded journal with its contents, ready for printing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import UsageError
from quarterdeck.core.fold import fold_all
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import TERMINAL, Status
from quarterdeck.ports.store import Insights, RunPosition, RunRow, StoredEvent


class RunResult(msgspec.Struct, frozen=True):
    """How a run stands: its status, stop reason and code, what it said, what its effects came to, what it cost.

    ``str(result)`` is the text; ``ok`` whether it succeeded; ``done`` whether it has ended. ``value`` is what a workflow returned, as JSON
    has it; ``message`` says why a run failed, for people, beside the stable ``code``.
    """

    run_id: str
    status: str
    reason: str
    code: str
    text: str
    partial: bool
    effects: dict[str, int]
    spent: dict[str, int]
    waiting_on: tuple[str, ...] = ()
    message: str = ""
    value: object = None

    @property
    def ok(self) -> bool:
        """Whether the run succeeded."""
        return self.status == Status.SUCCEEDED

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL

    def __str__(self) -> str:
        return self.text


class EventView(msgspec.Struct, frozen=True):
    """One event of a run: its sequence, kind, body, and its payload where that is shown."""

    seq: int
    kind: str
    at_us: int
    body: dict[str, object]
    content: object = None


def row_of(insights: Insights, run_id: str) -> RunRow:
    """One run; raises :class:`UsageError` (``run.unknown``)."""
    row = insights.run(run_id)
    if row is None:
        raise UsageError("run.unknown", f"no run is called {run_id!r}; `quarterdeck runs ls` lists them")
    return row


def is_at_rest(row: RunRow | RunPosition) -> bool:
    """Whether a run is rows only: it has ended, or waits and nobody holds it."""
    return row.status in TERMINAL or (row.status == Status.WAITING and row.worker is None)


def rests(insights: Insights, row: RunRow) -> bool:
    """Whether a run is at rest and has read everything that it was sent: one that was answered just now is not."""
    if row.status in TERMINAL or not is_at_rest(row):
        return row.status in TERMINAL
    return not insights.inbox(row.run_id)[1] and is_at_rest(row_of(insights, row.run_id))  # the row was read before the inbox


def read_all(insights: Insights, run_id: str) -> list[StoredEvent]:
    """Every event of a run; raises :class:`UsageError` (``run.unknown``) if there is none."""
    found: list[StoredEvent] = []
    while page := insights.events(run_id, len(found)):
        found.extend(page)
    if not found:
        raise UsageError("run.unknown", f"no run is called {run_id!r}; `quarterdeck runs ls` lists them")
    return found


def state_of(stored: Iterable[StoredEvent]) -> RunState:
    """The fold of stored events."""
    return fold_all(ev.decode(item.body) for item in stored)


def result_of(insights: Insights, run_id: str) -> RunResult:
    """How a run stands now: from its last event if it has ended, else from the fold of its journal."""
    row = insights.run(run_id)
    if row is not None and row.status in TERMINAL:
        last = insights.events(run_id, row.seq - 1)[-1]
        event = ev.decode(last.body)
        if isinstance(event, ev.RunFinished):
            output: dict[str, object] = msgspec.json.decode(last.payload) if last.payload is not None else {}
            text, partial = str(output.get("text", "")), bool(output.get("partial", False))
            return RunResult(
                run_id,
                event.status,
                event.reason,
                event.code,
                text,
                partial,
                event.effects,
                event.spent,
                message=str(output.get("message", "")),
                value=output.get("value"),
            )
    state = state_of(read_all(insights, run_id))
    return RunResult(
        run_id,
        state.status,
        state.reason or "",
        state.code,
        "",
        False,
        state.effects.counts(),
        dict(state.spent),
        state.waiting_on,
    )


def event_views(stored: Sequence[StoredEvent], *, content: bool) -> list[EventView]:
    """Events for printing; contents only on request."""
    views = []
    for item in stored:
        body = msgspec.json.decode(item.body, type=dict[str, object])
        shown = msgspec.json.decode(item.payload) if content and item.payload is not None else None
        views.append(EventView(item.seq, str(body.pop("kind")), int(str(body.pop("at_us"))), body, shown))
    return views


class ProgressView(msgspec.Struct, frozen=True):
    """The newest report of how far a run is; ``call`` is empty for what a workflow says of itself."""

    call: str
    done: int
    total: int | None
    note: str
    at_us: int


class RunView(msgspec.Struct, frozen=True):
    """One run in full: its row, its contract, and what the fold of its journal says. The note of its progress is a content."""

    row: RunRow
    contract: dict[str, object]
    result: RunResult
    turn: int
    open_effects: tuple[str, ...]
    unknown_effects: tuple[str, ...]
    approvals: dict[str, str]
    checkpoint: int
    owner: str = ""
    progress: ProgressView | None = None


def run_view(insights: Insights, run_id: str) -> RunView:
    """Everything that is known of one run."""
    stored = read_all(insights, run_id)
    state = state_of(stored)
    row = row_of(insights, run_id)
    contract = msgspec.to_builtins(state.contract)
    approvals = {name: mark.outcome for name, mark in state.approvals.items()}
    return RunView(
        row,
        contract,
        result_of(insights, run_id),
        state.turn,
        tuple(state.open),
        tuple(sorted(state.unknown)),
        approvals,
        state.seq,
        state.owner,
        _progress(state, stored),
    )


def _progress(state: RunState, stored: Sequence[StoredEvent]) -> ProgressView | None:
    mark = state.progress
    if mark is None:
        return None
    payload = stored[mark.seq - 1].payload
    note = "" if payload is None else msgspec.json.decode(payload, type=str)
    return ProgressView(mark.call, mark.done, mark.total, note, mark.at_us)
