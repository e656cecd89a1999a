"""One small world for the tests of this room: two tools, two agents, two models, and a request that can be varied."""

from __future__ import annotations

from typing import Any

from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.policy import CedarEngine, PolicyManifest, PolicyTool
from quarterdeck.ports.policy import PolicyRequest

REFUND: dict[str, object] = {
    "type": "object",
    "properties": {
        "amount_cents": {"type": "integer"},
        "note": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "rate": {"type": "number"},
        "customer": {
            "type": "object",
            "properties": {"tier": {"type": "string"}, "vip": {"type": "boolean"}},
            "required": ["tier"],
        },
        "free": {"type": "object"},
    },
    "required": ["amount_cents", "tags", "customer"],
}
SEARCH: dict[str, object] = {
    "type": "object",
    "properties": {"query": {"type": "string"}},
    "required": ["query"],
}
MANIFEST = PolicyManifest(
    tools=(
        PolicyTool("issue_refund", EffectClass.EXTERNAL, REFUND),
        PolicyTool("search", EffectClass.READ, SEARCH),
    ),
    agents=("support", "sales"),
    models=("small", "large"),
)
PERMIT = "permit(principal, action, resource);\n"
ARGUMENTS: dict[str, object] = {"amount_cents": 100, "tags": ["a"], "customer": {"tier": "gold"}}
CONTEXT: dict[str, object] = {
    "tenant": "t1",
    "user": "ann",
    "route": "r1",
    "autonomy": "bounded_autonomous",
    "risk": "low",
    "mode": "sync",
    "turn": 1,
    "spent": {"tokens": 10, "tool_calls": 1, "cost_microusd": 50},
    "labels": {"untrusted": False, "sensitive": False, "crossing": False, "arguments": []},
}
PRINCIPAL: dict[str, object] = {"tenant": "t1", "autonomy": "bounded_autonomous", "risk": "low", "route": "r1"}
RESOURCE: dict[str, object] = {"effect": "external", "permissions": ("money",), "cost_microusd": 20_000}


def engine(policies: str, manifest: PolicyManifest = MANIFEST, **options: Any) -> CedarEngine:
    return CedarEngine.build(policies, manifest, **options)


def refund(**arguments: object) -> PolicyRequest:
    """A refund by ``support``; the named arguments replace the usual ones."""
    return request(arguments={**ARGUMENTS, **arguments})


def request(
    action: str = "tool",
    resource: str = "issue_refund",
    *,
    principal: str = "support",
    principal_attributes: dict[str, object] | None = None,
    resource_kind: str | None = None,
    resource_attributes: dict[str, object] | None = None,
    context: dict[str, object] | None = None,
    arguments: dict[str, object] | None = None,
) -> PolicyRequest:
    kind = resource_kind or {"tool": "Tool", "model": "Model"}.get(action, "Destination")
    return PolicyRequest(
        principal,
        {**PRINCIPAL, **(principal_attributes or {})},
        action,
        kind,
        resource,
        {**RESOURCE, **(resource_attributes or {})} if action == "tool" else {},
        {**CONTEXT, **(context or {})},
        ARGUMENTS if arguments is None else arguments,
    )


def answer(built: CedarEngine, asked: PolicyRequest) -> tuple[str, tuple[str, ...]]:
    """Outcome and reasons, made sure to be the same a second time and afresh."""
    first, again, afresh = built.judge(asked), built.judge(asked), built.explain(asked).verdict
    assert first == again == afresh
    assert first.version == built.version
    return first.outcome, first.reasons
