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
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.ports.model import Message, ToolCall


class ModelPayload(msgspec.Struct, frozen=True):
    """The payload of ``model.closed``: what the model wrote, as it wrote it."""

    text: str
    calls: tuple[ToolCall, ...] = ()


class _Turn:
    __slots__ = ("answers", "message", "notes")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.answers: dict[str, Message] = {}
        self.notes: list[Message] = []


_encoder = msgspec.json.Encoder()
_payloads: msgspec.json.Decoder[ModelPayload] = msgspec.json.Decoder(ModelPayload)


class Transcript:
    """The messages of one run, newest turns only."""

    def __init__(self) -> None:
        self.user = Message("user", "")
        self._turns: deque[_Turn] = deque()
        self._dropped = 0
        self._raw: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def apply(self, event: ev.Event, payload: bytes | None) -> None:
        """Take in one more event."""
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
        for turn in islice(self._turns, max(0, first - self._dropped), None):
            messages.append(turn.message)
            if room is not None and turn is self._turns[-1]:
                messages.extend(_cut(turn.answers.values(), room * 4 // max(1, len(turn.answers))))
            else:
                messages.extend(turn.answers.values())
            messages.extend(turn.notes)
        return tuple(messages)

    def forget(self, first: int) -> None:
        """Turns before ``first`` are never shown again: the window only moves forward."""
        while self._dropped < first and self._turns:
            self._turns.popleft()
            self._dropped += 1

    def _admitted(self, _: ev.RunAdmitted, payload: bytes | None) -> None:
        self.user = Message("user", _text(payload))

    def _closed(self, event: ev.ModelClosed, payload: bytes | None) -> None:
        if event.status is ReceiptStatus.SUCCEEDED:
            self.model(event, _payloads.decode(_present(payload)))

    def _ended(self, event: ev.ToolClosed | ev.EffectResolved, payload: bytes | None) -> None:
        self._answer(event.call, _present(payload).decode())

    def _decided(self, event: ev.GateDecided, payload: bytes | None) -> None:
        if event.ruling is Ruling.DENY:
            self._denied(event, payload)

    def _answer(self, call: str, content: str) -> None:
        call_id = self._ids.get(call)
        if call_id is not None:
            self._turns[-1].answers[call] = Message("tool", content, call_id=call_id)

    def _denied(self, event: ev.GateDecided, payload: bytes | None) -> None:
        detail = _text(payload)
        content = _encoder.encode({"denied": list(event.reasons)} | ({"detail": detail} if detail else {})).decode()
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


def _present(payload: bytes | None) -> bytes:
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
}
