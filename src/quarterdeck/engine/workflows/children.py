"""Child runs: delegation through the gate, a share of the budget, and the way back of the result.

A child is a run of its own. Its parent opens it in its own journal first, under an id that follows from the parent's; admitting it is
then harmless to repeat, whoever does it. The parent waits as rows; the commit of the child's end puts a row into the parent's inbox. As a
safety net, for a child that an earlier version has ended, the parent looks by itself after a long while.
"""

from __future__ import annotations

import hashlib
import logging

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import Ask, Consume, Deliver, Refused
from quarterdeck.core.contract import Limits
from quarterdeck.core.errors import Corrupt, QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.judge import Decision
from quarterdeck.core.loop import Wait
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import TERMINAL, Dimension, Ruling, Status, StopReason
from quarterdeck.engine.acting import request_approval
from quarterdeck.engine.asking import decided
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.sequencer import CancelOrder, Happening
from quarterdeck.engine.services import Child
from quarterdeck.engine.workflows.strands import Step
from quarterdeck.gate.proposals import propose_delegation

LOOK_AFTER_S = 3_600.0
"""After how long a parent looks by itself whether its children have ended; the commits of their ends wake it."""
MAX_SHOWN = 100
"""The most things that a waiting run names."""
RESENDS = 5
"""How often an order to a child is given to the store before the runtime gives up."""
SHARED_OUT = (Dimension.MODEL_CALLS, Dimension.TOOL_CALLS, Dimension.TOKENS, Dimension.COST)
"""The dimensions in which a child gets a share of what its parent may consume."""

_encoder = msgspec.json.Encoder(order="deterministic")
_log = logging.getLogger(__name__)


def child_id(run_id: str, call: str, at_us: int) -> str:
    """The id of the child of one call; like every run's, it sorts by time."""
    return f"run_{at_us:014x}{hashlib.sha256(f'{run_id}/{call}'.encode()).hexdigest()[:12]}"


def share_of(state: RunState, wanted: Limits) -> tuple[dict[str, int], str | None]:
    """What is set aside for a child, in each dimension that is limited here; and the first of them in which nothing is left."""
    share: dict[str, int] = {}
    for dimension in SHARED_OUT:
        limit = state.contract.limits.limit(dimension)
        if limit is not None:
            left = limit - state.spent.get(dimension, 0) - state.reserved.get(dimension, 0)
            own = wanted.limit(dimension)
            share[dimension.value] = left if own is None else min(own, left)
            if left <= 0:
                return {}, dimension.value
    return share, None


async def delegate(held: Held, call: str, step: Step) -> None:
    """Take one delegation through the gate and open the child; what is denied, or asks a person, is noted instead."""
    raw = held.transcript.raw(call)
    wanted: Limits = step.options["limits"]
    while True:
        share, lacking = share_of(held.state, wanted)
        proposal = propose_delegation(held.state.contract, call, step.name, raw, share)
        judged_by = held.services.gate.versions
        decision = held.services.gate.judge(proposal, held.state, held.standing).decision
        child = Child(
            child_id(held.run_id, call, held.services.clock.now_us()),
            step.name,
            proposal.arguments,
            _limits(wanted, share),
            held.state.labels,
            step.options.get("ordering_key"),
        )
        code = _hindrance(held, child, lacking) if decision.ruling is Ruling.ALLOW else None
        if code is not None:
            decision = Decision(Ruling.DENY, (code,))
        if decision.ruling not in (Ruling.ALLOW, Ruling.ASK):
            held.note(decided(held, proposal, msgspec.structs.replace(decision, ruling=Ruling.DENY)))
            return
        if await _commit(held, proposal, decision, child, share, judged_by) is None:
            return


async def _commit(
    held: Held, proposal: Proposal, decision: Decision, child: Child, share: dict[str, int], judged_by: dict[str, int]
) -> Refused | None:
    now_us = held.services.clock.now_us()
    happenings: list[Happening] = [(decided(held, proposal, decision), None)]
    asks: tuple[Ask, ...] = ()
    consumes: tuple[Consume, ...] = ()
    if decision.ruling is Ruling.ASK:
        requested, asked = request_approval(held, proposal, decision)
        happenings.append(requested)
        asks = (asked,)
    else:
        happenings.append((ev.ChildOpened(now_us, proposal.call, child.run_id, child.route, share), None))
        if decision.approval is not None:
            consumes = (Consume(decision.approval, proposal.digest, now_us),)
    return await held.sequencer.commit(happenings, facts=judged_by, asks=asks, consumes=consumes)


