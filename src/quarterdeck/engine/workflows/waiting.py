"""What a workflow waits for besides what is being performed: timers, messages, people, children. As rows only."""

from __future__ import annotations

from collections.abc import Container, Mapping

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import canonical, parse
from quarterdeck.core.commit import Ask
from quarterdeck.core.loop import Wait
from quarterdeck.core.proposal import proposal_digest
from quarterdeck.core.state import ApprovalMark, CallMark, RunState
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling, StopReason
from quarterdeck.engine.acting import Shown
from quarterdeck.engine.held import Held
from quarterdeck.engine.workflows.children import LOOK_AFTER_S, MAX_SHOWN, look_after
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.engine.workflows.strands import Step, Strand

Waiting = Mapping[str, tuple[Strand, Step]]

_encoder = msgspec.json.Encoder(order="deterministic")
_CODES = {
    StepKind.CHILD: "child.running",
    StepKind.SIGNAL: "signal.awaited",
    StepKind.TIMER: "timer.sleeping",
    StepKind.STUCK: "compensation.stuck",
    StepKind.TOOL: "effect.unknown",
}


def can_decide(state: RunState, mark: CallMark, call: str, *, stopped: bool) -> bool:
    """Whether a call needs the gate now: it was not judged yet, or a person has answered what it asked."""
    if call in state.open or call in state.unknown or mark.opened:
        return False
    if stopped and not mark.undoes:
        return True  # the gate says no, whatever a person would say
    approval = state.approvals.get(mark.approval) if mark.approval is not None else None
    return not (mark.ruling is Ruling.ASK and approval is not None and approval.outcome == "pending")


INTERRUPTIBLE = frozenset({StepKind.TIMER, StepKind.SIGNAL, StepKind.APPROVAL})
"""What an interrupt ends, in a workflow that wants it so."""


async def look(held: Held, recording: Recording, waiting: Waiting, tasks: Container[str], *, raises: bool = False) -> None:
    """Note whatever has come about of what is waited for: timers, messages, answers, ends of children, a cancel."""
    state, now_us = held.state, held.services.clock.now_us()
    for approval, mark in list(state.approvals.items()):
        if mark.outcome == "pending" and now_us >= mark.expires_at_us:
            held.sequencer.expire(approval, now_us)
    held.escalate(now_us)
    stop = stopped(state, now_us)
    for call, (_, step) in list(waiting.items()):
        if held.sequencer.intending:
            return  # what is noted now is told later: looked at again, it would be answered, or taken, twice
        due_us = recording.due_us.get(call)
        is_due = due_us is not None and now_us >= due_us
        code = None if step.undoes else stop
        if raises and recording.interrupts and step.kind in INTERRUPTIBLE:
            _interrupt(held, call, recording.interrupts[0])
            return  # one interrupt ends one wait; the workflow sees it before anything else is looked at
        match step.kind:
            case StepKind.TIMER if is_due or code:
                _close(held, call, code if not is_due else None, b"null")
            case StepKind.SIGNAL:
                _look_signal(held, recording, call, step, code or ("signal.timeout" if is_due else None))
            case StepKind.APPROVAL:
                _look_approval(held, recording, call, step, code)
            case StepKind.CHILD if call in state.children:
                await look_after(held, call, step, cancel=code is not None)
            case StepKind.STUCK if recording.resumes > recording.stuck_since[call]:
                _resume(held, call, by_hand=recording.by_hand)
            case StepKind.FUNCTION if code and call not in tasks:
                _close(held, call, code, b"{}")
            case _:
                pass


def stopped(state: RunState, now_us: int) -> str | None:
    """Why nothing new begins in this run, but what undoes; else ``None``."""
    if state.cancelled_by:
        return "run.cancelled"
    deadline_us = state.contract.deadline_at_us
    return "deadline.exceeded" if deadline_us is not None and now_us >= deadline_us else None


def _close(held: Held, call: str, code: str | None, payload: bytes) -> None:
    status = ReceiptStatus.SUCCEEDED if code is None else ReceiptStatus.FAILED
    held.note(ev.StepClosed(held.services.clock.now_us(), call, status, code or ""), payload)


def _interrupt(held: Held, call: str, payload: bytes) -> None:
    mark = held.state.calls[call]
    if mark.approval is not None:
        held.sequencer.withdraw(mark.approval)
    _close(held, call, "run.interrupted", _encoder.encode({"interrupt": msgspec.Raw(payload)}))


def _resume(held: Held, call: str, *, by_hand: bool) -> None:
    """A person has seen to what could not be undone: it is tried again, unless it was done by hand."""
    told = ev.StepClosed(held.services.clock.now_us(), call, ReceiptStatus.SUCCEEDED, "done" if by_hand else "")
    held.note(told, b'"done"' if by_hand else b'"again"')


