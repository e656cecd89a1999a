"""``state = fold(events)``: how each event changes what is known of a run.

Folding is total over the closed union of events, never looks at payloads, and is deterministic: the same journal gives the same
state on every version that can read it. It consumes the state that it is given (the caller keeps no older one), which is what
keeps the cost of one event independent of the length of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.carrying import take_up
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.labels import NO_LABELS
from quarterdeck.core.state import ApprovalMark, CallMark, ChildMark, OpenEffect, ProgressMark, RunState, TurnMark
from quarterdeck.core.steps import MARKERS, StepKind
from quarterdeck.core.transitions import successor
from quarterdeck.core.vocabulary import CancelMode, EffectClass, ProposalKind, ReceiptStatus, Ruling, Status

CHILD_SPENDING = frozenset({"model_calls", "tool_calls", "tokens", "cost_microusd", "retries"})
"""What a child consumes counts for its parent as well, in these dimensions."""
RESULT = "result"
"""The call of what a workflow returns: a reply that no turn of a model wrote."""
DENIAL_TOKENS = 24
"""What a denial's message to the model is counted as."""


def start(event: ev.Event, seq: int = 1) -> RunState:
    """The state after a history's first event: ``run.admitted``, or ``run.continued`` with everything that is needed of what is before.

    ``seq`` is that event's sequence.
    """
    if isinstance(event, ev.RunContinued):
        state = RunState(event.contract, Status.RUNNING, seq - 1)
        return fold(state, event)
    if not isinstance(event, ev.RunAdmitted):
        raise Corrupt("journal.first_event", "a journal must begin with run.admitted; it is not trustworthy")
    return RunState(
        contract=event.contract,
        status=successor(None, "run.admitted"),
        input_tokens=event.tokens,
        labels=event.contract.labels or NO_LABELS,
        last_event_at_us=event.at_us,
    )


def fold(state: RunState, event: ev.Event) -> RunState:
    """The state after one more event. Raises :class:`Corrupt` where the event cannot follow."""
    _APPLY[type(event)](state, event)
    state.seq += 1
    state.last_event_at_us = event.at_us
    return state


def fold_all(events: Iterable[ev.Event]) -> RunState:
    """The state of a whole journal."""
    iterator = iter(events)
    try:
        state = start(next(iterator))
    except StopIteration:
        raise Corrupt("journal.empty", "a run without events exists; verify the journal") from None
    for event in iterator:
        fold(state, event)
    return state


def _admitted(state: RunState, event: ev.RunAdmitted) -> None:
    raise Corrupt("journal.transition", "run.admitted appears twice; the journal is not trustworthy")


def _started(state: RunState, event: ev.RunStarted) -> None:
    state.status = successor(state.status, "run.started")
    state.epoch = event.epoch
    state.waiting_on, state.wake_at_us, state.reason, state.code = (), None, None, ""


def _waiting(state: RunState, event: ev.RunWaiting) -> None:
    state.status = successor(state.status, "run.waiting")
    state.reason, state.code = event.reason, event.code
    state.waiting_on, state.wake_at_us = event.on, event.wake_at_us


def _finished(state: RunState, event: ev.RunFinished) -> None:
    state.status = successor(state.status, "run.finished", event.status)
    state.reason, state.code = event.reason, event.code
    state.waiting_on, state.wake_at_us = (), None


def _cancel_requested(state: RunState, event: ev.CancelRequested) -> None:
    if not state.cancelled_by:
        state.cancelled_by = event.by
        state.cancel_mode = CancelMode(event.mode or (CancelMode.COMPENSATE if event.compensate else CancelMode.DRAIN))
    elif event.mode == CancelMode.STOP:
        state.cancel_mode = CancelMode.STOP


