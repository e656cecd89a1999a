"""The seam to language models: what the runtime asks, what a model may answer.

A model only *proposes*. It receives a bounded working set and the declarations of the tools that it may name, and answers
with text and, perhaps, calls whose arguments are raw, untrusted JSON text. Nothing that a model returns is executed by this
port; the gate sees every call first.

Promises of an implementation:

* ``propose`` performs exactly one request to the provider. It never retries; retries, time-outs, breakers and bulkheads are
  the runtime's (room ``resilience``), so that amplification is bounded in one place.
* Whatever goes wrong is raised as :class:`ModelFailure` with a class (transient or permanent) and, where the provider billed
  all the same, its usage. ``asyncio.CancelledError`` passes untouched and stops the request as soon as the transport allows.
* ``worst_case`` is an upper bound on what one ``propose`` of the same request can be billed; the budget reserves exactly it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one model call. ``known`` is false where the provider did not say: the call then settles at its worst case."""

    input_tokens: int = 0
    output_tokens: int = 0
    known: bool = True


class ToolCall(msgspec.Struct, frozen=True):
    """One call as the model wrote it: ``arguments`` is raw JSON text, untrusted and possibly not JSON at all."""

    call_id: str
    tool: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the transcript. ``calls`` only on assistant messages; ``call_id`` only on tool messages."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class ToolDeclaration(msgspec.Struct, frozen=True):
    """A tool as a model sees it; ``parameters`` is a JSON Schema object, encoded as JSON."""

    name: str
    description: str
    parameters: bytes


class ModelRequest(msgspec.Struct, frozen=True):
    """One bounded request. ``max_output_tokens`` is a hard ceiling that the implementation must pass on to the provider.

    ``turn`` is the 0-based ordinal of this model call in its run: the messages are a bounded window, so they cannot tell it.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDeclaration, ...]
    max_output_tokens: int
    idempotency_key: str = ""
    timeout_s: float = 30.0
    turn: int = 0


class ModelReply(msgspec.Struct, frozen=True):
    """What came back. ``finish`` is ``stop``, ``calls``, ``length`` or ``filter``; ``model`` is the provider's own name."""

    text: str
    calls: tuple[ToolCall, ...]
    usage: Usage
    finish: Literal["stop", "calls", "length", "filter"]
    model: str


class ModelFailure(Exception):
    """A model call failed. ``transient`` decides whether the runtime may retry; ``code`` is stable, e.g. ``model.rate_limited``.

    ``retry_after_s`` is the provider's wish where it gave one; ``usage`` is what was billed all the same (``known=False`` if
    that cannot be told, as after a time-out in mid-answer).
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        transient: bool,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.transient = transient
        self.retry_after_s = retry_after_s
        self.usage = usage


class Price(msgspec.Struct, frozen=True):
    """Money per million tokens in micro-dollars, with the day of the price list. Zero for a model that runs here."""

    input_microusd_per_mtok: int = 0
    output_microusd_per_mtok: int = 0
    as_of: str = ""


class Model(Protocol):
    """One model behind one name. Implementations live in ``quarterdeck.models`` and ``quarterdeck.testing``."""

    @property
    def name(self) -> str:
        """The provider's name of the model, recorded in every run's version set."""
        ...

    @property
    def price(self) -> Price:
        """The dated price that reservations and settlements use."""
        ...

    @property
    def labelled(self) -> str:
        """Empty for a real model; otherwise a plain label shown wherever its output is shown, such as ``scripted``."""
        ...

    def worst_case(self, request: ModelRequest) -> Usage:
        """An upper bound of what one call of this request is billed; pure, quick, never touches the network."""
        ...

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """Ask once. ``emit`` receives text deltas as they arrive (ephemeral, best effort). Raises :class:`ModelFailure`."""
        ...

    async def close(self) -> None:
        """Release connections and memory; calling it twice is harmless."""
        ...
