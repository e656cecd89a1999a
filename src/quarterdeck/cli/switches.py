"""``quarterdeck switches``: what is switched off, and switching: effective in every process when the command returns."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.cli.coverage import Coverage, coverage
from quarterdeck.cli.options import App, AsJson, KeyFile, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, fields, note, safe, say, table
from quarterdeck.core.controls import checked_switch
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="List, set and clear switches: stop a tool, a model, a route, a tenant, or all.", no_args_is_help=True)

Switch = Annotated[
    str,
    typer.Argument(
        metavar="SWITCH",
        help="disable_tool:NAME, force_approval:NAME, block_model:NAME, stop_route:NAME, deny_tenant:NAME or freeze.",
    ),
]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why. A server logs it, with who the key stands for.")]
Preview = Annotated[bool, typer.Option("--preview", help="Only show what it would cover; change nothing.")]


@group.command()
def ls(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the switches that are set."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.switches()
    if as_json:
        emit(found)
        return
    lines = []
    for name in found.switches:
        kind, _, named = name.partition(":")
        lines.append((kind, named))
    table(("SWITCH", "NAME"), lines, empty="no switch is set")
    note(f"version {found.version}")


@group.command("set")
def set_(
    switch: Switch,
    reason: Why = "",
    preview: Preview = False,
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a switch, and show what it covers. From then on no intent that it covers commits, in any process."""
    checked_switch(switch)
    if not preview:
        _require(reason)
    with place(app=app, store=store, server=server, key_file=key_file) as there:
        found = there.switches() if preview else there.switch(switch, on=True, reason=reason)
        if not as_json:
            text = "is set already" if switch in found.switches else "would be set"
            say(f"{safe(switch)} {text if preview else 'is set'}: version {found.version}")
        _show(switch, switch in found.switches, found.version, coverage(there, switch), as_json=as_json)


@group.command()
def clear(
    switch: Switch,
    reason: Why = "",
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Clear a switch, and show what goes on."""
    checked_switch(switch)
    _require(reason)
    with place(app=app, store=store, server=server, key_file=key_file) as there:
        found = there.switch(switch, on=False, reason=reason)
        if not as_json:
            say(f"{safe(switch)} is cleared: version {found.version}")
        _show(switch, switch in found.switches, found.version, coverage(there, switch), as_json=as_json)


def _require(reason: str) -> None:
    if not reason.strip():
        raise UsageError("reason.missing", "a switch needs a reason; say why with --reason")


def _show(switch: str, on: bool, version: int, covers: Coverage, *, as_json: bool) -> None:
    if as_json:
        emit({"switch": switch, "on": on, "version": version, "covers": covers})
        return
    runs = "not known without the deck or the right to read; see --app" if covers.runs is None else str(covers.runs)
    fields(
        (
            ("active runs", f"{runs}{' or more' if covers.more else ''}"),
            ("routes", "not known" if covers.routes is None else ", ".join(covers.routes) or "none"),
            ("tools", "not known" if covers.tools is None else ", ".join(covers.tools)),
            ("tenants", "every" if covers.tenants == ("*",) else ", ".join(covers.tenants)),
        )
    )
    if covers.doubt:
        note(covers.doubt)
