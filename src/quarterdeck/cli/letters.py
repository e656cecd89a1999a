"""``quarterdeck dlq``: dead letters, the runs that could not be done. Show them, run them again, let them go; one by one or by filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import App, AsJson, By, Content, Cursor, KeyFile, Limit, OfTenant, Reason, RunArgument, Server, Store
from quarterdeck.cli.places import Place, place
from quarterdeck.cli.printing import ago, emit, safe, say, table
from quarterdeck.cli.runs import note_more
from quarterdeck.cli.runs import show as show_run
from quarterdeck.client.shapes import RunSummary
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="List, show, requeue and drop dead letters.", no_args_is_help=True)

PAGE = 200
"""Dead letters that are looked at together in bulk."""

OfRoute = Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only those of this route.")]
OfCode = Annotated[str | None, typer.Option("--code", metavar="CODE", help="Only those that ended with this code.")]
Every = Annotated[bool, typer.Option("--all", help="All that the filters leave, instead of naming them.")]
Some = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Their ids.")]


class Done(msgspec.Struct, frozen=True):
    """What became of one dead letter; ``requeued_as`` is the new run."""

    run_id: str
    requeued_as: str = ""


@group.command()
def ls(
    route: OfRoute = None,
    tenant: OfTenant = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters that nobody has decided about, newest first."""
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.dead_letters(route, tenant, cursor, limit)
    if as_json:
        emit({"dead_letters": page.rows, "next": page.next})
        return
    now_us = SystemClock().now_us()
    lines = [(row.run_id, row.code, row.route, row.tenant, ago(row.updated_at_us, now_us)) for row in page.rows]
    table(("RUN", "CAUSE", "ROUTE", "TENANT", "SINCE"), lines, empty="there are no dead letters")
    note_more(page.next)


@group.command()
def show(
    run: RunArgument,
    content: Content = False,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one, as `runs show` does: its cause is its code; with --content what was asked, and what is known of the end."""
    show_run(run, content, store, server, key_file, as_json)


@group.command()
def requeue(
    runs: Some = None,
    every: Every = False,
    route: OfRoute = None,
    tenant: OfTenant = None,
    code: OfCode = None,
    by: By = None,
    reason: Reason = "",
    app: App = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Ask for what failed runs were asked for, once more, as new runs. Doing it again gives the same runs."""
    with place(app=app, store=store, server=server, key_file=key_file) as there:
        chosen = _chosen(there, runs, (route, tenant, code), every=every)

        def again(run_id: str) -> Done:
            return Done(run_id, requeued_as=there.requeue(run_id, by=by, reason=reason).run_id)

        return _each(chosen, again, "requeued", as_json=as_json)


@group.command()
def drop(
    runs: Some = None,
    every: Every = False,
    route: OfRoute = None,
    tenant: OfTenant = None,
    code: OfCode = None,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Let dead letters go: they are no longer listed; their records stay."""
    if not reason.strip():
        raise UsageError("reason.missing", "say why they are dropped, with --reason; it is recorded")
    with place(store=store, server=server, key_file=key_file) as there:
        chosen = _chosen(there, runs, (route, tenant, code), every=every)

        def let_go(run_id: str) -> Done:
            return Done(there.drop(run_id, by=by, reason=reason).run_id)

        return _each(chosen, let_go, "dropped", as_json=as_json)


def _chosen(
    there: Place, named: Sequence[str] | None, which: tuple[str | None, str | None, str | None], *, every: bool
) -> list[str]:
    filtered = any(value is not None for value in which)
    if bool(named) == (every or filtered):
        raise UsageError("dlq.which", "name runs, or say --all, --route, --tenant or --code")
    if named:
        return list(named)
    route, tenant, code = which
    found: list[RunSummary] = []
    cursor: str | None = None
    while True:
        page = there.dead_letters(route, tenant, cursor, PAGE)
        found += [row for row in page.rows if code in (None, row.code)]
        cursor = page.next
        if cursor is None:
            return [row.run_id for row in found]


def _each(runs: Sequence[str], decide: Callable[[str], Done], word: str, *, as_json: bool) -> int:
    done = [decide(run_id) for run_id in runs]
    if as_json:
        emit({word: done})
        return 0
    for one in done:
        say(f"{safe(one.run_id)} is {word}{f' as {safe(one.requeued_as)}' if one.requeued_as else ''}")
    if not done:
        say("there are no such dead letters")
    return 0
