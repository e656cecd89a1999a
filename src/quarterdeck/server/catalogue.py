"""What the deck is made of and how its parts are doing: tools, routes, budgets, policies, switches, dependencies."""

from __future__ import annotations

import logging

import msgspec
from starlette.responses import Response

from quarterdeck.app.budgets import overlaid
from quarterdeck.core.controls import checked_switch
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import EVERY_TENANT, Action
from quarterdeck.core.specs import RouteSpec, ToolSpec
from quarterdeck.policy import default_policies
from quarterdeck.resilience.dependency import DependencyView
from quarterdeck.server import bodies
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.reading import shaped

_log = logging.getLogger(__name__)


async def tools(exchange: Exchange) -> Response:
    """Every tool's manifest."""
    found = exchange.runtime.deck.tools
    return answer(bodies.Tools(tools=tuple(_tool(found[name].spec) for name in sorted(found))))


async def routes(exchange: Exchange) -> Response:
    """The rows of the route table that serve the caller's tenants."""
    tenants, found = exchange.tenants(), exchange.runtime.deck.routes
    shown = [
        found[name]
        for name in sorted(found)
        if tenants is None or EVERY_TENANT in found[name].tenants or not tenants.isdisjoint(found[name].tenants)
    ]
    return answer(bodies.Routes(routes=tuple(_route(exchange, route, tenants) for route in shown)))


async def budgets(exchange: Exchange) -> Response:
    """Shared accounts: a tenant's for who may read there, those that tenants share for who may read everywhere."""
    tenants = exchange.tenants()
    rows = [
        bodies.BudgetBody(
            account=row.account, dimension=row.dimension, limit=row.limit, committed=row.committed, reserved=row.reserved
        )
        for row in exchange.runtime.budgets()
        if tenants is None or (row.account.startswith("tenant:") and row.account.removeprefix("tenant:") in tenants)
    ]
    return answer(bodies.Budgets(budgets=tuple(rows)))


async def policies(exchange: Exchange) -> Response:
    """The policy set in force."""
    texts = exchange.runtime.deck.policies or default_policies()
    return answer(bodies.Policies(version=exchange.runtime.parts.gate.policy.version, policies=dict(texts)))


async def switches(exchange: Exchange) -> Response:
    """The switches that are set; those that name another tenant are not shown."""
    return answer(_switches(exchange))


async def set_switch(exchange: Exchange) -> Response:
    """Set or clear a switch. One that names a tenant needs the right there, every other one the right in all tenants."""
    wanted = shaped(exchange.body, bodies.SetSwitch)
    kind, _, name = checked_switch(wanted.name).partition(":")
    exchange.require(name if kind == "deny_tenant" else EVERY_TENANT)
    if not wanted.reason.strip():
        raise UsageError("reason.missing", "a switch needs a reason; say why")
    await exchange.runtime.switch(wanted.name, on=wanted.on)
    _log.warning(
        "switch %r %s by %r: %r", wanted.name, "set" if wanted.on else "cleared", exchange.principal.subject, wanted.reason
    )
    return answer(_switches(exchange))


async def dependencies(exchange: Exchange) -> Response:
    """How each model and tool is doing in this process."""
    views = exchange.runtime.dependencies()
    return answer(bodies.DependencyList(dependencies=tuple(_dependency(view) for view in views)))


def _switches(exchange: Exchange) -> bodies.Switches:
    tenants = exchange.tenants_for(Action.CONFIG_READ)
    rows = {row.name: row for row in exchange.runtime.insights.facts()}
    row = rows.get("switches")
    names = msgspec.json.decode(row.value, type=list[str]) if row is not None else []
    shown = [
        name
        for name in names
        if tenants is None or not name.startswith("deny_tenant:") or name.removeprefix("deny_tenant:") in tenants
    ]
    return bodies.Switches(version=row.version if row is not None else 0, switches=tuple(shown))


def _tool(spec: ToolSpec) -> bodies.ToolBody:
    return bodies.ToolBody(
        name=spec.name,
        description=spec.description,
        effect=spec.effect.value,
        input_schema=msgspec.json.decode(spec.input_schema),
        schema_hash=spec.schema_hash,
        idempotent=spec.idempotent,
        idempotent_for_s=spec.idempotent_for_s,
        reconcilable=spec.reconcilable,
        compensable=spec.compensable,
        timeout_s=spec.timeout_s,
        permissions=spec.permissions,
        sandbox=spec.sandbox,
        cost_microusd=spec.cost_microusd,
        evidence=spec.evidence,
        integrity=spec.integrity.value,
        confidentiality=spec.confidentiality.value,
    )


def _route(exchange: Exchange, route: RouteSpec, tenants: frozenset[str] | None) -> bodies.RouteBody:
    agent = exchange.runtime.deck.agents[route.agent]
    limits = msgspec.to_builtins(overlaid(agent.limits, route.limits))
    served = (
        route.tenants if tenants is None else tuple(name for name in route.tenants if name in tenants or name == EVERY_TENANT)
    )
    return bodies.RouteBody(
        intent=route.intent,
        agent=agent.name,
        model=agent.model,
        owner=route.owner,
        task_class=route.task_class,
        risk=route.risk or agent.risk,
        autonomy=route.autonomy or agent.autonomy,
        modes=route.modes,
        tenants=served,
        tools=tuple(name for name in agent.tools if route.tools is None or name in route.tools),
        limits=limits,
        priority=route.priority,
        approval_timeout_s=route.approval_timeout_s,
    )


def _dependency(view: DependencyView) -> bodies.DependencyBody:
    figures = view.figures
    return bodies.DependencyBody(
        name=view.name,
        state=view.breaker.state.value,
        calls=figures.total,
        success=figures.success,
        timeout=figures.timeout,
        error=figures.error,
        rejected=figures.rejected_by_breaker + figures.rejected_by_bulkhead + figures.rejected_by_rate,
        attempts=figures.attempts,
        retries=figures.retry,
        in_flight=figures.in_flight,
        queued=figures.queued,
        retry_after_s=view.breaker.retry_after_s,
        hint=view.hint,
    )
