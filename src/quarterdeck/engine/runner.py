"""One run, from claim to rest: ask the core for the next move, make it, again."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import assert_never

import msgspec

from quarterdeck.core import budget
from quarterdeck.core import events as ev
from quarterdeck.core.carrying import carried, is_quiet
from quarterdeck.core.commit import ClaimedRun, CloseApproval, Deliver, Head
from quarterdeck.core.errors import Corrupt, OwnershipLost, QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.labels import NO_LABELS
from quarterdeck.core.loop import Decide, Finish, Next, Propose, Recover, Reply, Wait, Withdraw, completion, next_move
from quarterdeck.core.loop import ending as ending_by
from quarterdeck.core.state import RunState
from quarterdeck.core.supervision import is_poison
from quarterdeck.core.vocabulary import TERMINAL, ReceiptStatus, Ruling, Status, StopReason
from quarterdeck.engine.acting import act
from quarterdeck.engine.asking import ask_model, decided
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.loading import load
from quarterdeck.engine.recovery import abandon, recover
from quarterdeck.engine.sequencer import Happening, LateReceipt, Sequencer, Superseded
from quarterdeck.engine.services import Services
from quarterdeck.engine.withdrawing import withdraw
from quarterdeck.engine.workflows.children import told_parent
from quarterdeck.engine.workflows.driving import drive_workflow
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.gate.proposals import propose_reply

GENERATION = 8_000
"""After so many events an agent's run begins a fresh history between two turns."""

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(order="deterministic")


class RunOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payload of ``run.finished``. ``partial`` where a limit cut the work short; ``text`` is the newest thing said."""

    text: str = ""
    partial: bool = False
    message: str = ""


class Left(StrEnum):
    """How a run was left: at rest; at rest, and another run may be ready because of it; or still held, so that it has to be given back."""

    RESTED = "rested"
    ROUSING = "rousing"
    HELD = "held"


async def drive(services: Services, claimed: ClaimedRun) -> Left:
    """Hold a claimed run until it waits or ends. Whatever goes wrong with the run itself ends in its journal, not in an exception.

    A run is left held where this process stops and the run goes on elsewhere. Returns quietly if
    someone else has the run. Raises ``Unavailable`` if the store has stopped; nothing committed is lost then.
    """
    run_id = claimed.run_id
    try:
        opening = services.openings.take(services.insights, claimed)
        state, transcript, progress = load(services, run_id, claimed.seq, opening)
        if state.seq < claimed.seq:
            raise Corrupt(
                "journal.truncated", f"the journal of run {run_id} ends at {state.seq}, not at {claimed.seq}; restore a backup"
            )
    except Corrupt as error:
        _quarantine(services, run_id, error)
        return Left.RESTED
    if state.status in TERMINAL:
        return Left.RESTED
    sequencer = Sequencer(services, run_id, claimed.epoch, state, transcript.apply, None if opening is None else opening.control)
    program = services.program(state.contract)
    if program is None or state.contract.route not in services.routes:
        missing = f"this runtime has no agent {state.contract.agent!r} on route {state.contract.route!r}; start one that has it"
        _quarantine(services, run_id, UsageError("route.missing", missing))
        return Left.RESTED
    held = Held(services, run_id, sequencer, transcript, program)
    if isinstance(transcript, Recording):
        transcript.live()
        sequencer.ordered = transcript.order
    try:
        if is_poison(claimed.deaths, progress):
            await _give_up(held, claimed)
        elif not await _drive(held, claimed.epoch):
            return Left.HELD
    except OwnershipLost as lost:
        _log.info("run %s: %s", run_id, lost)
        return await _let_go(held, lost)
    except Corrupt as error:
        _quarantine(services, run_id, error)
        return Left.RESTED
    finally:
        await held.reports.close()
    services.hub.rested(run_id)
    contract = held.state.contract
    rouses = held.state.status in TERMINAL and (contract.parent_run_id is not None or contract.ordering_key is not None)
    return Left.ROUSING if rouses else Left.RESTED


async def _give_up(held: Held, claimed: ClaimedRun) -> None:
    """End a run that kills whoever drives it: it becomes a dead letter, and what it may have done is shown as unknown."""
    services = held.services
    _log.warning("run %s is a dead letter: %d owners have died with it", held.run_id, len(claimed.deaths))
    held.sequencer.read_inbox()
    held.note(ev.RunStarted(services.clock.now_us(), services.worker, claimed.epoch))
    await abandon(held, "run.poison")
    told = f"{len(claimed.deaths)} workers died while they drove it, the last ones after event {claimed.deaths[-1]}"
    how = Finish(Status.FAILED, StopReason.BLOCKED, "run.poison")
    while not await _rest(held, Rest(how, (), _encoder.encode(RunOutput(message=told)))):
        held.sequencer.read_inbox()


async def _drive(held: Held, epoch: int) -> bool:
    """Drive to rest, or, if this process stops, to where nothing is being performed (then false).

    A fault of the runtime parks the run for a person, with everything that is known of it.
    """
    services = held.services
    try:
        if not held.sequencer.informed:
            held.sequencer.read_inbox()
        held.sequencer.note(ev.RunStarted(services.clock.now_us(), services.worker, epoch))
        while (drained := held.drained()) is not None:
            if await _rest(held, drained):
                return True
        if isinstance(held.program, WorkflowProgram):
            return await drive_workflow(held, _rest)
        return await _until_rest(held)
    except QuarterdeckError as error:
        if isinstance(error, (OwnershipLost, Corrupt, Unavailable)):
            raise
        _log.exception("run %s met an error that it should not: it is parked for a person", held.run_id)
    except Exception:  # the one broad except of the runner
        _log.exception("run %s met a fault of the runtime; it is parked for a person", held.run_id)
    parked: Finish | Wait = Wait(StopReason.BLOCKED, "runtime.fault", ("operator",), None)
    while not await _rest(held, Rest(parked)):
        if held.state.cancelled_by and not held.state.open:
            parked = Finish(Status.CANCELLED, StopReason.CANCELLED, "run.cancelled")
    return True


def _quarantine(services: Services, run_id: str, error: QuarterdeckError) -> None:
    """Keep the run from this process: its lease stays taken, nothing is written, whoever waits for it is told."""
    _log.error("run %s is quarantined: %s", run_id, error)
    services.hub.quarantine(run_id, error)


async def _until_rest(held: Held) -> bool:
    while True:
        if held.services.drain.asked:
            await held.sequencer.flush()
            return False
        _expire_approvals(held)
        move = next_move(held.state, len(held.program.spec.fallbacks))
        rest = await _make(held, move)
        if rest is not None and await _rest(held, rest):
            return True


async def _make(held: Held, move: Next) -> Rest | None:
    match move:
        case Recover():
            return await recover(held, move.calls)
        case Propose():
            if held.state.seq - held.state.begun_seq >= GENERATION:
                _continue(held)
            return await ask_model(held, move.call)
        case Withdraw():
            await withdraw(held, move.calls)
            return None
        case Decide():
            return await act(held, move.calls)
        case Reply():
            return _reply(held, move.call)
        case Wait() if move.reason is StopReason.NEEDS_APPROVAL and _too_late(held):
            return Rest(ending_by(held.state, "deadline.exceeded"))
        case Wait() | Finish():
            return Rest(move)
        case _:
            assert_never(move)


def _continue(held: Held) -> None:
    """A very long run begins a fresh history between two turns: taking it over costs what it has done since, not what it has lived."""
    state = held.state
    if is_quiet(state):
        sight = held.transcript.snapshot()
        taken = carried(state, held.transcript.first)
        held.note(ev.RunContinued(held.services.clock.now_us(), state.generation + 1, state.contract, taken), sight)


def _reply(held: Held, call: str) -> Rest | None:
    """The model's text is itself a proposal: it leaves only if the gate allows it."""
    proposal = propose_reply(held.state.contract, call, held.transcript.reply)
    decision = held.services.gate.judge(proposal, held.state, held.standing).decision
    event = decided(held, proposal, decision)
    if decision.ruling is Ruling.ALLOW:
        return Rest(completion(held.state), ((event, None),))
    if decision.stops:
        return Rest(ending_by(held.state, decision.reasons[0]), ((event, None),))
    held.note(event if decision.ruling is Ruling.DENY else msgspec.structs.replace(event, ruling=Ruling.DENY))
    return None


