"""The mail desk: sends tickets to the service over HTTP, one run each.

Every ticket has its own idempotency key. Sending all of them again, as one does when unsure what has arrived, makes no second run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from examples.support import scripted, tickets
from quarterdeck.client import AsyncClient, AsyncRun

TENANT = "shop"


async def send(client: AsyncClient, files: Sequence[Path], *, scripted_cases: bool = False) -> AsyncIterator[AsyncRun]:
    """Ask for a run per ticket, and per scripted case; a run that exists already says so (``existing``).

    The customer is named as the one the run acts for. The mail desk knows who that is; the text of a ticket has no say in it.
    """
    for file in files:
        ticket = tickets.read(file)
        yield await client.submit(
            "triage_ticket",
            ticket.message(),
            tenant=TENANT,
            user=ticket.sender,
            idempotency_key=f"ticket:{ticket.name}",
            correlation_id=ticket.name,
        )
    for case in scripted.CASES if scripted_cases else ():
        yield await client.submit(
            case.route,
            case.text,
            tenant=case.tenant,
            user=case.sender,
            idempotency_key=f"scripted:{case.name}",
            correlation_id=f"scripted:{case.name}",
        )
