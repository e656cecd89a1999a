"""The route that is in effect: what a route says and what its program says, put together once for admission and for every list.

Authority only tightens on the way (the lower autonomy, the higher risk, the tools that both name); limits are the route's where it has
any, else the program's.
"""

from __future__ import annotations

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


def in_force(route: RouteSpec, agent: AgentSpec) -> InForce:
    """What holds for a run that takes ``route`` to ``agent``, before its caller narrows it further.

    >>> agent = AgentSpec("a", "m", "", ("look", "pay"), Autonomy.ADVISORY, Risk.HIGH)
    >>> found = in_force(RouteSpec("r", "a", risk=Risk.LOW, autonomy=Autonomy.BOUNDED_AUTONOMOUS, tools=("pay",)), agent)
    >>> found.autonomy.value, found.risk.value, found.tools
    ('advisory', 'high', ('pay',))
    """
    return InForce(
        tighter_autonomy(agent.autonomy, route.autonomy),
        max(agent.risk, route.risk or Risk.LOW, key=_RISKS.index),
        tuple(name for name in agent.tools if route.tools is None or name in route.tools),
        overlaid(agent.limits, route.limits),
    )


def tighter_autonomy(program: Autonomy, route: Autonomy | None) -> Autonomy:
    """The one of the two that allows less."""
    if route is None:
        return program
    return min(program, route, key=lambda level: sum(_AUTHORITY[ruling] for ruling in AUTONOMY_RULES[level].values()))
