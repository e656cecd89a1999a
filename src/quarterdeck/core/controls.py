"""Controls: the switches an operator sets, as facts with versions.

A decision records the versions that it was judged by; its commit compares them in the store. So a switch that is committed before
an effect's opened event always stops that effect. A switch may be bounded to a tenant or a route, and may expire: expiry is judged
with the time of each decision, so it is exact whether or not anything runs at that moment.

>>> rows = rows_of((Switch("disable_tool", "refund", route="support", expires_at_us=90),))
>>> controls = from_rows(3, switches_of(rows))
>>> controls.stops(ProposalKind.TOOL, "refund", "acme", "support", 89)
'switch.tool_disabled'
>>> controls.stops(ProposalKind.TOOL, "refund", "acme", "support", 90) is None
True
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.contract import checked_key, checked_name
from quarterdeck.core.errors import Corrupt, UsageError
from quarterdeck.core.vocabulary import ProposalKind


class Switch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One switch that is set. ``tenant`` and ``route`` bound it (empty: everywhere); from ``expires_at_us`` on it stops nothing."""

    kind: str
    name: str = ""
    tenant: str = ""
    route: str = ""
    reason: str = ""
    by: str = ""
    at_us: int = 0
    expires_at_us: int | None = None

    @property
    def key(self) -> str:
        """What tells it from others: ``disable_tool:refund``, bounded ``disable_tool:refund@tenant=acme,route=support``.

        >>> Switch("freeze", tenant="acme").key
        'freeze@tenant=acme'
        """
        bounds = ",".join([f"{word}={value}" for word, value in (("tenant", self.tenant), ("route", self.route)) if value])
        plain = f"{self.kind}:{self.name}" if self.name else self.kind
        return f"{plain}@{bounds}" if bounds else plain

    def holds(self, tenant: str, route: str, now_us: int) -> bool:
        """Whether it is in force there at that time."""
        return (
            self.tenant in ("", tenant)
            and self.route in ("", route)
            and (self.expires_at_us is None or now_us < self.expires_at_us)
        )


class Controls(msgspec.Struct, frozen=True):
    """A snapshot of all switches. ``version`` grows with every change and is part of the commit's guard.

    The sets hold those that are in force everywhere and for good, so that most decisions look nowhere else; ``bounded`` holds those with
    a tenant, a route or an expiry, and the kinds that no set is for, the narrowest first.
    """

    version: int = 0
    disabled_tools: frozenset[str] = frozenset()
    stopped_routes: frozenset[str] = frozenset()
    blocked_models: frozenset[str] = frozenset()
    denied_tenants: frozenset[str] = frozenset()
    forced_approval: frozenset[str] = frozenset()
    frozen: bool = False
    bounded: tuple[Switch, ...] = ()

    def stops(self, kind: ProposalKind, name: str, tenant: str, route: str, now_us: int) -> str | None:
        """The code with which a switch forbids a proposal of this kind and name there, now; ``None`` if none does."""
        if self.frozen:
            return "switch.frozen"
        if route in self.stopped_routes:
            return "switch.route_stopped"
        if tenant in self.denied_tenants:
            return "switch.tenant_denied"
        if kind is ProposalKind.TOOL and name in self.disabled_tools:
            return "switch.tool_disabled"
        if kind is ProposalKind.MODEL and name in self.blocked_models:
            return "switch.model_blocked"
        if not self.bounded:
            return None
        for switch in self.bounded:
            if (found := _STOPS.get(switch.kind)) is None or not switch.holds(tenant, route, now_us):
                continue
            code, of = found
            named = {"": "", "route": route, "tenant": tenant}.get(of, name if kind.value == of else None)
            if named == switch.name:
                return code
        if kind is ProposalKind.MODEL and self.pinned(tenant, route, now_us) not in ("", name):
            return "switch.model_pinned"
        return None

    def asks(self, tool: str, tenant: str, route: str, now_us: int) -> bool:
        """Whether a person has to approve every call of this tool there, now."""
        return tool in self.forced_approval or any(
            one.kind == "force_approval" and one.name == tool and one.holds(tenant, route, now_us) for one in self.bounded
        )

    def pinned(self, tenant: str, route: str, now_us: int) -> str:
        """The only model that may be called there, now, by the narrowest pin; empty if there is none."""
        return next(
            (one.name for one in self.bounded if one.kind == "pin_model" and one.holds(tenant, route, now_us)),
            "",
        )

    def closes(self, tenant: str, route: str, now_us: int) -> str | None:
        """The code with which a switch takes no run of this tenant on this route, now; ``None`` if none does."""
        everywhere = (
            ("freeze", "switch.frozen", "", self.frozen),
            ("deny_tenant", "switch.tenant_denied", tenant, tenant in self.denied_tenants),
            ("stop_route", "switch.route_stopped", route, route in self.stopped_routes),
        )
        for kind, code, named, closed in everywhere:
            if closed or any(one.kind == kind and one.name == named and one.holds(tenant, route, now_us) for one in self.bounded):
                return code
        return None

    def blocked(self, tenant: str, route: str, now_us: int) -> frozenset[str]:
        """The models that may not be called there, now."""
        here = [one.name for one in self.bounded if one.kind == "block_model" and one.holds(tenant, route, now_us)]
        return self.blocked_models.union(here) if here else self.blocked_models

    def drains(self, tenant: str, route: str, now_us: int) -> Switch | None:
        """The drain in force there, now: runs are admitted and stay queued, those that have begun go on."""
        return next((one for one in self.bounded if one.kind == "drain" and one.holds(tenant, route, now_us)), None)


