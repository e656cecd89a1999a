"""Bugs on purpose that show in a simulation with workflows: in their engine, and in what they have in common with agents.

The first ones were there once, and no example had met them.
"""

from __future__ import annotations

from quarterdeck.testing.mutants_runtime import RuntimeMutant, mutant
from quarterdeck.testing.mutants_workflows import WORKFLOW_MUTANTS

_DRIVER = "engine.workflows.driving:_Driver"
_WAITING = "engine.workflows.waiting"
_RECORDING = "engine.workflows.recording:Recording"
_SHARED = (
    "answers are delivered out of order", "a compensation is repeated", "the oldest is undone first", "an inner saga forgets",
    "what cannot be undone is passed over", "a cancel stands against undoing", "a message is taken twice",
    "steps are performed before everything recorded was delivered",
)  # fmt: skip

VENTURE_MUTANTS: tuple[RuntimeMutant, ...] = (
    mutant(
        "a workflow's result that is denied breaks its journal",
        9,
        "I14",
        ("core.fold:_decided", "and event.call != RESULT:", ":"),
    ),
    mutant(
        "a workflow's result that is denied is told to a model",
        9,
        "I14",
        ("engine.transcript:Transcript._denied", "and event.call == RESULT:", "and False:"),
    ),
    mutant(
        "attempts after asking outlive their key",
        7,
        "I2",
        ("engine.recovery:_again", "until_s, repeats=repeats,", "until_s,"),
        rare=True,
    ),
    mutant(
        "what is cut off while its time runs out takes the dispatcher along",
        1,
        "I12",
        ("resilience.eager:Reins.cut", "and not self._limit.expired():", ":"),
        rare=True,
    ),
    mutant(
        "receipts that come while others are judged are forgotten",
        8,
        "I3",
        (
            "engine.acting:_Tentative.__init__",
            "self._reserved = _Count(state.reserved)",
            "self._kept = state, dict(state.reserved)\n    self._reserved = _Count(state.reserved)",
        ),
        ("engine.acting:_Tentative.undo", "count.undo()", "count.undo()\n    self._kept[0].reserved = self._kept[1]"),
    ),
    mutant("a timer fires early", 9, "I17", (f"{_WAITING}:look", "now_us >= due_us\n", "now_us + 1_000_000 >= due_us\n")),
    mutant(
        "an effect that nobody knows the end of is told as failed",
        7,
        "I2",
        (
            f"{_RECORDING}.order",
            "case ev.ToolClosed() if event.status is ReceiptStatus.UNKNOWN:",
            "case ev.ToolClosed() if False:",
        ),
    ),
    mutant("what was open is not recovered", 7, "I19", (f"{_DRIVER}.round", "if not self.recovered:", "if False:")),
    mutant(
        "a child is forgotten after a takeover",
        1,
        "I18",
        (f"{_WAITING}:look", "case StepKind.CHILD if call in state.children:", "case StepKind.CHILD if call in tasks:"),
    ),
    mutant(
        "an approval that ran out is told as granted",
        7,
        "I5",
        (
            f"{_WAITING}:_look_approval",
            '"outcome": approval.outcome,',
            '"outcome": approval.outcome.replace("expired", "approved"),',
        ),
    ),
    mutant(
        "a cancelled workflow goes on",
        9,
        "I9",
        ("core.judge:revoked", "if state.cancelled_by:", "if False:"),
    ),
    *[bug for bug in WORKFLOW_MUTANTS if bug.name in _SHARED],
)
"""Planted bugs that simulations with workflows have to find."""
