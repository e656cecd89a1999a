"""``quarterdeck runs``: list, show and follow runs; cancel, pause, resume and signal them. See also :mod:`quarterdeck.cli.steering`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.following import EventPrinter
from quarterdeck.cli.options import (
    AsJson,
    By,
    Content,
    Cursor,
    Follow,
    Input,
    KeyFile,
    Limit,
    OfTenant,
    Reason,
    RunArgument,
    Server,
    Store,
    json_value,
)
from quarterdeck.cli.places import Place, RunFilter, place
from quarterdeck.cli.printing import ago, dollars, emit, fields, moment, note, safe, say, table
from quarterdeck.client.shapes import Progress, RunDetail, RunResult, RunSummary
from quarterdeck.core.vocabulary import CancelMode, Status

group = typer.Typer(help="List, show, follow, cancel, pause, resume and signal runs.", no_args_is_help=True)


@group.command()
def ls(
    status: Annotated[Status | None, typer.Option("--status", help="Only runs with this status.")] = None,
    route: Annotated[str | None, typer.Option("--route", metavar="NAME", help="Only runs of this route.")] = None,
    tenant: OfTenant = None,
    correlation: Annotated[
        str | None, typer.Option("--correlation", metavar="ID", help="Only runs with this correlation id.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    which = RunFilter(status=status and status.value, route=route, tenant=tenant, correlation_id=correlation)
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.runs(which, cursor, limit)
    if as_json:
        emit({"runs": page.rows, "next": page.next})
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
        for row in page.rows
    ]
    table(("RUN", "STATUS", "CODE", "ROUTE", "TENANT", "ADMITTED", "WAITS FOR"), lines, empty="there are no such runs")
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
    """Show one run: its contract, status, spending, effects and approvals."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.show(run, content=content)
    if as_json:
        shown = {**msgspec.structs.asdict(found.run), "contract": found.contract}
        emit({**shown, "input": found.input} if content else shown)
        return
    row, contract = found.run, found.contract
    print_result(RunResult.of(row), text=content)
    now_us = SystemClock().now_us()
    say()
    fields(
        (
            ("route", f"{row.route} (agent {row.agent})"),
            ("admission", f"{row.admission}, {row.admission_code}{_instead(row)}"),
            ("caller", f"{row.user} of tenant {row.tenant}"),
            ("admitted", f"{moment(row.admitted_at_us)} ({ago(row.admitted_at_us, now_us)})"),
            ("updated", f"{moment(row.updated_at_us)} ({ago(row.updated_at_us, now_us)})"),
            ("wakes", "" if row.wake_at_us is None else f"{moment(row.wake_at_us)} ({ago(row.wake_at_us, now_us)})"),
            ("autonomy", f"{row.autonomy}, risk {row.risk}, mode {row.mode}"),
            ("limits", _counts(row.limits)),
            ("tools", ", ".join(str(name) for name in _listed(contract.get("allowed_tools")))),
            ("versions", _counts(row.versions)),
            ("correlation", row.correlation_id),
            ("progress", "" if row.progress is None else _progress(row.progress, now_us)),
            ("journal", f"{row.seq} events, turn {row.turn}"),
            ("approvals", ", ".join(f"{name} {outcome}" for name, outcome in row.approvals.items())),
            ("open effects", ", ".join(row.open_effects)),
            ("unknown effects", ", ".join(row.unknown_effects)),
            ("input", msgspec.json.encode(found.input).decode() if content else ""),
        )
    )
    for call in row.unknown_effects:
        note(f"find out whether {call} happened, then: quarterdeck effects resolve {run} {call} --done|--not-done --by NAME")


@group.command()
def events(
    run: RunArgument,
    after: Annotated[int, typer.Option("--after", min=0, metavar="SEQ", help="Only events after this sequence.")] = 0,
    follow: Follow = False,
    content: Content = False,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the journal of a run, one event a line (with --json: JSON Lines)."""
    printer = EventPrinter(content=content, as_json=as_json)
    with place(store=store, server=server, key_file=key_file) as there:
        for event in there.events(run, after, follow=follow, content=content):
            printer.print(event)


@group.command(name="cancel")
def cancel_run(
    run: RunArgument,
    by: By = None,
    reason: Reason = "",
    mode: Annotated[
        CancelMode, typer.Option("--mode", help="stop: at once; drain: finish what is under way; compensate: and undo.")
    ] = CancelMode.COMPENSATE,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Stop a run: from now on nothing that it proposes is done. Harmless when repeated."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.cancel(run, by=by, reason=reason, mode=mode)
        if as_json:
            emit(found)
            return
        say(f"run {safe(run)} has ended: {found.status}" if found.done else f"run {safe(run)} is being cancelled")
        if not found.done:
            note_waiting(there)


@group.command()
def signal(
    run: RunArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The message's name.")],
    payload: Input = "null",
    key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="TEXT", help="Sent again under the same key it is one message.")
    ] = None,
    by: By = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a run a message, for which a workflow may wait."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.signal(run, name, json_value("--input", payload), by=by, key=key)
        _ordered(there, found, f"run {safe(run)} is told {safe(name)}", as_json=as_json)


@group.command()
def pause(
    run: RunArgument,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a run begin nothing new; what is being done is finished. Harmless when repeated."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.pause(run, by=by, reason=reason)
        _ordered(there, found, f"run {safe(run)} begins nothing new; `quarterdeck runs resume` lets it go on", as_json=as_json)


@group.command()
def resume(
    run: RunArgument,
    done: Annotated[bool, typer.Option("--done", help="What it was stuck with was done, or undone, by hand.")] = False,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a run go on that was paused, or waits for an operator. Harmless when repeated."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.resume(run, by=by, reason=reason, done=done)
        _ordered(there, found, f"run {safe(run)} goes on", as_json=as_json)


def _ordered(there: Place, found: RunSummary, said: str, *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    say(said)
    note_waiting(there)


def note_waiting(there: Place) -> None:
    """Say so, if nobody is there who acts on what was ordered."""
    if not there.driven:
        note("no runtime is up on this store: the run goes on when one starts")


def note_more(cursor: str | None) -> None:
    """Say how to go on with a list."""
    if cursor is not None:
        note(f"there are more: --cursor {cursor}")


def print_result(result: RunResult, *, text: bool) -> None:
    """How a run stands, for people; ``text`` shows what it said."""
    say(f"{safe(result.run_id)}  {result.status}  {safe(result.code or result.reason)}{'  (partial)' if result.partial else ''}")
    if text and (said := result.text or result.message):
        say(safe(said, lines=True))
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


def _instead(row: RunDetail) -> str:
    return f", instead of {row.requested_route}" if row.requested_route != row.route else ""


def _progress(told: Progress, now_us: int) -> str:
    """How far a run is, in words.

    >>> _progress(Progress(call="t0.0", done=3, total=4, note="Paris", at_us=0), 2_000_000)
    '3 of 4, in t0.0 (2 s ago): Paris'
    """
    so_far = f"{told.done}" if told.total is None else f"{told.done} of {told.total}"
    place, said = f", in {told.call}" if told.call else "", f": {told.note}" if told.note else ""
    return f"{so_far}{place} ({ago(told.at_us, now_us)}){said}"


def _counts(value: object) -> str:
    return ", ".join(f"{name}={item}" for name, item in value.items()) if isinstance(value, dict) else ""


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []
