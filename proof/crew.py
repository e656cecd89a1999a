"""One worker process of the fleet suites: ``python -m proof.crew '{"dsn": …}'``. It works until SIGTERM, and says ``ready`` first.

Each effect leaves two lines in the ledger: that it began, and that it has ended. The time within which a dead worker's intents may still be
acted upon is a setting here, so that a suite need not wait a minute for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.core import rules
from quarterdeck.engine import held
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.patching import patched

STEPS = 4
"""Effects of one run."""


class Duty(msgspec.Struct, frozen=True):
    """How one worker works. ``abrupt`` is a planted bug: it does not wait for what is being performed; ``stubborn``
    is another: it does not notice that its ``rules`` were replaced.
    """

    dsn: str
    ledger: str
    name: str
    lease_s: float = 8.0
    perform_s: float = 60.0
    latency_s: float = 0.0
    active: int = 20_000
    abrupt: bool = False
    rules: str = ""
    stubborn: bool = False


def crew(duty: Duty) -> Quarterdeck:
    """A deck with one route: a run of some effects, each of which takes its time."""
    deck = Quarterdeck("crew")
    ledger = os.open(Path(duty.ledger), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @deck.tool(effect="write", idempotent=True)
    async def haul(step: int, ctx: ToolContext) -> int:
        """Haul."""
        os.write(ledger, f"begun {ctx.idempotency_key} {duty.name}\n".encode())
        await asyncio.sleep(duty.latency_s)
        os.write(ledger, f"ended {ctx.idempotency_key} {duty.name}\n".encode())
        return step

    turns = [*[[("haul", {"step": step})] for step in range(STEPS)], "hauled"]
    if duty.rules:
        deck.policy(duty.rules)
    deck.agent("haul", model=ScriptedModel(turns), tools=[haul])
    return deck


async def work(duty: Duty) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    starting = crew(duty).start(
        open_store=open_store(duty.dsn, lease_s=duty.lease_s),
        worker=duty.name,
        max_active=duty.active,
        drain_s=0.0 if duty.abrupt else 30.0,
    )
    async with starting:
        print("ready", flush=True)
        await stop.wait()


def main(arguments: list[str]) -> int:
    """Run as one worker."""
    duty = msgspec.json.decode(arguments[0], type=Duty)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    with ExitStack() as stack:
        stack.enter_context(patched(held, "PERFORM_WITHIN_S", duty.perform_s))
        if duty.stubborn:
            stack.enter_context(patched(rules, "against", lambda *_: ()))
        asyncio.run(work(duty))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