def _decided(state: RunState, event: ev.GateDecided) -> None:
    if event.ruling is Ruling.ALLOW or event.ruling is Ruling.REDACT:
        if event.reserve:
            state.reserves[event.call] = event.reserve
            reserved = state.reserved
            for dimension, amount in event.reserve.items():
                reserved[dimension] = reserved.get(dimension, 0) + amount
    elif event.ruling is Ruling.DENY:
        if not state.limited and event.reasons and event.reasons[0].startswith("budget."):
            state.limited = event.reasons[0]
        if event.proposal is ProposalKind.REPLY and event.call != RESULT:
            if not state.turns:
                raise Corrupt("journal.reply", "a reply was denied before any turn; the journal is not trustworthy")
            state.replied = False
            state.denied_replies += 1
            state.turns[-1].tokens += DENIAL_TOKENS
    mark = state.calls.get(event.call)
    if mark is None:
        return
    if mark.ruling is None:
        state.digests[event.digest] = state.digests.get(event.digest, 0) + 1
    mark.ruling, mark.reasons = event.ruling, event.reasons
    if mark.kind is not None:
        if event.ruling is Ruling.DENY:
            _answered(state, event.call)
    elif event.ruling is Ruling.DENY:
        mark.closed = ReceiptStatus.FAILED
        state.pending.pop(event.call, None)
        state.turns[-1].tokens += DENIAL_TOKENS


def _model_opened(state: RunState, event: ev.ModelOpened) -> None:
    state.begun = True
    if (
        event.call not in state.calls and not event.summarises
    ):  # a turn of the agent loop begins; in a workflow, a model call is one step of many
        state.unheard = False
        state.calls.clear()
        state.pending.clear()
        state.replied = False
        state.model_failed = ""
    state.open[event.call] = OpenEffect(
        event.call,
        event.model,
        EffectClass.READ,
        "",
        event.key,
        event.perform_by_us,
        event.at_us,
        state.epoch,
        model=True,
        summarises=event.summarises > 0,
    )


def _model_closed(state: RunState, event: ev.ModelClosed) -> None:
    effect = _close(state, event.call, event.at_us)
    tokens = event.input_tokens + event.output_tokens
    _spend(state, "model_calls", 1)
    _spend(state, "tokens", tokens)
    _spend(state, "cost_microusd", event.cost_microusd)
    _spend(state, "retries", event.attempts - 1)
    if effect.summarises:
        _spend(state, "compactions", 1)
        state.spent["compaction_tokens"] = state.spent.get("compaction_tokens", 0) + tokens
        return
    if event.call in state.calls:
        _answered(state, event.call)
        return
    if event.status is not ReceiptStatus.SUCCEEDED:
        state.model_failed = event.code
        state.model_failures += 1
        state.model_fallen += event.code != "run.interrupted"
        return
    state.model_failures = state.model_fallen = 0
    _spend(state, "turns", 1)
    state.turns.append(TurnMark(state.turn, state.seq + 1, event.tokens))
    state.turn += 1
    for planned in event.calls:
        state.calls[planned.call] = state.pending[planned.call] = CallMark(planned.tool, planned.call_id)
    state.replied = not event.calls and not state.unheard
    state.said = state.said or event.said


def _compacted(state: RunState, event: ev.ContextCompacted) -> None:
    state.summarised, state.summary_tokens = event.upto, event.tokens
    state.turns = [mark for mark in state.turns if mark.turn >= event.upto]


def _tool_opened(state: RunState, event: ev.ToolOpened) -> None:
    state.begun = True
    state.open[event.call] = OpenEffect(
        event.call,
        event.tool,
        event.effect,
        event.digest,
        event.key,
        event.perform_by_us,
        event.at_us,
        state.epoch,
        event.idempotent,
        event.reconcilable,
        cancellable=event.cancellable,
    )
    if event.exclusive:
        state.exclusive[event.call] = event.exclusive
    if (mark := state.calls.get(event.call)) is not None:
        mark.opened = True


