"""The worker: one process that runs the deck on the store, until it is told to stop, or killed.

``python -m examples.support.worker TICKET.txt ... [--scripted-cases] [--stand-in]`` admits the tickets that it is given and drives
whatever the store holds, including what another worker left behind when it died. Admission is idempotent, each ticket being its own
key, so a worker that is started again with the same tickets makes no second run of any.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from examples.support import scripted, tickets
from examples.support.deck import deck
from examples.support.shop import Shop
from examples.support.standin import stand_in
from quarterdeck import Runtime

TENANT = "shop"


def store_of(shop: Shop) -> Path:
    """The journal's file, beside the shop's."""
    return shop.path.with_name("quarterdeck.db")


async def admit(runtime: Runtime, files: list[Path], scripted_cases: bool) -> None:
    """Ask for a run per ticket, and per scripted case. What was admitted before stays the run that it is."""
    for path in files:
        ticket = tickets.read(path)
        await runtime.submit(
            "triage_ticket",
            ticket.message(),
            tenant=TENANT,
            user=ticket.sender,
            idempotency_key=f"ticket:{ticket.name}",
            correlation_id=ticket.name,
        )
    for case in scripted.CASES if scripted_cases else ():
        await runtime.submit(
            case.route,
            case.text,
            tenant=case.tenant,
            user=case.sender,
            idempotency_key=f"scripted:{case.name}",
            correlation_id=f"scripted:{case.name}",
        )


async def run(files: list[Path], scripted_cases: bool, until_stdin_ends: bool) -> None:
    """Run until SIGTERM or SIGINT, or until whoever started it has gone; then let active runs come to rest, and leave."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    if until_stdin_ends:
        loop.add_reader(sys.stdin, told.set)
    async with deck.start(store_of(Shop.here()), drain_s=5.0) as runtime:
        await admit(runtime, files, scripted_cases)
        print("ready", flush=True)
        await told.wait()


def main(arguments: list[str]) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m examples.support.worker", description="Run the support desk on its store.")
    parser.add_argument("tickets", nargs="*", type=Path, help="ticket files to admit")
    parser.add_argument("--scripted-cases", action="store_true", help="admit the scripted cases too")
    parser.add_argument("--stand-in", action="store_true", help="a scripted stand-in instead of the local model")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="leave when the process that holds the other end has gone"
    )
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if chosen.stand_in:
        deck.models["local"] = stand_in()
    asyncio.run(run(chosen.tickets, chosen.scripted_cases, chosen.until_stdin_ends))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
