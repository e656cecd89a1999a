"""What must hold of a simulated workflow, checked event by event and once more at the end. Numbers are those of the architecture.

* Each completed step that a failed saga holds is undone once, newest first; nothing else is undone (I10).
* A message is taken once, in the order of arrival. A timer does not fire early (I17). An approval is told as it was decided (I5).
* A child is opened once, ends once, as its own journal says, and before its parent (I19).
* Executed again against its journal, the function asks for the same and ends the same (I14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from quarterdeck.app.replaying import Replay
from quarterdeck.core import events as ev
from quarterdeck.core.fold import CHILD_SPENDING
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import TERMINAL, CancelMode, ReceiptStatus, StopReason
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.ventures import FAILED, UNDONE_BY
from quarterdeck.testing.watched import Done, Venturing, Watched
from quarterdeck.testing.world import Arguments

Violated = Callable[[str, str], None]


class Ventures:
    """Watches every workflow of a simulation."""

    def __init__(
        self,
        violated: Violated,
        reached: Reached,
        runs: Mapping[str, Watched],
        approvals: Callable[[], Mapping[str, ApprovalRow]],
    ) -> None:
        self._violated = violated
        self._reached = reached
        self._runs = runs
        self._approvals = approvals

    def event(self, watched: Watched, event: ev.Event, payload: bytes | None) -> None:
        """Look at one event of a workflow, before it is folded."""
        known = watched.venture
        if known is None:
            return
        match event:
            case ev.StepProposed():
                self._proposed(watched, known, event, payload or b"null")
            case ev.ToolClosed() | ev.EffectResolved():
                unresolved = isinstance(event, ev.EffectResolved) and event.again
                if event.status is ReceiptStatus.SUCCEEDED and not unresolved:
                    self._happened(watched, known, event.call)
            case ev.StepClosed():
                self._closed(watched, known, event, payload or b"null")
            case ev.SignalReceived():
                known.news.append(payload or b"null")
            case ev.ChildOpened():
                self._check(event.run_id not in self._runs, "I19", f"{event.run_id} was admitted before its parent had opened it")
                known.children[event.call] = event.run_id
            case ev.ChildEnded():
                self._child_ended(watched, known, event)
            case ev.ReplayDiverged():
                self._violated("contract 9", f"{watched.run_id} diverged: {event.recorded} became {event.proposed}")
            case ev.RunFinished():
                self._finished(watched, known, event)
            case _:
                pass

    def _check(self, condition: bool, invariant: str, message: str) -> None:
        if not condition:
            self._violated(invariant, message)

    def _proposed(self, watched: Watched, known: Venturing, event: ev.StepProposed, payload: bytes) -> None:
        self._check(event.call not in known.steps, "contract 9", f"{watched.run_id}: {event.call} was proposed twice")
        known.steps[event.call] = (event, payload)
        if event.step is StepKind.EMIT and event.name == FAILED:
            known.failed.append(msgspec.json.decode(payload, type=str))
        if not event.undoes or event.step is StepKind.STUCK:
            return
        what = f"{watched.run_id}: {event.call} undoes {event.undoes}"
        done = known.done.get(event.undoes)
        if done is None:
            self._violated("I10", f"{what}, which was not done")
            return
        self._reached.sometimes("venture.undone")
        self._check(not done.undone, "I10", f"{what} once more")
        self._check(any(is_in(done.saga, failed) for failed in known.failed), "I10", f"{what}, whose saga has not failed")
        newer = list(known.done.values())
        newer = [one for one in newer[newer.index(done) + 1 :] if one.saga == done.saga and not one.undone]
        self._check(not newer, "I10", f"{what} before {[one.call for one in newer]}, which is newer")

    def _happened(self, watched: Watched, known: Venturing, call: str) -> None:
        """A tool has done it."""
        step, arguments = known.steps[call]
        if step.undoes:
            self._undone(watched, known, step)
        elif step.name in UNDONE_BY:
            saga = msgspec.json.decode(arguments, type=Arguments).target
            if saga:
                known.done[call] = Done(call, saga)

    def _undone(self, watched: Watched, known: Venturing, step: ev.StepProposed) -> None:
        done = known.done.get(step.undoes)
        if done is not None:
            done.undone += 1
            self._check(done.undone == 1, "I10", f"{watched.run_id}: {step.undoes} was undone {done.undone} times")

    def _closed(self, watched: Watched, known: Venturing, event: ev.StepClosed, payload: bytes) -> None:
        step, _ = known.steps[event.call]
        succeeded = event.status is ReceiptStatus.SUCCEEDED
        if step.step is StepKind.TIMER and succeeded:
            self._check(event.at_us >= (step.due_us or 0), "I17", f"{watched.run_id}: the timer {event.call} fired early")
        elif step.step is StepKind.SIGNAL and succeeded:
            self._reached.sometimes("venture.told")
            self._check(known.news[:1] == [payload], "signals", f"{watched.run_id} was told {payload!r}, there was {known.news}")
            del known.news[:1]
        elif step.step is StepKind.APPROVAL and succeeded:
            said = msgspec.json.decode(payload, type=dict[str, object])
            row = self._approvals().get(f"ap_{watched.run_id}_{event.call}")
            status = row.status if row is not None else "nothing"
            self._check(said["outcome"] == status, "I5", f"{watched.run_id}: {event.call} was told {said}, it is {status}")
        elif step.step is StepKind.STUCK and event.code == "done":
            self._undone(watched, known, step)

    def _child_ended(self, watched: Watched, known: Venturing, event: ev.ChildEnded) -> None:
        child = self._runs.get(event.run_id)
        self._reached.sometimes("venture.child")
        self._check(known.children.get(event.call) == event.run_id, "I19", f"{watched.run_id}: {event.run_id} is no child of it")
        ended = child is not None and child.state.status in TERMINAL and child.state.status == event.status
        self._check(ended, "I19", f"{watched.run_id}: its child {event.run_id} is said to have ended as {event.status}")
        for dimension, amount in event.spent.items():
            if dimension in CHILD_SPENDING:
                known.delegated[dimension] = known.delegated.get(dimension, 0) + amount

    def _finished(self, watched: Watched, known: Venturing, event: ev.RunFinished) -> None:
        state = watched.state
        if event.reason is StopReason.BLOCKED:
            return  # a dead letter is a person's, with all that it has begun
        self._check(not state.children, "I19", f"{watched.run_id} ended before its children {sorted(state.children)}")
        if state.cancelled_by and state.cancel_mode is not CancelMode.COMPENSATE:
            return  # told to leave things as they are
        for done in known.done.values():
            wanted = any(is_in(done.saga, failed) for failed in known.failed)
            self._check(
                done.undone == wanted, "I10", f"{watched.run_id}: {done.call} of {done.saga} was undone {done.undone} times"
            )


def is_in(saga: str, outer: str) -> bool:
    """Whether a saga is this one, or inside it."""
    return saga == outer or saga.startswith(f"{outer}.")


def replays(oracle: Violated, runs: Mapping[str, Watched], replay: Callable[[str], Replay]) -> None:
    """Each workflow that has ended, executed again, asks for the same and ends the same."""
    for run_id, watched in runs.items():
        state = watched.state
        if watched.venture is None or state.status not in TERMINAL or state.reason is StopReason.BLOCKED:
            continue
        differences = [one for one in replay(run_id).differences if one.kind in ("step", "end")]
        if differences:
            oracle("I14", f"{run_id}, executed again, differs: {differences[0]}")
