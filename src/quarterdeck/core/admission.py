"""Admission: whether a run that is asked for starts, waits, is refused, or goes by another route. One pure rule, always with a code.

What stands against a *caller* (a route that is not there, does not serve the tenant, does not run in that mode) is refused: another
route would be a way around it. What stands against a *route* (a switch has stopped it, a shared account has nothing left) sends the run
to the route's fallback, if it has one that serves the caller and that nothing stands against.

>>> routes = {"refund": RouteSpec("refund", "a", fallback="desk"), "desk": RouteSpec("desk", "b")}
>>> stopped = Conditions(Controls(1, stopped_routes=frozenset({"refund"})))
>>> found = admit(routes, "refund", "acme", None, stopped)
>>> found.route.intent, found.answer.value, found.code
('desk', 'elsewhere', 'switch.route_stopped')
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from quarterdeck.core.controls import Controls
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.specs import RouteSpec
from quarterdeck.core.vocabulary import AdmissionAnswer, Mode, OnBudget

MAX_FALLBACKS = 8
"""The longest chain of fallbacks of one route."""
STARTED = "admission.start"
"""The code of a run that nothing stands against."""
COUNTING = frozenset({OnBudget.REFUSE, OnBudget.REROUTE})
"""With these, admission looks at what shared accounts have left."""

_AGAINST = (
    (Refused, "switch.frozen", "new work there is frozen by a switch"),
    (Refused, "switch.tenant_denied", "the tenant is denied by a switch"),
    (Refused, "switch.route_stopped", "the route {intent} is stopped by a switch"),
    (Refused, "admission.budget", "a shared account above the route {intent} has nothing left"),
)
_SENTENCES = {code: sentence for _, code, sentence in _AGAINST}


class Conditions(msgspec.Struct, frozen=True):
    """What admission is judged by, beside the route table: the switches and the time that they are judged with, the shared accounts that
    have nothing left, and why a run that is admitted now would have to wait (a code; empty: it can start). ``unavailable`` are models that
    do not serve now. ``lifetimes`` is when those end that have begun, by account.
    """

    controls: Controls = Controls()
    exhausted: frozenset[str] = frozenset()
    waits: str = ""
    unavailable: frozenset[str] = frozenset()
    now_us: int = 0
    lifetimes: Mapping[str, int] = {}


class Admitted(msgspec.Struct, frozen=True):
    """A run may be: by this route, in this mode. ``answer`` is never ``refuse``: that is raised."""

    route: RouteSpec
    mode: Mode
    answer: AdmissionAnswer
    code: str


def admit(routes: Mapping[str, RouteSpec], intent: str, tenant: str, mode: Mode | None, now: Conditions) -> Admitted:
    """How a run that is asked for is admitted. Raises :class:`UsageError` (``route.unknown``), or :class:`Refused` with the code of what
    stands against it; its detail names the route, its owner and its refusal path.
    """
    asked = routes.get(intent)
    if asked is None:
        known = [name for name in sorted(routes) if serves(routes[name], tenant)]
        there = f"there are: {', '.join(known)}" if known else f"there are none for tenant {tenant}"
        raise UsageError("route.unknown", f"no route is called {intent[:80]!r}; {there}")
    if not serves(asked, tenant):
        raise _refused("route.tenant", asked, f"route {intent} does not serve tenant {tenant}")
    chosen = mode or asked.modes[0]
    if chosen not in asked.modes:
        raise _refused("route.mode", asked, f"route {intent} does not run as {chosen}; it runs as {', '.join(asked.modes)}")
    code = hindrance(asked, tenant, now)
    if code is None:
        drained = now.controls.drains(tenant, intent, now.now_us) is not None
        waits = "switch.draining" if drained else now.waits
        return Admitted(asked, chosen, AdmissionAnswer.WAIT if waits else AdmissionAnswer.START, waits or STARTED)
    if code != "admission.budget" or asked.on_budget is OnBudget.REROUTE:
        for other in fallbacks(routes, asked):
            taken = mode or other.modes[0]
            if serves(other, tenant) and taken in other.modes and hindrance(other, tenant, now) is None:
                return Admitted(other, taken, AdmissionAnswer.ELSEWHERE, code)
    raise _refused(code, asked, _SENTENCES[code].format(intent=intent))


def hindrance(route: RouteSpec, tenant: str, now: Conditions) -> str | None:
    """What stands against a route for this tenant now, as a code; ``None`` if nothing does."""
    if (closed := now.controls.closes(tenant, route.intent, now.now_us)) is not None:
        return closed
    if route.on_budget in COUNTING and not now.exhausted.isdisjoint(accounts(route.intent, tenant)):
        return "admission.budget"
    return None


def accounts(intent: str, tenant: str) -> tuple[str, str, str]:
    """The shared accounts above a run of a route, from the narrowest to the widest."""
    return f"route:{intent}", f"tenant:{tenant}", "all"


def serves(route: RouteSpec, tenant: str) -> bool:
    """Whether a route is for this tenant."""
    return "*" in route.tenants or tenant in route.tenants


def fallbacks(routes: Mapping[str, RouteSpec], route: RouteSpec) -> Iterator[RouteSpec]:
    """The fallbacks of a route, the nearest first; ends at the first that is unknown or was there before."""
    seen = {route.intent}
    while len(seen) <= MAX_FALLBACKS and route.fallback is not None:
        following = routes.get(route.fallback)
        if following is None or following.intent in seen:
            return
        seen.add(following.intent)
        yield following
        route = following


def problems(routes: Mapping[str, RouteSpec]) -> list[str]:
    """What is wrong with the fallbacks of a route table, in sentences; empty if nothing is.

    >>> problems({"a": RouteSpec("a", "x", fallback="b")})
    ["route a falls back to 'b', which does not exist"]
    """
    found = []
    for route in routes.values():
        if route.on_budget is OnBudget.REROUTE and route.fallback is None:
            found.append(f"route {route.intent} says on_budget='reroute' and has no fallback")
        if route.fallback is None:
            continue
        if route.fallback not in routes:
            found.append(f"route {route.intent} falls back to {route.fallback!r}, which does not exist")
            continue
        chain = list(fallbacks(routes, route))
        names = [route.intent, *(each.intent for each in chain)]
        following = (chain[-1] if chain else route).fallback
        if following in names:
            found.append(f"the fallbacks of route {route.intent} go round: {' → '.join([*names, following])}")
        elif following in routes:
            found.append(f"route {route.intent} has more than {MAX_FALLBACKS} fallbacks in a row")
        if not any(_can_take(other, route) for other in chain):
            found.append(f"route {route.intent} has a fallback that serves none of its tenants, or runs in none of its modes")
    return found


def _can_take(other: RouteSpec, route: RouteSpec) -> bool:
    shared = "*" in other.tenants or "*" in route.tenants or not set(other.tenants).isdisjoint(route.tenants)
    return shared and not set(other.modes).isdisjoint(route.modes)


def _refused(code: str, route: RouteSpec, what: str) -> Refused:
    said = f"{what}; its owner is {route.owner}{'; ' if route.refusal else ''}{route.refusal}"
    return Refused(code, said, route=route.intent, owner=route.owner, refusal=route.refusal)
