"""What is known of a run: the fold of its journal, without any contents.

:class:`RunState` is owned by exactly one fold; nobody keeps a reference to an older one. It is small: per-turn details are dropped
when the next turn begins, so that step 5,000 costs what step 10 costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck.core.contract import RunContract
from quarterdeck.core.labels import NO_LABELS, Labels
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import CancelMode, EffectClass, ReceiptStatus, Ruling, Status, StopReason


@dataclass(slots=True)
class CallMark:
    """How far one planned tool call has come. ``ruling`` is the gate's newest answer; ``closed`` means it has its message.

    A step of a workflow has a mark as well, of this ``kind``, for as long as it has no answer; ``undoes`` names what it compensates.
    ``endorsed`` are approvals that were granted before this one, where more than one person has to approve; ``edited_by`` is who has
    written its present arguments, if that was a person; ``asked`` how often a person was asked.
    """

    tool: str
    call_id: str
    ruling: Ruling | None = None
    reasons: tuple[str, ...] = ()
    approval: str | None = None
    opened: bool = False
    closed: ReceiptStatus | None = None
    kind: StepKind | None = None
    undoes: str = ""
    endorsed: tuple[str, ...] = ()
    edited_by: str = ""
    asked: int = 0


@dataclass(slots=True)
class ChildMark:
    """A child run that has not ended, and the share of this run's limits that is set aside for it."""

    run_id: str
    share: dict[str, int]


@dataclass(slots=True)
class OpenEffect:
    """An intent without a receipt."""

    call: str
    name: str
    effect: EffectClass
    digest: str
    key: str
    perform_by_us: int
    opened_at_us: int
    epoch: int
    idempotent: bool = False
    reconcilable: bool = False
    model: bool = False
    cancellable: bool = False
    summarises: bool = False


@dataclass(slots=True)
class ApprovalMark:
    """One approval as the journal knows it: ``outcome`` is ``pending`` until it is decided, ``consumed`` when used."""

    call: str
    digest: str
    expires_at_us: int
    outcome: str = "pending"
    by: str = ""
    owner: str = ""
    level: int = 0
    escalates_at_us: int | None = None

    @property
    def wakes_at_us(self) -> int:
        """When something happens to it by itself: it becomes the next owner's, or expires."""
        return self.expires_at_us if self.escalates_at_us is None else min(self.expires_at_us, self.escalates_at_us)


@dataclass(slots=True)
class TurnMark:
    """One turn of the transcript: the model message at ``seq`` and all answers to its calls; ``tokens`` is their size."""

    turn: int
    seq: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ProgressMark:
    """The newest report of how far a call, or a workflow itself (no call), is; its note is the payload of event ``seq``."""

    call: str
    done: int
    total: int | None
    at_us: int
    seq: int


@dataclass(slots=True)
class Effects:
    """How the effects of a run ended; a terminal run always says so."""

    succeeded: int = 0
    failed: int = 0
    unknown: int = 0
    compensated: int = 0

    def counts(self) -> dict[str, int]:
        """All four, by name."""
        return {
            "succeeded": self.succeeded,
            "failed": self.failed,
            "unknown": self.unknown,
            "compensated": self.compensated,
        }


@dataclass(slots=True)
class RunState:
    """The fold of one journal. See :mod:`quarterdeck.core.fold` for how each event changes it.

    ``calls`` are the planned calls of the present turn, ``pending`` those of them without an answer;
    ``slices`` is the escrow held of shared accounts, by (account, dimension); ``unreported`` is what was spent since the last
    time that spending was reported to them;
    ``model_failures`` counts the failed model calls of the present turn, ``model_fallen`` those that were
    the model's doing; ``limited`` is
    the code of the first limit that denied something. ``children`` are the child runs that have not ended; what they may consume counts
    as ``spent`` until then. ``counted`` is what open calls were counted as against limits over history (account, dimension, amount),
    ``uncounted`` what is to be given back of it because it was not done. ``resumes`` counts how often an operator has said to go on.
    ``started`` are the calls of tools that have a ``cancel`` hook and may have something going on outside, with the tool of each;
    ``unheard`` says that an interrupt came which no model call has seen; ``owner`` is whom the run was escalated to. ``generation`` counts
    how often the history has begun anew, last at ``begun_seq``; turns before ``summarised`` are told by a summary; a fork has a
    ``source``, and ``inherited`` says of which run its inherited steps are. ``begun``: it has intended or done something.
    ``exclusive`` are the keys that calls have taken and not given back. ``progress`` is the newest report.
    """

    contract: RunContract
    status: Status
    seq: int = 1
    epoch: int = 0
    reason: StopReason | None = None
    code: str = ""
    waiting_on: tuple[str, ...] = ()
    wake_at_us: int | None = None
    turn: int = 0
    input_tokens: int = 0
    calls: dict[str, CallMark] = field(default_factory=dict)
    pending: dict[str, CallMark] = field(default_factory=dict)
    replied: bool = False
    model_failed: str = ""
    model_failures: int = 0
    model_fallen: int = 0
    denied_replies: int = 0
    said: bool = False
    limited: str = ""
    open: dict[str, OpenEffect] = field(default_factory=dict)
    reserves: dict[str, dict[str, int]] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)
    slices: dict[tuple[str, str], int] = field(default_factory=dict)
    unreported: dict[str, int] = field(default_factory=dict)
    digests: dict[str, int] = field(default_factory=dict)
    succeeded_tools: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    exclusive: dict[str, str] = field(default_factory=dict)
    approvals: dict[str, ApprovalMark] = field(default_factory=dict)
    turns: list[TurnMark] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    labels: Labels = NO_LABELS
    cancelled_by: str = ""
    cancel_mode: CancelMode | None = None
    started: dict[str, str] = field(default_factory=dict)
    interrupts: int = 0
    unheard: bool = False
    owner: str = ""
    escalations: int = 0
    generation: int = 0
    begun_seq: int = 1
    begun_at_us: int = 0
    summarised: int = 0
    summary_tokens: int = 0
    source: str = ""
    inherited: dict[str, str] = field(default_factory=dict)
    children: dict[str, ChildMark] = field(default_factory=dict)
    paused: bool = False
    resumes: int = 0
    counted: dict[str, tuple[tuple[str, str, int], ...]] = field(default_factory=dict)
    uncounted: list[tuple[str, str, int]] = field(default_factory=list)
    last_event_at_us: int = 0
    begun: bool = False
    progress: ProgressMark | None = None

    @property
    def waits_for_people(self) -> bool:
        """Whether some call of this turn has asked and has no answer yet."""
        return any(
            mark.ruling is Ruling.ASK and mark.approval is not None and self.approvals[mark.approval].outcome == "pending"
            for mark in self.calls.values()
        )
