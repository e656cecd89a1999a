"""Specifications: what a tool, an agent and a route are declared to be.

They are facts for the gate. A tool's spec is its manifest: schema, effect class, permissions, time-out, idempotency, how to find
out what happened, how to undo it. Nothing here is callable; the code behind a spec lives in the room ``tools``.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from quarterdeck.core.contract import DEFAULT_LIMITS, OUTPUT_RESERVE, Limits
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, OnBudget, Risk

MAX_QUORUM = 10
"""The most people that a route or a policy may want for one approval."""
CANCEL_SUFFIX = ".cancel"
"""The name of what stops what a tool has started is the tool's, with this behind it."""


class ToolSpec(msgspec.Struct, frozen=True):
    """The manifest of one tool. ``input_schema`` is JSON Schema, encoded as JSON; ``cost_microusd`` is the worst case per call.

    ``idempotent`` promises that the tool performs at most one effect per idempotency key, for ``idempotent_for_s`` seconds.
    ``stale_s``: a read that cannot be had now may be answered with its last good answer, at most so old.
    ``withdraws`` marks a tool's ``cancel`` hook: only the runtime may ask for it.
    ``transactional``: all that it does is committed together with its receipt, so without one it has done nothing. ``exclusive``: what
    it works on has a key, and no other call with that key is performed meanwhile.
    One with a ``heartbeat_timeout_s`` gives a sign of life at least as often, or is abandoned as after its time-out.
    ``evidence`` names tools of which at least one call must have succeeded in this run before this one may be called.
    ``integrity`` and ``confidentiality`` label its results, but what stands in ``trusted_fields`` of an untrusted result may be trusted;
    ``sinks`` names the arguments that say whom or what it reaches (``None``: read off its schema), ``touches`` what acting through it can
    reach (``None``: something sensitive). ``secrets`` names what it may ask its context for.
    """

    name: str
    description: str
    effect: EffectClass
    input_schema: bytes
    idempotent: bool = False
    idempotent_for_s: int = 86_400
    reconcilable: bool = False
    compensable: bool = False
    cancellable: bool = False
    withdraws: bool = False
    stale_s: float = 0.0
    timeout_s: float = 30.0
    permissions: tuple[str, ...] = ()
    sandbox: str = "in_process"
    cost_microusd: int = 0
    evidence: tuple[str, ...] = ()
    integrity: Integrity = Integrity.TRUSTED
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    trusted_fields: tuple[str, ...] = ()
    sinks: tuple[str, ...] | None = None
    touches: Confidentiality | None = None
    secrets: tuple[str, ...] = ()
    transactional: bool = False
    exclusive: bool = False
    heartbeat_timeout_s: float | None = None

    @property
    def repeatable(self) -> bool:
        """Whether performing a call again, under its key, does no more than performing it once."""
        return self.idempotent or self.effect is EffectClass.READ

    @property
    def labels(self) -> Labels | None:
        """What a result of this tool adds to the labels of a run; ``None`` if nothing."""
        if self.integrity is Integrity.TRUSTED and self.confidentiality is Confidentiality.PUBLIC:
            return None
        return Labels(self.integrity, self.confidentiality)

    @property
    def schema_hash(self) -> str:
        """A content hash of what a proposal of this tool means: its name, effect class and schema. Time-outs may change."""
        meaning = (self.name, self.effect, msgspec.Raw(self.input_schema))
        return hashlib.sha256(msgspec.json.encode(meaning)).hexdigest()[:32]


class Degrade(msgspec.Struct, frozen=True):
    """What to do near a limit: from ``at`` (a fraction of any limit) on, use another model and a shorter answer; with ``context``, a
    shorter context as well. The tools that it may ``skip`` are denied then.
    """

    model: str
    at: float = 0.8
    max_output_tokens: int = 200
    context: int | None = None
    skip: tuple[str, ...] = ()


