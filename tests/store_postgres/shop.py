"""A small support deck on PostgreSQL, as a process of its own: ``python -m tests.store_postgres.shop DSN LEDGER NAME``.

It runs until its standard input ends. Each effect is a line of the ledger: who performed it, under which key, for which order. The
intents of a killed process are waited out for two seconds instead of a minute, so that the test is short.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.engine import held
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.patching import patched

LEASE_S = 2.0
TURNS = [
    [("look_up", {"order": "A1"})],
    [("note", {"order": "A1", "text": "asked"})],
    [("refund", {"order": "A1"})],
    [("note", {"order": "A1", "text": "done"})],
    "refunded",
]


def shop(ledger: Path, name: str, latency_s: float = 0.02) -> Quarterdeck:
    """A read, two notes and a refund per run; the notes and the refund are idempotent, as their provider is."""
    deck = Quarterdeck("shop")

    def write(kind: str, ctx: ToolContext) -> None:
        line = f"{name} {kind} {ctx.run_id} {ctx.idempotency_key}\n"
        descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    @deck.tool(effect="read")
    async def look_up(order: str) -> str:
        """Look an order up."""
        return "a mug"

    @deck.tool(effect="write", idempotent=True)
    async def note(order: str, text: str, ctx: ToolContext) -> str:
        """Write a note."""
        write(f"note-{text}", ctx)
        return "noted"

    @deck.tool(effect="external", idempotent=True)
    async def refund(order: str, ctx: ToolContext) -> str:
        """Pay money back."""
        write("refund", ctx)
        return "paid"

    deck.agent("support", model=ScriptedModel(TURNS, latency_s=latency_s), tools=[look_up, note, refund])
    return deck


async def serve(dsn: str, ledger: Path, name: str) -> None:
    """Drive whatever is ready until nobody listens any more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with shop(ledger, name).start(open_store=open_store(dsn, lease_s=LEASE_S), worker=name, max_active=8):
        print("ready", flush=True)
        await reader.read()


if __name__ == "__main__":
    with patched(held, "PERFORM_WITHIN_S", 2.0):
        asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
