"""Quarterdeck: a production runtime for AI agents. The model proposes, the runtime decides.

The names here are the authoring interface; everything is imported when it is first used, so ``import quarterdeck`` is quick.

>>> import quarterdeck
>>> deck = quarterdeck.Quarterdeck("docs")
>>> deck.name
'docs'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quarterdeck.app.budgets import Budget
    from quarterdeck.app.deck import Quarterdeck
    from quarterdeck.app.runtime import RunHandle, Runtime
    from quarterdeck.app.views import RunResult
    from quarterdeck.core.dependency import DependencyPolicy
    from quarterdeck.core.errors import Corrupt, OwnershipLost, QuarterdeckError, Refused, Unavailable, UsageError
    from quarterdeck.core.labels import Confidentiality, Integrity
    from quarterdeck.core.specs import Compaction, Degrade
    from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, ReceiptStatus, Risk, Ruling, Status, StopReason
    from quarterdeck.engine.workflows.context import Answer, Context
    from quarterdeck.engine.workflows.errors import Denied, Interrupted, StepFailed
    from quarterdeck.models.local import LocalModel
    from quarterdeck.models.openai import OpenAI
    from quarterdeck.ports.tools import Finding, ToolContext, ToolFailure

__version__ = "0.1.0"

_HOMES = {
    "app.budgets": ("Budget",),
    "app.deck": ("Quarterdeck",),
    "app.runtime": ("RunHandle", "Runtime"),
    "app.views": ("RunResult",),
    "core.dependency": ("DependencyPolicy",),
    "core.errors": ("Corrupt", "OwnershipLost", "QuarterdeckError", "Refused", "Unavailable", "UsageError"),
    "core.labels": ("Confidentiality", "Integrity"),
    "core.specs": ("Compaction", "Degrade"),
    "core.vocabulary": ("Autonomy", "EffectClass", "Mode", "ReceiptStatus", "Risk", "Ruling", "Status", "StopReason"),
    "models.local": ("LocalModel",),
    "models.openai": ("OpenAI",),
    "engine.workflows.context": ("Answer", "Context"),
    "engine.workflows.errors": ("Denied", "Interrupted", "StepFailed"),
    "ports.tools": ("Finding", "ToolContext", "ToolFailure"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "Autonomy",
    "Budget",
    "Compaction",
    "Confidentiality",
    "Context",
    "Corrupt",
    "Degrade",
    "Denied",
    "DependencyPolicy",
    "EffectClass",
    "Finding",
    "Integrity",
    "Interrupted",
    "LocalModel",
    "Mode",
    "OpenAI",
    "OwnershipLost",
    "Quarterdeck",
    "QuarterdeckError",
    "ReceiptStatus",
    "Refused",
    "Risk",
    "Ruling",
    "RunHandle",
    "RunResult",
    "Runtime",
    "Status",
    "StepFailed",
    "StopReason",
    "ToolContext",
    "ToolFailure",
    "Unavailable",
    "UsageError",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'quarterdeck' has no attribute {name!r}")
    return getattr(importlib.import_module(f"quarterdeck.{home}"), name)
