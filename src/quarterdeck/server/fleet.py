"""The workers of a store, and the runs that none of them could do."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from quarterdeck.server import bodies, queries
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.reading import shaped
from quarterdeck.server.runs import location, opened, sealed, summary


async def workers(exchange: Exchange) -> Response:
    """Every worker; they belong to no tenant, so only who may read everywhere sees them."""
    found = exchange.runtime.workers() if exchange.tenants() is None else ()
    return answer(bodies.Workers(workers=tuple([msgspec.convert(msgspec.structs.asdict(row), bodies.Worker) for row in found])))


async def dead_letters(exchange: Exchange) -> Response:
    """A page of dead letters that nobody has decided about, newest first."""
    query = exchange.asked(queries.DeadLettersQuery)
    tenants = exchange.tenants(query.tenant)
    before = None if query.cursor is None else opened(query.cursor, exchange, tenants)
    rows = exchange.runtime.insights.dead_letters(tenants=tenants, route=query.route, before=before, limit=query.limit + 1)
    shown = rows[: query.limit]
    following = sealed(shown[-1].run_id) if len(rows) > query.limit else None
    return answer(bodies.Runs(runs=tuple([summary(row) for row in shown]), next=following))


async def requeue(exchange: Exchange) -> Response:
    """Ask for what a failed run was asked for, once more; the answer is the new run."""
    row = exchange.run(exchange.names["run_id"])
    wanted = shaped({} if exchange.body is None else exchange.body, bodies.Requeue)
    handle = await exchange.runtime.requeue(row.run_id, by=exchange.principal.subject, reason=wanted.reason)
    headers = {"location": location(handle.id)}
    if handle.existing:
        headers["idempotency-replayed"] = "true"
    return answer(summary(exchange.run(handle.id)), 202, headers)


async def drop(exchange: Exchange) -> Response:
    """Let a dead letter go."""
    row = exchange.run(exchange.names["run_id"])
    wanted = shaped(exchange.body, bodies.Drop)
    await exchange.runtime.drop(row.run_id, by=exchange.principal.subject, reason=wanted.reason)
    return answer(summary(exchange.run(row.run_id)))
