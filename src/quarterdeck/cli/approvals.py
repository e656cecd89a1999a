"""``quarterdeck approvals``: what waits for a person, exactly what would be done, and the answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import approval_of
from quarterdeck.cli.options import ApprovalArgument, AsJson, Limit, Reason, Store
from quarterdeck.cli.orders import decide
from quarterdeck.cli.printing import ago, emit, fields, moment, note, safe, say, table
from quarterdeck.cli.runs import print_order, with_json
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import UsageError
from quarterdeck.ports.store import ApprovalRow

group = typer.Typer(help="List, show and answer approvals.", no_args_is_help=True)


class Wanted(StrEnum):
    """Which approvals a list shows."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    ALL = "all"


Person = Annotated[str, typer.Option("--by", metavar="NAME", help="Who answers; not whoever asked for the action.")]
Digest = Annotated[
    str | None, typer.Option("--digest", metavar="HEX", help="The digest that was seen; refused if it has changed.")
]


@group.command()
def ls(
    status: Annotated[Wanted, typer.Option("--status", help="Which ones.")] = Wanted.PENDING,
    limit: Limit = 50,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """List approvals, the nearest deadline first."""
    with reading(settings(None, store).store) as insights:
        rows = insights.approvals(status=None if status is Wanted.ALL else status, limit=limit)
    if as_json:
        emit({"approvals": [_without_contents(row) for row in rows]})
        return
    now_us = SystemClock().now_us()
    lines = [
        (row.approval, row.status, row.tool, row.tenant, row.requested_by, ago(row.expires_at_us, now_us), row.run_id)
        for row in rows
    ]
    table(("APPROVAL", "STATUS", "TOOL", "TENANT", "ASKED BY", "EXPIRES", "RUN"), lines, empty="there are no such approvals")


@group.command()
def show(approval: ApprovalArgument, store: Store = None, as_json: AsJson = False) -> None:
    """Show one approval with what would be executed: the stored bytes that its digest covers."""
    with reading(settings(None, store).store) as insights:
        row = approval_of(insights, approval)
    if as_json:
        emit({**with_json(row, "shown"), "shown_text": row.shown.decode()})
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
    if not row.shown:
        say("what would have been done was erased")
        return
    say(safe(row.shown.decode()))
    say()
    say(safe(msgspec.json.format(row.shown, indent=2).decode(), lines=True))
    if row.status == "pending":
        note(f"quarterdeck approvals approve {row.approval} --by NAME --digest {row.digest}")


@group.command()
def approve(
    approval: ApprovalArgument,
    by: Person,
    reason: Reason = "",
    digest: Digest = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Approve exactly this action, once."""
    ordered = decide(settings(None, store).store, approval, approve=True, by=by, reason=reason, digest=digest)
    print_order(ordered, f"{approval} is approved by {safe(by)}", as_json=as_json)


@group.command()
def reject(
    approval: ApprovalArgument,
    by: Person,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")],
    digest: Digest = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Reject this action; the model is told that it was denied."""
    if not reason.strip():
        raise UsageError("reason.missing", "a rejection needs a reason; say why with --reason")
    ordered = decide(settings(None, store).store, approval, approve=False, by=by, reason=reason, digest=digest)
    print_order(ordered, f"{approval} is rejected by {safe(by)}", as_json=as_json)


def _without_contents(row: ApprovalRow) -> dict[str, object]:
    built: dict[str, object] = msgspec.to_builtins(row, builtin_types=(bytes,))
    del built["shown"]
    return built
