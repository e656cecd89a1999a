"""What authors say of agents and routes, checked and made into their specifications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from quarterdeck.app.budgets import Budget, checked_window, microusd, seconds
from quarterdeck.app.routing import TERMS, Terms
from quarterdeck.app.words import word
from quarterdeck.core.contract import Limits, checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.specs import MAX_QUORUM, ModelTier, OnAnswer
from quarterdeck.core.tasks import SIMPLE, STANDARD
from quarterdeck.core.vocabulary import Autonomy, Risk
from quarterdeck.core.windows import Attention, Lifetime, WindowLimit

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


def terms_of(tenant: str, autonomy: str | None, risk: str | None, tools: Sequence[str] | None, budget: Budget | None) -> Terms:
    """The terms of a tenant, checked; raises :class:`UsageError` (``tenant.nothing``) for terms that say nothing."""
    made = Terms(
        None if autonomy is None else word(Autonomy, autonomy),
        None if risk is None else word(Risk, risk),
        None if tools is None else tuple(tools),
        Limits() if budget is None else budget.limits(),
    )
    if made == TERMS:
        raise UsageError("tenant.nothing", f"nothing is otherwise for tenant {tenant}; name autonomy, risk, tools or a budget")
    return made


def policy_texts(source: str | Path | Mapping[str, str], name: str, found: Callable[[Path], Path]) -> dict[str, str]:
    """Policies by name, from a text (which is called ``name``), a file or folder (where ``found`` says), or a mapping; raises
    :class:`UsageError` (``policy.no_text``) for a text that holds none.
    """
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, Path) or (source.endswith(".cedar") and "\n" not in source):
        path = found(Path(source))
        files = sorted(path.glob("*.cedar")) if path.is_dir() else [path]
        return {file.name: file.read_text("utf-8") for file in files}
    if "permit" not in source and "forbid" not in source:
        said = f"{source[:80]!r} is text without a policy; to read a file or a folder, write deck.policy(Path({source[:80]!r}))"
        raise UsageError("policy.no_text", said)
    return {name: source}


class Answering(TypedDict):
    """The fields of a route that are about the answers of people."""

    escalation: tuple[str, ...]
    escalate_after_s: int | None
    on_denial: OnAnswer
    on_expiry: OnAnswer
    quorum: int


def answering(escalation: Sequence[str], after: str | float | None, on_denial: str, on_expiry: str, quorum: int) -> Answering:
    """What a route says about the answers of people, checked; raises :class:`UsageError` (``route.escalation``, ``route.answer``,
    ``route.quorum``).
    """
    if after is not None and not escalation:
        raise UsageError("route.escalation", "after escalate_after, an approval is the next one's: name who that is (escalation)")
    if not 1 <= quorum <= MAX_QUORUM:
        raise UsageError("route.quorum", f"a quorum is 1-{MAX_QUORUM} people")
    after_s = None if after is None else max(1, int(seconds(after)))
    return {
        "escalation": tuple(escalation),
        "escalate_after_s": after_s,
        "on_denial": _on_answer(on_denial),
        "on_expiry": _on_answer(on_expiry),
        "quorum": quorum,
    }


def _on_answer(said: str) -> OnAnswer:
    match said:
        case "tell":
            return "tell"
        case "refuse":
            return "refuse"
    raise UsageError("route.answer", f"{said[:40]!r} is nothing that an answer can do; use tell or refuse")


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


def lifetime_of(account: str, budget: Budget, per: str | None) -> Lifetime:
    """How long all runs of a thread may last together, checked; raises :class:`UsageError` (``budget.invalid``)."""
    if not account.startswith("thread:"):
        said = f"{account}: a deadline is of one run, or of all runs of a thread: say it of thread:TENANT/ID or thread:*"
        raise UsageError("budget.invalid", said)
    lasts_ms = budget.limits().deadline_ms or 0
    if not lasts_ms:
        raise UsageError("budget.invalid", f"{account}: a thread lasts longer than no time at all")
    return Lifetime(account, "ever" if per is None else checked_window(per), lasts_ms * 1_000)
