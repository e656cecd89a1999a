"""The task interface: a small façade over runs, for clients that send a sentence and poll.

A known idempotency key gives the task that exists, whatever the body says; ``POST /v1/runs`` is the strict way.
"""

from __future__ import annotations

from typing import Literal

from starlette.responses import Response

from quarterdeck.app.runtime import Runtime
from quarterdeck.core.contract import Caller, Envelope
from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import RunRow
from quarterdeck.server import bodies
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.reading import shaped, trace_of
from quarterdeck.server.runs import acting_for, default_tenant, submitter

STATES: dict[str, Literal["pending", "running", "complete", "failed"]] = {
    "queued": "pending",
    "running": "running",
    "waiting": "running",
    "succeeded": "complete",
    "failed": "failed",
    "refused": "failed",
    "cancelled": "failed",
}
"""A run's status in the words of the task interface."""


async def create(exchange: Exchange) -> Response:
    """Submit a task; or give the one that exists under this key."""
    wanted = shaped(exchange.body, bodies.TaskRequest)
    tenant = default_tenant(exchange)
    user = acting_for(exchange, tenant, wanted.user_id)
    key = wanted.idempotency_key or None
    existing = _keyed(exchange, tenant, key)
    if existing is None:
        envelope = Envelope(
            route_of(exchange),
            wanted.task,
            caller=Caller(tenant, user),
            idempotency_key=key,
            correlation_id=trace_of(exchange.request),
        )
        try:
            handle = await exchange.runtime.admit(envelope, submitted_by=submitter(exchange))
        except UsageError as error:
            # Two requests under one key at once, with different bodies: the other one was first.
            existing = _keyed(exchange, tenant, key) if error.code == "idempotency.body_differs" else None
            if existing is None:
                raise
        else:
            existing = exchange.runtime.insights.run(handle.id)
    if existing is None:
        raise UsageError("run.unknown", "the task was admitted and cannot be found")
    content = exchange.contents(existing.tenant, None)
    return answer(_task(exchange.runtime, existing, content=content), 202, {"location": f"/tasks/{existing.run_id}"})


async def show(exchange: Exchange) -> Response:
    """One task."""
    row = exchange.run(exchange.names["task_id"])
    return answer(_task(exchange.runtime, row, content=exchange.contents(row.tenant, None)))


def route_of(exchange: Exchange) -> str:
    """Where tasks lead: as configured, else the route ``task``, else the deck's only route."""
    routes, chosen = exchange.runtime.deck.routes, exchange.stage.settings.task_route
    if chosen is not None:
        return chosen
    if "task" in routes or len(routes) != 1:
        return "task"
    return next(iter(routes))


def _keyed(exchange: Exchange, tenant: str, key: str | None) -> RunRow | None:
    if key is None:
        return None
    insights = exchange.runtime.insights
    run_id = insights.keyed(tenant, key, exchange.runtime.parts.clock.now_us())
    return None if run_id is None else insights.run(run_id)


def _task(runtime: Runtime, row: RunRow, *, content: bool) -> bodies.Task:
    status = STATES[row.status]
    if row.status not in TERMINAL:
        return bodies.Task(task_id=row.run_id, status=status)
    result = runtime.show(row.run_id).result
    return bodies.Task(
        task_id=row.run_id,
        status=status,
        result=result.text if content and status == "complete" else None,
        error=None if status == "complete" else f"{row.status}: {row.code or row.reason}",
        cost_usd=result.spent.get("cost_microusd", 0) / 1e6,
        duration_ms=(row.updated_at_us - row.admitted_at_us) / 1e3,
    )
