"""``quarterdeck decisions`` and ``quarterdeck oversight``: what people say of decisions, and how often they changed them."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.cli.options import AsJson, By, KeyFile, Reason, RunArgument, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, fields, safe, say

group = typer.Typer(help="Say what was wrong.", no_args_is_help=True)


@group.callback()
def decisions() -> None:
    """Say what was wrong."""


@group.command()
def mark(
    run: RunArgument,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The call that was decided on, as `runs events` lists it.")],
    wrong: Annotated[bool, typer.Option("--wrong/--right", help="It was wrong, or it was right after all.")] = True,
    reason: Reason = "",
    by: By = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say of one decision that it was wrong. It is kept in the audit log and counted; nothing else changes."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.mark(run, call, by=by, reason=reason, wrong=wrong)
    if as_json:
        emit(found)
    else:
        say(f"the decision on {safe(call)} of run {safe(run)} is marked {'wrong' if wrong else 'right'}")


def oversight(store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """Show how often people changed decisions, and what they say was wrong, over the newest runs."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.oversight()
    if as_json:
        emit(found)
        return

    def rate(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    fields(
        (
            ("runs", str(found.runs)),
            ("decisions", f"{found.decisions}: {found.allowed} allowed, {found.denied} denied, {found.asked} asked"),
            ("overridden", f"{found.overridden} ({rate(found.override_rate)})"),
            ("false allows", f"{found.false_allows} ({rate(found.false_allow_rate)})"),
            ("effects", f"{found.effects_failed} failed, {found.effects_unknown} unknown, {found.contradicted} contradicted"),
        )
    )
