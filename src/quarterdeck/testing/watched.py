"""What the oracle of a simulation remembers of each run."""

from __future__ import annotations

from dataclasses import dataclass, field

from quarterdeck.core import events as ev
from quarterdeck.core.commit import InboxRow
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus, Ruling
from quarterdeck.engine.transcript import Transcript
from quarterdeck.ports.model import Message
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.store.chain import GENESIS

INTENTS = (ev.ModelOpened, ev.ToolOpened, ev.EffectReopened)
"""Events after which something may be done."""
RECEIPTS = (ev.ModelClosed, ev.ToolClosed, ev.EffectResolved)
"""Events that say how something ended."""


@dataclass(slots=True)
class Open:
    """An intent that the journal holds and no receipt has closed."""

    name: str
    key: str
    digest: str
    model: bool
    idempotent: bool
    reconcilable: bool
    effect: EffectClass
    worker: str
    epoch: int
    opened_s: float
    submitted_s: float
    until_s: float
    attempts: int = 0
    max_output_tokens: int = 0
    messages: tuple[Message, ...] = ()


@dataclass(slots=True)
class Watched:
    """What the oracle knows of one run, from its journal and from who was given it."""

    run_id: str
    state: RunState
    transcript: Transcript
    head: bytes = GENESIS
    seq: int = 0
    epoch: int = 0
    holder: str | None = None
    control: int = 0
    cancelled_s: float | None = None
    open: dict[str, Open] = field(default_factory=dict)
    allows: dict[str, str] = field(default_factory=dict)
    effects: dict[str, Open] = field(default_factory=dict)
    ended: dict[str, ReceiptStatus] = field(default_factory=dict)
    asked_by: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    consumed: set[str] = field(default_factory=set)
    ruled: dict[str, Ruling] = field(default_factory=dict)
    venture: Venturing | None = None


@dataclass(slots=True)
class Done:
    """A completed step that could be undone: the saga that it belongs to, and how often it was undone."""

    call: str
    saga: str
    undone: int = 0


@dataclass(slots=True)
class Venturing:
    """What the oracle knows of a workflow: its steps, with their arguments, and what must be undone of it."""

    steps: dict[str, tuple[ev.StepProposed, bytes]] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    news: list[bytes] = field(default_factory=list)
    children: dict[str, str] = field(default_factory=dict)
    delegated: dict[str, int] = field(default_factory=dict)
    marked: bool = False


@dataclass(slots=True)
class Before:
    """What an operation found."""

    approvals: dict[str, ApprovalRow] = field(default_factory=dict)
    waiting: dict[str, tuple[int | None, bool]] = field(default_factory=dict)
    inbox: dict[int, InboxRow] = field(default_factory=dict)


def class_of(opened: Open) -> str:
    """What a crash may do about an open intent: ``model``, ``read``, ``idempotent``, ``reconcilable`` or ``other``."""
    if opened.model:
        return "model"
    if opened.effect is EffectClass.READ:
        return "read"
    if opened.idempotent:
        return "idempotent"
    return "reconcilable" if opened.reconcilable else "other"


def kind_of_body(body: bytes) -> str:
    """The kind of an encoded event, without decoding it."""
    return body[9 : body.index(b'"', 9)].decode()
