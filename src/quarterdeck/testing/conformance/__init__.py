"""One suite for every store: what a store promises, as checks that anyone can run against theirs.

A store is a :class:`~quarterdeck.ports.store.Journal` and its :class:`~quarterdeck.ports.store.Insights`. To check one,
write a :class:`Stand` that opens an empty store and can replace its owner, and run every check on a stand of its own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    async def test_my_store(check: Check) -> None:
        await check.run(open_my_stand)

A check fails by raising :class:`Broken`, which names the broken promise. Each says which point of the append contract
it is about and which invariants lean on it. That the checks can fail is itself tested:
:mod:`quarterdeck.testing.mutants` plants bugs, and each of them must turn some check red. The checks never sleep and
never look inside a store.

>>> len({check.name for check in CHECKS}) == len(CHECKS) > 45
True
>>> sorted({check.point for check in CHECKS})
[1, 2, 3, 4, 7, 8, 9, 10]
"""

from __future__ import annotations

from quarterdeck.testing.conformance import (
    accounting,
    admitting,
    appending,
    approving,
    auditing,
    claiming,
    erasing,
    inboxes,
    keys,
    lines,
    listing,
    manning,
    posting,
    purging,
    sharing,
)
from quarterdeck.testing.conformance.stand import Broken, Check, OpenStand, Stand

CHECKS: tuple[Check, ...] = tuple(
    value
    for room in (
        appending,
        admitting,
        claiming,
        inboxes,
        approving,
        accounting,
        erasing,
        keys,
        listing,
        manning,
        posting,
        lines,
        sharing,
        purging,
        auditing,
    )
    for value in vars(room).values()
    if isinstance(value, Check)
)
"""Every promise, in reading order."""

__all__ = ["CHECKS", "Broken", "Check", "OpenStand", "Stand"]
