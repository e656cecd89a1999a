"""The route that is in effect: what a route, its program and a tenant's terms say, put together once for admission and for every list.

Authority only tightens on the way (the lower autonomy, the higher risk, the tools that all name); limits are the tenant's where its terms
name any, else the route's, else the program's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from quarterdeck.app.budgets import overlaid
from quarterdeck.core.contract import Limits
from quarterdeck.core.specs import AgentSpec, RouteSpec
from quarterdeck.core.vocabulary import AUTONOMY_RULES, Autonomy, Risk, Ruling

_RISKS = (Risk.LOW, Risk.MEDIUM, Risk.HIGH)
_AUTHORITY = {Ruling.DENY: 0, Ruling.ASK: 1, Ruling.ALLOW: 2}


class InForce(msgspec.Struct, frozen=True):
    """What holds for the runs of one route."""

    autonomy: Autonomy
    risk: Risk
    tools: tuple[str, ...]
    limits: Limits


class Terms(msgspec.Struct, frozen=True):
    """What is otherwise for one tenant on a route: authority is only tightened, limits that are named replace the route's."""

    autonomy: Autonomy | None = None
    risk: Risk | None = None
    tools: tuple[str, ...] | None = None
    limits: Limits = Limits()


TERMS = Terms()
"""Nothing is otherwise."""
EVERY_ROUTE = "*"
"""Where the terms of a tenant name no route."""
TermsTable = Mapping[tuple[str, str], Terms]
"""The terms of a deck, by tenant and route."""


def terms_for(terms: TermsTable, tenant: str, route: str) -> tuple[Terms, ...]:
    """The terms that hold for a tenant on a route: those of every route, then those of this one, which go before.

    >>> terms_for({("acme", "*"): Terms(risk=Risk.HIGH), ("acme", "r"): Terms(tools=())}, "acme", "r")[1].tools
    ()
    """
    return tuple([terms[key] for key in ((tenant, EVERY_ROUTE), (tenant, route)) if key in terms])


def in_force(route: RouteSpec, agent: AgentSpec, terms: Sequence[Terms] = ()) -> InForce:
    """What holds for a run that takes ``route`` to ``agent`` under a tenant's ``terms``, before its caller narrows it further.

    >>> agent = AgentSpec("a", "m", "", ("look", "pay"), Autonomy.ADVISORY, Risk.HIGH)
    >>> found = in_force(RouteSpec("r", "a", risk=Risk.LOW, autonomy=Autonomy.BOUNDED_AUTONOMOUS, tools=("pay",)), agent)
    >>> found.autonomy.value, found.risk.value, found.tools
    ('advisory', 'high', ('pay',))
    """
    autonomy, risk, tools, limits = agent.autonomy, agent.risk, agent.tools, agent.limits
    every: tuple[RouteSpec | Terms, ...] = (route, *terms)
    for said in every:
        autonomy = tighter_autonomy(autonomy, said.autonomy)
        risk = max(risk, said.risk or Risk.LOW, key=_RISKS.index)
        tools = tuple([name for name in tools if said.tools is None or name in said.tools])
        limits = overlaid(limits, said.limits)
    return InForce(autonomy, risk, tools, limits)


def tighter_autonomy(program: Autonomy, route: Autonomy | None) -> Autonomy:
    """The one of the two that allows less."""
    if route is None:
        return program
    return min(program, route, key=lambda level: sum(_AUTHORITY[ruling] for ruling in AUTONOMY_RULES[level].values()))
