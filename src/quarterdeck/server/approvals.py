"""Approvals over HTTP. What is answered is bound to what was seen: an answer names the digest in ``If-Match``."""

from __future__ import annotations

import re
from typing import assert_never

import msgspec
from starlette.responses import Response

from quarterdeck.app import shown
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Action
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.server import bodies, queries
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.reading import shaped, single
from quarterdeck.server.runs import sealed, unknown_cursor, unsealed

_ETAG = re.compile(r'"([\x21\x23-\x7e]+)"\Z')


async def listing(exchange: Exchange) -> Response:
    """A page of approvals."""
    query = exchange.asked(queries.ApprovalsQuery)
    tenants = exchange.tenants(query.tenant)
    after = None if query.cursor is None else _opened(query.cursor, exchange, tenants)
    status = None if query.status == "all" else query.status
    rows = exchange.runtime.insights.approvals(status=status, tenants=tenants, after=after, limit=query.limit + 1)
    page = rows[: query.limit]
    following = sealed(page[-1].approval) if len(rows) > query.limit else None
    return answer(bodies.Approvals(approvals=tuple(_summary(row) for row in page), next=following))


async def show(exchange: Exchange) -> Response:
    """One approval, with what would be executed for who may read contents or decide it; its digest is the ``ETag``."""
    row = exchange.approval(exchange.names["approval"])
    sees = any(exchange.principal.may(action, row.tenant) for action in (Action.CONTENT_READ, Action.APPROVALS_DECIDE))
    body = msgspec.convert(shown.approval_in_full(row, content=sees), bodies.ApprovalDetail)
    return answer(body, headers={"etag": f'"{row.digest}"'})


async def decide(exchange: Exchange) -> Response:
    """Answer an approval, for exactly the digest that was seen, under the name of who is authenticated."""
    row = exchange.approval(exchange.names["approval"])
    said = shaped(exchange.body, bodies.Decide)
    seen = single(exchange.request, "if-match")
    if seen is None:
        raise UsageError("http.precondition", "send If-Match with the approval's ETag, so that the answer is for what you saw")
    match = _ETAG.match(seen)
    if match is None:
        raise UsageError("http.header", 'If-Match holds exactly one digest, in quotation marks; "*" and lists are refused')
    if said.decision == "reject" and not said.reason.strip():
        raise UsageError("reason.missing", "a rejection needs a reason; say why")
    runtime, by = exchange.runtime, exchange.principal.subject
    match said.decision:
        case "edit":
            await runtime.edit(row.approval, said.arguments, by=by, reason=said.reason, digest=match[1])
        case "respond":
            await runtime.respond(row.approval, said.text, by=by, digest=match[1])
        case "approve" | "reject":
            approve = said.decision == "approve"
            await runtime.decide(row.approval, approve=approve, by=by, reason=said.reason, digest=match[1])
        case _:
            assert_never(said.decision)
    return answer(_summary(exchange.approval(row.approval)))


def _opened(cursor: str, exchange: Exchange, tenants: frozenset[str] | None) -> str:
    place = unsealed(cursor)
    row = exchange.runtime.insights.approval(place)
    if row is None or not (tenants is None or row.tenant in tenants):
        raise unknown_cursor()
    return place


def _summary(row: ApprovalRow) -> bodies.Approval:
    return msgspec.convert(shown.approval(row), bodies.Approval)
