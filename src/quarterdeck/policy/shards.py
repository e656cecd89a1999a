"""Shards: the policies that can concern one (agent, action, resource), compiled together.

The engine evaluates every policy of a set, so its cost grows with the set. The scope of a policy says whom it can
concern; a shard holds those whose scope covers its agent, action and resource, wildcards included, and leaves out only
policies whose scope is false there. Leaving those out changes nothing: a policy whose scope is false is neither
satisfied nor can it raise.

Agents, models and destinations that no scope names share one shard. Each tool has its own, since arguments differ by
tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cedarpy
import msgspec
from cedarpy import pst

from quarterdeck.policy.check import action_covered, handle, named
from quarterdeck.policy.reads import joined, reads_of
from quarterdeck.policy.schema import KIND_OF_RESOURCE, NOTHING, PolicyManifest
from quarterdeck.policy.shapes import Record, Unreadable
from quarterdeck.policy.source import Policy
from quarterdeck.policy.views import View, view_of
from quarterdeck.ports.policy import PolicyRequest

Place = tuple[str | None, str, str | None]
"""Whom a shard is for: agent, action and resource; ``None`` is any that no scope names."""


@dataclass(frozen=True, slots=True)
class Handles:
    """The compiled policies of a shard, and its permits alone: those say whether an *ask* has anything to lift."""

    policies: Mapping[str, Policy]
    all: cedarpy.PolicySet
    permits: cedarpy.PolicySet


@dataclass(frozen=True, slots=True)
class Shard:
    """Everything that is needed to judge one kind of request, precomputed. ``number`` is unique within its engine."""

    number: int
    kind: str
    action: Mapping[str, str]
    handles: Handles
    entities: cedarpy.Entities
    view: View


class Atlas:
    """Finds the place of a request and builds the shard of a place. Immutable once built, except for counting
    shards.
    """

    def __init__(self, policies: Sequence[Policy], manifest: PolicyManifest, shapes: Mapping[str, Record]) -> None:
        self._policies = tuple(policies)
        self._shapes = shapes
        self._agents = frozenset(manifest.agents)
        self._known = {"Tool": frozenset(shapes), "Model": frozenset(manifest.models)}
        self._named_agents = _names(policy.node.principal for policy in policies)
        self._named_resources = _names(policy.node.resource for policy in policies)
        self._reads = {policy.id: reads_of(policy.node) for policy in policies}
        self._built = 0

    def place(self, request: PolicyRequest) -> Place:
        """Where ``request`` belongs. Raises ``Unreadable`` for a name that the manifest does not know."""
        action, resource = request.action, request.resource
        kind = KIND_OF_RESOURCE.get(action)
        if kind is None or request.resource_kind not in (kind, kind.lower()):
            raise Unreadable("policy.error", f"no action {action!r} on a resource of kind {request.resource_kind!r}")
        if request.principal not in self._agents:
            raise Unreadable("policy.error", f"the manifest has no agent {request.principal!r}")
        known = self._known.get(kind)
        if known is not None and resource not in known:
            raise Unreadable("policy.error", f"the manifest has no {kind.lower()} {resource!r}")
        agent = request.principal if request.principal in self._named_agents else None
        if kind == "Tool":
            return agent, f"tool:{resource}", resource
        return agent, action, resource if resource in self._named_resources else None

    def shard(self, place: Place, others: Sequence[Shard] = ()) -> Shard:
        """Build the shard of ``place``; compiled policies are shared with those of ``others`` that hold the same
        ones.
        """
        agent, action, resource = place
        kind = "Tool" if action.startswith("tool:") else KIND_OF_RESOURCE[action]
        chosen = {
            policy.id: policy
            for policy in self._policies
            if action_covered(policy.node.action, action)
            and _covers(policy.node.principal, "Agent", agent)
            and _covers(policy.node.resource, kind, resource)
        }
        ids = tuple(chosen)
        shared = next((other.handles for other in others if tuple(other.handles.policies) == ids), None)
        arguments = self._shapes[action.removeprefix("tool:")] if kind == "Tool" else NOTHING
        view = view_of(joined(self._reads[id_] for id_ in ids), kind, arguments)
        self._built += 1
        uid = {"type": "Action", "id": action}
        return Shard(self._built, kind, uid, shared or _compiled(chosen), _hierarchy(action, kind), view)


def _names(scopes: Iterable[pst.PrincipalOrResourceConstraint]) -> frozenset[str]:
    return frozenset(uid.id for scope in scopes if (uid := named(scope)) is not None)


def _covers(scope: pst.PrincipalOrResourceConstraint, kind: str, name: str | None) -> bool:
    """Whether ``scope`` covers the entity; entities have no parents here, so ``in`` is ``==``."""
    if isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) and str(scope.entity_type) != kind:
        return False
    uid = named(scope)
    return uid is None or (str(uid.type) == kind and uid.id == name)


def _compiled(policies: Mapping[str, Policy]) -> Handles:
    every = handle(policy.node for policy in policies.values())
    permits = handle(policy.node for policy in policies.values() if not policy.forbids)
    return Handles(policies, every, permits)


def _hierarchy(action: str, kind: str) -> cedarpy.Entities:
    """The action, in its group: what ``action in Action::"tool"`` asks for."""
    parents = [{"type": "Action", "id": "tool"}] if kind == "Tool" else []
    entity = {"uid": {"type": "Action", "id": action}, "attrs": {}, "parents": parents}
    return cedarpy.Entities.from_json_str(msgspec.json.encode([entity]).decode())
