"""Budgets: no run beyond its own limits, no account beyond its limit, and the ledger is the fold of all journals."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.core import events as ev
from quarterdeck.core.budget import (
    SHARED,
    SLICE_FRACTION,
    SLICE_STEPS,
    Account,
    Bound,
    bounds,
    leases,
    nearing,
    report,
    shortfall,
)
from quarterdeck.core.commit import Applied, Charge, Claim, Claimed, Commit, Record, Refused, SetAccount, record
from quarterdeck.core.contract import Limits
from quarterdeck.core.fold import fold, fold_all, start
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import Dimension, EffectClass, ProposalKind, ReceiptStatus, Ruling
from quarterdeck.testing.samples import T0_US, admission, contract
from quarterdeck.testing.tables import Tables

NEEDS = st.fixed_dictionaries({"tokens": st.integers(1, 40), "cost_microusd": st.integers(0, 40)})
ACCOUNTS = (
    Account("all", Limits(tokens=400, cost_microusd=300)),
    Account("tenant:acme", Limits(tokens=150)),
    Account("route:support", Limits()),
)


def state_of(limits: Limits | None = None) -> RunState:
    return start(ev.RunAdmitted(T0_US, contract(limits=limits or Limits())))


def reserve(state: RunState, call: str, need: dict[str, int]) -> list[ev.Event]:
    return [
        ev.GateDecided(T0_US, call, ProposalKind.TOOL, "refund", "d", Ruling.ALLOW, reserve=need),
        ev.ToolOpened(T0_US, call, "refund", EffectClass.WRITE, "d", "k", T0_US),
    ]


def settle(call: str, tokens: int, cost: int) -> list[ev.Event]:
    """A receipt that bills tokens has to be a model's."""
    return [ev.ModelClosed(T0_US, call, ReceiptStatus.FAILED, "x", input_tokens=tokens, cost_microusd=cost)]


@dataclass
class Owner:
    """One run against real rows: it leases before it reserves, settles within its reservation, and reports."""

    tables: Tables
    run_id: str
    epoch: int
    state: RunState
    seq: int = 1
    open: dict[str, dict[str, int]] = field(default_factory=dict)
    steps: int = 0

    def append(self, moves: tuple[ev.Move, ...], events: list[ev.Event], *, is_report: bool = False) -> bool:
        moved: list[ev.Event] = [ev.BudgetMoved(T0_US, moves, report=is_report)] if moves else []
        limits = {account.name: account.limits for account in ACCOUNTS}
        charges = [Charge(move, getattr(limits[move.account], move.dimension)) for move in moves]
        records: tuple[Record, ...] = tuple(record(event) for event in moved + events)
        if not records:
            return True
        commit = Commit(self.run_id, self.seq, self.epoch, 1, records, T0_US, charges=tuple(charges))
        outcome = self.tables.apply([commit])[0]
        if isinstance(outcome, Refused):
            assert outcome.guard == "account"
            return False
        assert outcome == Applied(self.seq + len(records))
        self.seq += len(records)
        for event in moved + events:
            fold(self.state, event)
        return True

    def reserve(self, need: dict[str, int]) -> bool:
        call = f"m{self.steps}"
        self.steps += 1
        events: list[ev.Event] = [
            ev.GateDecided(T0_US, call, ProposalKind.MODEL, "model-1", "d", Ruling.ALLOW, reserve=need),
            ev.ModelOpened(T0_US, call, "model-1", "k", T0_US, 10),
        ]
        for exact in (False, True):
            moves = leases(self.state, need, bounds(ACCOUNTS), exact=exact)
            if self.append(moves, events):
                self.open[call] = need
                return True
        return False

    def settle(self, part: float) -> None:
        call, need = self.open.popitem()
        used = {dimension: int(amount * part) for dimension, amount in need.items()}
        assert self.append((), settle(call, used["tokens"], used["cost_microusd"]))

    def report(self) -> None:
        assert self.append(report(self.state, ACCOUNTS), [], is_report=True)


def check_ledger(tables: Tables) -> None:
    """I3: every account equals the fold of all journals, and is within its limit."""
    reserved: dict[tuple[str, str], int] = {}
    committed: dict[tuple[str, str], int] = {}
    for run in tables.runs.values():
        journal = [ev.decode(event.body) for event in run.events]
        for name, held in fold_all(journal).slices.items():
            reserved[name] = reserved.get(name, 0) + held
        for move in [move for event in journal if isinstance(event, ev.BudgetMoved) for move in event.moves]:
            name = (move.account, move.dimension)
            committed[name] = committed.get(name, 0) + move.spent
    for name, row in tables.accounts.items():
        assert row.reserved == reserved.get(name, 0)
        assert row.committed == committed.get(name, 0)
        assert row.limit is None or row.committed + row.reserved <= row.limit
    assert set(reserved) <= set(tables.accounts)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("rrrss!"), NEEDS, st.floats(0, 1)), max_size=40))
