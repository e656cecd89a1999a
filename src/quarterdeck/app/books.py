"""The books of a store: what all journals say of its shared accounts, and what its rows say.

An account is never the truth: it is the fold of the journals. What is *committed* must be the sum of what runs have reported as spent, and
what is *reserved* the sum of the slices that they leased and did not return. What runs had reported that were removed since, because they
ended long ago, stands in the audit log (``run.purged``), so the sum stays exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from quarterdeck.app.auditing import Finding
from quarterdeck.core import events as ev
from quarterdeck.core.audit import Audit, Removed
from quarterdeck.core.budget import SHARED
from quarterdeck.ports.store import AccountRow

Place = tuple[str, str]
"""An account and a dimension of it."""


class Tally:
    """What one or many journals say about the accounts: spent and held, by (account, dimension)."""

    def __init__(self) -> None:
        self.spent: Counter[Place] = Counter()
        self.held: Counter[Place] = Counter()

    def add(self, event: ev.BudgetMoved) -> None:
        """Count the moves of one event."""
        for move in event.moves:
            self.spent[move.account, move.dimension] += move.spent
            self.held[move.account, move.dimension] += move.leased - move.returned

    def removed(self, told: Audit) -> None:
        """Count what runs had spent that a removal has taken away."""
        for account, dimension, amount in msgspec.json.decode(told.detail, type=Removed).spent:
            self.spent[account, dimension] += amount


def against(rows: Iterable[AccountRow], total: Tally, limited: Mapping[str, Audit]) -> list[Finding]:
    """Where accounts are not what the journals say: ``ledger.account``, ``ledger.lost``.

    ``limited`` is who last set the limits of an account, by its name; where they are others now: ``ledger.limit``.
    """
    found: list[Finding] = []
    seen: set[Place] = set()
    for row in rows:
        place = (row.account, row.dimension)
        seen.add(place)
        if (row.committed, row.reserved) != (total.spent[place], total.held[place]):
            said = f"{row.account} has {row.committed} committed and {row.reserved} reserved {row.dimension}, "
            found.append(Finding("ledger.account", f"{said}the journals say {total.spent[place]} and {total.held[place]}"))
        told = limited.get(row.account)
        if told is not None and row.dimension in _SHARED:
            wanted = msgspec.json.decode(told.detail, type=dict[str, int | None]).get(row.dimension)
            if wanted != row.limit:
                said = f"{row.account} is limited to {row.limit} {row.dimension}, {told.by} had set {wanted}"
                found.append(Finding("ledger.limit", said))
    for place in sorted((set(total.spent) | set(total.held)) - seen):
        if total.spent[place] or total.held[place]:
            found.append(Finding("ledger.lost", f"the journals moved {place[1]} of {place[0]}, which the store does not know"))
    return found


_SHARED = frozenset(str(dimension) for dimension in SHARED)
