"""The closed words of the core, as people write them."""

from __future__ import annotations

from typing import TypeVar

from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity
from quarterdeck.core.vocabulary import Autonomy, CancelMode, EffectClass, OnBudget, Priority, Risk

W = TypeVar("W", EffectClass, Autonomy, Risk, Priority, OnBudget, Integrity, Confidentiality, CancelMode)


def word(kind: type[W], value: str) -> W:
    """The word of this kind; raises :class:`UsageError` (``word.unknown``) with all that there are.

    >>> word(Risk, "high")
    <Risk.HIGH: 'high'>
    """
    try:
        return kind(value)
    except ValueError:
        raise UsageError("word.unknown", f"{value[:80]!r} is no {kind.__name__}; use one of {', '.join(kind)}") from None
