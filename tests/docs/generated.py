"""The parts of the documentation that are read from the code. `python -m tests.docs.generated` writes them into the pages.

A page holds them between `<!-- generated: NAME -->` and `<!-- end -->`; a test fails where what stands there is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from quarterdeck.core.contract import DEFAULT_LIMITS, OUTPUT_RESERVE
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import OUTCOMES, QuarterdeckError
from quarterdeck.core.identity import ROLES, Action
from quarterdeck.core.retry import NATURE
from quarterdeck.core.transitions import TRANSITIONS
from quarterdeck.core.vocabulary import AUTONOMY_RULES, TERMINAL, EffectClass
from tests.docs import pages


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def life_cycle() -> str:
    """The run's life as a diagram."""
    lines = []
    for (before, kind), after in TRANSITIONS.items():
        lines += [f"    {before or '[*]'} --> {status}: {kind}" for status in sorted(after)]
    lines += [f"    {status} --> [*]" for status in sorted(TERMINAL)]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def autonomy() -> str:
    """What each level lets each effect class do."""
    return _table(
        ["autonomy", *(f"`{effect}`" for effect in EffectClass)],
        ([f"`{level}`", *(rules[effect].value for effect in EffectClass)] for level, rules in AUTONOMY_RULES.items()),
    )


def error_classes() -> str:
    """What an error class means outside."""

    def meaning(kind: type[QuarterdeckError]) -> str:
        return (kind.__doc__ or "").partition("\n")[0].replace("``", "`")

    return _table(
        ["class", "whose move is next", "HTTP status", "exit code", "span status"],
        ([f"`{kind.__name__}`", meaning(kind), *outcome] for kind, outcome in OUTCOMES.items()),
    )


def default_limits() -> str:
    """The caps of a run whose route and agent say nothing."""
    limits = [(name, getattr(DEFAULT_LIMITS, name)) for name in DEFAULT_LIMITS.__struct_fields__]
    rows = [(f"`{name}`", "none; it holds where it is set" if value is None else f"{value:,}") for name, value in limits]
    return _table(["limit", "default"], [*rows, ("output reserve of each model call", f"{OUTPUT_RESERVE} tokens")])


def dependency_defaults() -> str:
    """The policy of a model and of a tool that declare none."""
    model = _flat(DependencyPolicy.for_model())
    repeatable, once = (_flat(DependencyPolicy.for_tool(flag)) for flag in (True, False))
    head = ["setting", "model", "tool: read or idempotent", "tool: any other"]
    return _table(head, ([f"`{name}`", model[name], repeatable[name], once[name]] for name in model))


def _flat(value: msgspec.Struct, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name in value.__struct_fields__:
        inner = getattr(value, name)
        if isinstance(inner, msgspec.Struct):
            found |= _flat(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = f"{inner:g}" if isinstance(inner, float) else inner
    return found


def error_natures() -> str:
    """Which classes of failure pass by themselves."""
    return _table(["class of failure", "nature"], ([f"`{kind}`", nature.value] for kind, nature in NATURE.items()))


def roles() -> str:
    """What each role may do."""
    rows = ([f"`{action}`", *("yes" if action in allowed else "–" for allowed in ROLES.values())] for action in Action)
    return _table(["action", *(f"`{role}`" for role in ROLES)], rows)


PARTS: dict[str, Callable[[], str]] = {
    "life-cycle": life_cycle,
    "autonomy": autonomy,
    "error-classes": error_classes,
    "default-limits": default_limits,
    "dependency-defaults": dependency_defaults,
    "error-natures": error_natures,
    "roles": roles,
}


def parts() -> dict[str, str]:
    """Every part by name."""
    return {name: make() for name, make in PARTS.items()}


if __name__ == "__main__":
    for page in pages.names():
        (pages.ROOT / page).write_text(pages.regenerated(pages.text(page), parts()), encoding="utf-8")
