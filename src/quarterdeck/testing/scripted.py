"""A model that proposes exactly what it is told: for tests, simulations and loads. Always labelled ``scripted``.

It keeps no state between calls: the run's own counter, ``request.turn``, picks the turn. So one model serves any number of runs
at once, and a run that goes on after a crash, in another process, continues with the right turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from quarterdeck.models.tokens import estimate
from quarterdeck.ports.model import Message, ModelFailure, ModelReply, ModelRequest, Price, ToolCall, Usage

Call = tuple[str, object]
"""A tool's name and its arguments: a JSON value, or the raw text as a model would send it, JSON or not."""

Turn = str | Sequence[Call] | BaseException
"""One turn: a text (the reply), a list of calls, or an exception (raised, usually a :class:`ModelFailure`)."""

_Prepared = tuple[str, tuple[ToolCall, ...], int] | BaseException

_encoder = msgspec.json.Encoder()


class ScriptedModel:
    """Proposes the turns that it was given, in order.

    ``turns`` is a sequence, or a function of the messages so far that returns a turn. Past the end of a sequence it raises a
    permanent ``model.script_exhausted``. ``latency_s`` passes on the event loop's clock before each answer; without it
    ``propose`` never yields. Call ids are ``c<turn>-<index>``. Usage is one token per four characters, at most what
    ``worst_case`` said, though the answer itself is never cut.

    >>> model = ScriptedModel([[("lookup_order", {"order_id": "AB-1"})], "It arrives tomorrow."])
    >>> request = ModelRequest((Message("user", "Where is AB-1?"),), (), 100)
    >>> asyncio.run(model.propose(request, lambda delta: None)).calls
    (ToolCall(call_id='c0-0', tool='lookup_order', arguments='{"order_id":"AB-1"}'),)
    >>> asyncio.run(model.propose(msgspec.structs.replace(request, turn=1), print)).finish
    It arrives tomorrow.
    'stop'
    """

    def __init__(
        self,
        turns: Sequence[Turn] | Callable[[tuple[Message, ...]], Turn],
        name: str = "scripted",
        price: Price | None = None,
        latency_s: float = 0.0,
    ) -> None:
        self._name = name
        self._price = price if price is not None else Price()
        self._latency_s = latency_s
        self._function = turns if callable(turns) else None
        self._turns = () if callable(turns) else tuple([_prepared(turn, at) for at, turn in enumerate(turns)])

    @property
    def name(self) -> str:
        """As given, ``scripted`` by default."""
        return self._name

    @property
    def price(self) -> Price:
        """As given, nothing by default."""
        return self._price

    @property
    def labelled(self) -> str:
        """``scripted``: no model wrote this."""
        return "scripted"

    def worst_case(self, request: ModelRequest) -> Usage:
        """Exact in the input; in the output the request's ceiling."""
        return Usage(_input_tokens(request), request.max_output_tokens)

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """Give this turn's answer, a text as one delta."""
        if self._latency_s > 0:
            await asyncio.sleep(self._latency_s)
        at = request.turn
        if self._function is not None:
            prepared = _prepared(self._function(request.messages), at)
        elif at < len(self._turns):
            prepared = self._turns[at]
        else:
            raise ModelFailure(
                "model.script_exhausted",
                f"the script has {len(self._turns)} turns and was asked for turn {at}",
                transient=False,
            )
        if isinstance(prepared, BaseException):
            raise prepared
        text, calls, output_tokens = prepared
        if text:
            emit(text)
        usage = Usage(_input_tokens(request), min(output_tokens, request.max_output_tokens))
        return ModelReply(text, calls, usage, "calls" if calls else "stop", self._name)

    async def close(self) -> None:
        """Nothing to release."""


def _input_tokens(request: ModelRequest) -> int:
    """Four characters to a token and four tokens to a message; tools and calls are free."""
    return sum([len(message.content) for message in request.messages]) // 4 + 4 * len(request.messages)


def _prepared(turn: Turn, at: int) -> _Prepared:
    if isinstance(turn, str):
        return turn, (), estimate(turn)
    if isinstance(turn, BaseException):
        return turn
    calls = tuple([ToolCall(f"c{at}-{index}", tool, _raw(arguments)) for index, (tool, arguments) in enumerate(turn)])
    return "", calls, sum([estimate(call.tool) + estimate(call.arguments) for call in calls])


def _raw(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else _encoder.encode(arguments).decode()
