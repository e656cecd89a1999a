"""A commit is data: everything that one append changes, with every guard that it relies on.

The gate and the engine build :class:`Commit` values; a store applies a batch of them in one transaction, each whole or not at all,
and answers each with an :class:`Applied` or a :class:`Refused` that names the guard. Sending the same commit again after an
unknown outcome is harmless: the same bytes at the same sequence are success.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quarterdeck.core.audit import Audit
from quarterdeck.core.contract import Limits
from quarterdeck.core.events import Event, Move, encode
from quarterdeck.core.identity import Grant
from quarterdeck.core.outbox import Post
from quarterdeck.core.vocabulary import TERMINAL

MAX_RECORD = 8 * 1024 * 1024
"""The largest body or payload of one event, in bytes; a larger one is refused as poison."""


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One event as stored: its body, and its payload apart from it."""

    body: bytes
    payload: bytes | None = None


def record(event: Event, payload: bytes | None = None) -> Record:
    """The stored form of an event."""
    return Record(encode(event), payload)


class Head(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The run's row after a change of status. ``release`` gives up the lease: the run waits or has ended, and is rows only."""

    status: str
    reason: str = ""
    code: str = ""
    waiting_on: tuple[str, ...] = ()
    wake_at_us: int | None = None
    release: bool = False


class NewRun(msgspec.Struct, frozen=True, array_like=True):
    """The cold row of a run that an admission creates. ``salt`` keys the digests of its payloads and is erased with them.

    ``needs`` names the code that drives it, as workers state what they have; empty: any worker may.
    """

    tenant: str
    route: str
    agent: str
    actor: str
    admitted_at_us: int
    salt: bytes
    correlation_id: str = ""
    thread_id: str | None = None
    parent_run_id: str | None = None
    priority: str = "standard"
    ordering_key: str | None = None
    needs: str = ""


def line_of(new: NewRun) -> str | None:
    """The line in which a run stands: the runs of one tenant and route with one ordering key, in the order of their admission.

    >>> line_of(NewRun("acme", "support", "helpdesk", "ada", 0, b"")) is None
    True
    """
    return None if new.ordering_key is None else f"{new.tenant}\n{new.route}\n{new.ordering_key}"


class Key(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An idempotency key of admission: the same key with the same body digest means the same run."""

    tenant: str
    key: str
    body_digest: str
    expires_at_us: int


class Ask(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An approval row to create: one exact proposal that waits for a person."""

    approval: str
    call: str
    tool: str
    digest: str
    requested_by: str
    expires_at_us: int
    shown: bytes


class Consume(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An approval that this commit uses up; refused unless it is approved, unexpired, unused and for this digest."""

    approval: str
    digest: str
    at_us: int


class CloseApproval(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An approval that nobody can decide any more: it ``expired``, or its run ended (``withdrawn``)."""

    approval: str
    status: Literal["expired", "withdrawn"]


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A movement on a shared account; ``limit`` is the account's configured one, for the account's first appearance."""

    move: Move
    limit: int | None = None


class Take(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An exclusive key that a call of this run needs; the commit is refused (``exclusive``) while another call, of any run, has it."""

    key: str
    call: str


class Free(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An exclusive key that a call of this run has no more use for; harmless where it has none."""

    key: str
    call: str


Scalar = bool | int | float | str | None
"""A value of a statement's parameter: what JSON has, too; dates, decimals and bytes are written as texts and cast in the statement."""


class Statement(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A statement on the author's own tables in the same database, executed in the transaction of the commit that carries it.

    Parameters are written ``$1``, ``$2`` … ; with ``rows``, the commit is refused (``statement``) unless it changes exactly so many.
    """

    sql: str
    values: tuple[Scalar, ...] = ()
    rows: int | None = None


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag="deliver"):
    """Put a row into a run's inbox and bump its control, in one transaction; wakes the run if it waits.

    ``token`` makes it idempotent: a second delivery with the same token changes nothing.
    """

    run_id: str
    kind: str
    body: bytes
    at_us: int
    token: str
    audit: Audit | None = None


class Commit(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="commit"):
    """One append. ``control`` and ``facts`` are ``None`` for commits that only record what has already happened (receipts).

    ``delivers`` are rows for other runs' inboxes (one that has ended, or is not there, gets none); ``outbox`` messages that leave once
    this is durable; ``takes`` and ``frees`` exclusive keys; ``writes`` statements on the author's own tables;
    ``audit`` the row of the log, where a person has asked for the run. All or nothing.
    """

    run_id: str
    seq: int
    epoch: int
    incarnation: int
    records: tuple[Record, ...]
    at_us: int
    control: int | None = None
    facts: dict[str, int] | None = None
    head: Head | None = None
    charges: tuple[Charge, ...] = ()
    asks: tuple[Ask, ...] = ()
    consumes: tuple[Consume, ...] = ()
    closes: tuple[CloseApproval, ...] = ()
    inbox: tuple[int, ...] = ()
    new: NewRun | None = None
    key: Key | None = None
    delivers: tuple[Deliver, ...] = ()
    outbox: tuple[Post, ...] = ()
    takes: tuple[Take, ...] = ()
    frees: tuple[Free, ...] = ()
    writes: tuple[Statement, ...] = ()
    audit: Audit | None = None


def unstorable(commit: Commit) -> str | None:
    """Why no store may ever apply this commit, or ``None``; every store asks this first.

    A commit without events could not be recognised when it is sent again; an end that keeps its lease would not be final.
    """
    if not commit.records:
        return "a commit carries at least one event"
    for item in commit.records:
        if len(item.body) > MAX_RECORD or (item.payload is not None and len(item.payload) > MAX_RECORD):
            return f"an event is larger than {MAX_RECORD} bytes"
    if commit.head is not None and commit.head.status in TERMINAL and not commit.head.release:
        return "a run that ends gives up its lease"
    if commit.outbox and any(len(post.body) > MAX_RECORD for post in commit.outbox):
        return f"a message is larger than {MAX_RECORD} bytes"
    if commit.delivers and any(order.run_id == commit.run_id for order in commit.delivers):
        return "a run delivers nothing to itself"
    return None


class DecideApproval(msgspec.Struct, frozen=True, array_like=True, tag="decide"):
    """A person's answer to one approval, for exactly the digest that the person saw; delivered to the run in the same step.

    ``edited`` and ``answered`` are rejections that say what shall be instead, in ``content`` as canonical JSON: other arguments, which
    are a new proposal; or a text for the model.
    """

    approval: str
    digest: str
    outcome: Literal["approved", "rejected", "edited", "answered"]
    by: str
    reason: str
    at_us: int
    content: bytes = b""
    audit: Audit | None = None


class Claim(msgspec.Struct, frozen=True, array_like=True, tag="claim"):
    """Take up to ``limit`` runs that are ready or whose wake time has come; each gets a new epoch.

    ``token``, where it is given, makes it repeatable: a worker that sends its newest claim again, because the answer was lost, gets
    the same answer again, so that no run is held by a worker that was never told. A worker has one claim under way at a time.
    ``programs`` is the code that the worker has: it gets runs that need one of these, or none; ``None``: whatever is ready.
    """

    worker: str
    limit: int
    now_us: int
    token: str = ""
    programs: tuple[str, ...] | None = None


class GiveBack(msgspec.Struct, frozen=True, array_like=True, tag="back"):
    """Let go of a run that is held under this epoch and goes on elsewhere: it is ready at once.

    Refused by ``epoch`` if it is not held so.
    """

    run_id: str
    epoch: int
    at_us: int


class SetFact(msgspec.Struct, frozen=True, array_like=True, tag="fact"):
    """Set a fact that decisions are judged by (``switches``, ``policy``, ``release``); its version grows if the value changes.

    With ``expected``, it is refused by ``facts`` unless that is the fact's version (0: it was never set), so that of two who start from
    the same version one is told. Given again, what was applied is success.
    """

    name: str
    value: str
    at_us: int
    expected: int | None = None
    audit: Audit | None = None


class SetAccount(msgspec.Struct, frozen=True, array_like=True, tag="account"):
    """Set the limits of a shared account; what is committed and reserved stays."""

    account: str
    limits: Limits
    audit: Audit | None = None


class Erase(msgspec.Struct, frozen=True, array_like=True, tag="erase"):
    """Destroy the payloads of a terminal run, its messages and the key of their digests; the chain still verifies.

    That it was done, and by whom, is recorded once. Messages of it that have not been delivered are withdrawn.
    """

    run_id: str
    at_us: int
    by: str = ""
    reason: str = ""
    audit: Audit | None = None


class Purge(msgspec.Struct, frozen=True, array_like=True, tag="purge"):
    """Remove what is left of the runs of a route that ended more than ``retain_us`` ago.

    What time it is, is the earlier of ``now_us`` and the store's own clock: a caller's wrong clock removes nothing too early.
    Looks at ``limit`` runs behind the position ``after`` and is answered with where to go on: :class:`Purged`.
    """

    route: str
    now_us: int
    retain_us: int
    after: int = 0
    limit: int = 200


class TakePosts(msgspec.Struct, frozen=True, array_like=True, tag="take"):
    """Take the oldest message of up to ``limit`` lanes that are due; each lane is the taker's until its lease has run out."""

    limit: int
    now_us: int
    lease_us: int


class SettlePost(msgspec.Struct, frozen=True, array_like=True, tag="settle"):
    """How an attempt to deliver a message ended; refused (``post``) if the lane was taken by another since.

    ``again``: the lane rests until ``due_us``. ``dead``: the lane stands still until a person decides.
    """

    number: int
    lane: str
    ticket: int
    outcome: Literal["delivered", "again", "dead"]
    at_us: int
    due_us: int = 0
    code: str = ""


class DecidePost(msgspec.Struct, frozen=True, array_like=True, tag="post"):
    """A person's answer to a dead message: ``requeue`` or ``drop`` it. Refused (``post``) if it is not dead."""

    message: str
    action: Literal["requeue", "drop"]
    by: str
    reason: str
    at_us: int
    audit: Audit | None = None


class SettleLetter(msgspec.Struct, frozen=True, array_like=True, tag="letter"):
    """Say what became of a dead letter: it was ``requeued`` or ``dropped``. The first word counts; a second changes nothing."""

    run_id: str
    how: Literal["requeued", "dropped"]
    by: str
    why: str
    at_us: int
    audit: Audit | None = None


class AddKey(msgspec.Struct, frozen=True, array_like=True, tag="key"):
    """Store an API key: its public prefix, the SHA-256 of its text, and what it may do. The text itself never comes here.

    Refused by ``key`` if the prefix is taken, unless by exactly this key, which is success; with ``first``, also if there ever was
    any key, so that of many processes that start at once one makes the first.
    """

    prefix: str
    digest: bytes
    label: str
    subject: str
    grants: tuple[Grant, ...]
    created_by: str
    at_us: int
    expires_at_us: int | None = None
    first: bool = False
    audit: Audit | None = None


class RevokeKey(msgspec.Struct, frozen=True, array_like=True, tag="revoke"):
    """End an API key for ever. Refused by ``key`` if there is none with this prefix; a second revocation changes nothing."""

    prefix: str
    by: str
    reason: str
    at_us: int
    audit: Audit | None = None


class AddAudit(msgspec.Struct, frozen=True, array_like=True, tag="audit"):
    """Record an action that changes nothing else in the store, such as a person's judgement of a decision, or a seal."""

    audit: Audit


Op = (
    Commit
    | Deliver
    | DecideApproval
    | Claim
    | GiveBack
    | SetFact
    | SetAccount
    | Erase
    | Purge
    | TakePosts
    | SettlePost
    | DecidePost
    | SettleLetter
    | AddKey
    | RevokeKey
    | AddAudit
)
"""Everything that a store's writer applies. Where an operation carries an ``audit``, its row is written in the same transaction if, and
only if, the operation is applied; the same record again is the same action, and is not written twice.
"""


def audit_of(op: Op) -> Audit | None:
    """The record that is written with an operation, if one is."""
    return None if isinstance(op, Claim | GiveBack | Purge | TakePosts | SettlePost) else op.audit


def decision(op: DecideApproval) -> bytes:
    """The inbox row of a decision, the same bytes in every store."""
    said: dict[str, object] = {"approval": op.approval, "outcome": op.outcome, "by": op.by, "reason": op.reason}
    if op.content:
        said["content"] = msgspec.Raw(op.content)
    return msgspec.json.encode(said)


Guard = Literal[
    "incarnation",
    "run",
    "seq",
    "epoch",
    "control",
    "facts",
    "account",
    "approval",
    "key",
    "terminal",
    "poison",
    "digest",
    "decided",
    "expired",
    "self",
    "exclusive",
    "statement",
    "post",
]
"""What can refuse an operation. ``poison``: it could never be applied; the rest of its batch was."""


class Applied(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="ok"):
    """Done, durably. ``number`` is the new sequence (commit), inbox row (deliver) or version (fact)."""

    number: int


class Refused(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="no"):
    """Nothing of this operation was changed; ``guard`` names why, ``detail`` the account, the run that has the key, and so on."""

    guard: Guard
    detail: str = ""


class ClaimedRun(msgspec.Struct, frozen=True, array_like=True):
    """A run that the claimant holds now. Its journal ends at ``seq``; ``control`` must be read with its inbox before acting.

    ``deaths`` are the sequences at which its journal ended when one of its owners died without a word, the newest last.
    """

    run_id: str
    seq: int
    epoch: int
    deaths: tuple[int, ...] = ()


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag="claimed"):
    """The answer to a claim; perhaps empty."""

    runs: tuple[ClaimedRun, ...]


class TakenPost(msgspec.Struct, frozen=True, array_like=True):
    """A message that the taker may deliver now: the row, the ticket of its lane, and how often it was attempted, this time included."""

    number: int
    lane: str
    ticket: int
    attempts: int
    run_id: str
    tenant: str
    topic: str
    key: str
    message: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    at_us: int


class Taken(msgspec.Struct, frozen=True, array_like=True, tag="taken"):
    """The answer to taking messages; perhaps empty."""

    posts: tuple[TakenPost, ...]


class Purged(msgspec.Struct, frozen=True, array_like=True, tag="purged"):
    """How many runs a purge removed, and behind which position to go on; 0: the route has no more."""

    removed: int
    after: int


Outcome = Applied | Refused | Claimed | Taken | Purged
"""What a store answers to one operation."""


class InboxRow(msgspec.Struct, frozen=True, array_like=True):
    """One row of a run's inbox, not yet folded in."""

    row: int
    kind: str
    body: bytes
    at_us: int
