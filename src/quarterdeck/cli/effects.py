"""``quarterdeck effects``: what to do about effects of which nobody knows whether they happened."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.cli.options import AsJson, By, KeyFile, Reason, RunArgument, Server, Store, json_value
from quarterdeck.cli.places import Place, place
from quarterdeck.cli.printing import emit, fields, moment, safe, say, table
from quarterdeck.cli.runs import note_waiting
from quarterdeck.client.shapes import RunSummary
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


Call = Annotated[str, typer.Argument(metavar="CALL", help="The call, as `effects ls` lists it.")]


@group.command()
def ls(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the effects of which nobody knows whether they happened; their runs wait for a person."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.effects()
    if as_json:
        emit({"effects": found})
        return
    lines = [(one.run_id, one.call, one.tool, one.tenant, one.route, moment(one.since_us), one.key) for one in found]
    table(("RUN", "CALL", "TOOL", "TENANT", "ROUTE", "SINCE", "KEY"), lines, empty="no effect is in doubt")


@group.command()
def show(
    run: RunArgument, call: Call, store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False
) -> None:
    """Show one effect in doubt: the key to ask the other side about, and the digest of what was intended."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = next((one for one in there.effects() if (one.run_id, one.call) == (run, call)), None)
    if found is None:
        raise UsageError("effect.not_unknown", f"{call[:40]!r} is no unknown effect of run {run}; `effects ls` lists them")
    if as_json:
        emit(found)
        return
    pairs = (("tool", found.tool), ("idempotency key", found.key), ("digest", found.digest), ("since", moment(found.since_us)))
    fields((("run", f"{found.run_id}, call {found.call}"), ("route", f"{found.route} of tenant {found.tenant}"), *pairs))


@group.command()
def done(
    run: RunArgument,
    call: Call,
    by: By = None,
    reason: Reason = "",
    result: Annotated[str, typer.Option("--result", metavar="JSON|@FILE|-", help="What the tool gave.")] = "null",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """It happened; the run goes on with that."""
    with place(store=store, server=server, key_file=key_file) as there:
        value = json_value("--result", result)
        _said(there, there.resolve(run, call, done=True, by=by, result=value, reason=reason), call, "done", as_json=as_json)


@group.command("not-done")
def not_done(
    run: RunArgument,
    call: Call,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """It did not happen; the run is told, and goes on without it."""
    with place(store=store, server=server, key_file=key_file) as there:
        _said(there, there.resolve(run, call, done=False, by=by, result=None, reason=reason), call, "not done", as_json=as_json)


@group.command()
def retry(
    run: RunArgument,
    call: Call,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """It did not happen, and is proposed once more under its old key: judged anew, and approved anew where a person has to."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.resolve(run, call, done=False, by=by, result=None, retry=True, reason=reason)
        _said(there, found, call, "not done, and tried once more", as_json=as_json)


def _said(there: Place, found: RunSummary, call: str, how: str, *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    say(f"{safe(call)} of run {safe(found.run_id)} is recorded as {how}")
    note_waiting(there)
