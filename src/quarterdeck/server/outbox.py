"""The outbox over HTTP: messages that leave, have left, or wait for a person, and what a person says of a dead one."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from quarterdeck.app import shown
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Action
from quarterdeck.core.outbox import PostStatus
from quarterdeck.ports.store import PostRow
from quarterdeck.server import bodies, queries
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.forms import Shown
from quarterdeck.server.reading import shaped
from quarterdeck.server.runs import sealed, unknown_cursor, unsealed


class PostBody(Shown, frozen=True, kw_only=True):
    """One message without its contents. ``code`` is how its newest attempt failed, ``decided_by`` who requeued or dropped it."""

    message: str
    run_id: str
    tenant: str
    topic: str
    key: str
    status: PostStatus
    attempts: int
    code: str
    at_us: int
    decided_by: str
    reason: str
    bytes: int


class PostDetail(PostBody, frozen=True, kw_only=True):
    """One message with its contents, for whoever may read them; ``null`` also if they are erased."""

    headers: dict[str, str] | None
    body: str | None


class Posts(Shown, frozen=True, kw_only=True):
    """A page of messages, newest first."""

    messages: tuple[PostBody, ...]
    next: str | None


async def listing(exchange: Exchange) -> Response:
    """A page of messages."""
    query = exchange.asked(queries.OutboxQuery)
    tenants = exchange.tenants(query.tenant)
    before = None if query.cursor is None else _opened(query.cursor, exchange, tenants)
    rows = exchange.runtime.insights.posts(
        status=query.status, topic=query.topic, run_id=query.run, tenants=tenants, before=before, limit=query.limit + 1
    )
    page = rows[: query.limit]
    following = sealed(page[-1].message) if len(rows) > query.limit else None
    return answer(Posts(messages=tuple([_summary(row) for row in page]), next=following))


async def show(exchange: Exchange) -> Response:
    """One message."""
    row = _found(exchange)
    content = exchange.contents(row.tenant, exchange.asked(queries.RunQuery).content)
    return answer(msgspec.convert(shown.post_in_full(row, content=content), PostDetail))


async def requeue(exchange: Exchange) -> Response:
    """Deliver a dead message once more; what stands behind it follows."""
    return await _decided(exchange, "requeue")


async def drop(exchange: Exchange) -> Response:
    """Give a dead message up; what stands behind it leaves."""
    return await _decided(exchange, "drop")


async def _decided(exchange: Exchange, action: str) -> Response:
    row = _found(exchange)
    said = shaped({} if exchange.body is None else exchange.body, bodies.Because)
    await exchange.runtime.decide_post(row.message, action, by=exchange.principal.subject, reason=said.reason)
    return answer(_summary(_found(exchange)))


def _found(exchange: Exchange) -> PostRow:
    """A message of a tenant in which the principal may read; to everybody else it does not exist."""
    name = exchange.names["message"]
    row = exchange.runtime.insights.post(name)
    if row is None or not exchange.sees(Action.RUNS_READ, row.tenant):
        raise UsageError("outbox.unknown", f"no message is called {name[:160]!r}")
    exchange.require(row.tenant)
    return row


def _opened(cursor: str, exchange: Exchange, tenants: frozenset[str] | None) -> str:
    place = unsealed(cursor)
    row = exchange.runtime.insights.post(place)
    if row is None or not (tenants is None or row.tenant in tenants):
        raise unknown_cursor()
    return place


def _summary(row: PostRow) -> PostBody:
    return msgspec.convert(shown.post(row), PostBody)
