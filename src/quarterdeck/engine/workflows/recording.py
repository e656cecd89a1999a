"""A workflow's journal as its execution meets it: what it asked for, in order, and what it was answered, in order."""

from __future__ import annotations

from collections import deque

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.transcript import Transcript

Arrival = tuple[ev.Event, bytes | None]
"""Something that the workflow may have to be told, with its payload."""


class Recording(Transcript):
    """The contents of a workflow's journal; takes the place of an agent's transcript.

    While the journal is read, :meth:`apply` is told of every event; from then on :meth:`order` is, by the sequencer, as soon as the
    place of an event in the journal is certain. ``proposals`` are the recorded steps that have not been asked for again yet;
    ``arrivals`` what is to be delivered, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input: bytes | None = None
        self.proposals: deque[ev.StepProposed] = deque()
        self.arrivals: deque[Arrival] = deque()
        self.arguments: dict[str, str] = {}
        self.due_us: dict[str, int] = {}
        self.signals: dict[str, deque[bytes]] = {}
        self.said: dict[str, str] = {}
        self.resumes = 0
        self.stuck_since: dict[str, int] = {}
        self.by_hand = False
        self._names: dict[str, str] = {}
        self._live = False

    def live(self) -> None:
        """The journal has been read: what happens from now on is told by the sequencer."""
        self._live = True

    def apply(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in one more event of the journal that is being read."""
        if not self._live:
            if isinstance(event, ev.StepProposed):
                self.proposals.append(event)
            self.order(event, payload)

    def order(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in an event whose place in the journal is certain."""
        match event:
            case ev.StepProposed():
                self._proposed(event, payload)
            case ev.RunAdmitted():
                self.input = payload
            case ev.ToolClosed() if event.status is ReceiptStatus.UNKNOWN:
                pass  # whoever resolves it answers
            case ev.GateDecided() if event.ruling is not Ruling.DENY or event.proposal in (ProposalKind.REPLY, ProposalKind.STOP):
                pass
            case ev.StepClosed() | ev.ToolClosed() | ev.EffectResolved() | ev.ModelClosed() | ev.ChildEnded() | ev.GateDecided():
                self._answered(event, payload)
            case ev.CancelRequested():
                self.arrivals.append((event, payload))
            case ev.SignalReceived():
                self.signals.setdefault(event.name, deque()).append(payload or b"null")
            case ev.RunResumed():
                self.resumes += 1
                self.by_hand = event.done
            case ev.ApprovalDecided():
                self.said[event.approval] = event.reason
            case _:
                pass

    def raw(self, call: str) -> str:
        """The arguments of a step, as they are recorded."""
        return self.arguments[call]

    def _proposed(self, event: ev.StepProposed, payload: bytes | None) -> None:
        if event.due_us is not None:
            self.due_us[event.call] = event.due_us
        if event.step is StepKind.TOOL or event.step is StepKind.CHILD:
            if payload is None:
                raise Corrupt("payload.erased", "the contents of this run were erased; it cannot go on")
            self.arguments[event.call] = payload.decode()
        if event.step is StepKind.STUCK:
            self.stuck_since[event.call] = self.resumes
        if event.step is StepKind.SIGNAL:
            self._names[event.call] = event.name

    def _answered(self, event: ev.Event, payload: bytes | None) -> None:
        call: str = event.call  # type: ignore[union-attr]
        self.arguments.pop(call, None)
        self.due_us.pop(call, None)
        self.stuck_since.pop(call, None)
        name = self._names.pop(call, None)
        if name is not None and isinstance(event, ev.StepClosed) and event.status is ReceiptStatus.SUCCEEDED:
            self.signals[name].popleft()
        self.arrivals.append((event, payload))


def value_of(payload: bytes | None) -> object:
    """The JSON value of an answer; raises :class:`Corrupt` where it was erased."""
    if payload is None:
        raise Corrupt("payload.erased", "the contents of this run were erased; it cannot go on")
    return msgspec.json.decode(payload)
