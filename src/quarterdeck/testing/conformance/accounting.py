"""Shared accounts: never beyond their limits, all or nothing, and honest about overdrafts."""

from __future__ import annotations

from quarterdeck.core.commit import Applied, Charge, Commit, SetAccount
from quarterdeck.core.contract import Limits
from quarterdeck.core.events import Move
from quarterdeck.ports.store import AccountRow
from quarterdeck.testing.conformance.stand import (
    Hold,
    Stand,
    admit,
    check,
    claim,
    demand,
    done,
    held,
    refusal,
    refused,
    submit,
)
from quarterdeck.testing.samples import T0_US

ACCOUNT = "tenant:acme"


def _lease(amount: int, limit: int | None = 100, account: str = ACCOUNT) -> Charge:
    return Charge(Move(account, "tokens", leased=amount), limit)


def _back(returned: int, spent: int, account: str = ACCOUNT) -> Charge:
    return Charge(Move(account, "tokens", returned=returned, spent=spent))


def _account(stand: Stand, account: str = ACCOUNT) -> AccountRow | None:
    found = [row for row in stand.insights.accounts() if (row.account, row.dimension) == (account, "tokens")]
    return found[0] if found else None


@check(8, "I3")
async def an_account_is_never_leased_beyond_its_limit(stand: Stand) -> None:
    """Of fifty leases at once, exactly as many are granted as fit; the others are refused by `account`."""
    for number in range(50):
        await admit(stand, f"n{number}")
    holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=50)]
    outcomes = await submit(stand, *[hold.commit(charges=(_lease(15),)) for hold in holds])
    granted = [outcome for outcome in outcomes if isinstance(outcome, Applied)]
    demand(len(granted) == 6, f"6 x 15 fit into 100, {len(granted)} were granted")
    for outcome in outcomes:
        if not isinstance(outcome, Applied):
            refusal(outcome, "account")
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 100, 0, 90), "the ledger says 90 are reserved")


@check(8, "I3")
async def a_limit_can_be_reached_exactly(stand: Stand) -> None:
    """The last unit can be leased, the next cannot; what comes back can be leased again, what was spent cannot."""
    hold = await held(stand)
    await hold.append(hold.commit(charges=(_lease(100),)))
    await refused(stand, hold.commit(charges=(_lease(1),)), "account")
    await hold.append(hold.commit(charges=(_back(40, 60),)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 100, 60, 60), "returned and spent are booked apart")
    await refused(stand, hold.commit(charges=(_lease(1),)), "account")
    await hold.append(hold.commit(charges=(_back(60, 0),)))
    await refused(stand, hold.commit(charges=(_lease(41),)), "account")
    await hold.append(hold.commit(charges=(_lease(40),)))


@check(8, "I3")
async def spending_is_recorded_even_beyond_the_limit(stand: Stand) -> None:
    """What a provider billed beyond its bound is recorded as an overdraft, and stops every further lease."""
    hold = await held(stand)
    await hold.append(hold.commit(charges=(_lease(90),)))
    await hold.append(hold.commit(charges=(_back(90, 130),)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 100, 130, 0), "the overdraft is shown")
    await refused(stand, hold.commit(charges=(_lease(1),)), "account")


@check(8, "I3")
async def one_move_is_judged_by_what_it_leaves(stand: Stand) -> None:
    """A move that leases, returns and spends at once fits if what it leaves fits."""
    hold = await held(stand)
    await hold.append(hold.commit(charges=(_lease(90),)))
    both = Charge(Move(ACCOUNT, "tokens", leased=50, returned=90, spent=60))
    await refused(stand, hold.commit(charges=(both,)), "account")
    both = Charge(Move(ACCOUNT, "tokens", leased=50, returned=90, spent=50))
    await hold.append(hold.commit(charges=(both,)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 100, 50, 50), "and is booked whole")


