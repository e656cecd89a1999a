"""``quarterdeck approvals``: what waits for a person, exactly what would be done, and the answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import (
    ApprovalArgument,
    AsJson,
    Cursor,
    KeyFile,
    Limit,
    OfTenant,
    Person,
    Reason,
    Server,
    Store,
    json_value,
)
from quarterdeck.cli.places import Place, place
from quarterdeck.cli.printing import ago, emit, fields, moment, note, safe, say, table
from quarterdeck.cli.runs import note_more, note_waiting
from quarterdeck.client.shapes import Approval
from quarterdeck.core.errors import UsageError

group = typer.Typer(help="List, show and answer approvals.", no_args_is_help=True)


class Wanted(StrEnum):
    """Which approvals a list shows."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EDITED = "edited"
    ANSWERED = "answered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"


Digest = Annotated[
    str | None, typer.Option("--digest", metavar="HEX", help="The digest that was seen; refused if it has changed.")
]


@group.command()
def ls(
    status: Annotated[Wanted, typer.Option("--status", help="Which ones.")] = Wanted.PENDING,
    tenant: OfTenant = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List approvals, the nearest deadline first."""
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.approvals(status.value, tenant, cursor, limit)
    if as_json:
        emit({"approvals": page.rows, "next": page.next})
        return
    now_us = SystemClock().now_us()
    lines = [
        (row.approval, row.status, row.tool, row.tenant, row.requested_by, ago(row.expires_at_us, now_us), row.run_id)
        for row in page.rows
    ]
    table(("APPROVAL", "STATUS", "TOOL", "TENANT", "ASKED BY", "EXPIRES", "RUN"), lines, empty="there are no such approvals")
    note_more(page.next)


@group.command()
def show(
    approval: ApprovalArgument, store: Store = None, server: Server = None, key_file: KeyFile = None, as_json: AsJson = False
) -> None:
    """Show one approval with what would be executed: the stored bytes that its digest covers."""
    with place(store=store, server=server, key_file=key_file) as there:
        row = there.approval(approval)
    if as_json:
        emit(row)
        return
    fields(
        (
            ("approval", row.approval),
            ("status", f"{row.status}{', used' if row.consumed else ''}"),
            ("decided by", row.decided_by),
            ("reason", row.reason),
            ("run", f"{row.run_id}, call {row.call}"),
            ("asked by", f"{row.requested_by} of tenant {row.tenant}"),
            ("tool", row.tool),
            ("expires", f"{moment(row.expires_at_us)} ({ago(row.expires_at_us, SystemClock().now_us())})"),
            ("digest", row.digest),
        )
    )
    say()
    if row.shown_text is None:
        say("what would have been done was erased, or is not for you to see")
        return
    say(safe(row.shown_text))
    say()
    say(safe(msgspec.json.format(row.shown_text, indent=2), lines=True))
    if row.status == "pending":
        note(f"quarterdeck approvals approve {safe(row.approval)} --digest {safe(row.digest)} (beside a store: --by NAME)")


@group.command()
def approve(
    approval: ApprovalArgument,
    by: Person = None,
    reason: Reason = "",
    digest: Digest = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Approve exactly this action, once."""
    with place(store=store, server=server, key_file=key_file) as there:
        _print(there, there.decide(approval, approve=True, by=by, reason=reason, digest=digest), as_json=as_json)


@group.command()
def reject(
    approval: ApprovalArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")],
    by: Person = None,
    digest: Digest = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Reject this action; the model is told that it was denied."""
    if not reason.strip():
        raise UsageError("reason.missing", "a rejection needs a reason; say why with --reason")
    with place(store=store, server=server, key_file=key_file) as there:
        _print(there, there.decide(approval, approve=False, by=by, reason=reason, digest=digest), as_json=as_json)


@group.command()
def edit(
    approval: ApprovalArgument,
    arguments: Annotated[str, typer.Option("--arguments", metavar="JSON|@FILE|-", help="All arguments, as they shall be.")],
    by: Person = None,
    reason: Reason = "",
    digest: Digest = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Want other arguments: what was shown is not done, the other action is a new proposal and is judged anew."""
    wanted = json_value("--arguments", arguments)
    with place(store=store, server=server, key_file=key_file) as there:
        _print(there, there.edit(approval, wanted, by=by, reason=reason, digest=digest), as_json=as_json)


@group.command()
def respond(
    approval: ApprovalArgument,
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="What the program is told.")],
    by: Person = None,
    digest: Digest = None,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say something to the program instead of the action, which is not done."""
    with place(store=store, server=server, key_file=key_file) as there:
        _print(there, there.respond(approval, text, by=by, digest=digest), as_json=as_json)


def _print(there: Place, decided: Approval, *, as_json: bool) -> None:
    if as_json:
        emit(decided)
        return
    say(f"{safe(decided.approval)} is {decided.status} by {safe(decided.decided_by)}")
    note_waiting(there)
