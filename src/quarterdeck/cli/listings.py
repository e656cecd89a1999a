"""The listings of what a deck declares and what its accounts and dependencies say."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import App, AsJson, KeyFile, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import ago, dollars, emit, fields, note, safe, say, table
from quarterdeck.cli.suggesting import near
from quarterdeck.core.errors import UsageError

policies_group = typer.Typer(help="Show the policy set.", no_args_is_help=True)


@policies_group.callback()
def policies() -> None:
    """Show the policy set."""


def budgets(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the shared accounts: limit, committed, reserved, left, and how soon they are used up at the present rate."""
    with place(store=store, server=server, key_file=key_file) as there:
        rows = there.budgets()
    if as_json:
        emit({"budgets": rows})
        return

    def amount(dimension: str, value: int | None) -> str:
        if value is None:
            return "-"
        if dimension.startswith("sum:"):
            return f"{value / 1_000_000:g}"
        return dollars(value) if dimension == "cost_microusd" else str(value)

    head = ("ACCOUNT", "DIMENSION", "LIMIT", "COMMITTED", "RESERVED", "LEFT", "STANDING", "USED UP IN")
    lines = []
    for row in rows:
        left = None if row.limit is None else row.limit - row.committed - row.reserved
        lines.append(
            (
                row.account,
                row.dimension,
                *(amount(row.dimension, one) for one in (row.limit, row.committed, row.reserved, left)),
                row.standing,
                "-" if row.exhausted_in_s is None else f"{row.exhausted_in_s / 3_600:.1f} h",
            )
        )
    table(head, lines, empty="no account was ever touched")


def routes(
    name: Annotated[str | None, typer.Argument(metavar="[ROUTE]", help="Show this one in full.", show_default=False)] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="As they are in effect for this tenant.")] = None,
    app: App = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the routes of a deck, as they are in effect; or show one in full."""
    with place(app=app, server=server, key_file=key_file, local=True) as there:
        found = there.routes(tenant)
    if name is not None:
        chosen = [route for route in found if route.intent == name]
        if not chosen:
            near_by = near(name, [route.intent for route in found])
            raise UsageError("route.unknown", f"no route is called {name[:80]!r}{near_by}")
        if as_json:
            emit(chosen[0])
        else:
            fields(
                tuple((field.replace("_", " "), _written(value)) for field, value in msgspec.structs.asdict(chosen[0]).items())
            )
        return
    if as_json:
        emit({"routes": found})
        return
    lines = [
        (
            *(route.intent, route.agent, route.autonomy, route.risk, route.owner, route.priority),
            *(
                ",".join(route.tenants),
                ",".join(route.terms) or "-",
                ",".join(route.modes),
                route.fallback or "-",
                route.on_budget,
            ),
        )
        for route in found
    ]
    head = ("ROUTE", "AGENT", "AUTONOMY", "RISK", "OWNER", "PRIORITY", "TENANTS", "TERMS", "MODES", "FALLBACK", "ON BUDGET")
    table(head, lines, empty="this deck has no routes")


def _written(value: object) -> str:
    """A field as text: ``-`` where nothing is said."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "-"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "-"
    return "-" if value in (None, "") else str(value)


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


def workers(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the workers of a store: their leases, their code, the runs that they hold, when they were last heard of."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.workers()
    if as_json:
        emit({"workers": found})
        return
    now_us = SystemClock().now_us()

    def since(at_us: int | None) -> str:
        return "-" if at_us is None else ago(at_us, now_us)

    lines = [
        (
            one.worker,
            one.status,
            str(one.held),
            f"{one.active}/{one.max_active}",
            one.release or "-",
            f"{one.host}:{one.pid}",
            since(one.started_at_us),
            since(one.beat_at_us),
        )
        for one in found
    ]
    table(("WORKER", "STATUS", "HOLDS", "ACTIVE", "RELEASE", "PROCESS", "STARTED", "HEARD"), lines, empty="no worker is up")


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