SWITCHES: dict[str, str] = {
    "disable_tool": "disabled_tools",
    "stop_route": "stopped_routes",
    "block_model": "blocked_models",
    "deny_tenant": "denied_tenants",
    "force_approval": "forced_approval",
    "pin_model": "",
}
"""Switch kinds that name something, and the set each fills, if any."""
PLAIN = ("freeze", "drain")
"""Switch kinds that name nothing: what they cover is all, or their tenant and route."""
_STOPS = {
    "freeze": ("switch.frozen", ""),
    "stop_route": ("switch.route_stopped", "route"),
    "deny_tenant": ("switch.tenant_denied", "tenant"),
    "disable_tool": ("switch.tool_disabled", "tool"),
    "block_model": ("switch.model_blocked", "model"),
}


def checked_switch(row: str) -> str:
    """Return ``row`` if it is a switch that means something; raises :class:`UsageError` (``switch.unknown``) otherwise.

    >>> checked_switch("disable_tool:refund")
    'disable_tool:refund'
    """
    parsed(row)
    return row


def parsed(row: str, *, tenant: str = "", route: str = "") -> Switch:
    """The switch that a text means, with the bounds written in it or given beside it; raises :class:`UsageError`.

    >>> parsed("block_model:large@tenant=acme").tenant, parsed("drain", route="support").key
    ('acme', 'drain@route=support')
    """
    plain, _, bounds = row.partition("@")
    kind, _, name = plain.partition(":")
    if not (plain in PLAIN or (kind in SWITCHES and name)):
        known = ", ".join([*PLAIN, *[f"{word}:NAME" for word in SWITCHES]])
        raise UsageError("switch.unknown", f"{row[:80]!r} is no switch; use one of {known}")
    given = {"tenant": tenant, "route": route}
    for part in bounds.split(",") if bounds else ():
        word, _, value = part.partition("=")
        if word not in given or not value or given[word] not in ("", value):
            raise UsageError("switch.scope", f"{part[:80]!r} bounds no switch; write tenant=NAME or route=NAME, each once")
        given[word] = value
    if (kind == "stop_route" and given["route"]) or (kind == "deny_tenant" and given["tenant"]):
        raise UsageError("switch.scope", f"{kind} names what it bounds already; leave the second one out")
    for word, value in (("tenant", given["tenant"]), ("route", given["route"]), (kind, name)):
        if value:
            checked_name(word, value)
    return Switch(kind, name, given["tenant"], given["route"])


def checked(switch: Switch) -> Switch:
    """Return ``switch`` if it can be stored and has meaning; raises :class:`UsageError`."""
    if switch.by:
        checked_key("by", switch.by)
    if switch.expires_at_us is not None and switch.expires_at_us <= switch.at_us:
        raise UsageError("switch.expiry", "a switch expires after it is set; give a time to come")
    return switch


def switches_of(value: str) -> tuple[Switch, ...]:
    """The switches of a stored fact. A text instead of a record is what earlier versions stored.

    >>> switches_of('["freeze", {"kind": "drain", "route": "r"}]')[1].route
    'r'
    """
    try:
        rows = msgspec.json.decode(value or "[]", type=list[str | Switch])
    except msgspec.MsgspecError as error:
        raise Corrupt("store.fact", f"the stored switches cannot be read ({error}); restore a backup") from None
    return tuple([parsed(row) if isinstance(row, str) else row for row in rows])


def rows_of(switches: tuple[Switch, ...]) -> str:
    """What is stored of switches: by key, each once."""
    return msgspec.json.encode(sorted(switches, key=lambda one: one.key), order="deterministic").decode()


def in_force(switches: tuple[Switch, ...], now_us: int) -> tuple[Switch, ...]:
    """Those that have not expired."""
    return tuple([one for one in switches if one.expires_at_us is None or now_us < one.expires_at_us])


def from_rows(version: int, switches: tuple[Switch, ...]) -> Controls:
    """The snapshot of stored switches.

    >>> from_rows(3, (Switch("disable_tool", "refund"),)).disabled_tools
    frozenset({'refund'})
    """
    found: dict[str, set[str]] = {field: set() for field in SWITCHES.values() if field}
    bounded: list[Switch] = []
    frozen = False
    for one in switches:
        lasting = not (one.tenant or one.route) and one.expires_at_us is None
        if lasting and (field := SWITCHES.get(one.kind)):
            found[field].add(one.name)
        elif lasting and one.kind == "freeze":
            frozen = True
        else:
            bounded.append(one)
    bounded.sort(key=lambda one: (-bool(one.tenant) - bool(one.route), one.key))
    sets = {field: frozenset(values) for field, values in found.items()}
    return Controls(version=version, frozen=frozen, bounded=tuple(bounded), **sets)
