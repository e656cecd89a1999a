"""One worker process of the fleet suites: ``python -m proof.crew '{"dsn": …}'``. It works until SIGTERM, and says ``ready`` first.

What happens outside is a line in the ledger: that an effect began, that it has ended, which message arrived. The times within which a dead
worker's intents and messages may still be acted upon are settings here, so that a suite need not wait a minute for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from quarterdeck import Budget, Context, Quarterdeck, ToolContext
from quarterdeck.app import wiring
from quarterdeck.core import rules
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.dispatch import relay
from quarterdeck.engine import held
from quarterdeck.engine.held import Held
from quarterdeck.ports.outbox import Message
from quarterdeck.store.postgres import lease, open_store, opening, statements
from quarterdeck.store.postgres.opening import Standing
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.patching import patched

STEPS = 4
"""Effects of one run."""


class Duty(msgspec.Struct, frozen=True):
    """How one worker works.

    Planted bugs: ``abrupt`` does not wait for what is being performed, ``stubborn`` does not notice that its ``rules`` were replaced,
    ``trusting`` believes that a provider knows a key for ever, ``blind`` does not notice that an older database was put back, ``deaf`` not
    that the schema is one that it may not go on with, ``heedless`` reads switches once and never again.
    """

    dsn: str
    ledger: str
    name: str
    lease_s: float = 8.0
    perform_s: float = 60.0
    latency_s: float = 0.0
    active: int = 20_000
    rules: str = ""
    tools: int = 0
    """The limit of all tool calls of all runs; 0: none."""
    external: bool = False
    """Whether an effect must not be repeated."""
    known_s: int = 86_400
    """How long the provider knows a key."""
    code: int = 0
    """Which version of the program is deployed here: an even or an odd one."""
    abrupt: bool = False
    stubborn: bool = False
    trusting: bool = False
    blind: bool = False
    ahead: int = 0
    """How many versions of the schema this code is ahead; see :func:`newer`."""
    deaf: bool = False
    heedless: bool = False


class Ledger:
    """The file in which everything outside is written down, a line at a time."""

    def __init__(self, duty: Duty) -> None:
        self._name = duty.name
        self._file = os.open(Path(duty.ledger), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: str) -> None:
        """One line, with who writes it at its end."""
        os.write(self._file, f"{' '.join(words)} {self._name}\n".encode())


def crew(duty: Duty) -> Quarterdeck:
    """A deck of two routes: runs of some effects, each of which takes its time; and runs of one ordering key that tell others."""
    deck = Quarterdeck("crew")
    ledger = Ledger(duty)
    kind = {"effect": "external"} if duty.external else {"effect": "write", "idempotent": True, "idempotent_for": duty.known_s}

    many = DependencyPolicy(concurrency=BulkheadPolicy(slots=duty.active, max_queue=duty.active))

    @deck.tool(**kind, dependency=many, timeout=min(600.0, duty.known_s / 3))
    async def haul(step: int, ctx: ToolContext) -> int:
        """Haul."""
        ledger.write("begun", ctx.idempotency_key)
        await asyncio.sleep(duty.latency_s)
        ledger.write("ended", ctx.idempotency_key)
        return step

    if duty.rules:
        deck.policy(duty.rules)
    if duty.tools:
        deck.budget("all", Budget(tools=duty.tools))
    turns: list[str | Sequence[tuple[str, object]]] = [*[[("haul", {"step": step})] for step in range(STEPS)], "hauled"]
    deck.agent("haul", model=ScriptedModel(turns), tools=[haul], instructions=f"You haul, as in version {duty.code}.")
    _in_order(deck, ledger, duty)
    _deployed(deck, haul, duty)
    return deck


def _deployed(deck: Quarterdeck, haul: Callable[..., Awaitable[int]], duty: Duty) -> None:
    """One workflow in one of two versions, which do the same in another order."""
    if duty.code % 2:

        @deck.workflow("shift")
        async def backward(ctx: Context) -> int:
            for step in reversed(range(STEPS)):
                await ctx.tool(haul, step=step)
            return STEPS

    else:

        @deck.workflow("shift")
        async def forward(ctx: Context) -> int:
            for step in range(STEPS):
                await ctx.tool(haul, step=step)
            return STEPS


def _in_order(deck: Quarterdeck, ledger: Ledger, duty: Duty) -> None:
    @deck.outbox("told", timeout=2.0)
    async def receive(message: Message) -> None:
        await asyncio.sleep(min(1.0, duty.latency_s * 8))
        ledger.write("told", message.key, message.body.decode().strip('"'))

    @deck.tool(effect="write", idempotent=True)
    async def mark(of: str, ctx: ToolContext) -> str:
        """Leave a mark."""
        ledger.write("mark", of, ctx.run_id)
        await asyncio.sleep(duty.latency_s)
        ledger.write("mark", of, ctx.run_id)
        return of

    @deck.tool(effect="external", transactional=True)
    async def tell(of: str, ctx: ToolContext) -> str:
        """Tell others."""
        ctx.publish("told", ctx.run_id, key=of)
        return of

    @deck.workflow("ordered")
    async def ordered(ctx: Context, of: str) -> str:
        await ctx.tool(mark, of=of)
        await ctx.tool(tell, of=of)
        return str(await ctx.tool(mark, of=of))


def blinded(stack: ExitStack) -> None:
    """From here on nobody in this process compares what he knows of his store with what is there."""
    for module in (opening, lease):
        stack.enter_context(patched(module, "standing", lambda _, mark: Standing(mark.incarnation, went_back=False)))


LATER = (
    (
        "ALTER TABLE runs ADD COLUMN colour text NOT NULL DEFAULT 'blue'",
        "CREATE TABLE colours (colour text PRIMARY KEY); CREATE INDEX runs_by_colour ON runs (colour, id)",
        "CREATE OR REPLACE FUNCTION clock_us() RETURNS bigint LANGUAGE sql VOLATILE AS $$"
        " SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 0 $$",
    ),
    ("ALTER TABLE runs DROP COLUMN colour",),
)
"""What the next two versions of the schema change: the first adds, the second is nothing for the code of today."""


def newer(stack: ExitStack, ahead: int) -> None:
    """From here on this process has the code of so many versions later. With the second one, older code may not go on."""
    known, present = statements.migration, opening.SCHEMA
    stack.enter_context(patched(opening, "SCHEMA", present + ahead))
    stack.enter_context(patched(opening, "migration", lambda of: known(of) if of <= present else LATER[of - present - 1]))
    if ahead > 1:
        stack.enter_context(patched(opening, "COMPATIBLE", present + ahead))


class _Once(wiring._Refresh):
    """Reads the facts once."""

    def __call__(self, age_s: float = 0.0) -> None:
        if self._read_s < 0:
            super().__call__(age_s)


async def work(duty: Duty) -> None:
    """Work until told to stop, or until the store cannot be used any more."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    starting = crew(duty).start(
        open_store=open_store(duty.dsn, lease_s=duty.lease_s),
        worker=duty.name,
        max_active=duty.active,
        drain_s=0.0 if duty.abrupt else 30.0,
    )
    async with starting as rt:
        print("ready", flush=True)
        asked = asyncio.ensure_future(stop.wait())
        failed = rt.resting("worker")
        await asyncio.wait((asked, failed), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if failed.done():
            failed.result()
        failed.cancel()


def main(arguments: list[str]) -> int:
    """Run as one worker."""
    duty = msgspec.json.decode(arguments[0], type=Duty)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    with ExitStack() as stack:
        stack.enter_context(patched(held, "PERFORM_WITHIN_S", duty.perform_s))
        stack.enter_context(patched(relay, "LEASE_MARGIN_S", 1.0))
        if duty.stubborn:
            stack.enter_context(patched(rules, "against", lambda *_: ()))
        if duty.blind:
            blinded(stack)
        if duty.ahead:
            newer(stack, duty.ahead)
        if duty.deaf:
            stack.enter_context(patched(lease, "meta_of", lambda _: {}))
        if duty.heedless:
            stack.enter_context(patched(wiring, "_Refresh", _Once))
        if duty.trusting:
            stack.enter_context(patched(Held, "repeats_until_s", lambda *_: math.inf))
        asyncio.run(work(duty))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