def _tool_closed(state: RunState, event: ev.ToolClosed) -> None:
    effect = _close(state, event.call, event.at_us)
    _spend(state, "tool_calls", 1)
    _spend(state, "cost_microusd", event.cost_microusd)
    _spend(state, "retries", event.attempts - 1)
    mark = state.calls.get(event.call)
    if event.status is ReceiptStatus.SUCCEEDED:
        _succeeded(state, mark)
        state.succeeded_tools.add(effect.name)
    elif event.status is ReceiptStatus.FAILED:
        state.effects.failed += 1
        state.uncounted.extend(state.counted.pop(event.call, ()))
    else:
        state.effects.unknown += 1
        state.unknown.add(event.call)
    if state.counted and event.status is ReceiptStatus.SUCCEEDED:
        state.counted.pop(event.call, None)
    if effect.cancellable and event.status is not ReceiptStatus.FAILED:
        state.started[event.call] = effect.name
    if state.exclusive and event.status is not ReceiptStatus.UNKNOWN:
        state.exclusive.pop(event.call, None)
    if event.labels is not None:
        state.labels = state.labels.joined(event.labels)
    if mark is None:
        return
    mark.closed = event.status
    if mark.kind is None:
        state.pending.pop(event.call, None)
        state.turns[-1].tokens += event.tokens
    elif event.status is not ReceiptStatus.UNKNOWN:
        _answered(state, event.call)


def _reopened(state: RunState, event: ev.EffectReopened) -> None:
    effect = state.open.get(event.call)
    if effect is None:
        raise Corrupt("journal.receipt", f"effect {event.call} was reopened but is not open; the journal is not trustworthy")
    effect.perform_by_us, effect.epoch = event.perform_by_us, state.epoch


def _resolved(state: RunState, event: ev.EffectResolved) -> None:
    if event.call in state.unknown and event.status is not ReceiptStatus.UNKNOWN:
        state.unknown.discard(event.call)
        if event.status is ReceiptStatus.SUCCEEDED:
            state.counted.pop(event.call, None)
        state.exclusive.pop(event.call, None)
        state.effects.unknown -= 1
        mark = state.calls.get(event.call)
        if event.again and mark is not None:  # judged anew, under its old key; an approval that it had is used up
            mark.closed, mark.ruling, mark.opened, mark.approval, mark.endorsed = None, None, False, None, ()
            state.pending[event.call] = mark
            return
        if event.status is ReceiptStatus.SUCCEEDED:
            _succeeded(state, mark)
        else:
            state.effects.failed += 1
            state.uncounted.extend(state.counted.pop(event.call, ()))
        if event.labels is not None:
            state.labels = state.labels.joined(event.labels)
        if mark is not None:
            mark.closed = event.status
            if event.status is ReceiptStatus.SUCCEEDED:
                state.succeeded_tools.add(mark.tool)
            if mark.kind is None:
                state.turns[-1].tokens += event.tokens
            else:
                _answered(state, event.call)


def _moved(state: RunState, event: ev.BudgetMoved) -> None:
    for move in event.moves:
        key = (move.account, move.dimension)
        held = state.slices.get(key, 0) + move.leased - move.returned
        if held:
            state.slices[key] = held
        else:
            state.slices.pop(key, None)
    if event.call:
        state.counted[event.call] = tuple([(move.account, move.dimension, move.spent) for move in event.moves])
    if event.report:
        state.unreported.clear()
        state.uncounted.clear()


def _raised(state: RunState, event: ev.BudgetRaised) -> None:
    limits = {name: value for name, value in msgspec.structs.asdict(event.limits).items() if value is not None}
    contract = msgspec.structs.replace(state.contract, limits=msgspec.structs.replace(state.contract.limits, **limits))
    if event.limits.deadline_ms is not None:
        deadline_at_us = contract.admitted_at_us + event.limits.deadline_ms * 1_000
        contract = msgspec.structs.replace(contract, deadline_at_us=deadline_at_us)
    state.contract, state.limited = contract, ""


