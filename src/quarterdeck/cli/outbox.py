"""``quarterdeck outbox``: the messages of a store that leave, have left, or wait for a person."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.app.clock import SystemClock
from quarterdeck.cli.options import AsJson, By, Content, Limit, Reason, Store
from quarterdeck.cli.orders import decide_post
from quarterdeck.cli.printing import ago, emit, safe, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import reading
from quarterdeck.core.errors import UsageError
from quarterdeck.core.outbox import PostStatus
from quarterdeck.ports.store import PostRow

group = typer.Typer(help="Messages that leave with what runs do.", no_args_is_help=True)

MessageArgument = Annotated[str, typer.Argument(metavar="MESSAGE", help="The message, as `outbox ls` names it.")]


@group.command("ls")
def ls(
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only these: queued, delivered, dead …")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", metavar="TOPIC", help="Only of this topic.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only of this run.")] = None,
    limit: Limit = 50,
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """List messages, the newest first; without their contents."""
    if status is not None and status not in set(PostStatus):
        raise UsageError("outbox.status", f"{status[:40]!r} is no status of a message; use one of {', '.join(PostStatus)}")
    with reading(settings(None, store).store) as insights:
        found = insights.posts(status=status, topic=topic, run_id=run, limit=limit)
    if as_json:
        emit([_shown(row, content=False) for row in found])
        return 0
    now_us = SystemClock().now_us()
    rows = [(row.message, row.status, row.topic, row.key, str(row.attempts), row.code, ago(row.at_us, now_us)) for row in found]
    table(("MESSAGE", "STATUS", "TOPIC", "KEY", "ATTEMPTS", "CODE", "RECORDED"), rows, empty="no messages")
    return 0


@group.command("show")
def show(message: MessageArgument, content: Content = False, store: Store = None, as_json: AsJson = False) -> int:
    """Show one message; its contents only where they are asked for."""
    with reading(settings(None, store).store) as insights:
        row = insights.post(message)
    if row is None:
        raise UsageError("outbox.unknown", f"no message is called {message[:80]!r}; `quarterdeck outbox ls` lists them")
    shown = _shown(row, content=content)
    if as_json:
        emit(shown)
    else:
        for name, value in shown.items():
            say(f"{name}: {safe(str(value))}")
    return 0


@group.command("requeue")
def requeue(message: MessageArgument, by: By = None, reason: Reason = "", store: Store = None, as_json: AsJson = False) -> int:
    """Deliver a dead message once more, from the beginning; what stands behind it follows."""
    return _decide(message, "requeue", by, reason, store, as_json=as_json)


@group.command("drop")
def drop(message: MessageArgument, by: By = None, reason: Reason = "", store: Store = None, as_json: AsJson = False) -> int:
    """Give a dead message up; what stands behind it leaves."""
    return _decide(message, "drop", by, reason, store, as_json=as_json)


def _decide(message: str, action: str, by: str | None, reason: str, store: str | None, *, as_json: bool) -> int:
    decide_post(settings(None, store).store, message, action, by=by or "operator", reason=reason)
    done = "requeued" if action == "requeue" else "dropped"
    if as_json:
        emit({"message": message, "done": done})
    else:
        say(f"message {safe(message)} is {done}")
    return 0


def _shown(row: PostRow, *, content: bool) -> dict[str, object]:
    shown: dict[str, object] = {
        "message": row.message,
        "run_id": row.run_id,
        "tenant": row.tenant,
        "topic": row.topic,
        "key": row.key,
        "status": row.status,
        "attempts": row.attempts,
        "code": row.code,
        "at_us": row.at_us,
        "decided_by": row.decided_by,
        "reason": row.reason,
        "bytes": len(row.body),
    }
    if content:
        shown["body"] = row.body.decode("utf-8", "replace")
    return shown
