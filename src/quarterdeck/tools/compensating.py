"""What undoes a tool, or stops what it has started, as a tool of its own: with its own decision, intent and receipt."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

import msgspec

from quarterdeck.core.canonical import strictly
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.ports.tools import Finding, Tool, ToolContext, ToolFailure

SUFFIX = ".undo"
"""The name of what undoes a tool is the tool's, with this behind it."""

_encoder = msgspec.json.Encoder(order="deterministic")


class Undone(msgspec.Struct, frozen=True):
    """What a compensation is told: the idempotency key and the arguments of the call that is undone, and its result."""

    key: str
    arguments: dict[str, object]
    result: object = None


class Compensation:
    """The ``compensate`` function of a tool, or with the suffix of one its ``cancel`` hook.

    It is called with those of the tool's arguments that it names, with ``result`` and with the context, if it names them. The context's
    idempotency key is that of the call that is undone: the provider knows it, and undoing twice under it is undoing once. What the tool
    promises of itself (effect class, idempotency, time-out) holds for its compensation.
    """

    def __init__(self, tool: Tool, function: Callable[..., object], suffix: str = SUFFIX) -> None:
        of = tool.spec
        self._function = function
        self._wanted = frozenset(inspect.signature(function).parameters)
        self.spec = ToolSpec(
            name=f"{of.name}{suffix}"[:128],
            description=inspect.getdoc(function) or f"{'Undo' if suffix == SUFFIX else 'Stop'} {of.name}.",
            withdraws=suffix != SUFFIX,
            effect=of.effect,
            input_schema=_SCHEMA,
            idempotent=of.idempotent,
            idempotent_for_s=of.idempotent_for_s,
            timeout_s=of.timeout_s,
            permissions=of.permissions,
            sandbox=of.sandbox,
            secrets=of.secrets,
        )

    def fit(self, arguments: bytes) -> str:
        """Why these arguments do not fit, or an empty string."""
        try:
            _decoder.decode(arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return str(error)
        return ""

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Undo once; what the function returns, as JSON."""
        undone = _decoder.decode(arguments)
        told = msgspec.structs.replace(context, idempotency_key=undone.key)
        values = undone.arguments | {"result": undone.result, "ctx": told, "context": told, "idempotency_key": undone.key}
        chosen = {name: value for name, value in values.items() if name in self._wanted}
        if inspect.iscoroutinefunction(self._function):
            result = await self._function(**chosen)
        else:
            result = await asyncio.to_thread(self._function, **chosen)
        try:
            return strictly(_encoder, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ToolFailure(
                "tool.result_unreadable", f"{self.spec.name} returned what is no JSON: {error}", done=True
            ) from None

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Nobody can be asked."""
        return Finding(ReceiptStatus.UNKNOWN)


_decoder = msgspec.json.Decoder(Undone)
_SCHEMA = (
    b'{"type":"object","properties":{"key":{"type":"string"},"arguments":{"type":"object"},"result":{}},'
    b'"required":["key","arguments"],"additionalProperties":false}'
)
