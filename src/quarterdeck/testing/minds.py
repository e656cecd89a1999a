"""Simulated models: what they say follows from the seed, the run and the turn; whether they answer is drawn.

They write what models write: good calls, several at once, the same call again, arguments that are no JSON or do not fit, tools that
do not exist, text, nothing. A provider bills what it did, also where its answer never arrived; the world keeps that account.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import msgspec

from quarterdeck.ports.model import ModelFailure, ModelReply, ModelRequest, Price, ToolCall, Usage
from quarterdeck.testing.processes import current
from quarterdeck.testing.scenario import TOOLS
from quarterdeck.testing.world import World, for_ever


class Listener(Protocol):
    """Who is told what a model is asked; the oracle."""

    def asked(self, model: str, request: ModelRequest) -> None:
        """A model is about to be asked."""
        ...


class _Task(msgspec.Struct, frozen=True):
    """What a simulated client sends."""

    label: str


class SimulatedModel:
    """A :class:`~quarterdeck.ports.model.Model` of the simulated world."""

    labelled = "simulated"

    def __init__(self, world: World, name: str, price: Price, listener: Listener) -> None:
        self.name = name
        self.price = price
        self._world = world
        self._listener = listener

    def worst_case(self, request: ModelRequest) -> Usage:
        """All that is sent, and the whole allowance."""
        return Usage(_size(request), request.max_output_tokens)

    async def close(self) -> None:
        """Nothing to release."""

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        """Answer once, under this attempt's drawn fate."""
        world, rates = self._world, self._world.rates
        process = current()
        if process is None or process.dead:
            await for_ever()
        self._listener.asked(self.name, request)
        if world.dies(rates.crash_model):
            world.reached.sometimes("crash.model")
            await for_ever()
        if world.roll(rates.model_transient) or world.is_out(self.name):
            code = world.chance.choice(("model.rate_limited", "model.server_error", "model.unreachable"))
            wish_s = world.chance.choice((None, None, 2.0))
            raise ModelFailure(code, "not now", transient=True, retry_after_s=wish_s)
        if world.roll(rates.model_permanent):
            raise ModelFailure("model.authentication", "never", transient=False)
        if world.roll(rates.model_hangs):
            world.reached.sometimes("model.hung")
            self._bill(request, self.worst_case(request))
            await for_ever()
        await world.clock.sleep(world.between(0.0, 0.2) if not world.roll(rates.model_slow) else world.between(0.2, 40.0))
        reply = self._reply(request, emit)
        self._bill(request, reply.usage)
        if world.dies(rates.crash_model):
            world.reached.sometimes("crash.model")
            await for_ever()
        if world.roll(rates.model_billed):
            world.reached.sometimes("model.billed_failure")
            usage = reply.usage if world.chance.random() < 0.5 else Usage(known=False)
            code = world.chance.choice(("model.timeout", "model.garbled"))
            raise ModelFailure(code, "cut off in mid-answer", transient=True, usage=usage)
        return reply

    def _bill(self, request: ModelRequest, usage: Usage) -> None:
        self._world.billed[request.idempotency_key] += usage.input_tokens + usage.output_tokens

    def _reply(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        label = _task(request)
        chance = random.Random(f"{self._world.scenario.seed}/{label}/{request.turn}")
        usage = Usage(_size(request), chance.randint(1, request.max_output_tokens))
        if chance.random() < 0.12 + 0.05 * request.turn:
            text = chance.choice(("done", "here it is", "all is well", ""))
            emit(text)
            return ModelReply(text, (), usage, "stop", self.name)
        count = chance.choice((1, 1, 1, 2, 3))
        calls = tuple([ToolCall(f"c{request.turn}-{index}", *self._call(chance, request)) for index in range(count)])
        text = chance.choice(("", "", "let me see"))
        return ModelReply(text, calls, usage, "calls", self.name)

    def _call(self, chance: random.Random, request: ModelRequest) -> tuple[str, str]:
        rates = self._world.rates
        named = [tool.name for tool in request.tools]
        tool = chance.choice(TOOLS if chance.random() < 0.05 else named)
        if chance.random() < rates.garbage:
            kind = chance.randrange(6)
            if kind == 0:
                return "nope", "{}"
            garbage = (
                "{",
                '{"target":"c1"}',
                '{"target":"c1","amount":"5"}',
                '{"target":"a","target":"b","amount":1}',
                "[1e999]",
            )
            return tool, garbage[kind - 1]
        if chance.random() < rates.repeat:
            return "lookup", '{"target":"c0","amount":1}'
        return tool, f'{{"amount": {chance.randint(1, 5)}, "target": "c{chance.randrange(5)}"}}'


def _task(request: ModelRequest) -> str:
    for message in request.messages:
        if message.role == "user":
            return msgspec.json.decode(message.content, type=_Task).label
    return ""


def _size(request: ModelRequest) -> int:
    return sum([len(message.content) for message in request.messages]) // 4 + 4 * len(request.messages)
