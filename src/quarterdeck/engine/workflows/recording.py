"""A workflow's journal as its execution meets it: what it asked for, in order, and what it was answered, in order."""

from __future__ import annotations

from collections import deque

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import strictly
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.transcript import Transcript, present

_encoder = msgspec.json.Encoder(order="deterministic")


class Leaving(msgspec.Struct, frozen=True):
    """The payload with which a fresh history of a workflow begins."""

    input: msgspec.Raw
    signals: dict[str, tuple[msgspec.Raw, ...]] = {}
    unasked: tuple[object, ...] = ()


_UNTOLD = frozenset(
    {
        ev.RunStarted,
        ev.RunWaiting,
        ev.BudgetMoved,
        ev.ModelOpened,
        ev.ToolOpened,
        ev.EffectReopened,
        ev.ChildOpened,
        ev.RunProgressed,
    }
)
"""The commonest events that say nothing to a workflow."""
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
        self.undone_by_hand = False
        self._names: dict[str, str] = {}
        self._live = False
        self._hooks: set[str] = set()
        self.interrupts: deque[bytes] = deque()
        self.unasked: list[object] = []

    def live(self) -> None:
        """The journal has been read: what happens from now on is told by the sequencer."""
        self._live = True

    def apply(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in one more event of the journal that is being read."""
        if not self._live:
            if isinstance(event, ev.StepProposed) and event.step is not StepKind.WITHDRAW:
                self.proposals.append(event)
            self.order(event, payload)

    def order(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in an event whose place in the journal is certain."""
        if self.origins is not None:
            self.trace(event, payload)
        if type(event) in _UNTOLD:
            return
        match event:
            case ev.StepProposed():
                self._proposed(event, payload)
            case ev.ToolClosed() if event.status is ReceiptStatus.UNKNOWN:
                pass  # whoever resolves it answers
            case ev.ToolClosed():
                self._answered(event, payload)
            case ev.EffectResolved() if event.again:
                pass  # it is proposed once more
            case ev.GateDecided() if event.ruling is not Ruling.DENY or event.proposal in (ProposalKind.REPLY, ProposalKind.STOP):
                pass
            case (
                ev.StepClosed() | ev.EffectResolved() | ev.ModelClosed() | ev.ChildEnded() | ev.GateDecided() | ev.StepInherited()
            ):
                self._answered(event, payload)
            case ev.RunAdmitted():
                self.input = payload
            case ev.RunContinued() | ev.RunForked():
                self._begin(present(payload))
            case ev.RunInterrupted():
                self.interrupts.append(payload or b"null")
                self.arrivals.append((event, payload))
            case ev.CancelRequested():
                self.undone_by_hand = False
                self.arrivals.append((event, payload))
            case ev.SignalReceived():
                self.signals.setdefault(event.name, deque()).append(payload or b"null")
            case ev.RunResumed():
                self.resumes += 1
                self.by_hand = self.undone_by_hand = event.done
            case ev.ApprovalDecided():
                self.said[event.approval] = event.reason
                if event.call in self.arguments and event.outcome == "edited" and payload is not None:
                    self.arguments[event.call] = payload.decode()
                elif event.call and event.outcome == "answered" and payload is not None:
                    self.instead[event.call] = payload
            case _:
                pass

    def _trust_again(self, payload: bytes) -> None:
        """A workflow made its own input: that is trusted only where nothing untrusted was read before."""
        if self.origins is not None and not self.origins.tainted:
            self.origins.ask_json(bytes(msgspec.json.decode(payload, type=Leaving).input))

    def _asked(self, call: str) -> str | None:
        return self.arguments.get(call)

    def leaving(self, payload: object, unasked: list[object]) -> bytes:
        """What a fresh history begins with: its input, and what came and was not taken."""
        signals = {name: tuple(msgspec.Raw(one) for one in waiting) for name, waiting in self.signals.items() if waiting}
        left = Leaving(msgspec.Raw(strictly(_encoder, payload)), signals, tuple(unasked))
        return _encoder.encode(left)

    def _begin(self, payload: bytes) -> None:
        left = msgspec.json.decode(payload, type=Leaving)
        live, origins, specs = self._live, self.origins, self._specs
        Recording.__init__(self)
        self._live, self.input = live, bytes(left.input)
        self.origins, self._specs = origins, specs
        self.signals = {name: deque(bytes(one) for one in waiting) for name, waiting in left.signals.items()}
        self.unasked = list(left.unasked)

    def raw(self, call: str) -> str:
        """The arguments of a step, as they are recorded."""
        return self.arguments[call]

    def _proposed(self, event: ev.StepProposed, payload: bytes | None) -> None:
        if event.due_us is not None:
            self.due_us[event.call] = event.due_us
        if event.step is StepKind.WITHDRAW:
            self._hooks.add(event.call)
        if event.step in (StepKind.TOOL, StepKind.CHILD, StepKind.WITHDRAW):
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
        said = ev.decode(event.answer.encode()) if isinstance(event, ev.StepInherited) else event
        succeeded = isinstance(said, ev.StepClosed) and said.status is ReceiptStatus.SUCCEEDED
        if name is not None and succeeded and (waiting := self.signals.get(name)):  # an edited answer has taken no message
            waiting.popleft()
        if isinstance(said, ev.StepClosed) and said.code == "run.interrupted":
            self.interrupts.popleft()
        if call not in self._hooks:  # nothing in the program waits for what the runtime itself asked for
            self.arrivals.append((event, payload))


def value_of(payload: bytes | None) -> object:
    """The JSON value of an answer; raises :class:`Corrupt` where it was erased."""
    if payload is None:
        raise Corrupt("payload.erased", "the contents of this run were erased; it cannot go on")
    return msgspec.json.decode(payload)
