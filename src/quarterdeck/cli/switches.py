"""``quarterdeck switches``: what is switched off, and switching: effective in every process when the command returns."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.app import switching
from quarterdeck.app.auditing import actions
from quarterdeck.app.budgets import seconds
from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.coverage import Coverage, coverage
from quarterdeck.cli.options import App, AsJson, By, KeyFile, Limit, Server, Store
from quarterdeck.cli.outcome import Exit
from quarterdeck.cli.places import SwitchOrder, place
from quarterdeck.cli.printing import ago, emit, fields, moment, note, safe, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.client.shapes import Switches, SwitchProof
from quarterdeck.core.canonical import parse
from quarterdeck.core.controls import parsed
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="List, set and clear switches: stop a tool, a model, a route, a tenant, or all.", no_args_is_help=True)

Switch = Annotated[
    str,
    typer.Argument(
        metavar="SWITCH",
        help="disable_tool:, force_approval:, block_model:, pin_model:, stop_route:, deny_tenant:NAME, drain or freeze.",
    ),
]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded, with who did it.")]
Preview = Annotated[bool, typer.Option("--preview", help="Only show what it would cover; change nothing.")]
InTenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only in this tenant.")]
OnRoute = Annotated[str, typer.Option("--route", metavar="NAME", help="Only on this route.")]
Expires = Annotated[str | None, typer.Option("--expires", metavar="TIME", help="In force for so long: 30m, 2h. Else for good.")]
Seen = Annotated[
    int | None,
    typer.Option("--version", metavar="N", help="Refused if the switches are no more at this version, as `ls` says it."),
]


@group.command()
def ls(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """List the switches that are set."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.switches()
    if as_json:
        emit(found)
        return
    now_us = SystemClock().now_us()
    lines = []
    for one in found.details:
        expires = "never" if one.expires_at_us is None else "expired" if one.expired else ago(one.expires_at_us, now_us)
        lines.append((one.kind, one.name, one.tenant or "*", one.route or "*", expires, one.by, one.reason))
    table(("SWITCH", "NAME", "TENANT", "ROUTE", "EXPIRES", "BY", "REASON"), lines, empty="no switch is set")
    note(f"version {found.version}")


