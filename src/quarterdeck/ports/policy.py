"""The seam to the policy engine: a verdict over one proposal, from attributes only.

The engine answers from the attributes it is given and the policy set in force; it never looks at a clock, a database or the
network. Anything but a clean permit denies: a forbid, no matching permit, a policy that raised, a request the engine could not
read. A forbid that is marked as *ask* lets a person lift it; every other forbid is final.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec


class PolicyRequest(msgspec.Struct, frozen=True):
    """Who wants to do what to which resource. ``arguments`` is untrusted (a model wrote it); ``context`` is the runtime's own.

    ``principal`` is the agent's name, ``action`` the proposal kind (``tool``, ``model``, ``reply`` …), ``resource`` the name of
    the tool, model or destination; ``resource_attributes`` come from its manifest.
    """

    principal: str
    principal_attributes: Mapping[str, object]
    action: str
    resource_kind: str
    resource: str
    resource_attributes: Mapping[str, object]
    context: Mapping[str, object]
    arguments: Mapping[str, object]


class Verdict(msgspec.Struct, frozen=True):
    """``allow``, ``deny``, ``ask``, ``degrade`` (only with a lesser model) or ``redact`` (the model does not see the result); the reason
    codes of the policies that decided; the version of the set that was asked.

    ``redact``: the result is withheld as well, if a person lifts an *ask*. ``lifts``: a permit that applies says that it holds although
    untrusted content decided about the action. ``shadow`` is what the policies in shadow would have said, where that differs: an outcome
    and its codes. ``quorum`` is how many different people lift an *ask*.
    """

    outcome: Literal["allow", "deny", "ask", "degrade", "redact"]
    reasons: tuple[str, ...]
    version: str
    lifts: bool = False
    redact: bool = False
    shadow: tuple[str, ...] = ()
    quorum: int = 1


class PolicyEngine(Protocol):
    """A compiled, validated policy set. Immutable: a new set is a new engine, so a verdict never mixes two versions."""

    @property
    def version(self) -> str:
        """A content hash of the set and its schema; part of every decision and of every run's version set."""
        ...

    def judge(self, request: PolicyRequest) -> Verdict:
        """Decide. Never raises for bad input: what cannot be read is denied with ``policy.error``. Synchronous and bounded."""
        ...
