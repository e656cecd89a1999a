"""``quarterdeck dependency``: change the policy of a model or tool while it is in use, for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.app.budgets import seconds
from quarterdeck.cli.options import AsJson, By, KeyFile, Reason, Server, Store
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, safe, say
from quarterdeck.core.errors import UsageError
from quarterdeck.core.overrides import Change

group = typer.Typer(help="Change the policy of a model or tool for a while.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="model:NAME or tool:NAME.")]


@group.command(name="change")
def change_dependency(
    name: Name,
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long it is in force: 10m, 2h; at most 31d.")] = "1h",
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Of each attempt.")] = None,
    attempts: Annotated[int | None, typer.Option("--attempts", min=1, help="With retries.")] = None,
    slots: Annotated[int | None, typer.Option("--slots", min=1, help="Attempts at once.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Attempts per second.")] = None,
    failures: Annotated[int | None, typer.Option("--failures", min=0, help="That trip the breaker.")] = None,
    isolate: Annotated[bool, typer.Option("--isolate", help="Call it not at all.")] = False,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Change a policy, in every process. What is not named stays; the change ends by itself."""
    change = Change(
        timeout_s=None if timeout is None else seconds(timeout),
        attempts=attempts,
        slots=slots,
        rate_per_s=rate,
        failures=failures,
        isolated=isolate,
    )
    if change == Change():
        raise UsageError("dependency.nothing", "say what is to be otherwise, such as --slots 4 or --isolate")
    with place(store=store, server=server, key_file=key_file) as there:
        there.change_dependency(name, change, for_s=seconds(for_), by=by, reason=reason)
    if as_json:
        emit({"dependency": name, "changed": True})
    else:
        say(f"{safe(name)} is changed for {safe(for_)}")


@group.command(name="restore")
def restore_dependency(
    name: Name,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """End a change: the declared policy is in force again."""
    with place(store=store, server=server, key_file=key_file) as there:
        there.change_dependency(name, None, for_s=1.0, by=by, reason=reason)
    if as_json:
        emit({"dependency": name, "changed": False})
    else:
        say(f"{safe(name)} has its declared policy again")
