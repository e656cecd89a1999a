"""A real language model on this machine: no key, no network, no money. Small enough to be in a package, and as weak as that.

By default SmolLM2-135M-Instruct (Apache-2.0, 98 MB). Its output is decoded under a JSON Schema, so every proposal names a tool
that was offered and has arguments of the right shape; whether it is the *right* tool is another matter. On 30 handwritten support
tickets, four tools and ten examples it named the right one 26 times, which is what copying the nearest example would have given;
without examples 7 times, which is chance. It is here so that everything runs at once, against something that proposes for real.
It is no evidence of what an agent can do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from quarterdeck.models.local_engine import MAX_OUTPUT_TOKENS, Engine, Job, engine_for
from quarterdeck.models.prompts import Prompt, examples_of, prompt_of
from quarterdeck.models.structured import Unreadable, answer_deltas, proposal_schema, read
from quarterdeck.ports.model import ModelFailure, ModelReply, ModelRequest, Price, Usage

BUNDLED_NAME = "smollm2-135m-instruct"
_FREE = Price()


def missing(path: Path | None = None) -> str:
    """What a local model lacks on this machine, with the commands that install it; empty if nothing. Loads nothing.

    ``path`` is a file of weights, by default the bundled one. What is there may still turn out to be no weights.
    """
    try:
        engine_for(path)
    except ModelFailure as failure:
        return failure.message
    return ""


class LocalModel:
    """A :class:`~quarterdeck.ports.model.Model` from a GGUF file; the bundled one without ``path``.

    ``examples`` are pairs of what a user may say and the proposal it should lead to, as JSON:
    ``("Where is A-1?", '{"tool": "lookup_order", "arguments": {"order_id": "A-1"}}')``; a final answer is the tool ``reply``
    with ``{"text": …}``. Two or three for each tool make all the difference. Lines ``text -> {…}`` of the system prompt count
    too, and where there are tools they are the only part of it that reaches the model. What a tool has answered is written
    behind what was said, as in ``Where is A-1? [lookup_order: status lost]``: an example with that on its left side teaches a
    second step; without one, the model words the result and stops.

    Weights are loaded by the first call and shared by all models of the same file. Requests to one file wait for each other;
    ``timeout_s`` counts the waiting. One call is proposed at a time. At most 1,024 tokens are written, whatever was asked for.
    """

    labelled = ""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, examples: tuple[tuple[str, str], ...] = ()) -> None:
        self._path = Path(path) if path is not None else None
        self._examples = examples_of(examples)
        self._engine: Engine | None = None
        self._latest: tuple[ModelRequest, Prompt] | None = None

    def __repr__(self) -> str:
        return f"LocalModel({str(self._path)!r})" if self._path is not None else "LocalModel()"

    @property
    def name(self) -> str:
        """``smollm2-135m-instruct``, or the name of the file."""
        return self._path.stem if self._path is not None else BUNDLED_NAME

    @property
    def price(self) -> Price:
        """Nothing: it runs here."""
        return _FREE

    def missing(self) -> str:
        """What it lacks on this machine, with the commands that install it; empty if nothing."""
        return missing(self._path)

    def worst_case(self, request: ModelRequest) -> Usage:
        """A token for each byte of the prompt that will really be sent, which is much shorter than the transcript."""
        return Usage(self._prompt(request).input_bound, min(request.max_output_tokens, MAX_OUTPUT_TOKENS))

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """Generate one proposal. Cancelling returns at once; the engine stops with the next token."""
        if self._engine is None:
            self._engine = engine_for(self._path)
        prompt = self._prompt(request)
        sink = emit if prompt.chat else answer_deltas(prompt.tools, emit)
        schema = b"" if prompt.chat else proposal_schema(prompt.tools)
        try:
            async with asyncio.timeout(request.timeout_s):
                written = await self._engine.run(Job(prompt.text, prompt.chat, schema, request.max_output_tokens), sink)
        except TimeoutError:
            said = f"nothing complete within {request.timeout_s} s"
            raise ModelFailure("model.timeout", said, transient=True, usage=Usage(known=False)) from None
        if prompt.chat:
            return ModelReply(written.text.strip(), (), written.usage, "length" if written.cut else "stop", self.name)
        call_id = f"c{request.turn}-0"
        try:
            return read(written.text, prompt.tools, cut=written.cut, call_id=call_id, usage=written.usage, model=self.name)
        except Unreadable as error:
            said = f"{error}; perhaps a tool's schema says more than the engine understands"
            raise ModelFailure("model.garbled", said, transient=False, usage=written.usage) from None

    async def close(self) -> None:
        """Let go of the weights; they are freed with the last model that uses them."""
        self._engine = None

    def _prompt(self, request: ModelRequest) -> Prompt:
        """The request's prompt; kept for the call that usually follows its ``worst_case``."""
        if self._latest is None or self._latest[0] is not request:
            self._latest = (request, prompt_of(request, self._examples))
        return self._latest[1]
