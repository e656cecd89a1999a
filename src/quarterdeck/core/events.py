"""The events of a run's journal, all in the past tense, as one closed union.

An event has a *body* (what is known: names, digests, counts, decisions) and may have a *payload* (contents: arguments, results,
messages), which is kept apart so that it can be erased. Folding needs bodies only. Events are encoded as JSON with a ``kind``
tag; a kind is never reused with another meaning, and fields are only ever added with a default.

>>> encode(RunStarted(at_us=5, worker="w1", epoch=1))
b'{"kind":"run.started","at_us":5,"worker":"w1","epoch":1}'
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.carrying import Carried
from quarterdeck.core.contract import Limits, RunContract
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.labels import Labels
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, ReceiptStatus, Ruling, Status, StopReason


class _Event(msgspec.Struct, frozen=True, gc=False, tag_field="kind", omit_defaults=True):
    at_us: int


class RunAdmitted(_Event, frozen=True, tag="run.admitted"):
    """The run exists. Payload: what the caller sent, as canonical JSON; ``tokens`` is its estimated size as a message."""

    contract: RunContract
    tokens: int = 0


class RunStarted(_Event, frozen=True, tag="run.started"):
    """A worker holds the run, under this epoch; epochs after the first follow a wait or a crash."""

    worker: str
    epoch: int


class RunWaiting(_Event, frozen=True, tag="run.waiting"):
    """The run is rows only now. ``on`` names what wakes it; ``wake_at_us`` is the latest time at which it wakes by itself."""

    reason: StopReason
    code: str
    on: tuple[str, ...]
    wake_at_us: int | None = None


class RunFinished(_Event, frozen=True, tag="run.finished"):
    """The run has ended for good, with what became of its effects and what it consumed. Payload: its result."""

    status: Status
    reason: StopReason
    code: str
    effects: dict[str, int] = {}
    spent: dict[str, int] = {}
    labels: Labels | None = None


class CancelRequested(_Event, frozen=True, tag="run.cancel_requested"):
    """Somebody wants the run to stop; no intent commits after this one, but those that undo: unless not to ``compensate``.

    ``mode`` is a :class:`~quarterdeck.core.vocabulary.CancelMode`; where there is none, ``compensate`` says it all.
    """

    by: str
    reason: str
    compensate: bool = True
    mode: str = ""


class GateDecided(_Event, frozen=True, tag="gate.decided"):
    """What the gate answered to one proposal, and on what grounds. ``reserve`` is the worst case that is set aside.

    ``shadow`` is what the policies in shadow would have said, where that differs: an outcome and its codes.
    """

    call: str
    proposal: ProposalKind
    name: str
    digest: str
    ruling: Ruling
    reasons: tuple[str, ...] = ()
    reserve: dict[str, int] = {}
    policy: str = ""
    approval: str | None = None
    shadow: tuple[str, ...] = ()


class Planned(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A call that a model proposed: its step's key, the model's own id for it, and the tool it names (perhaps no such tool)."""

    call: str
    call_id: str
    tool: str


class ModelOpened(_Event, frozen=True, tag="model.opened"):
    """The intent of one model call. The model sees turns ``first`` up to the present; ``omitted`` earlier ones are left out.

    ``summarises``: it is no turn; it is to tell the turns before this one.
    """

    call: str
    model: str
    key: str
    perform_by_us: int
    max_output_tokens: int
    first: int = 0
    omitted: int = 0
    summarises: int = 0


class ModelClosed(_Event, frozen=True, tag="model.closed"):
    """The receipt of a model call, with what was billed; ``said`` if there was text. Payload: text and calls as written."""

    call: str
    status: ReceiptStatus
    code: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0
    attempts: int = 1
    tokens: int = 0
    finish: str = ""
    calls: tuple[Planned, ...] = ()
    said: bool = False


class ContextCompacted(_Event, frozen=True, tag="context.compacted"):
    """From now on the model sees a summary in place of the turns before ``upto``. Payload: the summary.

    ``call`` is the model call that wrote it, ``before`` what those turns took of the context, ``tokens`` what it takes.
    """

    call: str
    upto: int
    before: int
    tokens: int


class ToolOpened(_Event, frozen=True, tag="tool.opened"):
    """The intent of one tool call, under the idempotency key that the tool receives; ``exclusive`` is the key that it has taken."""

    call: str
    tool: str
    effect: EffectClass
    digest: str
    key: str
    perform_by_us: int
    idempotent: bool = False
    reconcilable: bool = False
    cancellable: bool = False
    exclusive: str = ""