async def _rest(held: Held, rest: Rest) -> bool:
    """Commit that the run waits or has ended, giving back every slice and the lease; false if something new came first."""
    state, services = held.state, held.services
    held.reports.settle()
    now_us = services.clock.now_us()
    happenings: list[Happening] = list(rest.happenings)
    moves = budget.report(state, held.accounts)
    if moves:
        happenings.append((ev.BudgetMoved(now_us, moves, report=True), None))
    closes: tuple[CloseApproval, ...] = ()
    how = rest.how
    if isinstance(how, Finish):
        labels = state.labels if state.labels != NO_LABELS else None
        finished = ev.RunFinished(now_us, how.status, how.reason, how.code, state.effects.counts(), dict(state.spent), labels)
        happenings.append((finished, rest.output if rest.output is not None else _encoder.encode(_output(held, how))))
        closes = tuple(CloseApproval(name, "withdrawn") for name, mark in state.approvals.items() if mark.outcome == "pending")
        head = Head(how.status, how.reason, how.code, release=True)
    else:
        wake_at_us = how.wake_at_us if _too_late(held) else _wake(state, how.wake_at_us)
        happenings.append((ev.RunWaiting(now_us, how.reason, how.code, how.on, wake_at_us), None))
        head = Head(Status.WAITING, how.reason, how.code, how.on, wake_at_us, release=True)
    delivers = told_parent(held, how.status) if isinstance(how, Finish) else ()
    refused = await held.sequencer.commit(happenings, head=head, charges=held.charges(moves), closes=closes, delivers=delivers)
    return refused is None


def _too_late(held: Held) -> bool:
    deadline_us = held.state.contract.deadline_at_us
    return deadline_us is not None and held.services.clock.now_us() >= deadline_us


def _wake(state: RunState, wake_at_us: int | None) -> int | None:
    deadline = state.contract.deadline_at_us
    if wake_at_us is None or deadline is None:
        return wake_at_us if deadline is None else deadline
    return min(wake_at_us, deadline)


def _output(held: Held, how: Finish) -> RunOutput:
    if how.reason is StopReason.COMPLETED:
        return RunOutput(held.transcript.reply)
    partial = how.reason in (StopReason.PARTIAL, StopReason.TIMED_OUT)
    return RunOutput(held.transcript.text if partial else "", partial, how.code)


def _expire_approvals(held: Held) -> None:
    if not held.state.approvals:
        return
    now_us = held.services.clock.now_us()
    for name, mark in list(held.state.approvals.items()):
        if mark.outcome == "pending" and now_us >= mark.expires_at_us:
            held.sequencer.expire(name, now_us)
    held.escalate(now_us)


async def _let_go(held: Held, lost: OwnershipLost) -> Left:
    """Leave a run that goes on elsewhere. It is held still where only our judgement was refused; unless it was taken meanwhile."""
    if isinstance(lost, Superseded):
        try:
            await held.sequencer.flush()
        except OwnershipLost as taken:
            _log.info("run %s: %s", held.run_id, taken)
        else:
            return Left.HELD
    await _leave_evidence(held)
    return Left.RESTED


_TOO_LATE = ("run.epoch", "effect.perform_by")
"""Why a holder that has lost its run, or has slept, does not begin an attempt."""


def _not_begun(held: Held, closed: ev.ToolClosed) -> bool:
    """Whether a receipt says only that this holder was too late to act, of a call that the next holder may perform in its place."""
    mark = held.state.calls.get(closed.call)
    spec = held.services.gate.catalogue.spec(mark.tool) if mark is not None else None
    if spec is None or closed.status is not ReceiptStatus.FAILED or closed.code not in _TOO_LATE:
        return False
    return spec.repeatable or spec.reconcilable


async def _leave_evidence(held: Held) -> None:
    """A fenced holder that did act tells the run's inbox how it ended, so that the next holder need not guess."""
    services = held.services
    for closed, payload in held.sequencer.receipts():
        if _not_begun(held, closed):
            continue
        late = LateReceipt(closed.call, closed.status, services.worker, msgspec.Raw(payload or b"null"), held.sequencer.epoch)
        token = f"receipt:{closed.call}:{held.sequencer.epoch}"
        op = Deliver(held.run_id, "receipt", _encoder.encode(late), closed.at_us, token)
        try:
            await services.journal.submit(op)
        except Unavailable as error:
            _log.warning("run %s: a late receipt was not delivered: %s", held.run_id, error)