@check(8, "I3")
async def accounts_are_charged_all_or_none(stand: Stand) -> None:
    """A commit that charges several accounts charges each or none, in whatever order the refusing one stands."""
    hold = await held(stand)
    fits, full = _lease(10, None, "all"), _lease(11, 10, "route:support")
    for charges in ((fits, full), (full, fits)):
        outcome = await refused(stand, hold.commit(charges=charges), "account")
        demand(outcome.detail == "route:support|tokens", "the refusal names the account")
        demand(not stand.insights.accounts(), "no account was touched, none was opened")
    await refused(stand, hold.commit(charges=(_lease(60), _lease(60))), "account")
    await hold.append(hold.commit(charges=(fits, _lease(10, 10, "route:support"))))


@check(8, "I3")
async def a_limit_is_set_once_and_changed_by_name(stand: Stand) -> None:
    """The first charge sets an account's limit; later only setting the account changes it, and keeps what is booked."""
    hold = await held(stand)
    await hold.append(hold.commit(charges=(_lease(50, 60),)))
    await refused(stand, hold.commit(charges=(_lease(20, 1_000),)), "account")
    await done(stand, SetAccount(ACCOUNT, Limits(tokens=70, cost_microusd=5)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 70, 0, 50), "what is reserved stays")
    await hold.append(hold.commit(charges=(_lease(20, 1),)))
    await done(stand, SetAccount(ACCOUNT, Limits(tokens=10)))
    await refused(stand, hold.commit(charges=(_lease(1),)), "account")
    await hold.append(hold.commit(charges=(_back(70, 5),)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 10, 5, 0), "and can come back under a lower limit")
    limits = {row.dimension: row.limit for row in stand.insights.accounts()}
    demand(limits == {"tokens": 10, "cost_microusd": None, "model_calls": None, "tool_calls": None}, "in every one")
    await done(stand, SetAccount(ACCOUNT, Limits()))
    await hold.append(hold.commit(charges=(_lease(10**12),)))


@check(8, "I3")
async def the_ledger_is_the_sum_of_all_moves(stand: Stand) -> None:
    """After many charges at once, granted and refused, every account is the sum of what was granted."""
    for number in range(12):
        await admit(stand, f"n{number}")
    holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=12, now_us=T0_US)]
    reserved = committed = 0
    for turn in range(6):
        commits: list[Commit] = []
        for place, hold in enumerate(holds):
            amount = (place * 7 + turn * 3) % 11 + 1
            commits.append(hold.commit(charges=(_lease(amount, 150), _back(amount // 3, amount // 2))))
        outcomes = await submit(stand, *commits)
        for hold, commit, outcome in zip(holds, commits, outcomes, strict=True):
            if isinstance(outcome, Applied):
                hold.seq = outcome.number
                reserved += sum(charge.move.leased - charge.move.returned for charge in commit.charges)
                committed += sum(charge.move.spent for charge in commit.charges)
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 150, committed, reserved), "ledger and moves agree")
    demand(any(hold.seq < 7 for hold in holds), "some charges were refused")


@check(8, "I3")
async def what_is_reserved_and_spent_at_once_is_compared(stand: Stand) -> None:
    """Of sixty-four that take one of three in one move, three are granted; one that was given back can be taken again."""
    for number in range(64):
        await admit(stand, f"n{number}")
    holds = [Hold(stand, run.run_id, run.seq, run.epoch) for run in await claim(stand, limit=64)]
    once = Charge(Move(ACCOUNT, "tokens", leased=1, returned=1, spent=1), 3)
    outcomes = await submit(stand, *[hold.commit(charges=(once,)) for hold in holds])
    demand(sum(isinstance(outcome, Applied) for outcome in outcomes) == 3, "three fit, and no more")
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 3, 3, 0), "they are spent, and nothing stays reserved")
    place = next(place for place, outcome in enumerate(outcomes) if not isinstance(outcome, Applied))
    await refused(stand, holds[place].commit(charges=(once,)), "account")
    back = Charge(Move(ACCOUNT, "tokens", spent=-1))
    await holds[place].append(holds[place].commit(charges=(back,)))
    await holds[place].append(holds[place].commit(charges=(once,)))
    demand(_account(stand) == AccountRow(ACCOUNT, "tokens", 3, 3, 0), "what was given back is there again")