@group.command("set")
def set_(
    switch: Switch,
    reason: Why = "",
    tenant: InTenant = "",
    route: OnRoute = "",
    expires: Expires = None,
    version: Seen = None,
    by: By = None,
    preview: Preview = False,
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a switch, and show what it covers. From then on no intent that it covers commits, in any process."""
    wanted = parsed(switch, tenant=tenant, route=route)
    if not preview:
        _require(reason)
    lasting = None if expires is None else max(1, int(seconds(expires)))
    order = SwitchOrder(
        name=switch, on=True, reason=reason, tenant=tenant, route=route, expires_in_s=lasting, expected=version, by=by
    )
    with place(app=app, store=store, server=server, key_file=key_file) as there:
        found = there.switches() if preview else there.switch(order)
        if not as_json:
            text = "is set already" if wanted.key in found.switches else "would be set"
            say(f"{safe(wanted.key)} {text if preview else 'is set'}: version {found.version}")
        _show(wanted.key, found, coverage(there, switch, tenant=tenant, route=route), as_json=as_json)


@group.command()
def preview(
    switch: Switch,
    tenant: InTenant = "",
    route: OnRoute = "",
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a switch would cover now; nothing is changed."""
    set_(switch, "", tenant, route, preview=True, app=app, store=store, server=server, key_file=key_file, as_json=as_json)


@group.command()
def clear(
    switch: Switch,
    reason: Why = "",
    tenant: InTenant = "",
    route: OnRoute = "",
    version: Seen = None,
    by: By = None,
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Clear a switch, and show what goes on."""
    wanted = parsed(switch, tenant=tenant, route=route)
    _require(reason)
    order = SwitchOrder(name=switch, on=False, reason=reason, tenant=tenant, route=route, expected=version, by=by)
    with place(app=app, store=store, server=server, key_file=key_file) as there:
        found = there.switch(order)
        if not as_json:
            say(f"{safe(wanted.key)} is cleared: version {found.version}")
        _show(wanted.key, found, coverage(there, switch, tenant=tenant, route=route), as_json=as_json)


@group.command()
def history(
    switch: Annotated[str, typer.Argument(metavar="[SWITCH]", help="Only of switches that begin so.")] = "",
    limit: Limit = 200,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List how switches were set and cleared, by whom and why, the oldest first."""
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.audit(0, limit, action="switch.", target=switch)
    rows = [row for row in page.rows if row.action != "switch.reached"]
    if as_json:
        emit({"history": rows})
        return
    lines = [(moment(row.at_us), row.action.partition(".")[2], row.target, row.by, row.reason) for row in rows]
    table(("WHEN", "WHAT", "SWITCH", "BY", "REASON"), lines, empty="no switch was ever set")


@group.command()
def prove(switch: Switch, tenant: InTenant = "", route: OnRoute = "", store: Store = None, as_json: AsJson = False) -> int:
    """Look into the journals that a switch reached when it was set last: no covered intent may stand behind that. Exits 6 if one does."""
    wanted = parsed(switch, tenant=tenant, route=route)
    with reading(settings(None, store).store) as insights:
        reached = [said for _, said in actions(insights, action="switch.", target=wanted.key) if said.target == wanted.key]
        told = next((said for said in reversed(reached) if said.action == "switch.reached"), None)
        if told is None:
            raise UsageError("switch.not_set", f"{wanted.key} was never set here; `quarterdeck switches history` lists what was")
        if reached[-1].action == "switch.cleared":
            raise UsageError("switch.not_set", f"{wanted.key} was cleared since; what came after that is not its concern")
        detail = parse(told.detail)
        ends = {str(name): int(str(end)) for name, end in detail["ends"].items()}  # type: ignore[index, call-overload, union-attr]
        after, refused = switching.proven(insights, wanted, ends)
    if as_json:
        emit(
            {
                "switch": wanted.key,
                "at_us": told.at_us,
                "runs": len(ends),
                "covered_intents_after": after,
                "refused_after": refused,
            }
        )
    else:
        say(f"{safe(wanted.key)}, in force since {moment(told.at_us)}: {len(ends)} journals looked at")
        say(f"covered intents behind it: {after}; proposals refused by a switch there since: {refused}")
    return 6 if after else Exit.OK


def _require(reason: str) -> None:
    if not reason.strip():
        raise UsageError("reason.missing", "a switch needs a reason; say why with --reason")


def _show(switch: str, found: Switches, covers: Coverage, *, as_json: bool) -> None:
    if as_json:
        shown = {"switch": switch, "on": switch in found.switches, "version": found.version, "covers": covers}
        emit(shown | ({"proof": found.proof} if found.proof is not None else {}))
        return
    runs = "not known without the deck or the right to read; see --app" if covers.runs is None else str(covers.runs)
    fields(
        (
            ("active runs", f"{runs}{' or more' if covers.more else ''}"),
            ("routes", "not known" if covers.routes is None else ", ".join(covers.routes) or "none"),
            ("tools", "not known" if covers.tools is None else ", ".join(covers.tools)),
            ("tenants", "every" if covers.tenants == ("*",) else ", ".join(covers.tenants)),
            *_proof(found.proof),
        )
    )
    if covers.doubt:
        note(covers.doubt)


def _proof(proof: SwitchProof | None) -> tuple[tuple[str, str], ...]:
    if proof is None:
        return ()
    until = "" if proof.expires_at_us is None else f" until {moment(proof.expires_at_us)}"
    if not proof.on:
        return (("in force", f"version {proof.version} from {moment(proof.at_us)}"),)
    before = f"{proof.in_flight} covered intents were durable before, in {len(proof.ends)} runs that are driven now"
    return (
        ("in force", f"version {proof.version} from {moment(proof.at_us)}{until}; none commits behind it"),
        ("before", before),
    )
