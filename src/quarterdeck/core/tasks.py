"""Which class of task a run is, and which model serves a class: small ones go to cheap models. Pure, and free: no model is asked.

The rule of thumb: fewer than twenty words with a word of a simple question are ``simple``, everything else is ``standard``. A route says
otherwise for all its runs, a deck replaces the rule by a function of its own; a run of high risk is never ``simple``.

>>> classify("What is my balance?"), classify("Please write to all customers and list what they said")
('simple', 'simple')
>>> classify("My desk arrived broken."), classify("what is " + "very " * 20 + "long?")
('standard', 'standard')
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from quarterdeck.core.specs import AgentSpec, ModelTier

SIMPLE, STANDARD, AUTO = "simple", "standard", "auto"
"""The two classes that the rule knows; and what a route says that leaves it to the rule."""
SHORT_WORDS = 20
"""A text with so many words is no simple task."""
INDICATORS = ("what is", "define", "summarise", "summarize", "list", "classify", "yes or no", "true or false", "how many")
"""What a simple task says."""


def classify(text: str) -> str:
    """The class of a task in words."""
    lower = text.lower()
    is_simple = len(text.split()) < SHORT_WORDS and any(indicator in lower for indicator in INDICATORS)
    return SIMPLE if is_simple else STANDARD


def tier_of(agent: AgentSpec, task_class: str) -> ModelTier | None:
    """The models of an agent for a class: its own, else those for ``standard``; ``None`` for an agent that has one model for all."""
    tiers = {tier.task_class: tier for tier in agent.tiers}
    return tiers.get(task_class) or tiers.get(STANDARD)


def cheapest(agent: AgentSpec, task_class: str, costs: Callable[[str], int], unavailable: Collection[str]) -> tuple[str, str]:
    """The class and the model that serve: the cheapest of the class that is not ``unavailable``, else the cheapest of ``standard``; if
    none is available, the cheapest of the class all the same, and its own limits and breaker decide.
    """
    wanted = tier_of(agent, task_class)
    for tier in (wanted, tier_of(agent, STANDARD)):
        found = [name for name in tier.models if name not in unavailable] if tier is not None else []
        if tier is not None and found:
            return tier.task_class, min(found, key=costs)
    return (wanted.task_class, min(wanted.models, key=costs)) if wanted is not None else (task_class, agent.model)


def program_of(agent: str, task_class: str, model: str) -> str:
    """The name of an agent's program for one class and model."""
    return f"{agent}|{task_class}|{model}"
