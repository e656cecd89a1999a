"""What must be true when everything has come to rest: the store compared with the providers' own ledger of what was done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from proof.victim import CAREFUL, CLERK, Act, Files
from quarterdeck.core import events as ev
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.fold import fold_all
from quarterdeck.core.vocabulary import TERMINAL, EffectClass, ReceiptStatus
from quarterdeck.ports.store import Insights, RunRow
from quarterdeck.store.chain import verify_run
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing import ledger


@dataclass(slots=True)
class Autopsy:
    """What was found after one trial. ``doubtful`` are effects that were unknown until somebody looked; they are no failures."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    runs: int = 0
    effects: int = 0
    accounts: int = 0

    @property
    def findings(self) -> list[str]:
        """Everything that must not be."""
        return [f"lost: {one}" for one in self.lost] + [f"doubled: {one}" for one in self.doubled] + self.wrong


@dataclass(slots=True)
class _Effect:
    """One effect as the journal tells it: opened in which epoch, closed in which, and how."""

    opened: ev.ToolOpened
    epoch: int
    closed_epoch: int = 0
    first: ReceiptStatus | None = None
    last: ReceiptStatus | None = None


def examine(files: Files) -> Autopsy:
    """Look at everything that one trial has left behind."""
    found = Autopsy()
    insights = SqliteInsights(files.store)
    try:
        asked, done = files.acts(files.asked), files.acts(files.done)
        accepted = files.accepted.read_text().split() if files.accepted.exists() else []
        rows = list(ledger.all_runs(insights))
        known = {row.run_id for row in rows}
        found.lost += [f"{run_id} was accepted and does not exist" for run_id in accepted if run_id not in known]
        found.wrong += [f"{act.run} acted and does not exist" for act in done if act.run not in known]
        for row in rows:
            _run(found, insights, row, asked, done)
        found.wrong += ledger.differences(insights)
        found.wrong += [f"{row.account} has {row.reserved} reserved at rest" for row in insights.accounts() if row.reserved]
        found.accounts = len(insights.accounts())
        found.runs, found.effects = len(rows), len(done)
    finally:
        insights.close()
    return found


def _run(found: Autopsy, insights: Insights, row: RunRow, asked: list[Act], done: list[Act]) -> None:
    if row.status not in TERMINAL:
        found.lost.append(f"{row.run_id} has not ended: {row.status} {row.code} {row.waiting_on}")
        return
    try:
        verify_run(insights, row.run_id)
        events = ledger.journal(insights, row.run_id)
        state = fold_all(events)
    except QuarterdeckError as error:
        found.wrong.append(f"{row.run_id}: {error}")
        return
    if state.open:
        found.wrong.append(f"{row.run_id} ended with open effects {sorted(state.open)}")
    if row.status != "succeeded" or row.code not in ("completed", "completed.with_failed_effects"):
        found.wrong.append(f"{row.run_id} ended as {row.status} {row.reason} {row.code}")
    effects = _effects(events)
    planned = sum(len(turn) for turn in (CLERK if row.route == "clerk" else CAREFUL) if isinstance(turn, list))
    if len(effects) != planned:
        found.lost.append(f"{row.run_id} has {len(effects)} tool calls, its script {planned}")
    finished = events[-1]
    counts = Counter(str(effect.last) for effect in effects.values())
    if not isinstance(finished, ev.RunFinished) or {name: n for name, n in finished.effects.items() if n} != dict(counts):
        found.wrong.append(f"{row.run_id} ends with {finished}, its receipts come to {dict(counts)}")
    for call, effect in effects.items():
        mine = [act for act in done if (act.run, act.call) == (row.run_id, call)]
        attempts = [act for act in asked if (act.run, act.call) == (row.run_id, call)]
        _effect(found, f"{row.run_id} {call} {effect.opened.tool}", effect, attempts, mine)
    strays = [act for act in done if act.run == row.run_id and act.call not in effects]
    found.wrong += [f"{row.run_id}: {act.tool} acted for {act.call}, which was never opened" for act in strays]


def _effects(events: list[ev.Event]) -> dict[str, _Effect]:
    effects: dict[str, _Effect] = {}
    epoch = 0
    for event in events:
        if isinstance(event, ev.RunStarted):
            epoch = event.epoch
        elif isinstance(event, ev.ToolOpened):
            effects[event.call] = _Effect(event, epoch)
        elif isinstance(event, ev.ToolClosed):
            effects[event.call].first = effects[event.call].last = event.status
            effects[event.call].closed_epoch = epoch
        elif isinstance(event, ev.EffectResolved):
            effects[event.call].last = event.status
    return effects


def _effect(found: Autopsy, name: str, effect: _Effect, attempts: list[Act], done: list[Act]) -> None:
    opened = effect.opened
    if effect.last is None:
        found.wrong.append(f"{name} was opened and never closed")
        return
    if len({act.key for act in (*attempts, *done)} | {opened.key}) > 1:
        found.wrong.append(f"{name} was performed under several keys")
    if opened.effect is EffectClass.READ:
        return
    if len(done) > 1:
        found.doubled.append(f"{name} was done {len(done)} times")
    if effect.last is ReceiptStatus.SUCCEEDED and not done:
        found.lost.append(f"{name} counts as done and was not")
    if effect.last is ReceiptStatus.FAILED and done:
        found.lost.append(f"{name} was done and counts as failed")
    recoverable = opened.idempotent or opened.reconcilable
    crashed = effect.closed_epoch != effect.epoch
    if not recoverable:
        if len(attempts) > 1:
            found.doubled.append(f"{name} was tried {len(attempts)} times, blindly")
        if crashed != (effect.first is ReceiptStatus.UNKNOWN):
            found.wrong.append(f"{name} is {effect.first}, its owner {'died' if crashed else 'lived'} in between")
    elif effect.first is ReceiptStatus.UNKNOWN:
        found.wrong.append(f"{name} became unknown, and could have been found out")
    if effect.first is ReceiptStatus.UNKNOWN:
        found.doubtful.append(f"{name}: {'had been done' if done else 'had not been done'}")
