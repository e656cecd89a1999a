"""The rules of a deck that a store knows: digests of its policies, its shared budgets and the prices of its models.

Every worker judges by the rules that it was started with. Where several share a store, the newest declared ones are in force, and a worker
with others must not judge. What is only more (the price of a model that others do not have) is not other. Rules that were replaced once
do not come back by a restart, only by somebody's order: a worker of yesterday that is started again after a crash takes nothing back.

>>> first = declared(Rules(), {"policies": "a", "budgets": "b"})
>>> second = declared(first, {"policies": "c", "budgets": "b", "price:large": "d"})
>>> against(second, {"policies": "a", "budgets": "b"}), replaced(second, {"policies": "a", "budgets": "b"})
(('policies',), True)
>>> against(second, {"policies": "c", "budgets": "b"})
()
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

FACT = "rules"
"""The fact that holds them."""
MAX_PAST = 500
"""How many replaced rules are remembered."""


class Rules(msgspec.Struct, frozen=True):
    """What is in force, by name, and what was before, newest first."""

    in_force: dict[str, str] = {}
    past: tuple[str, ...] = ()


def stored(value: str) -> Rules:
    """The rules that a store's fact holds."""
    return msgspec.json.decode(value, type=Rules)


def written(rules: Rules) -> str:
    """The form in which a store holds them."""
    return msgspec.json.encode(rules, order="deterministic").decode()


def against(rules: Rules, mine: Mapping[str, str]) -> tuple[str, ...]:
    """Which of these rules are others in force; none where they are only more, or fewer."""
    return tuple(sorted(name for name, digest in mine.items() if rules.in_force.get(name, digest) != digest))


def replaced(rules: Rules, mine: Mapping[str, str]) -> bool:
    """Whether one of these rules was in force once and has been replaced since."""
    past = set(rules.past)
    return any(f"{name}={mine[name]}" in past for name in against(rules, mine))


def declared(rules: Rules, mine: Mapping[str, str]) -> Rules:
    """What is in force once these rules are declared."""
    gone = [f"{name}={rules.in_force[name]}" for name in against(rules, mine)]
    again = {f"{name}={digest}" for name, digest in mine.items()}
    past = [*gone, *[each for each in rules.past if each not in again and each not in gone]]
    return Rules({**rules.in_force, **mine}, tuple(past[:MAX_PAST]))
