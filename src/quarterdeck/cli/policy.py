"""Policies before they are in force: check a set, test it with cases, judge recorded runs under it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck.app.activating import put_in_force
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.policies import backtest, candidate_texts, engine_of, read_cases, run_cases
from quarterdeck.app.wiring import check_deck
from quarterdeck.cli.options import App, AsJson, By, Store
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.printing import dollars, emit, safe, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="Check, test and backtest policies before they are in force.", no_args_is_help=True)

Source = Annotated[
    str | None,
    typer.Argument(metavar="FILE|APP", help="A .cedar file, a folder of them, or module:deck; by default the deck's own set."),
]
Candidate = Annotated[Path, typer.Argument(metavar="CANDIDATE", help="A .cedar file or a folder of them.")]
CandidateOption = Annotated[
    Path | None, typer.Option("--candidate", metavar="FILE", help="Policies to test in place of the deck's own.")
]


@group.callback()
def policy() -> None:
    """Check, test and backtest policies before they are in force."""


@group.command()
def check(source: Source = None, app: App = None, as_json: AsJson = False) -> None:
    """Validate a set against the deck's tools, agents, models, routes and tenants. Exit code 2 if anything is wrong."""
    texts = None
    if source is not None and not Path(source).exists() and ":" in source:
        app, source = source, None
    if source is not None:
        texts = candidate_texts(Path(source))
    deck = settings(app, None).deck()
    try:
        engine = engine_of(deck, texts)
    except UsageError as error:
        if as_json:
            emit({"valid": False, "problems": error.detail.get("problems", [error.message])})
            raise typer.Exit(2) from None
        raise
    if as_json:
        emit({"valid": True, "version": engine.version, "problems": []})
    else:
        say(f"valid: version {engine.version}")


@group.command()
def test(
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="A JSON file of cases.")],
    candidate: CandidateOption = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Judge the cases of a file; exit code 1 if one of them is not decided as it expects."""
    deck = settings(app, None).deck()
    engine = engine_of(deck, candidate_texts(candidate) if candidate is not None else None)
    found = run_cases(engine, deck, read_cases(cases))
    failed = sum(not one.passed for one in found)
    if as_json:
        emit({"version": engine.version, "cases": found, "failed": failed})
    else:
        lines = [
            ("ok" if one.passed else "FAILED", one.name, one.expected, one.outcome, ",".join(one.reasons) or "-") for one in found
        ]
        table(("", "CASE", "EXPECTED", "OUTCOME", "REASONS"), lines, empty="there are no cases")
    if failed:
        raise typer.Exit(1)


@group.command("backtest")
def backtest_(
    candidate: Candidate,
    last: Annotated[int, typer.Option("--last", min=1, metavar="N", help="The newest N runs.")] = 1_000,
    app: App = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Judge the recorded proposals of the last runs under a candidate: what becomes newly allowed, denied, asked; and its money."""
    chosen = settings(app, store)
    deck = chosen.deck()
    engine = engine_of(deck, candidate_texts(candidate))
    with reading(chosen.store) as insights:
        found = backtest(insights, deck, engine, last=last)
    if as_json:
        emit(found)
        return
    say(f"{found.runs} runs, {found.proposals} proposals, {found.unreadable} runs unreadable")
    for outcome, count in sorted(found.newly.items()):
        money = ", ".join(f"{name} {total}" for name, total in found.amounts.get(outcome, {}).items())
        say(f"newly {outcome}: {count}, costing at most {dollars(found.cost_microusd[outcome])}{f'; {money}' if money else ''}")
    head = ("RUN", "CALL", "PROPOSAL", "BEFORE", "AFTER", "REASONS")
    lines = [(one.run_id, one.call, safe(one.name), one.before, one.after, ",".join(one.reasons) or "-") for one in found.changes]
    table(head, lines, empty="nothing would have been decided otherwise")


@group.command()
def declare(app: App = None, store: Store = None, by: By = None, as_json: AsJson = False) -> None:
    """Put this deck's policies, prices and budgets in force in a database, whatever was declared since: the way back of a deploy.

    Workers that have others give their runs back and claim nothing until they are replaced; those that have these claim again.
    """
    chosen = settings(app, store)
    if not isinstance(chosen.store, str):
        raise UsageError("policy.file", "the rules of a file are those of the runtime that owns it; start that with this deck")
    if by is None:
        raise UsageError("by.missing", "say who declares them with --by NAME; it is recorded")
    deck = chosen.deck()
    check_deck(deck)
    with reading(chosen.store) as insights:
        version = asyncio.run(put_in_force(deck, visiting(chosen.store), insights, SystemClock().now_us(), by))
    if as_json:
        emit({"version": version})
    else:
        say(f"in force: version {version}")
