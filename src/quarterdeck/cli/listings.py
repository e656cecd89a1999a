"""The listings of what a deck declares and what its accounts and dependencies say."""

from __future__ import annotations

import typer

from quarterdeck.cli.options import App, AsJson, KeyFile, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import dollars, emit, note, safe, say, table

policies_group = typer.Typer(help="Show the policy set.", no_args_is_help=True)


@policies_group.callback()
def policies() -> None:
    """Show the policy set."""


def budgets(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the shared accounts: limit, committed, reserved, left."""
    with place(store=store, server=server, key_file=key_file) as there:
        rows = there.budgets()
    if as_json:
        emit({"budgets": rows})
        return

    def amount(dimension: str, value: int | None) -> str:
        return "-" if value is None else dollars(value) if dimension == "cost_microusd" else str(value)

    head = ("ACCOUNT", "DIMENSION", "LIMIT", "COMMITTED", "RESERVED", "LEFT")
    lines = []
    for row in rows:
        left = None if row.limit is None else row.limit - row.committed - row.reserved
        lines.append(
            (row.account, row.dimension, *(amount(row.dimension, one) for one in (row.limit, row.committed, row.reserved, left)))
        )
    table(head, lines, empty="no account was ever touched")


def routes(app: App = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the routes of a deck."""
    with place(app=app, server=server, key_file=key_file, local=True) as there:
        found = there.routes()
    if as_json:
        emit({"routes": found})
        return
    lines = [
        (route.intent, route.agent, route.autonomy, route.owner, route.priority, ",".join(route.tenants), ",".join(route.modes))
        for route in found
    ]
    table(("ROUTE", "AGENT", "AUTONOMY", "OWNER", "PRIORITY", "TENANTS", "MODES"), lines, empty="this deck has no routes")


def tools(app: App = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the tools of a deck."""
    with place(app=app, server=server, key_file=key_file, local=True) as there:
        found = there.tools()
    if as_json:
        emit({"tools": found})
        return
    lines = [
        (
            tool.name,
            tool.effect,
            "yes" if tool.idempotent else "no",
            "yes" if tool.reconcilable else "no",
            f"{tool.timeout_s:g} s",
            ",".join(tool.permissions) or "-",
            tool.description.partition("\n")[0][:60],
        )
        for tool in found
    ]
    head = ("TOOL", "EFFECT", "IDEMPOTENT", "RECONCILE", "TIMEOUT", "PERMISSIONS", "DESCRIPTION")
    table(head, lines, empty="this deck has no tools")


@policies_group.command("show")
def show_policies(
    app: App = None, store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False
) -> None:
    """Show the policies that the gate asks: those in force at a server, else those of the deck."""
    with place(app=app, store=store, server=server, key_file=key_file, local=True) as there:
        found = there.policies()
    if as_json:
        emit(found)
        return
    say(f"version {found.version}")
    for name in sorted(found.policies):
        say()
        say(f"// {safe(name)}")
        say(safe(found.policies[name].rstrip(), lines=True))


def dependencies(server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List how each model and tool is doing in the process of the server that answers."""
    with place(server=server, key_file=key_file) as there:
        found = there.dependencies()
    if as_json:
        emit({"dependencies": found})
        return
    lines = [
        (
            one.name,
            one.state,
            *(str(count) for count in (one.calls, one.success, one.error, one.timeout, one.rejected, one.in_flight)),
        )
        for one in found
    ]
    head = ("DEPENDENCY", "STATE", "CALLS", "SUCCESS", "ERROR", "TIMEOUT", "REJECTED", "IN FLIGHT")
    table(head, lines, empty="nothing was called yet")
    for one in found:
        if one.hint:
            note(f"{safe(one.name)}: {safe(one.hint)}")
