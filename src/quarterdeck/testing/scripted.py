"""A model that proposes exactly what it is told; labelled as such wherever it is shown.

Each turn is a text (the reply) or a list of calls ``(tool, arguments)``, where arguments is a dict or the raw JSON text as a model
would send it; an exception is raised. Turns may also be one function of the messages so far. Which turn is played follows from the
request alone, so a script goes on where it was after a crash, and serves any number of runs at once.

>>> import asyncio
>>> model = ScriptedModel([[("lookup", {"id": 7})], "done"])
>>> request = ModelRequest((Message("user", "hello"),), (), 100)
>>> asyncio.run(model.propose(request, print)).calls[0].arguments
'{"id":7}'
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from quarterdeck.ports.model import Message, ModelFailure, ModelReply, ModelRequest, Price, ToolCall, Usage

Call = tuple[str, object]
"""A tool's name and its arguments: a JSON value, or raw text that is sent as it is."""
Turn = str | Sequence[Call] | BaseException
"""One turn: a reply, calls, or a failure."""

_encoder = msgspec.json.Encoder()


class ScriptedModel:
    """A :class:`~quarterdeck.ports.model.Model` for tests. ``latency_s`` is waited before each answer, on the loop's clock."""

    labelled = "scripted"

    def __init__(
        self,
        turns: Sequence[Turn] | Callable[[tuple[Message, ...]], Turn],
        name: str = "scripted",
        price: Price | None = None,
        latency_s: float = 0.0,
    ) -> None:
        self.name = name
        self.price = price or Price()
        self._turns = turns
        self._latency_s = latency_s

    def worst_case(self, request: ModelRequest) -> Usage:
        """What the same call is billed at most: its messages at four characters a token, and the whole output allowance."""
        return Usage(_size(request), request.max_output_tokens)

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """Play the request's turn. Past the end of the script: ``model.script_exhausted``, a permanent failure."""
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        turn = self._turn(request)
        if isinstance(turn, BaseException):
            raise turn
        if isinstance(turn, str):
            emit(turn)
            output = min(request.max_output_tokens, -(-len(turn) // 4))
            return ModelReply(turn, (), Usage(_size(request), output), "stop", self.name)
        calls = tuple(
            [
                ToolCall(f"c{request.turn}-{index}", tool, raw if isinstance(raw, str) else _encoder.encode(raw).decode())
                for index, (tool, raw) in enumerate(turn)
            ]
        )
        output = min(request.max_output_tokens, sum([len(call.arguments) for call in calls]) // 4 + 1)
        return ModelReply("", calls, Usage(_size(request), output), "calls", self.name)

    async def close(self) -> None:
        """Nothing to release."""

    def _turn(self, request: ModelRequest) -> Turn:
        if callable(self._turns):
            return self._turns(request.messages)
        if request.turn >= len(self._turns):
            raise ModelFailure(
                "model.script_exhausted", f"the script has {len(self._turns)} turns, this is the next one", transient=False
            )
        return self._turns[request.turn]


def _size(request: ModelRequest) -> int:
    return sum([len(message.content) for message in request.messages]) // 4 + 4 * len(request.messages)
