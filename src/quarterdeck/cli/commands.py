"""The tree of commands: ``run`` and ``doctor``, and everything that the other modules declare."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck import __version__
from quarterdeck.app.budgets import Budget, seconds
from quarterdeck.cli import (
    account,
    approvals,
    audit,
    checking,
    dependency,
    effects,
    journal,
    keys,
    letters,
    listings,
    options,
    outbox,
    overseeing,
    policy,
    runs,
    serving,
    steering,
    switches,
    working,
)
from quarterdeck.cli.completion import completion
from quarterdeck.cli.following import EventPrinter
from quarterdeck.cli.options import App, AsJson, Content, Follow, KeyFile, Server, Store, json_value
from quarterdeck.cli.outcome import OF_STATUS, Exit
from quarterdeck.cli.places import Asked, Place, Watching, place
from quarterdeck.cli.printing import emit, note, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.suggesting import near
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.vocabulary import Status

app = typer.Typer(
    name="quarterdeck",
    help="A production runtime for AI agents: the model proposes, the runtime decides.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _name, _group in (
    ("runs", steering.group),
    ("approvals", approvals.group),
    ("effects", effects.group),
    ("dlq", letters.group),
    ("switches", switches.group),
    ("account", account.group),
    ("dependency", dependency.group),
    ("policies", listings.policies_group),
    ("policy", policy.group),
    ("outbox", outbox.group),
    ("journal", journal.group),
    ("keys", keys.group),
    ("audit", audit.group),
    ("decisions", overseeing.group),
):
    app.add_typer(_group, name=_name)
app.add_typer(switches.group, name="switch", hidden=True)  # how one switch is spoken of; the same commands


for _command in (
    serving.serve,
    serving.dev,
    working.worker,
    listings.workers,
    checking.check,
    overseeing.oversight,
    listings.budgets,
    listings.routes,
    listings.tools,
    listings.dependencies,
    completion,
):
    app.command()(_command)


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
    server: Server = None,
    key_file: KeyFile = None,
    follow: Follow = False,
    content: Content = False,
    tenant: options.Tenant = None,
    user: options.User = None,
    key: options.Key = None,
    correlation: options.Correlation = None,
    ordering_key: options.OrderingKey = None,
    untrusted: options.Untrusted = False,
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

    A server drives it, if one is named. Else, if nobody owns the store, a runtime of APP drives it in this process, and with it whatever
    else is ready in the store; otherwise the process that owns the store drives it. The exit code tells how the run stands.
    """
    budget = Budget(turns=turns, tools=tools, tokens=tokens, context=context, deadline=deadline, usd=usd)
    asked = Asked(
        intent=intent,
        payload=json_value("--input", payload),
        budget=budget,
        tenant=tenant,
        user=user,
        idempotency_key=key,
        correlation_id=correlation,
        ordering_key=ordering_key,
        untrusted=untrusted,
        mode=mode,
    )
    printer = EventPrinter(content=content, as_json=as_json)
    watching = Watching(printer, follow, None if timeout is None else seconds(timeout))
    with place(app=app, store=store, server=server, key_file=key_file, local=True) as there:
        try:
            ended = there.run(asked, watching)
        except UsageError as error:
            raise (_suggesting(there, intent, error) if error.code == "route.unknown" else error) from None
        if as_json:
            emit(ended.result)
        else:
            runs.print_result(ended.result, text=True)
        if not ended.result.done:
            where = "in the runtime that is up" if there.driven else "when a runtime starts"
            note(f"the run goes on {where}; `quarterdeck runs cancel {ended.result.run_id}` stops it")
    return Exit.DETACHED if ended.interrupted else OF_STATUS[Status(ended.result.status)]


def _suggesting(there: Place, intent: str, error: UsageError) -> UsageError:
    try:
        meant = near(intent, [route.intent for route in there.routes()])
    except Refused:  # who may submit need not be able to list
        return error
    return UsageError(error.code, f"{error.message}{meant}", **error.detail)


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