def _look_signal(held: Held, recording: Recording, call: str, step: Step, code: str | None) -> None:
    signals = recording.signals.get(step.name)
    if signals:
        _close(held, call, None, signals[0])
    elif code is not None:
        _close(held, call, code, b"{}")


def _look_approval(held: Held, recording: Recording, call: str, step: Step, code: str | None) -> None:
    mark = held.state.calls[call]
    approval = held.state.approvals.get(mark.approval) if mark.approval is not None else None
    if approval is not None and approval.outcome != "pending" and not _escalates(mark, approval, step):
        outcome = {
            "outcome": approval.outcome,
            "by": approval.by,
            "reason": recording.said.get(mark.approval or "", ""),
            "escalated": _is_second(mark),
        }
        _close(held, call, None, _encoder.encode(outcome))
    elif code is not None:
        _close(held, call, code, b"{}")


def _is_second(mark: CallMark) -> bool:
    return mark.approval is not None and mark.approval.endswith(".escalated")


def _escalates(mark: CallMark, approval: ApprovalMark, step: Step) -> bool:
    return approval.outcome == "expired" and step.options["escalate"] and not _is_second(mark)


def _owner(held: Held, *, again: bool) -> str:
    """Whose an approval is: the run's route's owner; of the second one, the next of the route's escalation."""
    route = held.services.routes.get(held.state.contract.route)
    if route is None:
        return ""
    return route.escalation[0] if again and route.escalation else route.owner


async def request(held: Held, call: str, step: Step) -> None:
    """Ask a person, where nobody was asked yet; or a second one, where the first did not answer and that was wanted."""
    state, contract = held.state, held.state.contract
    while True:
        mark = state.calls.get(call)
        if mark is None or state.cancelled_by:
            return
        approval = state.approvals.get(mark.approval) if mark.approval is not None else None
        if approval is not None and not _escalates(mark, approval, step):
            return
        reasons = ("approval.asked",) if approval is None else ("approval.escalated",)
        name = f"ap_{contract.run_id}_{call}{'' if approval is None else '.escalated'}"
        arguments = canonical(parse(_encoder.encode(step.options["shown"])))
        digest = proposal_digest(contract.tenant, contract.run_id, ProposalKind.STOP, step.name[:128], "", arguments)
        shown = _encoder.encode(Shown(contract.tenant, contract.run_id, step.name, "approval", msgspec.Raw(arguments), reasons))
        now_us = held.services.clock.now_us()
        expires_at_us = now_us + int(step.options["timeout_s"] * 1e6)
        requested = ev.ApprovalRequested(
            now_us, name, call, digest, expires_at_us, reasons, _owner(held, again=approval is not None)
        )
        asked = Ask(name, call, step.name, digest, contract.actor, expires_at_us, shown)
        if await held.sequencer.commit(((requested, shown),), asks=(asked,)) is None:
            return


def next_due_us(recording: Recording, waiting: Waiting) -> int | None:
    """When the first timer of those that are waited for is due."""
    return min([recording.due_us[call] for call in waiting if call in recording.due_us], default=None)


def wait_of(held: Held, recording: Recording, waiting: Waiting) -> Wait:
    """How a run waits in which nothing can be done now: for what, and until when at most."""
    state = held.state
    on: list[str] = []
    codes: list[str] = []
    wakes = [due_us for due_us in [next_due_us(recording, waiting)] if due_us is not None]
    for call, (_, step) in waiting.items():
        mark = state.calls[call]
        if mark.approval is not None and state.approvals[mark.approval].outcome == "pending":
            on.append(f"approval:{mark.approval}")
            codes.insert(0, "approval.needed")
            wakes.append(state.approvals[mark.approval].wakes_at_us)
        else:
            on.append(_woken_by(state, call, step))
            codes.append(_CODES.get(step.kind, "step.waiting"))
            if step.kind is StepKind.CHILD:
                wakes.append(held.services.clock.now_us() + int(LOOK_AFTER_S * 1e6))
    if not on:
        return Wait(StopReason.BLOCKED, "workflow.asleep", ("operator",), None)
    reason = StopReason.NEEDS_APPROVAL if codes[0] == "approval.needed" else StopReason.BLOCKED
    return Wait(reason, codes[0], tuple(on[:MAX_SHOWN]), min(wakes, default=None))


def _woken_by(state: RunState, call: str, step: Step) -> str:
    match step.kind:
        case StepKind.CHILD:
            child = state.children.get(call)
            return f"run:{child.run_id}" if child is not None else f"child:{call}"
        case StepKind.SIGNAL:
            return f"signal:{step.name}"
        case StepKind.TIMER:
            return f"timer:{call}"
        case StepKind.STUCK:
            return f"compensation:{call}"
        case _:
            return f"effect:{call}"
