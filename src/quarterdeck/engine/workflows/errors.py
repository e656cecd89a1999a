"""What goes wrong inside a workflow, as its author meets it. These errors are caught there, or end the run with their code."""

from __future__ import annotations

from quarterdeck.core.errors import QuarterdeckError, Refused


class StepFailed(QuarterdeckError):
    """A step has ended badly, and is known to have: a function raised, a tool or model failed, a child run did not succeed."""


class Interrupted(StepFailed):
    """The run was interrupted while it waited, in a workflow that wants to know at once. ``payload`` is what was said."""

    def __init__(self, payload: object) -> None:
        super().__init__("run.interrupted", "the run was interrupted while it waited")
        self.payload = payload


class Denied(Refused):
    """The gate, or a person, said no to a step; nothing of it was done."""


class Continued(BaseException):
    """The workflow begins anew, with a fresh history. It ends the execution and is not caught by ``except Exception``."""

    def __init__(self, payload: object) -> None:
        super().__init__("the workflow begins anew")
        self.payload = payload


class Diverged(BaseException):
    """The workflow, executed again, asked for something else than is recorded. Never reaches the workflow itself."""

    def __init__(self, recorded: str, proposed: str) -> None:
        super().__init__(f"recorded: {recorded}; proposed: {proposed}")
        self.recorded = recorded
        self.proposed = proposed
