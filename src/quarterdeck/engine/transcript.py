"""The contents of a run's transcript: the window of messages that a model may still see.

Folded from events *with* payloads, beside the state that is folded without. Turns that have left the window are dropped, so memory
and the cost of a turn do not grow with the length of the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.carrying import Carried
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.fold import RESULT
from quarterdeck.core.origins import Origins, Source
from quarterdeck.core.sinks import sinks_of
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, ReceiptStatus, Ruling
from quarterdeck.ports.model import Message, ToolCall

SUMMARY = "What has happened so far, in short: "
"""How a summary begins, where the model sees it."""


class ModelPayload(msgspec.Struct, frozen=True):
    """The payload of ``model.closed``: what the model wrote, as it wrote it."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class Shown(msgspec.Struct, frozen=True):
    """One turn as it is in sight."""

    message: Message
    answers: tuple[Message, ...] = ()
    notes: tuple[Message, ...] = ()


class Sight(msgspec.Struct, frozen=True):
    """What of a transcript is in sight: the payload with which a fresh history of an agent's run begins."""

    user: Message
    lead: tuple[Message, ...] = ()
    turns: tuple[Shown, ...] = ()
    unheard: tuple[Message, ...] = ()
    dropped: int = 0
    summary: str = ""


class _Turn:
    __slots__ = ("answers", "message", "notes")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.answers: dict[str, Message] = {}
        self.notes: list[Message] = []


_encoder = msgspec.json.Encoder()
_payloads: msgspec.json.Decoder[ModelPayload] = msgspec.json.Decoder(ModelPayload)
_sights: msgspec.json.Decoder[Sight] = msgspec.json.Decoder(Sight)


