"""What a switch covers: the names that it matches, the routes that lead to them, and the runs there that have not ended.

It is read after the switch is set, and is a picture of that moment: a run that begins later is covered as well. What the caller may not
read, or what only a deck knows that was not named, is ``None``; a switch is set whether or not its coverage can be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeVar

import msgspec

from quarterdeck.cli.places import Place, RunFilter
from quarterdeck.cli.suggesting import near
from quarterdeck.client.shapes import Route
from quarterdeck.core.controls import parsed
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.vocabulary import TERMINAL, Status

T = TypeVar("T")

MAX_COUNTED = 10_000
"""The most runs that are counted; where there are more, the number is a least one."""
_PAGE = 1_000
_ACTIVE = tuple(status for status in Status if status not in TERMINAL)
_NAMED = {
    "disable_tool": "tool",
    "force_approval": "tool",
    "stop_route": "route",
    "block_model": "model",
    "pin_model": "model",
    "deny_tenant": "tenant",
}


class Coverage(msgspec.Struct, frozen=True):
    """What a switch matches. ``runs`` are those that have not ended; there are ``more`` if it stopped counting.

    ``doubt`` says that nothing here has the name; the switch is set all the same, for what may come.
    """

    routes: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    tenants: tuple[str, ...]
    runs: int | None
    more: bool = False
    doubt: str = ""


def coverage(place: Place, switch: str, *, tenant: str = "", route: str = "") -> Coverage:
    """What ``switch`` covers at a place, as far as the caller may see it."""
    bounded = parsed(switch, tenant=tenant, route=route)
    kind, name, tenant, only = bounded.kind, bounded.name, bounded.tenant, bounded.route
    routes = _readable(place.routes)
    all_tools = _readable(lambda: [tool.name for tool in place.tools()])
    through = None
    if routes is not None:
        through = tuple([each.intent for each in routes if _leads(each, kind, name) and only in ("", each.intent)])
    wanted = _filters(kind, name, through)
    if wanted is not None:
        held = [msgspec.structs.replace(which, tenant=which.tenant or tenant or None) for which in wanted]
        wanted = [msgspec.structs.replace(which, route=which.route or only or None) for which in held]
    runs = None if wanted is None else _readable(lambda: _count(place, wanted))
    return Coverage(
        routes=through,
        tools=_tools(kind, name, all_tools),
        tenants=(name,) if kind == "deny_tenant" else (tenant or "*",),
        runs=None if runs is None else min(runs, MAX_COUNTED),
        more=runs is not None and runs > MAX_COUNTED,
        doubt=_doubt(kind, name, routes, all_tools),
    )


def _leads(route: Route, kind: str, name: str) -> bool:
    match kind:
        case "disable_tool" | "force_approval":
            return name in route.tools
        case "stop_route":
            return route.intent == name
        case "block_model":
            return route.model == name
        case "pin_model":
            return route.model != name
        case "deny_tenant":
            return name in route.tenants or "*" in route.tenants
        case _:
            return True


def _tools(kind: str, name: str, known: Sequence[str] | None) -> tuple[str, ...] | None:
    if kind in ("freeze", "drain"):
        return None if known is None else tuple(known)
    if _NAMED[kind] != "tool":
        return ()
    return None if known is None else tuple([one for one in known if one == name])


def _filters(kind: str, name: str, through: Sequence[str] | None) -> list[RunFilter] | None:
    """The lists of runs that it covers, taken together; ``None`` where it is not known which routes lead there."""
    match kind:
        case "freeze" | "drain":
            return [RunFilter()]
        case "deny_tenant":
            return [RunFilter(tenant=name)]
        case "stop_route":
            return [RunFilter(route=name)]
        case _:
            return None if through is None else [RunFilter(route=route) for route in through]


def _count(place: Place, wanted: Sequence[RunFilter]) -> int:
    found = 0
    for which, status in product(wanted, _ACTIVE):
        cursor: str | None = None
        while found <= MAX_COUNTED:
            page = place.runs(msgspec.structs.replace(which, status=status.value), cursor, _PAGE)
            found, cursor = found + len(page.rows), page.next
            if cursor is None:
                break
    return found


def _doubt(kind: str, name: str, routes: Sequence[Route] | None, tools: Sequence[str] | None) -> str:
    named = _NAMED.get(kind, "")
    if routes is None or tools is None or named in ("", "tenant"):
        return ""
    known = tools if named == "tool" else [route.model if named == "model" else route.intent for route in routes]
    return "" if name in known else f"there is no {named} called {name!r} here{near(name, set(known))}"


def _readable(ask: Callable[[], T]) -> T | None:
    """What can be read; ``None`` where a right is missing, or no deck is named that would say it."""
    try:
        return ask()
    except (Refused, UsageError):
        return None
