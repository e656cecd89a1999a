"""A run whose code no longer fits what is recorded: it waits for a person, and it can be cancelled all the same.

What a cancel of any other run does is done as far as the journal alone tells how: open intents are closed by their class, children are
told to stop, what was started outside is stopped through its hooks. The one thing that only the code knows is what to undo, and in which
order. So a cancel that is to undo ends a run that has nothing to undo; any other waits for a person, with the list.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.loop import Decide, Finish, Recover, Wait, Withdraw, next_move
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import CancelMode, ReceiptStatus, Status, StopReason
from quarterdeck.engine.acting import act
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.recovery import recover
from quarterdeck.engine.withdrawing import withdraw
from quarterdeck.engine.workflows.children import MAX_SHOWN, stop_children
from quarterdeck.engine.workflows.errors import Diverged
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording

PAGE = 2_000
"""Events read at once."""

_encoder = msgspec.json.Encoder(order="deterministic")


class Unfitting(msgspec.Struct, frozen=True):
    """The payload of a run that was cancelled while its code did not fit: why nothing more was done."""

    message: str
    text: str = ""


async def part(held: Held, recording: Recording, program: WorkflowProgram, diverged: Diverged) -> Rest:
    """What becomes of the run now: it waits, with both sides told; or, where it was cancelled, it ends."""
    now_us = held.services.clock.now_us()
    told = ev.ReplayDiverged(now_us, diverged.recorded[:500], diverged.proposed[:500])
    state = held.state
    if not state.cancelled_by:
        return Rest(Wait(StopReason.BLOCKED, "replay.divergence", ("operator",), None), ((told, None),))
    if (rest := await stop_started(held) or await stop_children(held)) is not None:
        return rest
    if state.cancel_mode is CancelMode.COMPENSATE and not recording.undone_by_hand:
        left = to_undo(held, program)
        if left:
            on = tuple([f"compensation:{call}" for call in left[:MAX_SHOWN]])
            return Rest(Wait(StopReason.BLOCKED, "compensation.stuck", on, None), ((told, None),))
    said = f"its code no longer fits what is recorded ({told.recorded}; now: {told.proposed}), so nothing more of it was executed"
    how = Finish(Status.CANCELLED, StopReason.CANCELLED, "run.cancelled")
    return Rest(how, ((told, None),), _encoder.encode(Unfitting(said)))


async def stop_started(held: Held) -> Rest | None:
    """In a run that was cancelled, stop what it has started outside; recovery comes first, as everywhere."""
    while True:
        match next_move(held.state):
            case Recover(calls):
                if (rest := await recover(held, calls)) is not None:
                    return rest
            case Withdraw(calls):
                await withdraw(held, calls)
            case Decide(calls):
                if (rest := await act(held, calls)) is not None:
                    return rest
            case Wait() as wait:
                return Rest(wait)
            case _:
                return None


def to_undo(held: Held, program: WorkflowProgram) -> list[str]:
    """The calls of tools that declare how they are undone, that have succeeded and were not undone; newest first."""
    done: dict[str, None] = {}
    asked: dict[str, ev.StepProposed] = {}
    after = max(0, held.state.begun_seq - 1)
    while page := held.services.insights.events(held.run_id, after, PAGE):
        for stored in page:
            event = ev.decode(stored.body)
            match event:
                case ev.StepProposed() if event.undoes or event.name in program.compensations:
                    asked[event.call] = event
                case ev.ToolClosed() | ev.StepClosed() | ev.EffectResolved() if event.call in asked:
                    _count(done, asked[event.call], event)
                case _:
                    pass
        after = page[-1].seq
    return list(reversed(done))


def _count(done: dict[str, None], step: ev.StepProposed, closed: ev.ToolClosed | ev.StepClosed | ev.EffectResolved) -> None:
    again = step.step is StepKind.STUCK and isinstance(closed, ev.StepClosed) and closed.code != "done"
    if closed.status is not ReceiptStatus.SUCCEEDED or again:
        return
    if step.undoes:
        done.pop(step.undoes, None)
    elif step.step is StepKind.TOOL:
        done[closed.call] = None