class Transcript:
    """The messages of one run, newest turns only."""

    def __init__(self) -> None:
        self.user = Message("user", "")
        self._turns: deque[_Turn] = deque()
        self._dropped = 0
        self._raw: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._unheard: list[Message] = []
        self._lead: list[Message] = []
        self.summary = ""
        self._summaries: set[str] = set()
        self._withheld: dict[str, bytes] = {}
        self.instead: dict[str, bytes] = {}
        self.origins: Origins | None = None
        self._tools: dict[str, str] = {}
        self._sources: dict[str, Source] = {}
        self._specs: Callable[[str], ToolSpec | None] = lambda name: None

    def watch(self, origins: Origins, specs: Callable[[str], ToolSpec | None]) -> None:
        """Keep track, from the first event on, of what this run may trust; ``specs`` knows the manifests of tools."""
        self.origins = origins
        self._specs = specs

    def apply(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in one more event."""
        if self.origins is not None:
            self.trace(event, payload)
        apply = _APPLY.get(type(event))
        if apply is not None:
            apply(self, event, payload)

    def model(self, event: ev.ModelClosed, reply: ModelPayload) -> None:
        """Take in a model's message that is already decoded."""
        if event.status is not ReceiptStatus.SUCCEEDED:
            return
        self._turns.append(_Turn(Message("assistant", reply.text, reply.calls)))
        self._raw = {planned.call: call.arguments for planned, call in zip(event.calls, reply.calls, strict=True)}
        self._ids = {planned.call: planned.call_id for planned in event.calls}

    def trace(self, event: ev.Event, payload: bytes | None) -> None:
        """Keep track of where values come from: requests, trusted results, and what was asked for them."""
        origins = self.origins
        if origins is None:
            return
        match event:
            case ev.RunAdmitted() if not origins.tainted and payload is not None:
                origins.ask_json(payload)
            case ev.ToolOpened():
                self._tools[event.call] = event.tool
            case ev.ToolClosed() | ev.EffectResolved() if payload is not None:
                source = self._source(self._tools.pop(event.call, ""))
                origins.received(event.status, event.labels, payload, self._asked(event.call), source)
            case ev.ChildEnded() if event.labels is not None and event.labels.untrusted:
                origins.tainted = True
            case ev.RunInterrupted():
                if event.labels is not None and event.labels.untrusted:
                    origins.tainted = True
                elif payload is not None:
                    origins.ask_json(payload)
            case ev.RunContinued() | ev.RunForked():
                labels = event.carried.labels
                origins.tainted = origins.tainted or (labels is not None and labels.untrusted)
                if self._has_written(event.carried):
                    origins.wrote()
                if isinstance(event, ev.RunContinued) and payload is not None:
                    sent = event.contract.labels
                    if sent is None or not sent.untrusted:
                        self._trust_again(payload)
            case _:
                pass

    def _trust_again(self, payload: bytes) -> None:
        """In a fresh history, the caller's own request is trusted as before; nothing else of what is still in sight is."""
        if self.origins is not None:
            self.origins.ask(_sights.decode(payload).user.content)

    def _has_written(self, taken: Carried) -> bool:
        """Whether anything but reads was done in the part of a history that was cut; what was written there may come back."""
        return bool(taken.effects.get("failed")) or any(
            self._source(tool).effect is not EffectClass.READ for tool in taken.succeeded_tools
        )

    def _source(self, tool: str) -> Source:
        """What is to be known of a tool whose answer has come; of one that is not there any more, the worst."""
        known = self._sources.get(tool)
        if known is None:
            spec = self._specs(tool) if tool else None
            if spec is None:
                return Source()
            known = Source(tool, spec.effect, sinks_of(spec).outward, frozenset(spec.trusted_fields))
            self._sources[tool] = known
        return known

    def _asked(self, call: str) -> str | None:
        return self._raw.get(call)

    def raw(self, call: str) -> str:
        """The arguments of a planned call of the present turn, exactly as the model wrote them."""
        return self._raw[call]

    @property
    def text(self) -> str:
        """The newest text that the model wrote; empty if it has only called tools."""
        for turn in reversed(self._turns):
            if turn.message.content:
                return turn.message.content
        return ""

    @property
    def reply(self) -> str:
        """The text of the newest model message."""
        return self._turns[-1].message.content if self._turns else ""

    def window(self, system: Message | None, first: int, room: int | None = None) -> tuple[Message, ...]:
        """System prompt, user message and every turn from ``first`` on. ``room``: tokens to which the newest turn's answers are cut."""
        messages = [system, self.user] if system is not None else [self.user]
        messages.extend(self._lead)
        if self.summary:
            messages.append(Message("user", f"{SUMMARY}{self.summary}"))
        for turn in islice(self._turns, max(0, first - self._dropped), None):
            messages.append(turn.message)
            if room is not None and turn is self._turns[-1]:
                messages.extend(_cut(turn.answers.values(), room * 4 // max(1, len(turn.answers))))
            else:
                messages.extend(turn.answers.values())
            messages.extend(turn.notes)
        messages.extend(self._unheard)
        return tuple(messages)

    @property
    def first(self) -> int:
        """The oldest turn that is in sight."""
        return self._dropped

    def told(self, upto: int) -> str:
        """Everything before a turn, as text: what is to be summarised."""
        lines = [f"user: {self.user.content}", *[f"user: {note.content}" for note in self._lead]]
        if self.summary:
            lines.append(f"{SUMMARY}{self.summary}")
        for turn in islice(self._turns, max(0, upto - self._dropped)):
            for message in (turn.message, *turn.answers.values(), *turn.notes):
                lines.append(f"{message.role}: {message.content}" if message.content else f"{message.role}:")
                lines.extend([f"  calls {call.tool} with {call.arguments}" for call in message.calls])
        return "\n".join(lines)

    def heard(self) -> None:
        """A model call is on its way that sees every interrupt so far: they have their place in the transcript now."""
        if self._unheard:
            (self._turns[-1].notes if self._turns else self._lead).extend(self._unheard)
            self._unheard.clear()

    def forget(self, first: int) -> None:
        """Turns before ``first`` are never shown again: the window only moves forward."""
        while self._dropped < first and self._turns:
            self._turns.popleft()
            self._dropped += 1

    def _admitted(self, _: ev.RunAdmitted, payload: bytes | None) -> None:
        self.user = Message("user", _text(payload))

    def _closed(self, event: ev.ModelClosed, payload: bytes | None) -> None:
        if event.call in self._summaries:
            self._summaries.discard(event.call)
        elif event.status is ReceiptStatus.SUCCEEDED:
            self.model(event, _payloads.decode(present(payload)))

    def _ended(self, event: ev.ToolClosed | ev.EffectResolved, payload: bytes | None) -> None:
        if isinstance(event, ev.EffectResolved) and event.again:
            return
        withheld = self._withheld.pop(event.call, None) if event.status is ReceiptStatus.SUCCEEDED else None
        self._answer(event.call, (withheld or present(payload)).decode())

    def _decided(self, event: ev.GateDecided, payload: bytes | None) -> None:
        if event.ruling is Ruling.DENY:
            self._denied(event, payload)
        elif event.ruling is Ruling.REDACT:
            self._withheld[event.call] = _encoder.encode({"withheld": list(event.reasons)})

    def _interrupted(self, event: ev.RunInterrupted, payload: bytes | None) -> None:
        for call in event.withdrawn:
            self._answer(call, '{"denied":["run.interrupted"]}')
        self._unheard.append(Message("user", _text(payload)))

    def _opened(self, event: ev.ModelOpened, _: bytes | None) -> None:
        if event.summarises:
            self._summaries.add(event.call)
        else:
            self.heard()

    def _compacted(self, event: ev.ContextCompacted, payload: bytes | None) -> None:
        self.summary = _text(present(payload))
        self.forget(event.upto)

    def _proposed(self, event: ev.StepProposed, payload: bytes | None) -> None:
        self._raw[event.call] = present(payload).decode()

    def edit(self, call: str, content: str) -> int:
        """Another result for a call of the newest turn; by how many characters it is longer."""
        before = self._turns[-1].answers[call]
        self._turns[-1].answers[call] = msgspec.structs.replace(before, content=content)
        return len(content) - len(before.content)

    def snapshot(self) -> bytes:
        """What is in sight, as the payload of a fresh history."""
        turns = tuple([Shown(turn.message, tuple(turn.answers.values()), tuple(turn.notes)) for turn in self._turns])
        sight = Sight(self.user, tuple(self._lead), turns, tuple(self._unheard), self._dropped, self.summary)
        return _encoder.encode(sight)

    def _resumed(self, _: ev.RunContinued | ev.RunForked, payload: bytes | None) -> None:
        sight = _sights.decode(present(payload))
        self.user, self.summary = sight.user, sight.summary
        self._lead, self._unheard = list(sight.lead), list(sight.unheard)
        self._dropped = sight.dropped
        self._raw, self._ids = {}, {}
        self._turns = deque()
        for shown in sight.turns:
            turn = _Turn(shown.message)
            turn.answers = {answer.call_id: answer for answer in shown.answers}
            turn.notes = list(shown.notes)
            self._turns.append(turn)

    def _person(self, event: ev.ApprovalDecided, payload: bytes | None) -> None:
        """A person wants other arguments, or says something instead of the action."""
        if event.call and event.outcome == "edited":
            self._raw[event.call] = present(payload).decode()
        elif event.call and event.outcome == "answered":
            self.instead[event.call] = present(payload)

    def _answer(self, call: str, content: str) -> None:
        call_id = self._ids.get(call)
        if call_id is not None:
            self._turns[-1].answers[call] = Message("tool", content, call_id=call_id)

    def _denied(self, event: ev.GateDecided, payload: bytes | None) -> None:
        detail = _text(payload)
        if event.reasons == ("approval.answered",):
            self._answer(event.call, _encoder.encode({"answered_by_a_person": detail}).decode())
            return
        content = _encoder.encode({"denied": list(event.reasons)} | ({"detail": detail} if detail else {})).decode()
        if event.proposal is ProposalKind.REPLY and event.call == RESULT:
            return  # what a workflow returned: there is no model to tell
        if event.proposal is ProposalKind.REPLY:
            self._turns[-1].notes.append(Message("user", content))
        else:
            self._answer(event.call, content)


def _cut(answers: Iterable[Message], length: int) -> Iterator[Message]:
    """The same answers, each at most so many characters long, and saying so where something was cut off."""
    for answer in answers:
        if len(answer.content) <= length:
            yield answer
        else:
            kept = answer.content[: max(0, length - 64)]
            yield msgspec.structs.replace(
                answer, content=f"{kept} [cut: {len(answer.content) - len(kept)} characters are left out]"
            )


def present(payload: bytes | None) -> bytes:
    """A payload that must be there; raises :class:`Corrupt` where it was erased."""
    if payload is None:
        raise Corrupt("payload.erased", "the contents of this run were erased; it cannot go on")
    return payload


def _text(payload: bytes | None) -> str:
    """A payload as a message: JSON strings as their text, everything else as JSON."""
    if payload is None:
        return ""
    value = msgspec.json.decode(payload)
    return value if isinstance(value, str) else payload.decode()


_APPLY: dict[type, Callable[[Transcript, Any, bytes | None], None]] = {
    ev.RunAdmitted: Transcript._admitted,
    ev.ModelClosed: Transcript._closed,
    ev.ToolClosed: Transcript._ended,
    ev.EffectResolved: Transcript._ended,
    ev.GateDecided: Transcript._decided,
    ev.RunInterrupted: Transcript._interrupted,
    ev.ModelOpened: Transcript._opened,
    ev.ContextCompacted: Transcript._compacted,
    ev.StepProposed: Transcript._proposed,
    ev.RunContinued: Transcript._resumed,
    ev.RunForked: Transcript._resumed,
    ev.ApprovalDecided: Transcript._person,
}
