"""Steering runs over HTTP: tell one something, hand it on, go on elsewhere from one of its steps, execute it again offline."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from quarterdeck.app.budgets import Budget, check_amounts
from quarterdeck.core.identity import Action
from quarterdeck.server import bodies
from quarterdeck.server.exchange import Exchange, answer, forbidden
from quarterdeck.server.reading import shaped
from quarterdeck.server.runs import acting_for, detail, location, token_of


async def interrupt(exchange: Exchange) -> Response:
    """Tell a run something; who may set switches in its tenant is trusted to steer it, everybody else is untrusted content."""
    row = exchange.run(exchange.names["run_id"])
    told = shaped(exchange.body, bodies.Interrupt)
    principal = exchange.principal
    trusted = principal.may(Action.SWITCHES_SET, row.tenant)
    token = token_of(exchange, told.token)
    await exchange.runtime.interrupt(row.run_id, told.payload, by=principal.subject, trusted=trusted, token=token)
    return answer(detail(exchange.runtime, row.run_id, content=False), 202)


async def escalate(exchange: Exchange) -> Response:
    """Make a run the concern of its route's next owner."""
    row = exchange.run(exchange.names["run_id"])
    told = shaped({} if exchange.body is None else exchange.body, bodies.Escalate)
    owner = await exchange.runtime.escalate(row.run_id, reason=told.reason, by=exchange.principal.subject)
    return answer(bodies.Escalated(run_id=row.run_id, owner=owner), 202)


async def raise_budget(exchange: Exchange) -> Response:
    """Set limits of a run anew."""
    row = exchange.run(exchange.names["run_id"])
    wanted = shaped(exchange.body, bodies.RaiseBudget)
    spelled = wanted.budget
    check_amounts(spelled)
    budget = Budget(
        turns=spelled.max_steps,
        tools=spelled.max_tools,
        tokens=spelled.max_tokens,
        context=spelled.max_context,
        deadline=None if spelled.deadline_ms is None else spelled.deadline_ms / 1_000,
        usd=spelled.max_cost_usd,
    )
    by = exchange.principal.subject
    await exchange.runtime.raise_budget(row.run_id, budget, reason=wanted.reason, by=by, token=token_of(exchange, wanted.token))
    return answer(detail(exchange.runtime, row.run_id, content=False), 202)


async def fork(exchange: Exchange) -> Response:
    """Ask for a run that goes on where another one was; whoever asks may ask for runs on behalf of that one's person."""
    row = exchange.run(exchange.names["run_id"])
    wanted = shaped(exchange.body, bodies.ForkRequest)
    if not exchange.principal.may(Action.CONTENT_READ, row.tenant):
        raise forbidden(Action.CONTENT_READ)  # a fork shows what its source had read
    if not exchange.stage.anonymous:
        acting_for(exchange, row.tenant, row.actor)
    edited = {"result": wanted.result} if wanted.edited else {}
    key = token_of(exchange)
    by = exchange.principal.subject
    made = await exchange.runtime.fork(row.run_id, wanted.step, by=by, route=wanted.route, idempotency_key=key, **edited)
    headers = {"location": location(made.id)} | ({"idempotency-replayed": "true"} if made.existing else {})
    return answer(detail(exchange.runtime, made.id, content=False), 202, headers)


async def replay(exchange: Exchange) -> Response:
    """Execute a run again offline, under what is in force now."""
    row = exchange.run(exchange.names["run_id"])
    exchange.contents(row.tenant, True)
    found = exchange.runtime.replay(row.run_id)
    differences = tuple(msgspec.convert(msgspec.structs.asdict(each), bodies.DifferenceBody) for each in found.differences)
    told = bodies.ReplayBody(
        run_id=found.run_id, same=found.same, steps=found.steps, decisions=found.decisions, differences=differences
    )
    return answer(told)
