"""Who asks, and what they may do where: roles, grants, principals, and the identities that agents act under.

A door authenticates a request into one :class:`Principal` and asks it one question, :meth:`Principal.may`. What a role may do is one
literal table (:data:`ROLES`), what a principal may do is the sum of its grants, and what nobody granted is refused.

>>> ada = Principal("ada", "user", (Grant("acme", Role.APPROVER),))
>>> ada.may(Action.APPROVALS_DECIDE, "acme"), ada.may(Action.APPROVALS_DECIDE, "globex"), ada.may(Action.RUNS_SUBMIT, "acme")
(True, False, False)
>>> Principal("ops", "key", (Grant(EVERY_TENANT, Role.VIEWER),)).tenants(Action.RUNS_READ) is None
True

Agents are not people: they act under a :class:`ServiceIdentity` of their own, and never with the credentials of whoever asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from quarterdeck.core.contract import checked_key, checked_name
from quarterdeck.core.errors import UsageError

EVERY_TENANT = "*"
"""As the tenant of a grant: every tenant, and what belongs to none (workers, the store, the whole configuration)."""
MAX_GRANTS = 64
"""The most grants of one principal."""
SERVICE_PREFIX = "agent:"
"""How the subject of a service identity begins; no key and no user may have such a subject."""


class Role(StrEnum):
    """What a principal is in a tenant. Not a ladder: who approves need not be able to submit, and who operates does not approve."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    DELEGATE = "delegate"
    APPROVER = "approver"
    OPERATOR = "operator"
    ADMIN = "admin"


class Action(StrEnum):
    """What a door asks about before it does anything. Reads are of metadata; payloads and results need ``content.read`` as well."""

    RUNS_READ = "runs.read"
    RUNS_SUBMIT = "runs.submit"
    RUNS_CONTROL = "runs.control"
    CONTENT_READ = "content.read"
    APPROVALS_READ = "approvals.read"
    APPROVALS_DECIDE = "approvals.decide"
    SWITCHES_SET = "switches.set"
    CONFIG_READ = "config.read"
    KEYS_MANAGE = "keys.manage"
    AUDIT_READ = "audit.read"
    METRICS_READ = "metrics.read"
    ACT_FOR_OTHERS = "caller.act_for"


ROLES: Mapping[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.RUNS_READ, Action.APPROVALS_READ, Action.CONFIG_READ, Action.METRICS_READ}),
    Role.SUBMITTER: frozenset({Action.RUNS_READ, Action.RUNS_SUBMIT, Action.RUNS_CONTROL, Action.CONTENT_READ}),
    Role.DELEGATE: frozenset(
        {Action.RUNS_READ, Action.RUNS_SUBMIT, Action.RUNS_CONTROL, Action.CONTENT_READ, Action.ACT_FOR_OTHERS}
    ),
    Role.APPROVER: frozenset({Action.RUNS_READ, Action.CONTENT_READ, Action.APPROVALS_READ, Action.APPROVALS_DECIDE}),
    Role.OPERATOR: frozenset(
        {
            Action.RUNS_READ,
            Action.RUNS_CONTROL,
            Action.APPROVALS_READ,
            Action.SWITCHES_SET,
            Action.CONFIG_READ,
            Action.AUDIT_READ,
            Action.METRICS_READ,
        }
    ),
    Role.ADMIN: frozenset(Action),
}
"""What each role may do in the tenant that it is granted for. Literal data; the docs print it."""


class Grant(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """One role in one tenant, or in every tenant (:data:`EVERY_TENANT`). Raises :class:`UsageError` for what is no tenant's name."""

    tenant: str
    role: Role

    def __post_init__(self) -> None:
        if self.tenant != EVERY_TENANT:
            checked_name("tenant", self.tenant)

    def covers(self, action: Action, tenant: str) -> bool:
        """Whether this grant alone allows ``action`` in ``tenant``; as ``tenant``, ``"*"`` means what belongs to no tenant."""
        return self.tenant in (EVERY_TENANT, tenant) and action in ROLES[self.role]


class Principal(msgspec.Struct, frozen=True):
    """Who a request comes from, as a door has authenticated it. It is made from verified credentials only and carries none.

    ``subject`` is the stable name that journals and audit rows keep, ``kind`` says how it was proven: by an API ``key``, as a
    ``user`` of an identity provider, or as a ``service``.
    """

    subject: str
    kind: Literal["key", "user", "service"]
    grants: tuple[Grant, ...] = ()

    def may(self, action: Action, tenant: str) -> bool:
        """Whether some grant allows ``action`` in ``tenant``. Without a grant nothing is allowed."""
        return any(grant.covers(action, tenant) for grant in self.grants)

    def tenants(self, action: Action) -> frozenset[str] | None:
        """In which tenants ``action`` is allowed, for filtering lists; ``None`` means in all of them, empty means nowhere."""
        allowed = {grant.tenant for grant in self.grants if action in ROLES[grant.role]}
        return None if EVERY_TENANT in allowed else frozenset(allowed)

    def may_give(self, grants: Iterable[Grant]) -> bool:
        """Whether this principal may hand out all of ``grants``: it manages keys there, and holds every right that it gives.

        >>> Principal("bo", "key", (Grant("acme", Role.ADMIN),)).may_give([Grant(EVERY_TENANT, Role.VIEWER)])
        False
        """
        return all(
            self.may(Action.KEYS_MANAGE, grant.tenant) and all(self.may(action, grant.tenant) for action in ROLES[grant.role])
            for grant in grants
        )


class ServiceIdentity(msgspec.Struct, frozen=True):
    """Under which identity an agent of a deck acts towards tools and other systems; derived from names, so it needs no secret.

    >>> ServiceIdentity("support", "triage").subject
    'agent:support/triage'
    """

    deck: str
    agent: str

    def __post_init__(self) -> None:
        checked_name("deck", self.deck)
        checked_name("agent", self.agent)
        if "/" in self.deck:
            raise UsageError(
                "name.invalid", f"deck {self.deck[:40]!r} has a slash, which would make its agents' identities ambiguous"
            )

    @property
    def subject(self) -> str:
        """``agent:<deck>/<agent>``: the name in audit rows, tool contexts and the credentials that an operator gives to this agent."""
        return f"{SERVICE_PREFIX}{self.deck}/{self.agent}"


def checked_subject(subject: str) -> str:
    """Return ``subject`` if a key or a user may have it; raises :class:`UsageError` for what is unprintable or an agent's."""
    checked_key("subject", subject)
    if subject.casefold().startswith(SERVICE_PREFIX):
        raise UsageError("auth.subject_reserved", f"subjects that begin with {SERVICE_PREFIX!r} belong to agents; choose another")
    return subject


def checked_grants(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """The grants in order and without repetition; raises :class:`UsageError` where there are none or too many."""
    kept = tuple(sorted(set(grants)))
    if not 0 < len(kept) <= MAX_GRANTS:
        raise UsageError("auth.grants", f"give 1-{MAX_GRANTS} grants; without any nothing is allowed")
    return kept
