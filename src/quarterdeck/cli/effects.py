"""``quarterdeck effects``: what to do about effects of which nobody knows whether they happened."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.cli.options import AsJson, By, KeyFile, RunArgument, Server, Store, json_value
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, safe, say
from quarterdeck.cli.runs import note_waiting
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="Say how unknown effects ended.", no_args_is_help=True)


@group.callback()
def effects() -> None:
    """Say how unknown effects ended."""


@group.command(name="resolve")
def resolve_effect(
    run: RunArgument,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The call, as `runs show` lists it under unknown effects.")],
    by: By = None,
    done: Annotated[bool, typer.Option("--done", help="It happened.")] = False,
    not_done: Annotated[bool, typer.Option("--not-done", help="It did not happen.")] = False,
    result: Annotated[
        str, typer.Option("--result", metavar="JSON|@FILE|-", help="What the tool gave, or would have given.")
    ] = "null",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an unknown effect happened; the run goes on from there."""
    if done == not_done:
        raise UsageError("effect.answer", "say either --done or --not-done")
    value = json_value("--result", result)
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.resolve(run, call, done=done, by=by, result=value)
        if as_json:
            emit(found)
            return
        say(f"{safe(call)} of run {safe(run)} is recorded as {'done' if done else 'not done'}")
        note_waiting(there)
