"""What authors say of agents and routes, checked and made into their specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.app.budgets import seconds
from quarterdeck.core.contract import checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import MAX_QUORUM, ModelTier
from quarterdeck.core.tasks import SIMPLE, STANDARD

SIMPLE_OUTPUT_TOKENS = 400
"""The longest answer to a simple task."""


def tiers_of(agent: str, models: Mapping[str, str | Sequence[str]], max_output_tokens: int) -> tuple[ModelTier, ...]:
    """The models of an agent by class of task; raises :class:`UsageError` (``agent.tiers``)."""
    tiers = []
    for task_class, named in models.items():
        names = (named,) if isinstance(named, str) else tuple(named)
        longest = min(SIMPLE_OUTPUT_TOKENS, max_output_tokens) if task_class == SIMPLE else max_output_tokens
        tiers.append(ModelTier(checked_name("task class", task_class), names, longest))
    if STANDARD not in models or not all(tier.models for tier in tiers):
        raise UsageError(
            "agent.tiers", f"agent {agent} needs models for 'standard', and at least one for each class that it names"
        )
    return tuple(tiers)


def answering(
    escalation: Sequence[str], after: str | float | None, on_denial: str, on_expiry: str, quorum: int
) -> dict[str, Any]:
    """What a route says about the answers of people, checked."""
    if after is not None and not escalation:
        raise UsageError("route.escalation", "after escalate_after, an approval is the next one's: name who that is (escalation)")
    for answer in (on_denial, on_expiry):
        if answer not in ("tell", "refuse"):
            raise UsageError("route.answer", f"{answer[:40]!r} is nothing that an answer can do; use tell or refuse")
    if not 1 <= quorum <= MAX_QUORUM:
        raise UsageError("route.quorum", f"a quorum is 1-{MAX_QUORUM} people")
    after_s = None if after is None else max(1, int(seconds(after)))
    names = tuple(escalation)
    return {
        "escalation": names,
        "escalate_after_s": after_s,
        "on_denial": on_denial,
        "on_expiry": on_expiry,
        "quorum": quorum,
    }