def _approval_requested(state: RunState, event: ev.ApprovalRequested) -> None:
    state.begun = True
    state.approvals[event.approval] = ApprovalMark(
        event.call, event.digest, event.expires_at_us, owner=event.owner, escalates_at_us=event.escalates_at_us
    )
    if (mark := state.calls.get(event.call)) is not None:
        if mark.approval is not None and state.approvals[mark.approval].outcome == "approved":
            mark.endorsed += (mark.approval,)
        mark.approval = event.approval
        mark.asked += 1


def _approval_escalated(state: RunState, event: ev.ApprovalEscalated) -> None:
    approval = state.approvals.get(event.approval)
    if approval is not None:
        approval.owner, approval.level, approval.escalates_at_us = event.owner, event.level, event.escalates_at_us


def _approval_decided(state: RunState, event: ev.ApprovalDecided) -> None:
    approval = state.approvals.get(event.approval)
    if approval is None:
        raise Corrupt("journal.approval", f"approval {event.approval} was never requested; the journal is not trustworthy")
    if approval.outcome == "pending":
        approval.outcome, approval.by = event.outcome, event.by
        mark = state.calls.get(approval.call)
        asks = mark is not None and mark.kind is not StepKind.APPROVAL
        if event.outcome == "edited" and mark is not None and asks and mark.approval == event.approval:
            mark.approval, mark.endorsed, mark.edited_by = (
                None,
                (),
                event.by,
            )  # other arguments: nothing said of the former ones counts


def _proposed(state: RunState, event: ev.StepProposed) -> None:
    if event.step not in MARKERS:
        mark = CallMark(event.name, "", kind=event.step, undoes=event.undoes)
        state.calls[event.call] = state.pending[event.call] = mark
    if event.step is StepKind.WITHDRAW:
        state.started.pop(event.undoes, None)


def _step_closed(state: RunState, event: ev.StepClosed) -> None:
    mark = state.calls.get(event.call)
    if mark is None:
        raise Corrupt("journal.receipt", f"step {event.call} was closed but never proposed; the journal is not trustworthy")
    undone = mark.kind is not StepKind.STUCK or event.code == "done"  # what is stuck is tried again, unless a person has done it
    if mark.undoes and undone and event.status is ReceiptStatus.SUCCEEDED and event.code != "effect.inherited":
        state.effects.compensated += 1
    _answered(state, event.call)


def _child_opened(state: RunState, event: ev.ChildOpened) -> None:
    state.begun = True
    _release(state, event.call)
    state.children[event.call] = ChildMark(event.run_id, event.share)
    state.spent["delegations"] = state.spent.get("delegations", 0) + 1
    for dimension, amount in event.share.items():
        state.spent[dimension] = state.spent.get(dimension, 0) + amount
    if (mark := state.calls.get(event.call)) is not None:
        mark.opened = True


def _child_ended(state: RunState, event: ev.ChildEnded) -> None:
    child = state.children.pop(event.call, None)
    if child is None:
        raise Corrupt("journal.receipt", f"child {event.call} has ended but was never opened; the journal is not trustworthy")
    for dimension in {**child.share, **event.spent}:
        if dimension in CHILD_SPENDING:
            consumed = event.spent.get(dimension, 0) - child.share.get(dimension, 0)
            state.spent[dimension] = state.spent.get(dimension, 0) + consumed
    if event.labels is not None:
        state.labels = state.labels.joined(event.labels)
    _answered(state, event.call)


def _paused(state: RunState, event: ev.RunPaused) -> None:
    state.paused = True


def _resumed(state: RunState, event: ev.RunResumed) -> None:
    state.paused = False
    state.resumes += 1


def _interrupted(state: RunState, event: ev.RunInterrupted) -> None:
    state.interrupts += 1
    state.unheard = True
    state.replied = False
    for call in event.withdrawn:
        mark = state.pending.pop(call)
        mark.closed, mark.reasons = ReceiptStatus.FAILED, ("run.interrupted",)
        approval = state.approvals.get(mark.approval) if mark.approval is not None else None
        if approval is not None and approval.outcome == "pending":
            approval.outcome = "withdrawn"
    if state.turns:
        state.turns[-1].tokens += event.tokens + DENIAL_TOKENS * len(event.withdrawn)
    else:
        state.input_tokens += event.tokens
    if event.labels is not None:
        state.labels = state.labels.joined(event.labels)


