"""Specifications: what a tool, an agent and a route are declared to be.

They are facts for the gate. A tool's spec is its manifest: schema, effect class, permissions, time-out, idempotency, how to find
out what happened, how to undo it. Nothing here is callable; the code behind a spec lives in the room ``tools``.
"""

from __future__ import annotations

import hashlib

import msgspec

from quarterdeck.core.contract import DEFAULT_LIMITS, OUTPUT_RESERVE, Limits
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, Risk


class ToolSpec(msgspec.Struct, frozen=True):
    """The manifest of one tool. ``input_schema`` is JSON Schema, encoded as JSON; ``cost_microusd`` is the worst case per call.

    ``idempotent`` promises that the tool performs at most one effect per idempotency key, for ``idempotent_for_s`` seconds.
    ``evidence`` names tools of which at least one call must have succeeded in this run before this one may be called.
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
    timeout_s: float = 30.0
    permissions: tuple[str, ...] = ()
    sandbox: str = "in_process"
    cost_microusd: int = 0
    evidence: tuple[str, ...] = ()
    integrity: Integrity = Integrity.TRUSTED
    confidentiality: Confidentiality = Confidentiality.PUBLIC

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
    """What to do near a limit: from ``at`` (a fraction of any limit) on, use another model and a shorter answer."""

    model: str
    at: float = 0.8
    max_output_tokens: int = 200


class AgentSpec(msgspec.Struct, frozen=True):
    """A program: the tools it may name, and how far it may go by itself. A loop around a model, with its instructions; or a workflow,
    which has no model, and a hash of its code as ``program``.
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


class RouteSpec(msgspec.Struct, frozen=True):
    """How an intent reaches its program, who owns it, and what a person has to do when it asks.

    ``tenants`` is ``*`` or names; ``approval_timeout_s`` is how long a proposal that needs a person waits before it is denied.
    """

    intent: str
    agent: str
    owner: str = "unowned"
    task_class: str = "standard"
    risk: Risk | None = None
    autonomy: Autonomy | None = None
    modes: tuple[Mode, ...] = (Mode.ASYNC_JOB, Mode.SYNC, Mode.HUMAN_GATED)
    tenants: tuple[str, ...] = ("*",)
    limits: Limits = Limits()
    tools: tuple[str, ...] | None = None
    priority: str = "standard"
    approval_timeout_s: int = 86_400
