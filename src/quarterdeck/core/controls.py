"""Controls: the switches an operator sets, as facts with versions.

A decision records the versions that it was judged by; its commit compares them in the store. So a switch that is committed before
an effect's opened event always stops that effect.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.errors import UsageError


class Controls(msgspec.Struct, frozen=True):
    """A snapshot of all switches. ``version`` grows with every change and is part of the commit's guard."""

    version: int = 0
    disabled_tools: frozenset[str] = frozenset()
    stopped_routes: frozenset[str] = frozenset()
    blocked_models: frozenset[str] = frozenset()
    denied_tenants: frozenset[str] = frozenset()
    forced_approval: frozenset[str] = frozenset()
    frozen: bool = False


SWITCHES: dict[str, str] = {
    "disable_tool": "disabled_tools",
    "stop_route": "stopped_routes",
    "block_model": "blocked_models",
    "deny_tenant": "denied_tenants",
    "force_approval": "forced_approval",
}
"""Switch kinds and the field each fills; ``freeze`` is the one that names nothing."""


def checked_switch(row: str) -> str:
    """Return ``row`` if it is a switch that means something; raises :class:`UsageError` (``switch.unknown``) otherwise.

    >>> checked_switch("disable_tool:refund")
    'disable_tool:refund'
    """
    kind, _, name = row.partition(":")
    if row != "freeze" and not (kind in SWITCHES and name):
        raise UsageError(
            "switch.unknown", f"{row[:80]!r} is no switch; use freeze or {', '.join(f'{known}:NAME' for known in SWITCHES)}"
        )
    return row


def from_rows(version: int, names: frozenset[str]) -> Controls:
    """The snapshot of stored switches; each is ``kind:name``, or ``freeze``.

    >>> from_rows(3, frozenset({"disable_tool:refund"})).disabled_tools
    frozenset({'refund'})
    """
    found: dict[str, set[str]] = {field: set() for field in SWITCHES.values()}
    for row in names:
        kind, _, name = row.partition(":")
        if kind in SWITCHES:
            found[SWITCHES[kind]].add(name)
    sets = {field: frozenset(values) for field, values in found.items()}
    return Controls(version=version, frozen="freeze" in names, **sets)
