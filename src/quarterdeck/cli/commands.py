"""The tree of commands: ``run`` and ``doctor``, the groups, and the listings of a deck."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck import __version__
from quarterdeck.cli import approvals, effects, journal, keys, options, runs, serving
from quarterdeck.cli.options import App, AsJson, Content, Follow, Store, json_value
from quarterdeck.cli.outcome import OF_STATUS, Exit
from quarterdeck.cli.printing import dollars, emit, note, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.vocabulary import Status
from quarterdeck.store.sqlite.opening import owner_of

app = typer.Typer(
    name="quarterdeck",
    help="A production runtime for AI agents: the model proposes, the runtime decides.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _name, _group in (
    ("runs", runs.group),
    ("approvals", approvals.group),
    ("effects", effects.group),
    ("journal", journal.group),
    ("keys", keys.group),
):
    app.add_typer(_group, name=_name)


app.command()(serving.serve)
app.command()(serving.dev)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"quarterdeck {__version__}")
        raise typer.Exit()


@app.callback()
def quarterdeck(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """A production runtime for AI agents: the model proposes, the runtime decides."""


@app.command()
def run(
    intent: Annotated[str, typer.Argument(metavar="INTENT", help="The route.")],
    payload: options.Input = "null",
    app: App = None,
    store: Store = None,
    follow: Follow = False,
    content: Content = False,
    tenant: options.Tenant = "default",
    user: options.User = "anonymous",
    key: options.Key = None,
    correlation: options.Correlation = None,
    mode: options.ModeOption = None,
    timeout: options.Timeout = None,
    turns: options.Turns = None,
    tools: options.Tools = None,
    tokens: options.Tokens = None,
    context: options.Context = None,
    deadline: options.Deadline = None,
    usd: options.Usd = None,
    as_json: AsJson = False,
) -> int:
    """Ask for a run and see how it comes to rest (with --follow: how it ends).

    If nobody owns the store, a runtime of APP drives it in this process, and with it whatever else is ready in the store; otherwise
    the process that owns the store drives it. The exit code tells how the run stands.
    """
    from quarterdeck.app.admission import envelope_of
    from quarterdeck.app.budgets import Budget, seconds
    from quarterdeck.cli.following import EventPrinter
    from quarterdeck.cli.running import Watching
    from quarterdeck.cli.running import run as run_and_watch

    chosen = settings(app, store)
    budget = Budget(turns=turns, tools=tools, tokens=tokens, context=context, deadline=deadline, usd=usd)
    value = json_value("--input", payload)
    envelope = envelope_of(
        intent, value, tenant=tenant, user=user, budget=budget, idempotency_key=key, correlation_id=correlation, mode=mode
    )
    printer = EventPrinter(content=content, as_json=as_json)
    watching = Watching(printer, follow, None if timeout is None else seconds(timeout))
    ended = run_and_watch(chosen.deck(), chosen.store, envelope, watching)
    if as_json:
        emit(ended.result)
    else:
        runs.print_result(ended.result, text=True)
    if not ended.result.done:
        where = "when a runtime starts" if owner_of(chosen.store) is None else "in the runtime that is up"
        note(f"the run goes on {where}; `quarterdeck runs cancel {ended.result.run_id}` stops it")
    return Exit.DETACHED if ended.interrupted else OF_STATUS[Status(ended.result.status)]


@app.command()
def budgets(store: Store = None, as_json: AsJson = False) -> None:
    """List the shared accounts: limit, committed, reserved, left."""
    with reading(settings(None, store).store) as insights:
        rows = insights.accounts()
    if as_json:
        emit({"accounts": rows})
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


@app.command()
def routes(app: App = None, as_json: AsJson = False) -> None:
    """List the routes of a deck."""
    deck = settings(app, None).deck()
    found = [deck.routes[name] for name in sorted(deck.routes)]
    if as_json:
        emit({"routes": found})
        return
    lines = []
    for route in found:
        agent = deck.agents.get(route.agent)
        autonomy = route.autonomy or (agent.autonomy if agent is not None else "?")
        lines.append(
            (route.intent, route.agent, autonomy, route.owner, route.priority, ",".join(route.tenants), ",".join(route.modes))
        )
    table(("ROUTE", "AGENT", "AUTONOMY", "OWNER", "PRIORITY", "TENANTS", "MODES"), lines, empty="this deck has no routes")


@app.command()
def tools(app: App = None, as_json: AsJson = False) -> None:
    """List the tools of a deck."""
    deck = settings(app, None).deck()
    specs = [deck.tools[name].spec for name in sorted(deck.tools)]
    if as_json:
        emit({"tools": [runs.with_json(spec, "input_schema") for spec in specs]})
        return
    lines = [
        (
            spec.name,
            spec.effect,
            "yes" if spec.idempotent else "no",
            "yes" if spec.reconcilable else "no",
            f"{spec.timeout_s:g} s",
            ",".join(spec.permissions) or "-",
            spec.description.partition("\n")[0][:60],
        )
        for spec in specs
    ]
    table(
        ("TOOL", "EFFECT", "IDEMPOTENT", "RECONCILE", "TIMEOUT", "PERMISSIONS", "DESCRIPTION"),
        lines,
        empty="this deck has no tools",
    )


@app.command()
def doctor(app: App = None, store: Store = None, as_json: AsJson = False) -> int:
    """Check this machine, the store and the deck; say what to do. Exits 1 if something must be repaired."""
    from quarterdeck.cli.doctor import Health, checks

    found = checks(settings(app, store))
    if as_json:
        emit({"checks": found})
    else:
        table(("", "CHECK", "FOUND"), [(check.health, check.name, check.found) for check in found], empty="")
        for check in found:
            if check.advice:
                note(f"{check.health} {check.name}: {check.advice}")
    return Exit.FINDINGS if any(check.health is Health.FAIL for check in found) else Exit.OK
