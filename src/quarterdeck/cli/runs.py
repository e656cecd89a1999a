"""``quarterdeck runs``: list, show, follow and cancel runs."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.views import RunResult, run_view
from quarterdeck.cli.following import EventPrinter, stored_until_end
from quarterdeck.cli.options import AsJson, By, Content, Follow, Limit, Reason, RunArgument, Store
from quarterdeck.cli.orders import Ordered, cancel
from quarterdeck.cli.printing import ago, dollars, emit, fields, moment, note, safe, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.vocabulary import TERMINAL, Status

group = typer.Typer(help="List, show, follow and cancel runs.", no_args_is_help=True)


@group.command()
def ls(
    status: Annotated[Status | None, typer.Option("--status", help="Only runs with this status.")] = None,
    route: Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only runs of this route.")] = None,
    before: Annotated[str | None, typer.Option("--before", metavar="RUN", help="Only runs older than this one.")] = None,
    limit: Limit = 50,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with reading(settings(None, store).store) as insights:
        rows = insights.runs(status=status, route=route, before=before, limit=limit)
    following = rows[-1].run_id if len(rows) == limit else None
    if as_json:
        emit({"runs": rows, "next": following})
        return
    now_us = SystemClock().now_us()
    lines = [
        (
            row.run_id,
            row.status,
            row.code or row.reason,
            row.route,
            row.tenant,
            ago(row.admitted_at_us, now_us),
            ", ".join(row.waiting_on),
        )
        for row in rows
    ]
    table(("RUN", "STATUS", "CODE", "ROUTE", "TENANT", "ADMITTED", "WAITS FOR"), lines, empty="there are no such runs")
    if following is not None:
        note(f"older ones: --before {following}")


@group.command()
def show(run: RunArgument, content: Content = False, store: Store = None, as_json: AsJson = False) -> None:
    """Show one run: its contract, status, spending, effects and approvals."""
    with reading(settings(None, store).store) as insights:
        view = run_view(insights, run)
        asked = insights.events(run, 0, 1)[0].payload
    if as_json:
        built = msgspec.to_builtins(view, builtin_types=(bytes,))
        if content:
            built["input"] = None if asked is None else msgspec.json.decode(asked)
        else:
            del built["result"]["text"]
        emit(built)
        return
    row, contract = view.row, view.contract
    print_result(view.result, text=content)
    now_us = SystemClock().now_us()
    say()
    fields(
        (
            ("route", f"{row.route} (agent {row.agent})"),
            ("caller", f"{row.actor} of tenant {row.tenant}"),
            ("admitted", f"{moment(row.admitted_at_us)} ({ago(row.admitted_at_us, now_us)})"),
            ("updated", f"{moment(row.updated_at_us)} ({ago(row.updated_at_us, now_us)})"),
            ("wakes", "" if row.wake_at_us is None else f"{moment(row.wake_at_us)} ({ago(row.wake_at_us, now_us)})"),
            ("held by", f"{row.worker} (epoch {row.epoch})" if row.worker else ""),
            ("autonomy", f"{contract['autonomy']}, risk {contract['risk']}, mode {contract['mode']}"),
            ("limits", _counts(contract["limits"])),
            ("tools", ", ".join(str(name) for name in _listed(contract["allowed_tools"]))),
            ("versions", _counts(contract["version_set"])),
            ("correlation", row.correlation_id),
            ("journal", f"{row.seq} events, head {row.head.hex()[:16]}, turn {view.turn}"),
            ("approvals", ", ".join(f"{name} {outcome}" for name, outcome in view.approvals.items())),
            ("open effects", ", ".join(view.open_effects)),
            ("unknown effects", ", ".join(view.unknown_effects)),
            ("input", asked.decode() if content and asked is not None else ""),
        )
    )
    for call in view.unknown_effects:
        note(f"find out whether {call} happened, then: quarterdeck effects resolve {run} {call} --done|--not-done --by NAME")


@group.command()
def events(
    run: RunArgument,
    after: Annotated[int, typer.Option("--after", min=0, metavar="SEQ", help="Only events after this sequence.")] = 0,
    follow: Follow = False,
    content: Content = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Print the journal of a run, one event a line (with --json: JSON Lines)."""
    printer = EventPrinter(content=content, as_json=as_json)
    with reading(settings(None, store).store) as insights:
        for stored in stored_until_end(insights, run, after, follow=follow):
            if stored is not None:
                printer.stored(stored)


@group.command(name="cancel")
def cancel_run(run: RunArgument, by: By = "operator", reason: Reason = "", store: Store = None, as_json: AsJson = False) -> None:
    """Stop a run: from now on nothing that it proposes is done. Harmless when repeated."""
    ordered = cancel(settings(None, store).store, run, by=by, reason=reason)
    text = f"run {safe(run)} has ended: {ordered.status}" if ordered.status in TERMINAL else f"run {safe(run)} is being cancelled"
    print_order(ordered, text, as_json=as_json)


def print_order(ordered: Ordered, text: str, *, as_json: bool) -> None:
    """Say that an order is durable, and who will act on it."""
    if as_json:
        emit(ordered)
        return
    say(text)
    if ordered.owner is None and ordered.status not in TERMINAL:
        note("no runtime is up on this store: the run goes on when one starts")


def print_result(result: RunResult, *, text: bool) -> None:
    """How a run stands, for people; ``text`` shows what it said."""
    say(f"{safe(result.run_id)}  {result.status}  {safe(result.code or result.reason)}{'  (partial)' if result.partial else ''}")
    if text and result.text:
        say(safe(result.text, lines=True))
    if result.waiting_on:
        say(f"waits for {safe(', '.join(result.waiting_on))}")
    for on in result.waiting_on:
        kind, _, name = on.partition(":")
        if kind == "approval":
            note(f"to decide: quarterdeck approvals show {safe(name)}")
        elif kind == "effect":
            note(
                f"when you know how it ended: quarterdeck effects resolve {safe(result.run_id)} {safe(name)} --done|--not-done --by NAME"
            )
    effects = ", ".join(f"{count} {name}" for name, count in result.effects.items() if count)
    spent = ", ".join(
        dollars(amount) if name == "cost_microusd" else f"{amount} {name.replace('_', ' ')}"
        for name, amount in result.spent.items()
        if amount
    )
    fields((("effects", effects), ("spent", spent)))


def with_json(value: msgspec.Struct, *names: str) -> dict[str, object]:
    """A struct as a JSON object in which the named fields, which hold JSON as bytes, are JSON."""
    built: dict[str, object] = msgspec.to_builtins(value, builtin_types=(bytes,))
    for name in names:
        held = built[name]
        built[name] = msgspec.json.decode(held) if isinstance(held, bytes) and held else None
    return built


def _counts(value: object) -> str:
    return ", ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else ""


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
