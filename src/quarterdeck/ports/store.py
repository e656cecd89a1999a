"""The seams to a store: a writer that applies operations, and readers that never decide anything.

Any number of runtimes may believe that they hold a run; only one can append, because every append is guarded in the statement that
applies it. What a store promises is written in ``docs/architecture.md`` (the append contract) and checked by one conformance
suite over every implementation.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from quarterdeck.core.commit import InboxRow, Op, Outcome
from quarterdeck.core.identity import Grant


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

    def submit(self, op: Op) -> Future[Outcome]:
        """Apply one operation durably. The future fails with ``Unavailable`` if the outcome is unknown: submit the same again."""
        ...

    def hints(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop whenever something may have become ready or an inbox may have filled. Sloppy."""
        ...

    async def close(self) -> None:
        """Apply what was submitted, then stop. Calling it twice is harmless."""
        ...


class Insights(Protocol):
    """The read side: short reads, on the calling thread, of what is committed."""

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        ...

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow]]:
        """The run's control counter and its inbox rows, read together."""
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

    def accounts(self) -> Sequence[AccountRow]:
        """Every shared account in every dimension that was ever touched."""
        ...

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        ...

    def due(self, now_us: int) -> bool:
        """Whether a claim now would find anything: a run that is ready, or one whose wake time has come."""
        ...

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        ...

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        ...

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        ...