class ToolClosed(_Event, frozen=True, tag="tool.closed"):
    """The receipt of a tool call. Payload: the result, or the error as the model may see it."""

    call: str
    status: ReceiptStatus
    code: str = ""
    cost_microusd: int = 0
    attempts: int = 1
    tokens: int = 0
    labels: Labels | None = None


class EffectReopened(_Event, frozen=True, tag="effect.reopened"):
    """After a crash, an open intent whose effect may be repeated is about to be performed again, under its old key."""

    call: str
    perform_by_us: int


class EffectResolved(_Event, frozen=True, tag="effect.resolved"):
    """An effect that was unknown is known now: a late receipt, or a person, says how it ended. Payload: the evidence.

    ``again``: it did not happen, and shall be proposed once more, as it was.
    """

    call: str
    status: ReceiptStatus
    by: str
    tokens: int = 0
    labels: Labels | None = None
    again: bool = False


class Move(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One movement on a shared account in one dimension: amounts newly ``leased`` to, ``returned`` by and ``spent`` by a run."""

    account: str
    dimension: str
    leased: int = 0
    returned: int = 0
    spent: int = 0


class BudgetMoved(_Event, frozen=True, tag="budget.moved"):
    """Slices of shared accounts were leased to this run, or came back. A ``report`` states all that was spent since the last.

    ``call``: this call was counted against limits over history.
    """

    moves: tuple[Move, ...]
    report: bool = False
    call: str = ""


class BudgetRaised(_Event, frozen=True, tag="budget.raised"):
    """Somebody has set limits of this run anew; those that are not named stay."""

    by: str
    limits: Limits
    reason: str = ""


class ApprovalRequested(_Event, frozen=True, tag="approval.requested"):
    """One exact proposal waits for a person until ``expires_at_us``. Payload: what the person is shown."""

    approval: str
    call: str
    digest: str
    expires_at_us: int
    reasons: tuple[str, ...] = ()
    owner: str = ""
    escalates_at_us: int | None = None


class ApprovalEscalated(_Event, frozen=True, tag="approval.handed_on"):
    """Nobody has answered in time: the approval is the next owner's. ``escalates_at_us`` is when it is the one's after that."""

    approval: str
    owner: str
    level: int
    escalates_at_us: int | None = None


class ApprovalDecided(_Event, frozen=True, tag="approval.decided"):
    """A person (or the clock) answered: ``approved``, ``rejected``, ``expired``, ``edited`` or ``answered``.

    Payload of the last two: the arguments that the person wants for ``call`` instead, which are a new proposal; a text for the program.
    """

    approval: str
    outcome: str
    by: str
    reason: str = ""
    call: str = ""


class EffectContradicted(_Event, frozen=True, tag="effect.contradicted"):
    """A late receipt says something else of an effect than is recorded. The record stands; this is evidence. Payload: what it says."""

    call: str
    recorded: ReceiptStatus
    status: ReceiptStatus
    by: str


class StepProposed(_Event, frozen=True, tag="step.proposed"):
    """A workflow asks for a step. Payload: its arguments.

    ``due_us`` is when a timer fires or a wait ends; ``undoes`` the call that this step compensates.
    """

    call: str
    step: StepKind
    name: str
    digest: str
    due_us: int | None = None
    undoes: str = ""


class StepClosed(_Event, frozen=True, tag="step.closed"):
    """How a step of a workflow ended that is no model or tool call. Payload: what the workflow is given."""

    call: str
    status: ReceiptStatus
    code: str = ""
    attempts: int = 1


class ChildOpened(_Event, frozen=True, tag="child.opened"):
    """A run is delegated to: it is, or is about to be, admitted under this id, and may consume ``share`` of what this run may."""

    call: str
    run_id: str
    route: str
    share: dict[str, int] = {}


class ChildEnded(_Event, frozen=True, tag="child.ended"):
    """A child run has ended, and what it consumed. Payload: its output."""

    call: str
    run_id: str
    status: Status
    reason: StopReason
    code: str
    spent: dict[str, int] = {}
    labels: Labels | None = None


class SignalReceived(_Event, frozen=True, tag="signal.received"):
    """Somebody sent the run a message. Payload: its contents."""

    name: str
    by: str = ""


class RunInterrupted(_Event, frozen=True, tag="run.interrupted"):
    """Somebody told the run something that goes before whatever it was about to do. Payload: what.

    ``withdrawn`` are the planned calls that had not begun: the model sees the message first, and proposes anew. ``labels`` is what
    the message adds to those of the run; ``tokens`` its estimated size.
    """

    by: str
    withdrawn: tuple[str, ...] = ()
    tokens: int = 0
    labels: Labels | None = None


class RunEscalated(_Event, frozen=True, tag="run.escalated"):
    """The run is somebody else's concern now: the next owner's of its route."""

    by: str
    to: str
    reason: str = ""


class RunContinued(_Event, frozen=True, tag="run.continued"):
    """A fresh history of the same run: folding and replay may begin here. Payload: what a workflow begins with, or the part of an
    agent's transcript that is still in sight.
    """

    generation: int
    contract: RunContract
    carried: Carried = Carried()


class RunForked(_Event, frozen=True, tag="run.forked"):
    """This run goes on where another one was after its event ``at``, whose hash was ``head``. Nothing before is done again. Payload:
    the part of an agent's transcript that is in sight.

    ``seed`` is what the source drew its numbers from, ``begun_at_us`` when the generation of its history began that is gone on with;
    ``edited`` is the step whose result is another one here.
    """

    source: str
    at: int
    head: str
    by: str
    seed: str = ""
    edited: str = ""
    generation: int = 0
    begun_at_us: int = 0
    carried: Carried = Carried()


class StepInherited(_Event, frozen=True, tag="step.inherited"):
    """A step of the source of a fork was answered there; its effect is the source's. Payload: what the workflow is given.

    ``answer`` is the source's event at ``seq``, as it is stored.
    """

    call: str
    source: str
    seq: int
    answer: str
    edited: bool = False


class RunPaused(_Event, frozen=True, tag="run.paused"):
    """An operator lets the run begin nothing new."""

    by: str
    reason: str = ""


class RunResumed(_Event, frozen=True, tag="run.resumed"):
    """An operator lets the run go on: after a pause, with other code after a divergence, or to try once more what was stuck.

    ``done``: it was done by hand.
    """

    by: str
    reason: str = ""
    done: bool = False


class RunProgressed(_Event, frozen=True, tag="run.progress"):
    """A call, or the workflow itself (``call`` is empty), says how far it is: ``done`` of ``total``, where that is known, in units of its
    own. Payload: a sentence for people, where there is one.
    """

    call: str
    done: int
    total: int | None = None


class ReplayDiverged(_Event, frozen=True, tag="replay.diverged"):
    """Executed again, the workflow asked for something else than is recorded; nothing was done. Both sides, without contents."""

    recorded: str
    proposed: str


Event = (
    RunAdmitted
    | RunStarted
    | RunWaiting
    | RunFinished
    | CancelRequested
    | GateDecided
    | ModelOpened
    | ModelClosed
    | ContextCompacted
    | ToolOpened
    | ToolClosed
    | EffectReopened
    | EffectResolved
    | BudgetMoved
    | BudgetRaised
    | ApprovalRequested
    | ApprovalEscalated
    | ApprovalDecided
    | EffectContradicted
    | StepProposed
    | StepClosed
    | ChildOpened
    | ChildEnded
    | SignalReceived
    | RunInterrupted
    | RunEscalated
    | RunContinued
    | RunForked
    | StepInherited
    | RunPaused
    | RunResumed
    | ReplayDiverged
    | RunProgressed
)
"""Every event that a journal can hold."""

KINDS: dict[str, type] = {str(kind.__struct_config__.tag): kind for kind in Event.__args__}
"""Event kinds by tag; the catalogue in the docs is checked against it."""
_KIND_OF: dict[type, str] = {kind: tag for tag, kind in KINDS.items()}

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def kind_of(event: Event) -> str:
    """The dotted kind of an event."""
    return _KIND_OF[type(event)]


def encode(event: Event) -> bytes:
    """An event's body as JSON bytes; what is hashed and stored."""
    return _ENCODER.encode(event)


def decode(body: bytes) -> Event:
    """The event of stored bytes; raises :class:`Corrupt` (``journal.event``) for anything that no version of this code wrote."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt("journal.event", f"a stored event cannot be read ({error}); verify the journal") from None
