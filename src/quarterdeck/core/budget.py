"""Run budgets and the tree of shared accounts above them.

A run checks its own limits from its folded state. Shared accounts (route, tenant, all) are not touched per step: the run leases a
*slice* of each limited dimension, which the account counts as reserved, and spends from it; what was spent is reported, and the
rest returned, when the run waits or ends. So ``committed + reserved <= limit`` holds on every account at every commit, whatever
runs at once, and the ledger is the fold of all journals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quarterdeck.core.contract import Limits
from quarterdeck.core.events import BudgetMoved, Move, decode
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import Dimension

SHARED = (Dimension.MODEL_CALLS, Dimension.TOOL_CALLS, Dimension.TOKENS, Dimension.COST)
"""The dimensions that shared accounts count."""
SLICE_FRACTION = 64
"""A slice is at most 1/64 of the account's limit, unless the step itself needs more."""
SLICE_STEPS = 32
"""A slice is enough for about so many steps like the one that asks for it, if the run may make them."""


class Account(msgspec.Struct, frozen=True):
    """One shared account as a run sees it: its name, such as ``tenant:acme``, and its limits (``None``: counted, not limited)."""

    name: str
    limits: Limits


def shortfall(state: RunState, need: Mapping[str, int]) -> str | None:
    """The first dimension in which the run's own limits do not cover ``need`` on top of what is spent and reserved."""
    limits = state.contract.limits
    spent, reserved = state.spent, state.reserved
    for dimension, amount in need.items():
        limit = getattr(limits, dimension)
        if limit is not None and spent.get(dimension, 0) + reserved.get(dimension, 0) + amount > limit:
            return dimension
    return None


class Bound(msgspec.Struct, frozen=True):
    """One limited dimension of one shared account above a run."""

    account: str
    dimension: str
    limit: int


def bounds(accounts: Sequence[Account]) -> tuple[Bound, ...]:
    """Every limited dimension of these accounts, in their order; what is not limited is only counted."""
    found = []
    for account in accounts:
        for dimension in SHARED:
            limit = account.limits.limit(dimension)
            if limit is not None:
                found.append(Bound(account.name, dimension.value, limit))
    return tuple(found)


def leases(state: RunState, need: Mapping[str, int], limited: Sequence[Bound], *, exact: bool = False) -> tuple[Move, ...]:
    """The slices that must be leased before ``need`` may be reserved; empty when the slices held cover it.

    A lease asks for a round amount so that the next steps need none, unless ``exact`` (the account was nearly empty the first
    time). Accounts come in the order given, which is the same for every run, so two runs cannot wait for each other.
    """
    moves: list[Move] = []
    for bound in limited:
        dimension = bound.dimension
        amount = need.get(dimension)
        if amount:
            held = state.slices.get((bound.account, dimension), 0)
            missing = state.unreported.get(dimension, 0) + state.reserved.get(dimension, 0) + amount - held
            if missing > 0:
                leased = missing if exact else _rounded(state, dimension, missing, bound.limit)
                moves.append(Move(bound.account, dimension, leased=leased))
    return tuple(moves)


def _rounded(state: RunState, dimension: str, missing: int, limit: int) -> int:
    own: int | None = getattr(state.contract.limits, dimension)
    wanted = max(missing, min(limit // SLICE_FRACTION, missing * SLICE_STEPS))
    if own is None:
        return wanted
    left = own - state.spent.get(dimension, 0) - state.reserved.get(dimension, 0)
    return max(missing, min(wanted, left))


def report(state: RunState, accounts: Sequence[Account]) -> tuple[Move, ...]:
    """The moves that return slices and report all spending since the last report; for a run that waits or ends.

    What open effects have reserved stays leased: they may still be billed, whoever closes them. Slices of accounts that are no longer
    above the run (of a period that has passed) come back whole; so does what was counted against limits over history and not done.
    """
    moves: list[Move] = []
    for account in accounts:
        for dimension in SHARED:
            held = state.slices.get((account.name, dimension), 0)
            free = max(0, held - state.reserved.get(dimension, 0))
            spent = state.unreported.get(dimension, 0)
            if free or spent:
                moves.append(Move(account.name, str(dimension), returned=free, spent=spent))
    if len(state.slices) > len(moves):
        present = {account.name for account in accounts}
        gone = [(place, held) for place, held in state.slices.items() if place[0] not in present]
        moves += [Move(*place, returned=held) for place, held in gone]
    moves += [Move(account, dimension, spent=-amount) for account, dimension, amount in state.uncounted]
    return tuple(moves)


def nearing(state: RunState, need: Mapping[str, int], fraction: float) -> str | None:
    """The first limited dimension of which ``need`` would bring the run beyond ``fraction`` of its limit."""
    limits = state.contract.limits
    for dimension, amount in need.items():
        limit = getattr(limits, dimension)
        if limit is not None and state.spent.get(dimension, 0) + state.reserved.get(dimension, 0) + amount > limit * fraction:
            return dimension
    return None


def spent_by(bodies: Iterable[bytes]) -> dict[tuple[str, str], int]:
    """What the moves among these events report as spent, by account and dimension."""
    found: dict[tuple[str, str], int] = {}
    for body in bodies:
        if body.startswith(_MOVED) and isinstance(event := decode(body), BudgetMoved):
            for move in event.moves:
                place = (move.account, move.dimension)
                found[place] = found.get(place, 0) + move.spent
    return found


_MOVED = b'{"kind":"budget.moved"'