class Compaction(msgspec.Struct, frozen=True):
    """When and how the working set is compacted: from ``at`` (a fraction of what the context may hold) on, all turns but the newest
    ``keep`` are told by a summary of at most ``max_output_tokens`` tokens, which ``model`` (by default the agent's own) writes.
    """

    at: float = 0.8
    keep: int = 2
    max_output_tokens: int = 400
    model: str = ""
    instructions: str = (
        "Summarise this transcript for the assistant that goes on with it. Keep the goal, what was found out with exact names and numbers, "
        "what was done and with what result, what was denied, and what is still to be done. Write nothing else."
    )

    def __post_init__(self) -> None:
        if not (0.0 < self.at <= 1.0 and self.keep >= 1 and self.max_output_tokens >= 1):
            raise UsageError("compaction.invalid", "a compaction has 0 < at <= 1, keep >= 1 and max_output_tokens >= 1")


class ModelTier(msgspec.Struct, frozen=True):
    """The models that may serve one class of task, and how long their answers may be."""

    task_class: str
    models: tuple[str, ...]
    max_output_tokens: int


class AgentSpec(msgspec.Struct, frozen=True):
    """A program: the tools it may name, and how far it may go by itself. A loop around a model, with its instructions; or a workflow,
    which has no model, and a hash of its code as ``program``. ``tiers`` are its models by class of task; ``model`` is then the usual one.
    ``fallbacks`` are the models that are asked, each by a proposal of its own, where the one before cannot serve.
    """

    name: str
    model: str
    instructions: str
    tools: tuple[str, ...]
    autonomy: Autonomy = Autonomy.BOUNDED_AUTONOMOUS
    risk: Risk = Risk.LOW
    limits: Limits = DEFAULT_LIMITS
    max_output_tokens: int = OUTPUT_RESERVE
    degrade: Degrade | None = None
    parallel_calls: bool = True
    program: str | None = None
    tiers: tuple[ModelTier, ...] = ()
    compaction: Compaction | None = None
    fallbacks: tuple[str, ...] = ()


OnAnswer = Literal["tell", "refuse"]
"""What a denied or expired approval does to its run."""


def needed(route: str, agent: str, program: str | None) -> str:
    """The code that drives a run of this route, as workers state it: a loop's state is folded, so any version of its agent will do; a
    workflow is replayed, so it needs the very code that began it.

    >>> needed("triage", "helpdesk", None), needed("loan", "loan", "4f3a")
    ('triage/helpdesk', 'loan/loan@4f3a')
    """
    return f"{route}/{agent}" if program is None else f"{route}/{agent}@{program}"


class RouteSpec(msgspec.Struct, frozen=True):
    """How an intent reaches its program, who owns it, what a person has to do when it asks, how long ended runs are kept.

    ``at_limit``: a run that reaches a limit of its own stops with what it has, or pauses (``pause``) until somebody raises it.
    ``tenants`` is ``*`` or names; ``payload`` labels what callers send (``None``: their own request, which is trusted).
    ``owner`` answers for it, ``paging`` is who is woken for it, ``escalation`` names who comes after the owner, in order, for a run and for
    what it asks people; ``refusal`` is what who is refused is told to do instead.
    ``fallback`` names the route that takes its runs while it takes none; ``latency_ms`` is how long a caller waits for a ``sync`` run
    before it is handed off.

    ``approval_timeout_s`` is how long a proposal that needs a person waits before it is denied. It is the
    owner's first; each ``escalate_after_s`` without an answer makes it the next one's in ``escalation``. ``quorum`` different people have
    to approve. A denial or an expiry is told to the program (``tell``), or ends the run (``refuse``), whose sagas undo what they did.
    """

    intent: str
    agent: str
    owner: str = "unowned"
    task_class: str = "auto"
    risk: Risk | None = None
    autonomy: Autonomy | None = None
    modes: tuple[Mode, ...] = (Mode.ASYNC_JOB, Mode.SYNC, Mode.HUMAN_GATED)
    tenants: tuple[str, ...] = ("*",)
    limits: Limits = Limits()
    tools: tuple[str, ...] | None = None
    priority: str = "standard"
    approval_timeout_s: int = 86_400
    paging: str = ""
    refusal: str = ""
    fallback: str | None = None
    on_budget: OnBudget = OnBudget.DEGRADE
    latency_ms: int | None = None
    payload: Labels | None = None
    escalation: tuple[str, ...] = ()
    at_limit: str = "stop"
    escalate_after_s: int | None = None
    on_denial: OnAnswer = "tell"
    on_expiry: OnAnswer = "tell"
    quorum: int = 1
    retention_s: int = 400 * 86_400
