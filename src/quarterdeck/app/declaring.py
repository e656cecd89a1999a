"""What authors say of agents and routes, checked and made into their specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.app.budgets import Budget, checked_window, microusd, seconds
from quarterdeck.core.contract import checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import MAX_QUORUM, ModelTier
from quarterdeck.core.tasks import SIMPLE, STANDARD
from quarterdeck.core.windows import Attention, WindowLimit

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


def limit_of(
    name: str,
    tools: tuple[str, ...],
    per: tuple[str, ...],
    window: str,
    uses: int | None,
    sums: Mapping[str, str | int],
    code: str,
) -> WindowLimit:
    """A limit over history, checked; raises :class:`UsageError` (``limit.invalid``)."""
    most = {argument: microusd(amount) for argument, amount in sums.items()}
    made = WindowLimit(checked_name("limit", name), tools, per, checked_window(window), uses, most, code)
    if (uses is None and not most) or (uses is not None and (isinstance(uses, bool) or uses < 0)):
        raise UsageError("limit.invalid", f"limit {name}: give it uses=… from 0 or sums={{argument: most}}")
    return made


def attention_of(account: str, budget: Budget, per: str | None) -> Attention:
    """How often an owner is asked, checked; raises :class:`UsageError` (``budget.invalid``)."""
    owner = account.partition(":")[2]
    if not owner or per is None or budget.approvals is None or budget != Budget(approvals=budget.approvals):
        raise UsageError(
            "budget.invalid",
            f"{account}: say who (approver:NAME or approver:*), Budget(approvals=…) alone, and per='hour' or another",
        )
    budget.limits()
    return Attention(account, checked_window(per), budget.approvals)
