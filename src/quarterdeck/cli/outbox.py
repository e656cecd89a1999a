"""``quarterdeck outbox``: the messages of a store that leave, have left, or wait for a person."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import AsJson, By, Content, Cursor, KeyFile, Limit, OfTenant, Reason, Server, Store
from quarterdeck.cli.places import PostFilter, place
from quarterdeck.cli.printing import ago, emit, safe, say, table
from quarterdeck.cli.runs import note_more
from quarterdeck.core.errors import UsageError
from quarterdeck.core.outbox import PostStatus

group = typer.Typer(help="Messages that leave with what runs do.", no_args_is_help=True)

MessageArgument = Annotated[str, typer.Argument(metavar="MESSAGE", help="The message, as `outbox ls` names it.")]


@group.command("ls")
def ls(
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only these: queued, delivered, dead …")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="TOPIC", help="Only of this topic.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only of this run.")] = None,
    tenant: OfTenant = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """List messages, the newest first; without their contents."""
    if status is not None and status not in set(PostStatus):
        raise UsageError("outbox.status", f"{status[:40]!r} is no status of a message; use one of {', '.join(PostStatus)}")
    which = PostFilter(status=status, topic=topic, run=run, tenant=tenant)
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.messages(which, cursor, limit)
    if as_json:
        emit({"messages": page.rows, "next": page.next})
        return 0
    now_us = SystemClock().now_us()
    rows = [
        (row.message, row.status, row.topic, row.key, str(row.attempts), row.code, ago(row.at_us, now_us)) for row in page.rows
    ]
    table(("MESSAGE", "STATUS", "TOPIC", "KEY", "ATTEMPTS", "CODE", "RECORDED"), rows, empty="no messages")
    note_more(page.next)
    return 0


@group.command("show")
def show(
    message: MessageArgument,
    content: Content = False,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Show one message; its contents only where they are asked for."""
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.message(message, content=content)
    if as_json:
        emit(found)
    else:
        for name, value in msgspec.structs.asdict(found).items():
            if content or name not in ("headers", "body"):
                say(f"{name}: {safe(str(value))}")
    return 0


@group.command("requeue")
def requeue(
    message: MessageArgument,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Deliver a dead message once more, from the beginning; what stands behind it follows."""
    return _decide(message, "requeue", (by, reason), (store, server, key_file), as_json=as_json)


@group.command("drop")
def drop(
    message: MessageArgument,
    by: By = None,
    reason: Reason = "",
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> int:
    """Give a dead message up; what stands behind it leaves."""
    return _decide(message, "drop", (by, reason), (store, server, key_file), as_json=as_json)


def _decide(
    message: str,
    action: str,
    said: tuple[str | None, str],
    where: tuple[str | None, str | None, str | None],
    *,
    as_json: bool,
) -> int:
    store, server, key_file = where
    with place(store=store, server=server, key_file=key_file) as there:
        found = there.decide_message(message, action, by=said[0], reason=said[1])
    if as_json:
        emit(found)
    else:
        say(f"message {safe(message)} is {'requeued' if action == 'requeue' else 'dropped'}")
    return 0