@settings(max_examples=60)
def test_the_ledger_is_the_fold_of_all_journals(script: list[tuple[int, str, dict[str, int], float]]) -> None:
    tables = Tables()
    tables.apply([admission(f"r{number}") for number in range(4)])
    claimed = tables.apply([Claim("w1", 4, T0_US)])[0]
    assert isinstance(claimed, Claimed)
    owners = [Owner(tables, run.run_id, run.epoch, state_of()) for run in claimed.runs]
    for place, move, need, part in script:
        owner = owners[place]
        if move == "r" and not owner.open:
            owner.reserve(need)
        elif move == "s" and owner.open:
            owner.settle(part)
        elif move == "!" and not owner.open:
            owner.report()
        check_ledger(tables)
    for owner in owners:
        if owner.open:
            owner.settle(1.0)
        owner.report()
        assert not owner.state.slices
        assert not owner.state.unreported
    check_ledger(tables)
    for (account, dimension), row in tables.accounts.items():
        assert row.reserved == 0, account
        assert row.committed == sum(owner.state.spent.get(dimension, 0) for owner in owners)


@given(st.lists(NEEDS, max_size=12), st.integers(0, 200))
def test_what_is_leased_covers_what_is_reserved(needs: list[dict[str, int]], limit: int) -> None:
    """After leasing, the slice held covers everything reserved and unreported in each limited dimension."""
    state = state_of()
    limited = bounds([Account("a", Limits(tokens=limit))])
    for number, need in enumerate(needs):
        moves = leases(state, need, limited)
        fold(state, ev.BudgetMoved(T0_US, moves))
        for event in reserve(state, f"t{number}", need):
            fold(state, event)
        assert state.slices.get(("a", "tokens"), 0) >= state.reserved["tokens"] + state.unreported.get("tokens", 0)
        assert not leases(state, {"cost_microusd": 10**9}, limited), "what is not limited needs no lease"


@given(NEEDS, st.integers(64, 10_000))
def test_an_exact_lease_asks_for_no_more_than_is_missing(need: dict[str, int], limit: int) -> None:
    limited = bounds([Account("a", Limits(tokens=limit))])
    (exact,) = leases(state_of(), need, limited, exact=True)
    (rounded,) = leases(state_of(), need, limited)
    assert exact.leased == need["tokens"]
    assert rounded.leased == max(need["tokens"], min(limit // SLICE_FRACTION, need["tokens"] * SLICE_STEPS))
    (bounded,) = leases(state_of(Limits(tokens=need["tokens"])), need, limited)
    assert bounded.leased == need["tokens"], "a run never leases more than it may spend itself"


def test_bounds_are_every_limited_dimension_in_order() -> None:
    assert bounds(ACCOUNTS) == (
        Bound("all", "tokens", 400),
        Bound("all", "cost_microusd", 300),
        Bound("tenant:acme", "tokens", 150),
    )
    assert bounds([Account("a", Limits(turns=5, retries=5, delegations=5))]) == ()
    assert set(SHARED) < set(Dimension)


def test_a_report_names_every_account_that_counts_something() -> None:
    state = state_of()
    for event in [*reserve(state, "m0", {"tokens": 9}), *settle("m0", 9, 0)]:
        fold(state, event)
    assert {move.account for move in report(state, ACCOUNTS)} == {"all", "tenant:acme", "route:support"}
    fold(state, ev.BudgetMoved(T0_US, report(state, ACCOUNTS), report=True))
    assert report(state, ACCOUNTS) == ()


LIMITS = st.builds(Limits, tokens=st.none() | st.integers(0, 100), cost_microusd=st.none() | st.integers(0, 100))


@given(LIMITS, NEEDS, NEEDS)
def test_a_shortfall_is_exactly_what_does_not_fit(limits: Limits, held: dict[str, int], need: dict[str, int]) -> None:
    state = state_of(limits)
    for event in reserve(state, "t0", held):
        fold(state, event)
    lacking = [
        dimension
        for dimension, amount in need.items()
        if (limit := getattr(limits, dimension)) is not None and held[dimension] + amount > limit
    ]
    assert shortfall(state, need) == (lacking[0] if lacking else None)


@pytest.mark.parametrize("limit", [0, 1, 40])
def test_a_limit_can_be_met_exactly(limit: int) -> None:
    state = state_of(Limits(tokens=limit))
    assert shortfall(state, {"tokens": limit}) is None
    assert shortfall(state, {"tokens": limit + 1}) == "tokens"


@given(LIMITS, NEEDS, st.floats(0, 1))
def test_nearing_comes_before_a_shortfall(limits: Limits, need: dict[str, int], fraction: float) -> None:
    state = state_of(limits)
    if shortfall(state, need) is not None:
        assert nearing(state, need, fraction) is not None
    near = nearing(state, need, fraction)
    if near is not None:
        assert need[near] > getattr(limits, near) * fraction


def test_setting_an_account_covers_every_shared_dimension() -> None:
    tables = Tables()
    tables.apply([SetAccount("all", Limits(tokens=5))])
    assert {dimension for _, dimension in tables.accounts} == {dimension.value for dimension in SHARED}
