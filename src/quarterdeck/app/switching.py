"""Setting and clearing switches: compare-and-set on the one fact that holds them all, and what a switch reaches when it is in force.

A change starts from the version that was read and is refused if another came first; then it starts anew, unless whoever asked has named the
version that they saw. So two operators cannot undo each other's change without being told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import islice

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.audit import Audit
from quarterdeck.core.commit import AddAudit, Applied, Deliver, Op, Refused, SetFact
from quarterdeck.core.contract import RunContract
from quarterdeck.core.controls import Switch, checked, in_force, rows_of, switches_of
from quarterdeck.core.errors import Refused as RefusedError
from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.core.specs import AgentSpec, RouteSpec
from quarterdeck.core.vocabulary import TERMINAL, Status
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Insights, RunRow

TRIES = 8
"""How often a change of the switches is begun anew when another came first, before the caller is told."""
MAX_REACHED = 2_000
"""The most runs that are looked at for what a switch reaches; where there are more, the number is a least one."""
MAX_WOKEN = 10_000
"""The most runs that are woken at once when a drain is cleared; the others look for themselves within a minute."""
_PAGE = 500
_ACTIVE = tuple(status for status in Status if status not in TERMINAL)
_encoder = msgspec.json.Encoder(order="deterministic")

Apply = Callable[[Op], Awaitable[Applied | Refused]]


class Reach(msgspec.Struct, frozen=True):
    """What a switch covers at this moment. ``runs`` have not ended; there are ``more`` if it stopped counting.

    ``in_flight`` are covered intents that were durable before; ``ends`` where the journal of each covered run that somebody holds ended
    when it was in force: no covered intent stands behind that. ``routes`` and ``tools`` are ``None`` where no deck says.
    """

    routes: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    runs: int
    more: bool
    in_flight: int
    ends: dict[str, int]


class Switched(msgspec.Struct, frozen=True):
    """The proof of a change: from ``version`` on, the first that was durable at ``at_us``, no intent commits that was judged without it."""

    switch: str
    on: bool
    version: int
    at_us: int
    expires_at_us: int | None
    reach: Reach


def stored(insights: Insights) -> tuple[int, tuple[Switch, ...]]:
    """The version of the switches, and those that are stored, expired ones among them."""
    row = next((row for row in insights.facts() if row.name == "switches"), None)
    return (0, ()) if row is None else (row.version, switches_of(row.value))


async def change(
    apply: Apply, insights: Insights, clock: Clock, switch: Switch, *, on: bool, expected: int | None, most: int
) -> tuple[int, int]:
    """Set or clear a switch: the version that is in force then, and when it was written.

    Raises :class:`Refused` (``switch.conflict``) if the version is no more the ``expected`` one, :class:`Unavailable`
    (``switch.contended``) if others are always first, :class:`UsageError` for what cannot be set.
    """
    checked(switch)
    for _ in range(TRIES):
        version, before = stored(insights)
        if expected is not None and expected != version:
            raise _conflict(expected, version)
        now_us = clock.now_us()
        kept = {one.key: one for one in in_force(before, now_us)}
        held = kept.pop(switch.key, None)
        if on:
            again = held is not None and (held.reason, held.expires_at_us) == (switch.reason, switch.expires_at_us)
            kept[switch.key] = held if again and held is not None else switch
        if on and len(kept) > most:
            raise UsageError("switch.too_many", f"{most} switches are set; clear some, or set `freeze` or `stop_route`")
        said = {"version": version, "expires_at_us": switch.expires_at_us} if on else {"version": version}
        action = "switch.set" if on else "switch.cleared"
        told = Audit(action, switch.by, switch.key, now_us, switch.reason, switch.tenant, _encoder.encode(said).decode())
        outcome = await apply(SetFact("switches", rows_of(tuple(kept.values())), now_us, version, told))
        if isinstance(outcome, Applied):
            return outcome.number, now_us
        if outcome.guard != "facts":
            raise RefusedError(f"store.{outcome.guard}", f"the store refused: {outcome.detail}")
        if expected is not None:
            raise _conflict(expected, stored(insights)[0])
    raise Unavailable("switch.contended", f"others change the switches in the same moments; look at them, then set {switch.key}")


async def tell(apply: Apply, done: Switched, by: str, tenant: str) -> None:
    """Record what a switch reached, for whoever proves it later."""
    detail = _encoder.encode({"version": done.version, "in_flight": done.reach.in_flight, "ends": done.reach.ends}).decode()
    await apply(AddAudit(Audit("switch.reached", by, done.switch, done.at_us, "", tenant, detail)))


async def wake_drained(apply: Apply, insights: Insights, now_us: int, version: int) -> int:
    """Wake the runs that a drain has kept from beginning; how many."""
    drained = (row for row in _rows(insights, (Status.WAITING,), None, None) if row.code == "switch.draining")
    woken = 0
    for row in islice(drained, MAX_WOKEN):
        outcome = await apply(Deliver(row.run_id, "wake", b"{}", now_us, f"drained:{version}"))
        woken += isinstance(outcome, Applied)
    return woken


def reach(
    insights: Insights, switch: Switch, routes: Mapping[str, RouteSpec] | None, agents: Mapping[str, AgentSpec] | None
) -> Reach:
    """What a switch covers now, by the contracts of the runs; read after it is set, it is exact for what began before."""
    runs = in_flight = looked = 0
    ends: dict[str, int] = {}
    tenant = switch.name if switch.kind == "deny_tenant" else switch.tenant or None
    route = switch.name if switch.kind == "stop_route" else switch.route or None
    more = False
    for row in _rows(insights, _ACTIVE, route, tenant):
        if looked >= MAX_REACHED:
            more = True
            break
        looked += 1
        contract = _contract(insights, row.run_id)
        if contract is None or not covers(switch, contract):
            continue
        runs += 1
        if row.worker is not None:
            events = [ev.decode(item.body) for item in insights.events(row.run_id)]
            in_flight += len(_open(switch, events))
            ends[row.run_id] = len(events)
    return Reach(_routes(switch, routes, agents), _tools(switch, routes, agents), runs, more, in_flight, ends)


def covers(switch: Switch, contract: RunContract) -> bool:
    """Whether a switch stands against something that a run of this contract may do."""
    if switch.tenant not in ("", contract.tenant) or switch.route not in ("", contract.route):
        return False
    match switch.kind:
        case "disable_tool" | "force_approval":
            return switch.name in contract.allowed_tools
        case "block_model":
            return contract.version_set.model in ("", switch.name)
        case "pin_model":
            return contract.version_set.model != switch.name
        case "stop_route":
            return contract.route == switch.name
        case "deny_tenant":
            return contract.tenant == switch.name
        case _:
            return True


def is_covered(switch: Switch, event: ev.Event) -> bool:
    """Whether an event is the intent of something that the switch forbids, in a run that it covers."""
    match switch.kind:
        case "disable_tool":
            return isinstance(event, ev.ToolOpened) and event.tool == switch.name
        case "block_model":
            return isinstance(event, ev.ModelOpened) and event.model == switch.name
        case "pin_model":
            return isinstance(event, ev.ModelOpened) and event.model != switch.name
        case "freeze" | "stop_route" | "deny_tenant":
            return isinstance(event, ev.ToolOpened | ev.ModelOpened)
        case _:
            return False


def proven(insights: Insights, switch: Switch, ends: Mapping[str, int]) -> tuple[int, int]:
    """Looks into the journals that a switch reached: how many covered intents stand behind where it found them (0, or the switch did not
    hold), and how many proposals were refused by a switch there since.
    """
    after = refused = 0
    for run_id, end in ends.items():
        for item in insights.events(run_id, end):
            event = ev.decode(item.body)
            after += is_covered(switch, event)
            refused += isinstance(event, ev.GateDecided) and any(why.startswith("switch.") for why in event.reasons)
    return after, refused


def _open(switch: Switch, events: list[ev.Event]) -> set[str]:
    found: set[str] = set()
    for event in events:
        if isinstance(event, ev.ToolOpened | ev.ModelOpened) and is_covered(switch, event):
            found.add(event.call)
        elif isinstance(event, ev.ToolClosed | ev.ModelClosed):
            found.discard(event.call)
    return found


def _rows(insights: Insights, statuses: tuple[Status, ...], route: str | None, tenant: str | None) -> Iterator[RunRow]:
    tenants = None if tenant is None else [tenant]
    for status in statuses:
        before: str | None = None
        while page := insights.runs(status=status, route=route, tenants=tenants, before=before, limit=_PAGE):
            yield from page
            before = page[-1].run_id


def _contract(insights: Insights, run_id: str) -> RunContract | None:
    for item in insights.events(run_id, 0, 1):
        event = ev.decode(item.body)
        if isinstance(event, ev.RunAdmitted):
            return event.contract
    return None


def _routes(
    switch: Switch, routes: Mapping[str, RouteSpec] | None, agents: Mapping[str, AgentSpec] | None
) -> tuple[str, ...] | None:
    if routes is None or agents is None:
        return None
    return tuple([name for name in sorted(routes) if _leads(switch, routes[name], agents[routes[name].agent])])


def _leads(switch: Switch, route: RouteSpec, agent: AgentSpec) -> bool:
    tenants = {switch.tenant, switch.name if switch.kind == "deny_tenant" else ""} - {""}
    if switch.route not in ("", route.intent) or ("*" not in route.tenants and not tenants <= set(route.tenants)):
        return False
    match switch.kind:
        case "disable_tool" | "force_approval":
            return switch.name in agent.tools and (route.tools is None or switch.name in route.tools)
        case "block_model":
            return agent.model in ("", switch.name)
        case "stop_route":
            return route.intent == switch.name
        case _:
            return True


def _tools(
    switch: Switch, routes: Mapping[str, RouteSpec] | None, agents: Mapping[str, AgentSpec] | None
) -> tuple[str, ...] | None:
    through = _routes(switch, routes, agents)
    if through is None or routes is None or agents is None:
        return None
    known = {tool for name in through for tool in agents[routes[name].agent].tools}
    if switch.kind in ("disable_tool", "force_approval"):
        return (switch.name,) if switch.name in known else ()
    return () if switch.kind in ("block_model", "pin_model") else tuple(sorted(known))


def _conflict(expected: int, version: int) -> RefusedError:
    said = f"the switches are version {version}, not {expected}: somebody has changed them; look at them, then decide again"
    return RefusedError("switch.conflict", said, version=version)
