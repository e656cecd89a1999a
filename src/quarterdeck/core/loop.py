"""The agent loop as a pure decision over folded state: what is the next move of this run?

The loop is never re-executed after a crash. Whoever holds the run folds its journal and asks :func:`next_move`; the answer depends
on nothing else, so a prompt or schema that changed meanwhile does not park it.
"""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.state import CallMark, RunState
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import CancelMode, Ruling, Status, StopReason

MODEL_FAILURES = 3
"""How many model calls of one turn may fail, after their own retries, before the run fails."""
DENIED_REPLIES = 3
"""How many replies may be denied before the run stops."""
REPROPOSED = frozenset(
    {"model.timeout", "model.connection", "model.garbled", "model.interrupted", "effect.perform_by", "run.interrupted"}
)
"""Failures that may have been billed, or were never attempted because their time had passed: they are proposed anew, with a new
reservation, instead of being retried in place."""


_FINAL = ("switch.frozen", "switch.route_stopped", "switch.tenant_denied", "deadline.", "budget.", "run.")
"""What another model could not change."""


@dataclass(frozen=True, slots=True)
class Recover:
    """Intents were open when the run was taken over; each is handled by its effect class first."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the model for the next bounded proposal, under this call key."""

    call: str


@dataclass(frozen=True, slots=True)
class Decide:
    """These planned calls need the gate, and then, if allowed, to be performed."""

    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The model answered without calls: its reply (or its stop) goes through the gate, and the run completes."""

    call: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can go on now; ``on`` names what can wake the run."""

    reason: StopReason
    code: str
    on: tuple[str, ...]
    wake_at_us: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    """The run ends."""

    status: Status
    reason: StopReason
    code: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The run was cancelled: what these calls have started outside is stopped through the ``cancel`` hooks of their tools."""

    calls: tuple[str, ...]


Next = Recover | Withdraw | Propose | Decide | Reply | Wait | Finish


def next_move(state: RunState, fallbacks: int = 0) -> Next:
    """What the loop does next, in this state; total over every state that a journal can reach. ``fallbacks`` is how many other models
    there are to ask.
    """
    if state.open:
        return Recover(tuple(state.open))
    if state.cancelled_by:
        return _on_cancel(state)
    if state.paused:
        return Wait(StopReason.BLOCKED, "run.paused", ("operator",), None)
    if state.unknown and any(call in state.unknown for call in state.calls):
        doubtful = tuple(f"effect:{call}" for call in state.calls if call in state.unknown)
        return Wait(StopReason.BLOCKED, "effect.unknown", doubtful, None)
    if state.pending:
        return _on_calls(state) if state.approvals else Decide(tuple(state.pending))
    if state.model_failed:
        cut = state.model_failed == "run.interrupted"  # not its fault; the run's own limits bound how often
        if state.model_failed in REPROPOSED and (cut or state.model_failures < MODEL_FAILURES):
            return Propose(f"m{state.turn}r{state.model_failures}")
        if state.model_fallen <= fallbacks and not state.model_failed.startswith(_FINAL):
            return Propose(f"m{state.turn}r{state.model_failures}")
        if state.model_failed.startswith(("switch.", "deadline.", "budget.")):
            return ending(state, state.model_failed)
        return Finish(Status.FAILED, StopReason.FAILED, state.model_failed)
    if state.replied:
        return Reply(f"r{state.turn}")
    if state.denied_replies >= DENIED_REPLIES:
        return Finish(Status.REFUSED, StopReason.REFUSED, "reply.denied")
    return Propose(f"m{state.turn}")


def _on_cancel(state: RunState) -> Next:
    """Nothing new begins; what was started outside is stopped, unless the cancel lets it drain, and then the run ends."""
    hooks = {call: mark for call, mark in state.pending.items() if mark.kind is StepKind.WITHDRAW and call not in state.unknown}
    if hooks:
        return _on_calls(state, hooks)
    if state.started and state.cancel_mode is not CancelMode.DRAIN:
        return Withdraw(tuple(state.started))
    return Finish(Status.CANCELLED, StopReason.CANCELLED, "run.cancelled")


def _on_calls(state: RunState, calls: dict[str, CallMark] | None = None) -> Next:
    ready = []
    waiting = []
    for call, mark in (state.pending if calls is None else calls).items():
        approval = state.approvals.get(mark.approval) if mark.approval is not None else None
        if mark.ruling is Ruling.ASK and approval is not None and approval.outcome == "pending":
            waiting.append((f"approval:{mark.approval}", approval.wakes_at_us))
        else:
            ready.append(call)
    if ready:
        return Decide(tuple(ready))
    wake_at_us = min(wakes for _, wakes in waiting)
    return Wait(StopReason.NEEDS_APPROVAL, "approval.needed", tuple(on for on, _ in waiting), wake_at_us)


def ending(state: RunState, code: str) -> Finish:
    """How a run ends that a decision has stopped, by the code of that decision.

    A limit that was reached after something useful was said or done is a partial success that names the limit; before that it is a
    refusal or a failure. A passed deadline is a time-out.
    """
    if code == "run.cancelled":
        return Finish(Status.CANCELLED, StopReason.CANCELLED, code)
    if code == "deadline.exceeded":
        return Finish(Status.FAILED, StopReason.TIMED_OUT, code)
    if code.startswith(("budget.", "loop.")):
        if (state.said or state.effects.succeeded) and not (state.effects.failed or state.effects.unknown):
            return Finish(Status.SUCCEEDED, StopReason.PARTIAL, code)
        if not state.turn:
            return Finish(Status.REFUSED, StopReason.REFUSED, code)
        return Finish(Status.FAILED, StopReason.FAILED, code)
    return Finish(Status.REFUSED, StopReason.REFUSED, code)


def completion(state: RunState) -> Finish:
    """How a run ends whose reply was allowed: partial where a limit had denied something, else completed."""
    if state.limited:
        return Finish(Status.SUCCEEDED, StopReason.PARTIAL, state.limited)
    if state.effects.failed:
        return Finish(Status.SUCCEEDED, StopReason.COMPLETED, "completed.with_failed_effects")
    return Finish(Status.SUCCEEDED, StopReason.COMPLETED, "completed")
