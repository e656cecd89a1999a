"""The ledger is the fold of all journals: a checker that reads both and lists where they differ.

For each shared account, in each dimension: what is *committed* must be the sum of what runs have reported as spent, and what is
*reserved* the sum of the slices that they leased and did not return. For each run that has ended, what it reported must be what its
receipts came to, and no slice of it may be left. And no account may be above its limit, unless a provider billed more than its
adapter's bound, which the caller then says.

>>> from quarterdeck.testing.memory import MemoryStore
>>> differences(MemoryStore())
[]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from quarterdeck.app.books import Tally, against
from quarterdeck.core import events as ev
from quarterdeck.core.budget import SHARED
from quarterdeck.core.fold import fold_all
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import Insights, RunRow

PAGE = 500
"""Rows that are read at once."""


def all_runs(insights: Insights) -> Iterator[RunRow]:
    """Every run of a store, newest first."""
    before: str | None = None
    while page := insights.runs(before=before, limit=PAGE):
        yield from page
        before = page[-1].run_id


def journal(insights: Insights, run_id: str) -> list[ev.Event]:
    """Every event of a run; raises :class:`~quarterdeck.core.errors.Corrupt` for one that cannot be read."""
    found: list[ev.Event] = []
    while page := insights.events(run_id, len(found), PAGE):
        found += [ev.decode(item.body) for item in page]
    return found


def differences(insights: Insights, *, overdraft: bool = False) -> list[str]:
    """Every difference between accounts and journals, as sentences; empty if the ledger is their fold.

    Read it while nobody appends. With ``overdraft`` an account may be above its limit.
    """
    total = Tally()
    found: list[str] = []
    for row in all_runs(insights):
        own = Tally()
        events = journal(insights, row.run_id)
        for event in events:
            if isinstance(event, ev.BudgetMoved):
                own.add(event)
                total.add(event)
        if row.status in TERMINAL:
            found += _of_ended(row, own, fold_all(events).spent, _of_children(events))
    return found + _of_accounts(insights, total, overdraft=overdraft)


def _of_children(events: list[ev.Event]) -> Counter[str]:
    """What counts as a run's own consumption because runs that it asked for consumed it, or may still; they report it themselves."""
    found: Counter[str] = Counter()
    open_shares: dict[str, dict[str, int]] = {}
    for event in events:
        if isinstance(event, ev.ChildOpened):
            open_shares[event.call] = event.share
        elif isinstance(event, ev.ChildEnded):
            open_shares.pop(event.call, None)
            found.update(event.spent)
    for share in open_shares.values():
        found.update(share)
    return found


def _of_ended(row: RunRow, own: Tally, spent: dict[str, int], by_children: Counter[str]) -> list[str]:
    found = [f"{row.run_id} has ended and holds {left} {place[1]} of {place[0]}" for place, left in own.held.items() if left]
    for account in (f"route:{row.route}", f"tenant:{row.tenant}", "all"):
        for dimension in SHARED:
            reported = own.spent[account, dimension.value]
            receipts = spent.get(dimension.value, 0) - by_children[dimension.value]
            if reported != receipts:
                found.append(f"{row.run_id} reported {reported} {dimension} to {account}, its receipts come to {receipts}")
    return found


def _of_accounts(insights: Insights, total: Tally, *, overdraft: bool) -> list[str]:
    rows = insights.accounts()
    found = [finding.message for finding in against(rows, total, {})]
    for row in rows:
        if row.limit is not None and row.committed + row.reserved > row.limit and not overdraft:
            found.append(f"{row.account} is above its limit of {row.limit} {row.dimension}: {row.committed} + {row.reserved}")
    return found
