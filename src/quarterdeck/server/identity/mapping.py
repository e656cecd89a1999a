"""From what an identity provider says about somebody to grants: by configured rules, and by nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Grant


class GrantRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who has ``value`` in the claim at ``claim`` gets ``grants``.

    ``claim`` is a path of names, so that names with dots and slashes need no escaping: ``("realm_access", "roles")``. A claim that is
    a text must equal the value, one that is a list must hold it; ``scope`` is a list with spaces between its items (RFC 9068).
    """

    claim: tuple[str, ...]
    value: str
    grants: tuple[Grant, ...]

    def __post_init__(self) -> None:
        if not self.claim or not self.value or not self.grants or not all(self.claim):
            raise UsageError("auth.rule", "a rule names a claim, a value and at least one grant")


def granted(claims: Mapping[str, object], rules: Iterable[GrantRule]) -> tuple[Grant, ...]:
    """What the rules give for these claims, each grant once; nothing where no rule fits.

    >>> from quarterdeck.core.identity import Role
    >>> viewers = GrantRule(("groups",), "staff", (Grant("acme", Role.VIEWER),))
    >>> granted({"groups": ["staff", "sales"]}, [viewers])
    (Grant(tenant='acme', role=<Role.VIEWER: 'viewer'>),)
    >>> granted({"groups": "staffers"}, [viewers])
    ()
    """
    found = {grant for rule in rules if rule.value in _values(claims, rule.claim) for grant in rule.grants}
    return tuple(sorted(found))


def _values(claims: Mapping[str, object], path: tuple[str, ...]) -> frozenset[str]:
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset(value.split(" ") if path == ("scope",) else (value,))
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()
