"""The last look at a simulation, when every fault has stopped and every run had its time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.fold import fold_all
from quarterdeck.core.vocabulary import TERMINAL, EffectClass, ReceiptStatus
from quarterdeck.store.chain import verify
from quarterdeck.testing.oracle import Oracle
from quarterdeck.testing.watched import Watched
from quarterdeck.testing.world import World


def judge_end(oracle: Oracle, world: World, acknowledged: Mapping[str, str]) -> None:
    """Everything that must be true at the end; ``acknowledged`` are the runs that clients were promised, by label."""
    for label, run_id in acknowledged.items():
        oracle.check(run_id in oracle.runs, "I1", f"{label} was acknowledged as {run_id}, which does not exist")
    broken = bool(oracle.violations)  # then it was stopped at once, and nothing had its time
    for watched in oracle.runs.values():
        status = watched.state.status
        oracle.check(broken or status in TERMINAL, "liveness", f"{watched.run_id} is still {status}: {_why(watched)}")
        _folds_alike(oracle, watched)
        _receipts_are_true(oracle, world, watched)
        _bills_are_covered(oracle, world, watched)
    _accounts_add_up(oracle)


def _why(watched: Watched) -> str:
    state = watched.state
    return f"{state.reason} {state.code} on {state.waiting_on}, open {sorted(watched.open)}, held by {watched.holder}"


def _folds_alike(oracle: Oracle, watched: Watched) -> None:
    run = oracle.tables.runs[watched.run_id]
    try:
        verify(run.events, run.salt, seq=run.seq, head=run.head)
        first, second = [fold_all([ev.decode(item.body) for item in run.events]) for _ in range(2)]
    except Corrupt as error:
        oracle.violated("I7", f"{watched.run_id} cannot be read back: {error}")
        return
    oracle.check(first == second == watched.state, "I14", f"{watched.run_id} folds to different states")
    again = [ev.encode(ev.decode(item.body)) for item in run.events]
    oracle.check(again == [item.body for item in run.events], "I14", f"{watched.run_id} is not what it decodes to")


def _receipts_are_true(oracle: Oracle, world: World, watched: Watched) -> None:
    """What the journal says of an effect is what the provider's ledger says."""
    for call, status in watched.ended.items():
        opened = watched.effects.get(call)
        if opened is None or opened.effect is EffectClass.READ or opened.name.startswith("publish."):
            continue  # reads leave nothing; messages have a judge of their own
        done = world.ledger[opened.key].effects if opened.key in world.ledger else []
        what = f"{watched.run_id}: {opened.name} for {call}"
        if status is ReceiptStatus.SUCCEEDED:
            oracle.check(bool(done), "I2", f"{what} is said to have succeeded, and was not done")
        elif status is ReceiptStatus.FAILED:
            oracle.check(not done, "I2", f"{what} is said to have failed, and was done")
    for key, account in world.ledger.items():
        if account.effects and key.startswith(watched.run_id + ":"):
            call = key.rpartition(":")[2]
            oracle.check(call in watched.ended, "I19", f"{key} was done, and the journal has no receipt for it")


def _bills_are_covered(oracle: Oracle, world: World, watched: Watched) -> None:
    """No model call costs more than was set aside for it and settled."""
    for item in oracle.tables.runs[watched.run_id].events:
        event = ev.decode(item.body)
        if isinstance(event, ev.ModelClosed):
            billed = world.billed.get(f"{watched.run_id}:{event.call}", 0)
            settled = event.input_tokens + event.output_tokens
            oracle.check(
                billed <= settled, "I3", f"{watched.run_id}: {event.call} was billed {billed} tokens, {settled} are settled"
            )


def _accounts_add_up(oracle: Oracle) -> None:
    """Nothing is reserved any more, and every account is the sum of what the journals say."""
    for name, row in oracle.tables.accounts.items():
        known = oracle.accounts.get(name, (0, 0))
        oracle.check((row.committed, row.reserved) == known, "I3", f"{name} holds {row}, the journals say {known}")
        if oracle.finished:
            oracle.check(row.reserved == 0, "I3", f"{name} has {row.reserved} reserved, and nobody runs")
    if not oracle.finished:
        return
    spent: dict[tuple[str, str], int] = {}
    for watched in oracle.runs.values():
        contract = watched.state.contract
        for account in (f"route:{contract.route}", f"tenant:{contract.tenant}", "all"):
            for dimension in ("model_calls", "tool_calls", "tokens", "cost_microusd"):
                below = watched.venture.delegated.get(dimension, 0) if watched.venture is not None else 0
                amount = watched.state.spent.get(dimension, 0) - below
                if amount:
                    spent[account, dimension] = spent.get((account, dimension), 0) + amount
    committed = {name: row.committed for name, row in oracle.tables.accounts.items() if row.committed}
    oracle.check(committed == spent, "I3", f"accounts say {committed}, runs spent {spent}")


class Report(msgspec.Struct, frozen=True):
    """What became of one simulation. ``replay`` is the command that repeats it."""

    seed: int
    violations: tuple[str, ...]
    trace_hash: str
    reached: dict[str, int]
    virtual_s: float
    runs: int
    commits: int
    effects: int
    statuses: dict[str, int]
    replay: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations
