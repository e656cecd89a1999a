"""What the deck is made of and how its parts are doing: tools, routes, budgets, policies, switches, dependencies."""

from __future__ import annotations

import logging
from itertools import islice

import msgspec
from starlette.responses import Response

from quarterdeck.app import shown
from quarterdeck.app.auditing import actions
from quarterdeck.app.budgets import Budget, check_amounts
from quarterdeck.app.oversight import doubts, overseen
from quarterdeck.app.switching import Switched, stored
from quarterdeck.core.admission import serves
from quarterdeck.core.controls import parsed
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import EVERY_TENANT, Action
from quarterdeck.core.specs import RouteSpec
from quarterdeck.core.windows import tenant_of
from quarterdeck.policy import default_policies
from quarterdeck.server import bodies, queries
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.reading import shaped

_log = logging.getLogger(__name__)


async def tools(exchange: Exchange) -> Response:
    """Every tool's manifest."""
    found = exchange.runtime.deck.tools
    return answer(
        bodies.Tools(tools=tuple(msgspec.convert(shown.tool(found[name].spec), bodies.ToolBody) for name in sorted(found)))
    )


async def routes(exchange: Exchange) -> Response:
    """The rows of the route table that serve the caller's tenants, or the one that is asked about, as they are in effect there."""
    asked = exchange.asked(queries.RoutesQuery).tenant
    tenants, found = exchange.tenants(asked), exchange.runtime.deck.routes
    serving = [found[name] for name in sorted(found) if tenants is None or any(serves(found[name], each) for each in tenants)]
    return answer(bodies.Routes(routes=tuple([_route(exchange, route, tenants) for route in serving])))


async def budgets(exchange: Exchange) -> Response:
    """Shared accounts: a tenant's for who may read there, those that tenants share for who may read everywhere."""
    tenants = exchange.tenants()
    rows = [
        msgspec.convert(shown.account(row, exchange.runtime.parts.clock.now_us()), bodies.BudgetBody)
        for row in exchange.runtime.budgets()
        if tenants is None or tenant_of(row.account) in tenants
    ]
    return answer(bodies.Budgets(budgets=tuple(rows)))


async def raise_account(exchange: Exchange) -> Response:
    """Set limits of a shared account anew. That of a tenant needs the right there, every other one the right in all tenants."""
    account = exchange.names["account"]
    exchange.require(tenant_of(account) or EVERY_TENANT)
    wanted = shaped(exchange.body, bodies.RaiseAccount)
    spelled = wanted.budget
    check_amounts(spelled)
    budget = Budget(
        model_calls=spelled.max_model_calls, tools=spelled.max_tools, tokens=spelled.max_tokens, usd=spelled.max_cost_usd
    )
    woken = await exchange.runtime.raise_account(account, budget, by=exchange.principal.subject, reason=wanted.reason)
    rows = [row for row in exchange.runtime.budgets() if row.account == account]
    shown_rows = tuple(
        [msgspec.convert(shown.account(row, exchange.runtime.parts.clock.now_us()), bodies.BudgetBody) for row in rows]
    )
    return answer(bodies.RaisedAccount(budgets=shown_rows, woken=woken))


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
    switch = parsed(wanted.name, tenant=wanted.tenant, route=wanted.route)
    exchange.require((switch.name if switch.kind == "deny_tenant" else switch.tenant) or EVERY_TENANT)
    runtime = exchange.runtime
    if wanted.preview:
        reached = runtime.reach(wanted.name, tenant=wanted.tenant, route=wanted.route)
        version, _ = stored(runtime.insights)
        return answer(_switches(exchange, Switched(switch.key, wanted.on, version, runtime.parts.clock.now_us(), None, reached)))
    if not wanted.reason.strip():
        raise UsageError("reason.missing", "a switch needs a reason; say why")
    expires_at_us = None
    if wanted.expires_in_s is not None and wanted.on:
        expires_at_us = runtime.parts.clock.now_us() + wanted.expires_in_s * 1_000_000
    done = await runtime.switch(
        wanted.name,
        on=wanted.on,
        by=exchange.principal.subject,
        reason=wanted.reason,
        tenant=wanted.tenant,
        route=wanted.route,
        expires_at_us=expires_at_us,
        expected=wanted.expected_version,
    )
    _log.warning(
        "switch %r %s by %r: %r", switch.key, "set" if wanted.on else "cleared", exchange.principal.subject, wanted.reason
    )
    return answer(_switches(exchange, done))


async def effects(exchange: Exchange) -> Response:
    """The effects in doubt of the caller's tenants."""
    query = exchange.asked(queries.EffectsQuery)
    found = doubts(exchange.runtime.insights, exchange.tenants(query.tenant))
    return answer(bodies.Effects(effects=tuple(islice(found, query.limit))))


async def oversee(exchange: Exchange) -> Response:
    """How often people changed decisions in the caller's tenants, and what they say was wrong."""
    query = exchange.asked(queries.OversightQuery)
    return answer(await overseen(exchange.runtime.insights, exchange.runtime.parts.clock, exchange.tenants(query.tenant)))


async def audit(exchange: Exchange) -> Response:
    """A page of what operators did; rows of no tenant for who may read everywhere."""
    query = exchange.asked(queries.AuditQuery)
    tenants = exchange.tenants(query.tenant)
    found = actions(exchange.runtime.insights, after=query.after, tenants=tenants, action=query.action, target=query.target)
    rows = list(islice(found, query.limit + 1))
    shown = tuple(
        [
            bodies.AuditBody(
                seq=seq,
                action=said.action,
                by=said.by,
                target=said.target,
                at_us=said.at_us,
                reason=said.reason,
                tenant=said.tenant,
                detail=msgspec.json.decode(said.detail) if said.detail else None,
            )
            for seq, said in rows[: query.limit]
        ]
    )
    return answer(bodies.AuditRows(rows=shown, next=shown[-1].seq if len(rows) > query.limit else None))


async def dependencies(exchange: Exchange) -> Response:
    """How each model and tool is doing in this process."""
    views = exchange.runtime.dependencies()
    rows = tuple(msgspec.convert(shown.dependency(view), bodies.DependencyBody) for view in views)
    return answer(bodies.DependencyList(dependencies=rows))


def _switches(exchange: Exchange, done: Switched | None = None) -> bodies.Switches:
    tenants = exchange.tenants_for(Action.CONFIG_READ)
    version, switches = stored(exchange.runtime.insights)
    now_us = exchange.runtime.parts.clock.now_us()
    details = []
    for switch in switches:
        named = switch.name if switch.kind == "deny_tenant" else switch.tenant
        if tenants is None or not named or named in tenants:
            expired = switch.expires_at_us is not None and now_us >= switch.expires_at_us
            details.append(bodies.SwitchBody(key=switch.key, expired=expired, **msgspec.structs.asdict(switch)))
    proof = None
    if done is not None:
        reached = msgspec.structs.asdict(done.reach)
        if tenants is not None:
            reached["ends"] = {
                name: end
                for name, end in done.reach.ends.items()
                if (row := exchange.runtime.insights.run(name)) is not None and row.tenant in tenants
            }
        said = {name: value for name, value in msgspec.structs.asdict(done).items() if name != "reach"}
        proof = bodies.SwitchProof(**said, **reached)
    visible = tuple([each.key for each in details if not each.expired])
    return bodies.Switches(version=version, switches=visible, details=tuple(details), proof=proof)


async def change_dependency(exchange: Exchange) -> Response:
    """Change a dependency's policy for a while, or end a change."""
    exchange.require(EVERY_TENANT)
    wanted = shaped(exchange.body, bodies.ChangeDependency)
    change = None if wanted.end else wanted.change
    by = exchange.principal.subject
    await exchange.runtime.change_dependency(wanted.name, change, for_s=wanted.for_s, reason=wanted.reason, by=by)
    return await dependencies(exchange)


def _route(exchange: Exchange, route: RouteSpec, tenants: frozenset[str] | None) -> bodies.RouteBody:
    """A row of the route table, without the names of tenants that are not the caller's."""
    deck = exchange.runtime.deck
    only = next(iter(tenants)) if tenants is not None and len(tenants) == 1 else None
    row = msgspec.convert(shown.route(route, deck.agents, deck.terms, only), bodies.RouteBody)
    if tenants is None:
        return row
    known = tenants | {EVERY_TENANT}
    served, terms = ([name for name in names if name in known] for names in (row.tenants, row.terms))
    return msgspec.structs.replace(row, tenants=tuple(served), terms=tuple(terms))
