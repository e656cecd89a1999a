"""The kinds of steps that a workflow proposes, and what makes two of them the same.

A workflow is a function that is executed again after a crash. Whatever it asks for is a step with a *call key* (its branch and its
place there, or the name that the author gave) and a digest; executed again, it has to ask for the same in the same order, else it
has *diverged*.

>>> step_digest(StepKind.TOOL, "ship", b'{"order":"A1"}') == step_digest(StepKind.TOOL, "ship", b'{"order":"A2"}')
False
"""

from __future__ import annotations

import hashlib
from enum import StrEnum


class StepKind(StrEnum):
    """What a step of a workflow is. The first four are proposals or reads; the others ask nothing of the outside.

    The last is the runtime's own: a tool's ``cancel`` hook for one call of it, in a run that was cancelled; no program asks for it.
    """

    TOOL = "tool"
    MODEL = "model"
    CHILD = "child"
    FUNCTION = "function"
    APPROVAL = "approval"
    TIMER = "timer"
    SIGNAL = "signal"
    STUCK = "stuck"
    EMIT = "emit"
    PATCH = "patch"
    WITHDRAW = "withdraw"


MARKERS = frozenset({StepKind.EMIT, StepKind.PATCH})
"""Steps that nobody waits for: they are over as soon as they are recorded."""


def step_digest(kind: StepKind, name: str, arguments: bytes) -> str:
    """What a step that is asked for again is compared by; hex, 32 characters."""
    return hashlib.sha256(b"quarterdeck/step/1\n%b\n%b\n%b" % (kind.value.encode(), name.encode(), arguments)).hexdigest()[:32]