def _limits(wanted: Limits, share: dict[str, int]) -> Limits:
    return wanted.narrowed(Limits(**share))


def _hindrance(held: Held, child: Child, lacking: str | None) -> str | None:
    """Why this child cannot be: nothing is left for it, or its route would not take it."""
    if lacking is not None:
        return f"budget.{'cost' if lacking == 'cost_microusd' else 'tools' if lacking == 'tool_calls' else lacking}"
    try:
        held.services.delegate(held.state.contract, child)
    except (UsageError, RefusedError) as error:
        return error.code
    return None


async def look_after(held: Held, call: str, step: Step, *, cancel: bool) -> bool:
    """Admit a child that is not there yet, order it to stop, take its result: whether it has ended, and that was noted."""
    mark = held.state.children[call]
    row = held.services.insights.run(mark.run_id)
    if row is None:
        await _admit(held, call, step, mark.run_id, mark.share)
        row = held.services.insights.run(mark.run_id)
    if row is not None and row.status in TERMINAL:
        held.note(*_end(held, call, mark.run_id, row.seq))
        return True
    if cancel:
        await _stop(held, mark.run_id)
    return False


async def stop_children(held: Held) -> Rest | None:
    """Order every child to stop, without the program that asked for it. A ``Rest``: the run waits for those that have not ended."""
    on: list[str] = []
    for call, mark in list(held.state.children.items()):
        row = held.services.insights.run(mark.run_id)
        if row is None:
            continue  # it was never admitted, and nobody will
        if row.status in TERMINAL:
            held.note(*_end(held, call, mark.run_id, row.seq))
            continue
        await _stop(held, mark.run_id)
        on.append(f"run:{mark.run_id}")
    if not on:
        return None
    wake_at_us = held.services.clock.now_us() + int(LOOK_AFTER_S * 1e6)
    return Rest(Wait(StopReason.BLOCKED, "child.running", tuple(on[:MAX_SHOWN]), wake_at_us))


async def _stop(held: Held, run_id: str) -> None:
    body = _encoder.encode(CancelOrder(f"run:{held.run_id}"[:256], "the run that asked for it was stopped"))
    await _order(held, Deliver(run_id, "cancel", body, held.services.clock.now_us(), "cancel"))


async def _admit(held: Held, call: str, step: Step, run_id: str, share: dict[str, int]) -> None:
    arguments = held.transcript.raw(call).encode()
    wanted: Limits = step.options["limits"]
    child = Child(run_id, step.name, arguments, _limits(wanted, share), held.state.labels, step.options.get("ordering_key"))
    try:
        commit = held.services.delegate(held.state.contract, child)
    except QuarterdeckError as error:
        _log.error("run %s cannot admit its child %s: %s", held.run_id, run_id, error)
        raise
    for attempt in range(RESENDS):
        try:
            outcome = await held.services.journal.submit(commit)
        except Unavailable as error:
            if error.code != "store.unknown" or attempt + 1 == RESENDS:
                raise
        else:
            if isinstance(outcome, Refused) and outcome.guard != "run":
                raise Corrupt("admission.child", f"the store refused child {run_id} of run {held.run_id}: {outcome.guard}")
            return


async def _order(held: Held, order: Deliver) -> None:
    for attempt in range(RESENDS):
        try:
            await held.services.journal.submit(order)
        except Unavailable as error:
            if error.code != "store.unknown" or attempt + 1 == RESENDS:
                raise
        else:
            return


def _end(held: Held, call: str, run_id: str, seq: int) -> Happening:
    stored = held.services.insights.events(run_id, seq - 1, 1)[-1]
    event = ev.decode(stored.body)
    if not isinstance(event, ev.RunFinished):
        raise Corrupt("journal.transition", f"run {run_id} has ended without saying how; the journal is not trustworthy")
    now_us = held.services.clock.now_us()
    ended = ev.ChildEnded(now_us, call, run_id, event.status, event.reason, event.code, event.spent, event.labels)
    return ended, stored.payload if stored.payload is not None else b"{}"


def told_parent(held: Held, status: Status) -> tuple[Deliver, ...]:
    """What the commit of a run's end carries for the run that waits for it."""
    parent = held.state.contract.parent_run_id
    if parent is None:
        return ()
    body = _encoder.encode({"run_id": held.run_id, "status": status})
    return (Deliver(parent, "child", body, held.services.clock.now_us(), f"child:{held.run_id}"),)
