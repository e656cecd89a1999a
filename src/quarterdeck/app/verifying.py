"""Verifying a whole store: each journal, then everything that is derived from journals and the audit log.

Journals that have ended are read one after the other, beside a busy writer. What goes on changing (runs that have not ended, accounts,
approvals, facts, keys, the log) is read in one snapshot at the end, so that nothing is compared with something older. What the rows say
is found wrong only as far as journals and log are right; whether those are, their chains and seals say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from quarterdeck.app import books, vouching
from quarterdeck.app.auditing import rows_of
from quarterdeck.core import audit
from quarterdeck.core import events as ev
from quarterdeck.core.audit import Audit
from quarterdeck.core.errors import Corrupt, Unavailable
from quarterdeck.core.fold import fold, start
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import ApprovalRow, Insights, RunRow, StoredEvent
from quarterdeck.store.chain import verified_run

PAGE = 500
"""Runs, or approvals, listed at once."""
ATTEMPTS = 3
"""How often it is begun anew where runs that were read already are removed meanwhile, because they ended long ago."""

APART = ("accounts", "facts", "keys", "audit")
"""What a finding can be about that is no run."""

Step = Callable[[int], None]
"""Is told how many runs were looked at."""


class Wrong(msgspec.Struct, frozen=True):
    """One thing that is not what it was: ``run_id`` is the run that it is about, or ``accounts``, ``facts``, ``keys``, ``audit``."""

    run_id: str
    code: str
    message: str


class Checked(msgspec.Struct, frozen=True):
    """How much was looked at, and what is wrong."""

    runs: int
    events: int
    findings: tuple[Wrong, ...]


@dataclass(slots=True)
class _Read:
    """What was gathered so far."""

    tally: books.Tally = field(default_factory=books.Tally)
    asked: dict[str, vouching.Asked] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    events: int = 0
    found: list[Wrong] = field(default_factory=list)


def check_runs(insights: Insights, run_ids: Sequence[str], step: Step) -> Checked:
    """Verify some journals, and what the rows of these runs and of their approvals say."""
    read = _Read()
    with insights.snapshot():
        for number, run_id in enumerate(run_ids, 1):
            step(number)
            _journal(insights, run_id, read)
        rows = [row for row in _approvals(insights) if row.run_id in read.done]
        said = vouching.answers(_told(insights))
    read.found += [Wrong(run_id, one.code, one.message) for run_id, one in vouching.approvals(rows, read.asked, said)]
    return Checked(len(run_ids), read.events, tuple(read.found))


def check_store(insights: Insights, step: Step) -> Checked:
    """Verify every journal of a store, and every row that journals and the audit log tell of."""
    for _ in range(ATTEMPTS):
        read = _Read()
        for row in _runs(insights):
            if row.status in TERMINAL:
                _journal(insights, row.run_id, read)
                step(len(read.done))
        with insights.snapshot():
            present = set()
            for row in _runs(insights):
                present.add(row.run_id)
                if row.run_id not in read.done:
                    _journal(insights, row.run_id, read)
                    step(len(read.done))
            if read.done <= present:
                _rest(insights, read)
                return Checked(len(read.done), read.events, tuple(read.found))
    raise Unavailable("journal.purging", "runs that ended long ago are being removed all the while; verify again a little later")


def _rest(insights: Insights, read: _Read) -> None:
    """Everything that is not a journal."""
    told = _told(insights)
    for said in told:
        if said.action == "run.purged":
            read.tally.removed(said)
    limited = {said.target: said for said in told if said.action == "account.limited"}
    read.found += [Wrong("accounts", one.code, one.message) for one in books.against(insights.accounts(), read.tally, limited)]
    answered = vouching.answers(told)
    wrong = vouching.approvals(list(_approvals(insights)), read.asked, answered)
    read.found += [Wrong(run_id, one.code, one.message) for run_id, one in wrong]
    read.found += [Wrong("facts", one.code, one.message) for one in vouching.facts(insights.facts(), told)]
    read.found += [Wrong("keys", one.code, one.message) for one in vouching.keys(insights.keys(), told)]


def _journal(insights: Insights, run_id: str, read: _Read) -> None:
    """Verify one journal and take up what it says; one that is not what was appended says nothing."""
    read.done.add(run_id)
    events: list[tuple[ev.Event, bytes | None]] = []

    def take(stored: StoredEvent) -> None:
        if stored.seq == 1:
            events.clear()
        events.append((ev.decode(stored.body), stored.payload if _keeps(stored) else None))

    try:
        row = verified_run(insights, run_id, take)
        state = _folded(events)
    except Corrupt as error:
        read.found.append(Wrong(run_id, error.code, error.message))
        return
    read.events += row.seq
    wrong = _otherwise(row, state)
    if wrong:
        said = f"its row has another {', '.join(wrong)} than its journal"
        read.found.append(Wrong(run_id, "journal.row", said))
    for event, _ in events:
        if isinstance(event, ev.BudgetMoved):
            read.tally.add(event)
    read.asked.update(vouching.asked_by(run_id, events))


def _keeps(stored: StoredEvent) -> bool:
    return b'"approval.requested"' in stored.body[:40]


def _folded(events: Sequence[tuple[ev.Event, bytes | None]]) -> RunState:
    if not events:
        raise Corrupt("journal.empty", "a run without events exists; verify the journal")
    state = start(events[0][0])
    for event, _ in events[1:]:
        fold(state, event)
    return state


def _otherwise(row: RunRow, state: RunState) -> list[str]:
    """In which columns a run's row is not what its journal says."""
    contract = state.contract
    fixed = ("tenant", "route", "agent", "actor", "admitted_at_us", "correlation_id", "thread_id", "parent_run_id", "priority")
    wrong = [name for name in fixed if getattr(row, name) != getattr(contract, name)]
    if (row.status in TERMINAL or state.status in TERMINAL or state.waiting_on) and row.status != state.status:
        wrong.append("status")
    elif row.status in TERMINAL or (state.waiting_on and row.status == state.status):
        wrong += ["reason"] if row.reason != (state.reason or "") else []
        wrong += ["code"] if row.code != state.code else []
        wrong += ["waiting_on"] if row.waiting_on[: len(state.waiting_on)] != state.waiting_on else []
    return wrong


def _runs(insights: Insights) -> Iterator[RunRow]:
    before: str | None = None
    while page := insights.runs(before=before, limit=PAGE):
        yield from page
        before = page[-1].run_id


def _approvals(insights: Insights) -> Iterator[ApprovalRow]:
    after: str | None = None
    while page := insights.approvals(status=None, after=after, limit=PAGE):
        yield from page
        after = page[-1].approval


def _told(insights: Insights) -> list[Audit]:
    """The log as it can be read; what cannot be is found by its chain."""
    found = []
    for row in rows_of(insights):
        try:
            found.append(audit.read(row))
        except Corrupt:
            continue
    return found
