"""The closed sets of words that every room shares: statuses, effect classes, decisions, autonomy, modes.

Each is a :class:`enum.StrEnum`, so that a value reads the same in the journal, the API, the console and the docs. The meaning
of each word is in ``docs/glossary.md``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

RunId = NewType("RunId", str)
TenantId = NewType("TenantId", str)
CallKey = NewType("CallKey", str)
"""Names one step inside its run, for ever: ``m3`` is the model call of turn 3, ``t3.0`` the first tool call of that turn."""


class Status(StrEnum):
    """Where a run stands. The last four are terminal and final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.REFUSED, Status.CANCELLED})


class StopReason(StrEnum):
    """Why a run stopped, or waits. A dotted code beside it names the budget, rule or dependency."""

    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    BLOCKED = "blocked"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    NEEDS_APPROVAL = "needs_approval"


class EffectClass(StrEnum):
    """What performing a tool can do to the world; it decides what happens after a crash."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"
    IRREVERSIBLE = "irreversible"


class CancelMode(StrEnum):
    """What a cancel does to what is under way, beside letting nothing new begin."""

    STOP = "stop"
    DRAIN = "drain"
    COMPENSATE = "compensate"


class ProposalKind(StrEnum):
    """The seven things that an agent may propose. All pass the same gate."""

    MODEL = "model"
    TOOL = "tool"
    MEMORY = "memory"
    RETRIEVAL = "retrieval"
    DELEGATION = "delegation"
    REPLY = "reply"
    STOP = "stop"


class Ruling(StrEnum):
    """What the gate answers to a proposal."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    DEGRADE = "degrade"
    WAIT = "wait"
    REDACT = "redact"


class Autonomy(StrEnum):
    """How much an agent may do by itself. It changes what the gate allows, not what the prompt says."""

    ADVISORY = "advisory"
    DRAFTS_FOR_REVIEW = "drafts_for_review"
    EXECUTES_AFTER_APPROVAL = "executes_after_approval"
    BOUNDED_AUTONOMOUS = "bounded_autonomous"


class Risk(StrEnum):
    """The risk class of a route or agent."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Priority(StrEnum):
    """How soon a run is begun when more are ready than can be driven, the most urgent first."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class Mode(StrEnum):
    """How a run lives over time."""

    SYNC = "sync"
    ASYNC_JOB = "async_job"
    DURABLE_WORKFLOW = "durable_workflow"
    EVENT_TRIGGERED = "event_triggered"
    HUMAN_GATED = "human_gated"


class AdmissionAnswer(StrEnum):
    """What admission answers to an envelope. Every answer has a reason code; ``refuse`` is an error, the others are runs."""

    START = "start"
    WAIT = "wait"
    REFUSE = "refuse"
    ELSEWHERE = "elsewhere"


class OnBudget(StrEnum):
    """What a route does about a run when a shared account above it has nothing left: take it all the same, and let its program make do
    with a cheaper model near the limit and end there (``degrade``); let it rest there until somebody raises the limit (``pause``);
    ``refuse`` it; or ``reroute`` it to the fallback.
    """

    DEGRADE = "degrade"
    PAUSE = "pause"
    REFUSE = "refuse"
    REROUTE = "reroute"


class ReceiptStatus(StrEnum):
    """How an effect ended. ``unknown`` is never guessed away: a reconcile function or a person resolves it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Dimension(StrEnum):
    """What a budget counts."""

    TURNS = "turns"
    MODEL_CALLS = "model_calls"
    TOOL_CALLS = "tool_calls"
    TOKENS = "tokens"
    COST = "cost_microusd"
    RETRIES = "retries"
    DELEGATIONS = "delegations"
    COMPACTIONS = "compactions"


AUTONOMY_RULES: dict[Autonomy, dict[EffectClass, Ruling]] = {
    Autonomy.ADVISORY: {
        EffectClass.READ: Ruling.ALLOW,
        EffectClass.WRITE: Ruling.DENY,
        EffectClass.EXTERNAL: Ruling.DENY,
        EffectClass.IRREVERSIBLE: Ruling.DENY,
    },
    Autonomy.DRAFTS_FOR_REVIEW: {
        EffectClass.READ: Ruling.ALLOW,
        EffectClass.WRITE: Ruling.ASK,
        EffectClass.EXTERNAL: Ruling.DENY,
        EffectClass.IRREVERSIBLE: Ruling.DENY,
    },
    Autonomy.EXECUTES_AFTER_APPROVAL: {
        EffectClass.READ: Ruling.ALLOW,
        EffectClass.WRITE: Ruling.ASK,
        EffectClass.EXTERNAL: Ruling.ASK,
        EffectClass.IRREVERSIBLE: Ruling.ASK,
    },
    Autonomy.BOUNDED_AUTONOMOUS: {
        EffectClass.READ: Ruling.ALLOW,
        EffectClass.WRITE: Ruling.ALLOW,
        EffectClass.EXTERNAL: Ruling.ALLOW,
        EffectClass.IRREVERSIBLE: Ruling.ALLOW,
    },
}
"""What each autonomy level lets each effect class do, before policy has its say. Literal data; the docs print it."""
