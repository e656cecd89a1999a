"""What is shown at the end of ``make demo``: how to go on from another terminal, ready to be copied."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from examples.support.sending import TENANT
from examples.support.stage import Stage
from examples.support.telling import say, title
from examples.support.tickets import Ticket
from quarterdeck.core import events as ev

TRY = Ticket("try", "lena.garcia@example.com", "The mug of order A1226 arrived broken. Please refund 14 dollars.")
"""A ticket that nobody has sent yet, about an order of whom it is from."""


def show(stage: Stage) -> None:
    """Print where the service is, how to get a key, and three commands."""
    store = f"--store {shlex.quote(os.path.relpath(stage.store))}"
    bearer = '-H "Authorization: Bearer $KEY"'
    envelope = {"intent": "triage_ticket", "payload": TRY.message(), "caller": {"tenant": TENANT, "user": TRY.sender}}
    title(f"The service stays up on {stage.url} until Ctrl-C; this terminal shows what happens there")
    say("  In another terminal, in this folder, first make a key (shown once; a delegate may ask for runs on behalf of others):")
    say(f"    KEY=$({_command()} keys create front-desk --role delegate {store})")
    say("  Send a ticket, and wait up to a minute for its end:")
    say(f"    curl -sS {stage.url}/v1/runs {bearer} -H 'Content-Type: application/json' -H 'Prefer: wait=60' \\")
    say(f"      -d {shlex.quote(json.dumps(envelope))}")
    say("  Read a run's journal as a stream of events" + _which(stage))
    say(f"    curl -sSN '{stage.url}/v1/runs/{_run(stage)}/events' {bearer}")
    say("  See what waits for a person, and answer (the command line works on the store's file and needs no key):")
    say(f"    {_command()} approvals ls {store}")
    say(f"    {_command()} approvals approve APPROVAL --by you {store}")


def _run(stage: Stage) -> str:
    """A run worth reading: one whose refund was asked for again after a kill, if there is one."""
    journals = stage.watch.journals
    again = [journal.run_id for journal in journals if any(isinstance(event, ev.EffectReopened) for event in journal.events)]
    return (again or [journal.run_id for journal in journals])[0]


def _which(stage: Stage) -> str:
    journal = stage.watch.journal(_run(stage))
    reopened = any(isinstance(event, ev.EffectReopened) for event in journal.events)
    return f" ({journal.name}, which outlived a kill):" if reopened else f" ({journal.name}):"


def _command() -> str:
    """How the command line is called here."""
    program = Path(sys.executable).with_name("quarterdeck")
    return (
        shlex.quote(os.path.relpath(program))
        if program.exists()
        else f"{shlex.quote(os.path.relpath(sys.executable))} -m quarterdeck.cli"
    )
