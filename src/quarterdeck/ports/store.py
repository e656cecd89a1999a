"""The seams to a store: a writer that applies operations, and readers that never decide anything.

Any number of runtimes may believe that they hold a run; only one can append, because every append is guarded in the statement that
applies it. What a store promises is written in ``docs/architecture.md`` (the append contract) and checked by one conformance
suite over every implementation.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from quarterdeck.core.audit import AuditRow
from quarterdeck.core.commit import InboxRow, Op, Outcome
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Grant

MAX_PAGE = 1_001
"""The most rows of one list: a thousand, and the one that tells that there are more."""


def page_size(limit: int) -> int:
    """How many rows a list gives that is asked for so many."""
    return max(1, min(limit, MAX_PAGE))


def unknown_place(kind: str, name: str) -> UsageError:
    """The answer to a list that is to go on after something that is not there."""
    return UsageError("cursor.unknown", f"no {kind} {name!r} to continue after; start from the first page")


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """One event as read back; ``payload`` is ``None`` where there is none or it was erased."""

    seq: int
    body: bytes
    payload: bytes | None
    payload_digest: bytes | None
    hash: bytes


class RunRow(msgspec.Struct, frozen=True):
    """One run as lists show it; all times in microseconds since 1970, UTC. ``head`` is the hash of its newest event."""

    run_id: str
    tenant: str
    route: str
    agent: str
    actor: str
    status: str
    reason: str
    code: str
    seq: int
    epoch: int
    worker: str | None
    waiting_on: tuple[str, ...]
    wake_at_us: int | None
    admitted_at_us: int
    updated_at_us: int
    correlation_id: str
    thread_id: str | None
    parent_run_id: str | None
    priority: str
    head: bytes


class RunPosition(msgspec.Struct, frozen=True, gc=False):
    """Where one run stands, and nothing else: the sequence of its newest event, its status, who holds it."""

    run_id: str
    seq: int
    status: str
    worker: str | None


class Opening(msgspec.Struct, frozen=True, gc=False):
    """What whoever drives a run begins with: its epoch, its control counter, the key of its payload digests, and its journal."""

    run_id: str
    epoch: int
    control: int
    salt: bytes | None
    events: list[StoredEvent]


class WorkerRow(msgspec.Struct, frozen=True):
    """One runtime that may hold runs. ``about`` is what it said of itself, as JSON; ``held`` how many runs it holds now.

    Not ``alive``: its lease has ended, and whoever claims next releases what it holds.
    """

    owner: str
    alive: bool
    held: int
    about: bytes
    beat_at_us: int | None = None
    lease_until_us: int | None = None


class LetterRow(msgspec.Struct, frozen=True):
    """What became of one dead letter: ``requeued`` or ``dropped``, by whom and why."""

    run_id: str
    how: str
    by: str
    why: str
    at_us: int


class ApprovalRow(msgspec.Struct, frozen=True):
    """One approval as a person decides it; ``shown`` are the stored canonical bytes that the digest covers."""

    approval: str
    run_id: str
    tenant: str
    call: str
    tool: str
    digest: str
    requested_by: str
    expires_at_us: int
    status: str
    decided_by: str
    reason: str
    consumed: bool
    shown: bytes


class AccountRow(msgspec.Struct, frozen=True):
    """One shared account in one dimension. ``committed + reserved <= limit`` unless a provider billed more than its bound."""

    account: str
    dimension: str
    limit: int | None
    committed: int
    reserved: int


class FactRow(msgspec.Struct, frozen=True):
    """One fact that decisions are judged by, with its version."""

    name: str
    version: int
    value: str


class KeyRow(msgspec.Struct, frozen=True):
    """One API key as stored: never its text, only the SHA-256 of it. Revoked keys stay, so that their prefix is never used again."""

    prefix: str
    digest: bytes
    label: str
    subject: str
    grants: tuple[Grant, ...]
    created_by: str
    created_at_us: int
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    revoked_by: str = ""
    reason: str = ""


class PostRow(msgspec.Struct, frozen=True):
    """One message of the outbox. ``code`` says how its newest attempt failed, ``decided_by`` who requeued or dropped it."""

    number: int
    message: str
    run_id: str
    tenant: str
    topic: str
    key: str
    status: str
    attempts: int
    code: str
    at_us: int
    decided_by: str
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class ErasureRow(msgspec.Struct, frozen=True):
    """One run whose contents were destroyed, for whom, by whom and why."""

    run_id: str
    tenant: str
    actor: str
    by: str
    reason: str
    at_us: int


class Submitted(Future[Outcome]):
    """An answer to come that knows how long its operation waited in this process before it was sent, in seconds.

    Guards are compared where the operation is applied, so after it was sent: the wait before does not make them any older.
    """

    waited_s: float = 0.0


def opened(insights: Insights, run_id: str) -> tuple[Opening, ...]:
    """What driving one run begins with, read bit by bit, for a store of this process; empty if it is to be left out."""
    control, unread, epoch = insights.inbox(run_id)
    if unread or not epoch:
        return ()
    return (Opening(run_id, epoch, control, insights.salt(run_id), list(insights.events(run_id))),)


class Journal(Protocol):
    """The write side. One instance per runtime; operations of one tick are committed as one group."""

    @property
    def incarnation(self) -> int:
        """Changes when the store was restored; part of every commit's guard."""
        ...

    @property
    def quiesced(self) -> bool:
        """Whether opening the store proved that every earlier owner has stopped acting, so that nobody has to wait them out."""
        ...

    @property
    def failing(self) -> bool:
        """Whether operations do not get through at the moment, though they may again: what readiness tells. Sloppy."""
        ...

    def submit(self, op: Op) -> Future[Outcome]:
        """Apply one operation durably. The future fails with ``Unavailable`` if the outcome is unknown: submit the same again.

        Where operations may wait long before they are sent, it is a :class:`Submitted`.
        """
        ...

    def hints(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop whenever something may have become ready or an inbox may have filled. Sloppy."""
        ...

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Say who this runtime is, as JSON, and which code it has (``None``: any); shown to others with the next heartbeat, where
        there are others. Again whenever it changes.
        """
        ...

    async def close(self) -> None:
        """Apply what was submitted, then stop. Calling it twice is harmless."""
        ...


class AuditLog(Protocol):
    """The read side of what operators did."""

    def audit(self, after: int = 0, limit: int = 1_000) -> Sequence[AuditRow]:
        """The rows of the audit log with a number greater than ``after``, in order."""
        ...


class Posts(Protocol):
    """The part of the read side that is about messages, and about what was erased."""

    def post(self, message: str) -> PostRow | None:
        """One message of the outbox, or ``None``."""
        ...

    def posts(
        self,
        *,
        status: str | None = None,
        topic: str | None = None,
        run_id: str | None = None,
        tenants: Collection[str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[PostRow]:
        """Messages of the outbox, newest first; ``before`` is the message that the previous page ended with."""
        ...

    def posts_due(self, now_us: int) -> bool:
        """Whether taking messages now would find any."""
        ...

    def erasures(self, limit: int = 1_000) -> Sequence[ErasureRow]:
        """What was erased, newest first."""
        ...


class Fleet(Protocol):
    """The read side, of who works here and what nobody could do."""

    def dead_letters(
        self, *, tenants: Collection[str] | None = None, route: str | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[RunRow]:
        """Runs that could not be done and that nobody has requeued or dropped: failed, and blocked. The newest first."""
        ...

    def letter(self, run_id: str) -> LetterRow | None:
        """What became of a run that was a dead letter, or ``None``."""
        ...

    def workers(self) -> Sequence[WorkerRow]:
        """Every runtime that may hold runs here, the oldest first."""
        ...


class Keyring(Protocol):
    """The read side, of who may come in."""

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        ...

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        ...


class Moment(Protocol):
    """The part of the read side that holds still."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Everything that is read inside sees the store at one moment; keep it short. Raises ``Unavailable`` if the connection is lost."""
        ...


class Insights(AuditLog, Posts, Fleet, Keyring, Moment, Protocol):
    """The read side: short reads, on the calling thread, of what is committed."""

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        ...

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        """The run's control counter, its unread inbox rows and its epoch, read together; ``0, [], 0`` of no run."""
        ...

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        """What driving each of these runs begins with, in any order; one with unread inbox rows is left out, as is one that was
        never claimed.

        For runs with short journals, which are read whole.
        """
        ...

    def run(self, run_id: str) -> RunRow | None:
        """One run, or ``None``."""
        ...

    def runs(
        self,
        *,
        status: str | None = None,
        route: str | None = None,
        tenants: Collection[str] | None = None,
        actor: str | None = None,
        correlation: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Runs, newest first; ``before`` is the run id that the previous page ended with, ``tenants`` whose runs (all by default)."""
        ...

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        ...

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status. For people and gauges; it decides nothing."""
        ...

    def positions(self, run_ids: Sequence[str]) -> Sequence[RunPosition]:
        """Where each of these runs stands, in one read, in any order; unknown ones are left out."""
        ...

    def approval(self, approval: str) -> ApprovalRow | None:
        """One approval, or ``None``."""
        ...

    def approvals(
        self,
        *,
        status: str | None = "pending",
        tenants: Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[ApprovalRow]:
        """Approvals, the nearest deadline first; ``after`` is the approval that the previous page ended with."""
        ...

    def accounts(self, name: str | None = None) -> Sequence[AccountRow]:
        """Every shared account, or the one of this name, in every dimension that was ever touched."""
        ...

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        ...

    def due(self, now_us: int, programs: tuple[str, ...] | None = None) -> bool:
        """Whether a claim with these programs would find anything: a run that is ready, or one whose wake time has come."""
        ...

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        ...
