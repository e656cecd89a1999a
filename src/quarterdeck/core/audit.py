"""The audit log: what operators did, as rows in a hash chain, each written in the transaction of what it tells.

A row is the record of one action; its hash covers the hash before it, its number and its bytes, as in a journal. What the chain cannot show
by itself (that it was rewritten from some row on, or cut off) shows against *seals*: rows that sign the number and hash of a row before
them with a key that the store does not hold. What is cut off together with the seals behind it shows only against a seal that was kept
elsewhere.

>>> entry(Audit("run.cancel", "ada", "run_1", 5, reason="wrong order"))
b'{"action":"run.cancel","by":"ada","target":"run_1","at_us":5,"reason":"wrong order"}'
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from quarterdeck.core.errors import Corrupt

SEAL = "audit.sealed"
"""The action of a row that signs the chain up to a row before it."""
ACTIONS = frozenset(
    {
        *("run.cancel", "run.pause", "run.resume", "run.erase", "effect.resolved", "decision.marked"),
        *("run.signal", "run.interrupt", "run.escalate", "run.budget", "run.fork", "run.purged"),
        *("dependency.changed", "dependency.restored"),
        *("approval.approved", "approval.rejected", "approval.edited", "approval.answered"),
        *("outbox.requeue", "outbox.drop", "letter.requeued", "letter.dropped"),
        *("switch.set", "switch.cleared", "switch.reached", "key.made", "key.revoked"),
        *("policy.activated", "release.activated", "account.limited", "account.near", SEAL),
    }
)
"""Every action that this version tells."""
ORIGIN = bytes(32)
"""What the first row is chained to."""


class Audit(msgspec.Struct, frozen=True, omit_defaults=True):
    """One action of an operator: who did what to what, when and why. ``detail`` is JSON text, without contents of runs."""

    action: str
    by: str
    target: str
    at_us: int
    reason: str = ""
    tenant: str = ""
    detail: str = ""


class Removed(msgspec.Struct, frozen=True):
    """What is told of a removal of old runs: how many, and what they had reported as spent, by account and dimension."""

    removed: int
    spent: tuple[tuple[str, str, int], ...] = ()


class AuditRow(msgspec.Struct, frozen=True):
    """One row as stored: its number from 1 on, the bytes of its record, and its hash."""

    seq: int
    body: bytes
    hash: bytes


class Seal(msgspec.Struct, frozen=True):
    """What a seal signs: that row ``seq`` of the log of the store ``store`` had ``hash`` (hex); with which key (hex), and the signature."""

    seq: int
    hash: str
    store: int
    key: str
    signature: str


def entry(audit: Audit) -> bytes:
    """The bytes of a record; what is stored and hashed."""
    return msgspec.json.encode(audit)


def removal(route: str, removed: int, spent: Mapping[tuple[str, str], int], at_us: int) -> Audit:
    """The record of a removal of runs that ended long ago, which keeps what the books need of them."""
    amounts = tuple([(*place, amount) for place, amount in sorted(spent.items()) if amount])
    return Audit("run.purged", "retention", route, at_us, detail=msgspec.json.encode(Removed(removed, amounts)).decode())


def read(row: AuditRow) -> Audit:
    """The record of a row; raises :class:`Corrupt` (``audit.row``) for what no version wrote."""
    try:
        return msgspec.json.decode(row.body, type=Audit)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt("audit.row", f"row {row.seq} of the audit log cannot be read ({error}); restore a backup") from None


def linked(previous: bytes, seq: int, body: bytes) -> bytes:
    """The hash of a row: over the one before it, its number and its bytes."""
    return hashlib.sha256(previous + seq.to_bytes(8, "big") + len(body).to_bytes(4, "big") + body).digest()


def statement(seq: int, digest: bytes, store: int) -> bytes:
    """What a seal's signature is over."""
    return b"quarterdeck audit seal/1\n%d\n%d\n%s" % (store, seq, digest.hex().encode())


def seal_of(row: AuditRow) -> Seal | None:
    """The seal that a row holds, if it is one; raises :class:`Corrupt` for one that cannot be read."""
    said = read(row)
    if said.action != SEAL:
        return None
    try:
        return msgspec.json.decode(said.detail, type=Seal)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt("audit.seal", f"the seal in row {row.seq} cannot be read ({error}); restore a backup") from None


def require_linked(rows: Iterable[AuditRow], previous: bytes = ORIGIN, last: int = 0) -> tuple[int, bytes]:
    """The number and hash of the last of these rows, which must follow row ``last`` without a gap.

    Raises :class:`Corrupt`: ``audit.gap`` where a row is missing, ``audit.chain`` where one is not what was written.
    """
    for row in rows:
        if row.seq != last + 1:
            raise Corrupt("audit.gap", f"row {row.seq} of the audit log follows row {last}; rows were removed", seq=row.seq)
        if linked(previous, row.seq, row.body) != row.hash:
            raise Corrupt("audit.chain", f"row {row.seq} of the audit log was changed, moved or put in", seq=row.seq)
        previous, last = row.hash, row.seq
    return last, previous


def appended(rows: Sequence[AuditRow], body: bytes) -> AuditRow:
    """The row that follows these."""
    seq, previous = (rows[-1].seq, rows[-1].hash) if rows else (0, ORIGIN)
    return AuditRow(seq + 1, body, linked(previous, seq + 1, body))