def _escalated(state: RunState, event: ev.RunEscalated) -> None:
    state.owner = event.to
    state.escalations += 1


def _continued(state: RunState, event: ev.RunContinued) -> None:
    take_up(state, event.carried)
    state.generation, state.begun_seq, state.begun_at_us = event.generation, state.seq + 1, event.at_us


def _forked(state: RunState, event: ev.RunForked) -> None:
    take_up(state, event.carried)
    state.source, state.generation, state.begun_at_us = event.seed, event.generation, event.begun_at_us


def _inherited(state: RunState, event: ev.StepInherited) -> None:
    state.inherited[event.call] = event.source
    _answered(state, event.call)


def _unchanged(state: RunState, event: ev.SignalReceived | ev.ReplayDiverged | ev.EffectContradicted) -> None:
    """What is only told."""


def _progressed(state: RunState, event: ev.RunProgressed) -> None:
    state.progress = ProgressMark(event.call, event.done, event.total, event.at_us, state.seq + 1)


def _answered(state: RunState, call: str) -> None:
    """A workflow's step has its answer: nothing of it is kept, so that the ten-thousandth costs what the tenth does."""
    state.calls.pop(call, None)
    state.pending.pop(call, None)


def _succeeded(state: RunState, mark: CallMark | None) -> None:
    if mark is not None and mark.undoes:
        state.effects.compensated += 1
        state.started.pop(mark.undoes, None)
    else:
        state.effects.succeeded += 1


def _close(state: RunState, call: str, at_us: int) -> OpenEffect:
    effect = state.open.pop(call, None)
    if effect is None:
        raise Corrupt("journal.receipt", f"a receipt for {call} has no open intent; the journal is not trustworthy")
    _release(state, call)
    if state.contract.limits.work_ms is not None:
        state.spent["work_ms"] = state.spent.get("work_ms", 0) + max(0, at_us - effect.opened_at_us) // 1_000
    return effect


def _release(state: RunState, call: str) -> None:
    for dimension, amount in state.reserves.pop(call, {}).items():
        state.reserved[dimension] -= amount


def _spend(state: RunState, dimension: str, amount: int) -> None:
    if amount:
        state.spent[dimension] = state.spent.get(dimension, 0) + amount
        state.unreported[dimension] = state.unreported.get(dimension, 0) + amount


_APPLY: dict[type, Callable[[RunState, Any], None]] = {
    ev.RunAdmitted: _admitted,
    ev.RunStarted: _started,
    ev.RunWaiting: _waiting,
    ev.RunFinished: _finished,
    ev.CancelRequested: _cancel_requested,
    ev.GateDecided: _decided,
    ev.ModelOpened: _model_opened,
    ev.ModelClosed: _model_closed,
    ev.ContextCompacted: _compacted,
    ev.ToolOpened: _tool_opened,
    ev.ToolClosed: _tool_closed,
    ev.EffectReopened: _reopened,
    ev.EffectResolved: _resolved,
    ev.BudgetMoved: _moved,
    ev.BudgetRaised: _raised,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalEscalated: _approval_escalated,
    ev.ApprovalDecided: _approval_decided,
    ev.EffectContradicted: _unchanged,
    ev.StepProposed: _proposed,
    ev.StepClosed: _step_closed,
    ev.ChildOpened: _child_opened,
    ev.ChildEnded: _child_ended,
    ev.SignalReceived: _unchanged,
    ev.RunInterrupted: _interrupted,
    ev.RunEscalated: _escalated,
    ev.RunContinued: _continued,
    ev.RunForked: _forked,
    ev.StepInherited: _inherited,
    ev.RunPaused: _paused,
    ev.RunResumed: _resumed,
    ev.ReplayDiverged: _unchanged,
    ev.RunProgressed: _progressed,
}
