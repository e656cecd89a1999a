"""From the chunks of a chat stream to one reply. Pure: no network, no client library.

Chunks come from outside, and the client library passes them on unchecked, so each is converted to the types below first; what does
not fit raises :class:`msgspec.ValidationError`. Endpoints that call themselves compatible differ in small ways, which are smoothed
here: ids that are missing, names that are repeated in every delta, two calls under one index, ``stop`` as the finish of calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from quarterdeck.ports.model import ModelReply, ToolCall, Usage

MAX_CALLS = 128
"""More calls in one answer than any provider allows; past it the answer is garbled."""


class FunctionDelta(msgspec.Struct, frozen=True):
    """A piece of a call: usually the name comes first and whole, the arguments in pieces."""

    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, frozen=True):
    """A piece of the call at ``index`` of the answer."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct, frozen=True):
    """What one chunk adds to the answer."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallDelta] | None = None


class Choice(msgspec.Struct, frozen=True):
    """One of the answers asked for; only number 0 ever is."""

    index: int | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class Counts(msgspec.Struct, frozen=True):
    """The provider's token counts; the last ones in a stream hold."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of the stream."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Counts | None = None


class _Call:
    __slots__ = ("arguments", "call_id", "name")

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.arguments: list[str] = []


class Assembly:
    """One reply in the making. Feed it every chunk, then take :meth:`reply`.

    >>> assembly = Assembly("small", turn=0)
    >>> delta = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"id":'}}]}
    >>> list(assembly.feed({"choices": [{"delta": delta}]}))
    []
    >>> delta = {"tool_calls": [{"index": 0, "function": {"arguments": "7}"}}]}
    >>> list(assembly.feed({"choices": [{"delta": delta, "finish_reason": "tool_calls"}]}))
    []
    >>> assembly.reply().calls
    (ToolCall(call_id='a', tool='look', arguments='{"id":7}'),)
    """

    def __init__(self, name: str, turn: int) -> None:
        self._model = name
        self._turn = turn
        self._text: list[str] = []
        self._calls: list[_Call] = []
        self._at_index: dict[int, _Call] = {}
        self._finish: str | None = None
        self._counts: Counts | None = None

    @property
    def finished(self) -> bool:
        """Whether the provider said how the answer ended; a stream that just stops was cut."""
        return self._finish is not None

    @property
    def usage(self) -> Usage:
        """What was counted so far; ``known=False`` if nothing (sensible) was."""
        counts = self._counts
        if counts is None or counts.prompt_tokens is None or counts.completion_tokens is None:
            return Usage(known=False)
        read, written = counts.prompt_tokens, counts.completion_tokens
        if counts.total_tokens is not None:  # some leave reasoning out of completion_tokens, but none out of the total
            written = max(written, counts.total_tokens - read)
        return Usage(read, written) if read >= 0 and written >= 0 else Usage(known=False)

    def feed(self, raw: object) -> Iterator[str]:
        """Take in one chunk (a mapping or an object with these attributes); gives the text that it adds."""
        chunk = msgspec.convert(raw, Chunk, from_attributes=True)
        if chunk.model:
            self._model = storable(chunk.model)
        if chunk.usage is not None:
            self._counts = chunk.usage
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                yield from self._take(choice.delta)

    def reply(self) -> ModelReply:
        """The whole answer. Calls without an id get ``c<turn>-<index>``."""
        calls = tuple(
            [
                ToolCall(storable(call.call_id) or f"c{self._turn}-{at}", storable(call.name), storable("".join(call.arguments)))
                for at, call in enumerate(self._calls)
            ]
        )
        return ModelReply(storable("".join(self._text)), calls, self.usage, self._ending(), self._model)

    def _take(self, delta: Delta) -> Iterator[str]:
        text = delta.content or delta.refusal
        if text:
            self._text.append(text)
            yield text.encode("utf-8", "replace").decode()
        for piece in delta.tool_calls or ():
            self._take_call(piece)

    def _take_call(self, piece: CallDelta) -> None:
        index = piece.index if piece.index is not None else len(self._calls) if piece.id else max(len(self._calls) - 1, 0)
        call = self._at_index.get(index)
        if call is None or (piece.id and call.call_id and piece.id != call.call_id):
            if len(self._calls) >= MAX_CALLS:
                raise msgspec.ValidationError(f"more than {MAX_CALLS} calls in one answer")
            call = self._at_index[index] = _Call()
            self._calls.append(call)
        call.call_id = call.call_id or piece.id or ""
        if piece.function is None:
            return
        if piece.function.name and piece.function.name != call.name:
            call.name += piece.function.name
        if piece.function.arguments:
            call.arguments.append(piece.function.arguments)

    def _ending(self) -> Literal["stop", "calls", "length", "filter"]:
        match self._finish:
            case "length":
                return "length"
            case "content_filter":
                return "filter"
            case _:
                return "calls" if self._calls else "stop"


def storable(text: str) -> str:
    r"""The text with lone surrogates replaced, so that every store can hold it; pairs that were split are joined.

    >>> storable("ok \ud83d\ude00 \ud83d")
    'ok 😀 \ufffd'
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
