"""The contract of one execution: the envelope that asks for it and the record that is stored before anything happens.

A :class:`RunContract` says who asked, on whose behalf, by which route, with what autonomy, risk, budget and version set. It is
the first event of every journal and never changes afterwards; what changes (status, step, approval, checkpoint, stop reason) is
folded from the events that follow.
"""

from __future__ import annotations

import re

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.vocabulary import AdmissionAnswer, Autonomy, Dimension, Mode, Risk

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}\Z")
"""What a tenant, route, tool, agent or key may be called: no spaces, no control characters, at most 128 characters."""

MAX_KEY = 256
"""The longest idempotency, ordering or correlation key, in characters."""


def checked_name(what: str, name: str) -> str:
    """Return ``name`` if it is a legal name, or raise :class:`UsageError` (``name.invalid``) that says what is legal."""
    if not NAME.match(name):
        raise UsageError("name.invalid", f"{what} {name[:40]!r} is not a name; use 1-128 letters, digits and _.:/@+-")
    return name


def checked_key(what: str, key: str) -> str:
    """Return ``key`` if it is a legal free-form key: 1-256 printable characters."""
    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise UsageError("key.invalid", f"{what} must have 1-{MAX_KEY} printable characters")
    return key


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """What one run may consume; ``None`` means that this dimension is not limited here (an account above may still limit it).

    Counts are per run, ``context`` is tokens per model call, ``deadline_ms`` is wall-clock time since admission, ``depth`` the
    nesting of delegations, ``hops`` the length of a correlation, ``repeats`` how often the same digest may be proposed, ``work_ms`` the
    time that its calls may take, from intent to receipt, added up; waiting for people and timers is none.
    """

    turns: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    cost_microusd: int | None = None
    retries: int | None = None
    delegations: int | None = None
    compactions: int | None = None
    context: int | None = None
    deadline_ms: int | None = None
    depth: int | None = None
    hops: int | None = None
    repeats: int | None = None
    approvals: int | None = None
    work_ms: int | None = None

    def limit(self, dimension: Dimension) -> int | None:
        """The limit of one counted dimension."""
        value: int | None = getattr(self, dimension.value)
        return value

    def narrowed(self, other: Limits) -> Limits:
        """The tighter of the two in every field: a caller's budget can only narrow a route's.

        >>> Limits(turns=10, tokens=500).narrowed(Limits(turns=3, deadline_ms=900))
        Limits(turns=3, tokens=500, deadline_ms=900)
        """
        merged = {}
        for name in self.__struct_fields__:
            values = [value for value in (getattr(self, name), getattr(other, name)) if value is not None]
            merged[name] = min(values) if values else None
        return Limits(**merged)


DEFAULT_LIMITS = Limits(turns=10, tool_calls=5, context=6_000, depth=5, hops=10, repeats=3)
"""The caps of a run whose route and agent say nothing."""
OUTPUT_RESERVE = 800
"""Tokens of each model call's context that are kept for its output."""


class Caller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On whose behalf a run acts."""

    tenant: str = "default"
    user: str = "anonymous"


class EnvelopeBudget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget as an envelope spells it. ``max_steps`` counts turns of the loop."""

    deadline_ms: int | None = None
    max_steps: int | None = None
    max_tools: int | None = None
    max_tokens: int | None = None
    max_context: int | None = None
    max_cost_usd: str | None = None


class EnvelopeLabels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller says of its payload: whether somebody else wrote it, and how confidential it is."""

    integrity: Integrity = Integrity.TRUSTED
    confidentiality: Confidentiality = Confidentiality.PUBLIC


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one form in which every trigger asks for a run. Unknown fields are errors; ``intent`` names the route.

    ``priority`` is a :class:`~quarterdeck.core.vocabulary.Priority`, by default the route's. ``labels`` are joined with what the route
    says of payloads, so they can only make them less trusted and more confidential.
    """

    intent: str
    payload: object = None
    run_id: str | None = None
    caller: Caller = Caller()
    budget: EnvelopeBudget = EnvelopeBudget()
    idempotency_key: str | None = None
    correlation_id: str | None = None
    thread_id: str | None = None
    ordering_key: str | None = None
    priority: str | None = None
    mode: Mode | None = None
    labels: EnvelopeLabels | None = None


class VersionSet(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which version of each part was active when the run was admitted; content hashes, except the model's own name."""

    model: str
    prompt: str
    policy: str
    tool_schema: str
    harness: str
    retriever: str | None = None
    program: str | None = None


class RunContract(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that must be known before the first model call; stored by the admission's commit, immutable afterwards.

    Three parties: ``actor`` is the person on whose behalf it runs, ``submitted_by`` who was authenticated when it was asked for (empty
    where nobody had to be), ``service`` the identity under which its agent acts towards tools. ``labels``, where there are any, are those
    of its payload: of somebody else's content, or of what another run made after it had read such content.

    ``answer`` and ``admission`` are how it was admitted, and the code of why; ``requested`` is the route that was asked for, where
    admission has sent the run elsewhere. ``task_class`` and ``program`` are set where the agent has models by class of task.
    """

    run_id: str
    trace_id: str
    request_id: str
    correlation_id: str
    tenant: str
    actor: str
    route: str
    agent: str
    goal: str
    autonomy: Autonomy
    risk: Risk
    mode: Mode
    version_set: VersionSet
    limits: Limits
    budget_policy_version: str
    policy_version: str
    allowed_tools: tuple[str, ...]
    admitted_at_us: int
    deadline_at_us: int | None = None
    idempotency_key: str | None = None
    thread_id: str | None = None
    ordering_key: str | None = None
    parent_run_id: str | None = None
    forked_from: str | None = None
    submitted_by: str = ""
    service: str = ""
    priority: str = "standard"
    depth: int = 0
    hops: int = 0
    requested: str = ""
    answer: AdmissionAnswer = AdmissionAnswer.START
    admission: str = "admission.start"
    task_class: str = ""
    program: str = ""
    labels: Labels | None = None
