"""A commit is data: everything that one append changes, with every guard that it relies on.

The gate and the engine build :class:`Commit` values; a store applies a batch of them in one transaction, each whole or not at all,
and answers each with an :class:`Applied` or a :class:`Refused` that names the guard. Sending the same commit again after an
unknown outcome is harmless: the same bytes at the same sequence are success.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quarterdeck.core.contract import Limits
from quarterdeck.core.events import Event, Move, encode
from quarterdeck.core.identity import Grant
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
    """The cold row of a run that an admission creates. ``salt`` keys the digests of its payloads and is erased with them."""

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


class Commit(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="commit"):
    """One append. ``control`` and ``facts`` are ``None`` for commits that only record what has already happened (receipts)."""

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
    return None


class Deliver(msgspec.Struct, frozen=True, array_like=True, tag="deliver"):
    """Put a row into a run's inbox and bump its control, in one transaction; wakes the run if it waits.

    ``token`` makes it idempotent: a second delivery with the same token changes nothing.
    """

    run_id: str
    kind: str
    body: bytes
    at_us: int
    token: str


class DecideApproval(msgspec.Struct, frozen=True, array_like=True, tag="decide"):
    """A person's answer to one approval, for exactly the digest that the person saw; delivered to the run in the same step."""

    approval: str
    digest: str
    outcome: Literal["approved", "rejected"]
    by: str
    reason: str
    at_us: int


class Claim(msgspec.Struct, frozen=True, array_like=True, tag="claim"):
    """Take up to ``limit`` runs that are ready or whose wake time has come; each gets a new epoch.

    ``token``, where it is given, makes it repeatable: a worker that sends its newest claim again, because the answer was lost, gets
    the same answer again, so that no run is held by a worker that was never told. A worker has one claim under way at a time.
    """

    worker: str
    limit: int
    now_us: int
    token: str = ""


class SetFact(msgspec.Struct, frozen=True, array_like=True, tag="fact"):
    """Set a fact that decisions are judged by (``switches``, ``policy``, ``release``); its version grows if the value changes."""

    name: str
    value: str
    at_us: int


class SetAccount(msgspec.Struct, frozen=True, array_like=True, tag="account"):
    """Set the limits of a shared account; what is committed and reserved stays."""

    account: str
    limits: Limits


class Erase(msgspec.Struct, frozen=True, array_like=True, tag="erase"):
    """Destroy the payloads of a terminal run and the key of their digests; the chain still verifies."""

    run_id: str
    at_us: int


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


class RevokeKey(msgspec.Struct, frozen=True, array_like=True, tag="revoke"):
    """End an API key for ever. Refused by ``key`` if there is none with this prefix; a second revocation changes nothing."""

    prefix: str
    by: str
    reason: str
    at_us: int


Op = Commit | Deliver | DecideApproval | Claim | SetFact | SetAccount | Erase | AddKey | RevokeKey
"""Everything that a store's writer applies."""

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
    """A run that the claimant holds now. Its journal ends at ``seq``; ``control`` must be read with its inbox before acting."""

    run_id: str
    seq: int
    epoch: int


class Claimed(msgspec.Struct, frozen=True, array_like=True, tag="claimed"):
    """The answer to a claim; perhaps empty."""

    runs: tuple[ClaimedRun, ...]


Outcome = Applied | Refused | Claimed
"""What a store answers to one operation."""


class InboxRow(msgspec.Struct, frozen=True, array_like=True):
    """One row of a run's inbox, not yet folded in."""

    row: int
    kind: str
    body: bytes
    at_us: int
