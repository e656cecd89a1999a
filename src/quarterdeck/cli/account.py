"""``quarterdeck account``: set limits of a shared account anew. (Those of one run: ``quarterdeck runs budget``.)"""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.app.budgets import Budget
from quarterdeck.cli.options import AsJson, By, KeyFile, Reason, Server, Store, Tokens, Tools, Usd
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, safe, say

group = typer.Typer(help="Set limits of a shared account anew; `budgets` lists them.", no_args_is_help=True)


@group.callback()
def account() -> None:
    """Set limits of a shared account anew; `budgets` lists them."""


@group.command(name="raise")
def raise_account(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its name, as `budgets` shows it: all, tenant:acme …")],
    calls: Annotated[
        int | None, typer.Option("--budget-model-calls", min=0, metavar="N", help="At most so many model calls.")
    ] = None,
    tools: Tools = None,
    tokens: Tokens = None,
    usd: Usd = None,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set limits of a shared account anew, until the deck starts anew. What is not named stays; runs that rest for it go on."""
    budget = Budget(model_calls=calls, tools=tools, tokens=tokens, usd=usd)
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.raise_account(account, budget, by=by, reason=reason)
    if as_json:
        emit(found)
        return
    say(f"account {safe(account)} has its new limits; {found.woken} runs that rested for it go on")
