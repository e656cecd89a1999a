"""Verifying an audit log without trusting whoever keeps it: from its rows, public keys, and seals that were kept elsewhere.

What is found: a row that was changed, moved, removed or put in (the chain); that the whole chain was made anew from some row on (a seal
signs another hash there, and nobody without the key can make one that fits); that it was cut off, where a seal that was kept says more.
What is not found: that rows behind the newest kept seal were removed together with the seals among them. The result says how many rows
are behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from quarterdeck.core.audit import Audit, AuditRow, Seal, read, require_linked, seal_of, statement
from quarterdeck.core.errors import Corrupt
from quarterdeck.ports.store import AuditLog

PAGE = 1_000
"""Rows read at once."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong with a log."""

    code: str
    message: str


class Verified(msgspec.Struct, frozen=True):
    """What is known of a log: how many rows, up to which a trusted key has signed, how many actions are behind that, what is wrong."""

    rows: int
    seals: int
    sealed_to: int
    unsealed: int
    findings: tuple[Finding, ...]


def rows_of(log: AuditLog, after: int = 0) -> Iterator[AuditRow]:
    """Every row of a log behind one, in order."""
    while page := log.audit(after, PAGE):
        yield from page
        after = page[-1].seq


def actions(
    log: AuditLog, *, after: int = 0, tenants: Collection[str] | None = None, action: str = "", target: str = ""
) -> Iterator[tuple[int, Audit]]:
    """The records of a log with their numbers, without seals: those of these tenants, with this beginning of action and of target."""
    for row in rows_of(log, after):
        said = read(row)
        if not said.action.startswith(action or "") or not said.target.startswith(target):
            continue
        if (said.action != "audit.sealed" or action) and (tenants is None or said.tenant in tenants):
            yield row.seq, said


def verify(rows: Sequence[AuditRow], keys: Sequence[Ed25519PublicKey], kept: Sequence[Seal] = ()) -> Verified:
    """Verify a log. ``keys`` are those that are trusted; ``kept`` are seals from elsewhere."""
    findings: list[Finding] = []
    good = 0
    try:
        require_linked(rows)
        good = len(rows)
    except Corrupt as error:
        findings.append(Finding(error.code, error.message))
        good = int(str(error.detail.get("seq", 1))) - 1
    trusted = {key.public_bytes_raw().hex(): key for key in keys}
    hashes = {row.seq: row.hash.hex() for row in rows}
    found: list[tuple[str, Seal]] = [(f"the seal kept for row {seal.seq}", seal) for seal in kept]
    seals: set[int] = set()
    for row in rows:
        try:
            seal = seal_of(row)
        except Corrupt as error:
            findings.append(Finding(error.code, error.message))
            continue
        if seal is not None:
            seals.add(row.seq)
            found.append((f"the seal in row {row.seq}", seal))
    sealed = 0
    for where, seal in found:
        wrong = _wrong(where, seal, trusted, hashes)
        if wrong is None:
            sealed = max(sealed, seal.seq)
        elif wrong not in findings:
            findings.append(wrong)
    sealed = min(sealed, good)
    behind = sum(row.seq > sealed and row.seq not in seals for row in rows)
    return Verified(len(rows), len({seal.signature for _, seal in found}), sealed, behind, tuple(findings))


def _wrong(where: str, seal: Seal, trusted: dict[str, Ed25519PublicKey], hashes: dict[int, str]) -> Finding | None:
    key = trusted.get(seal.key)
    if key is None:
        return Finding("audit.untrusted", f"{where} is made with a key that is not trusted ({seal.key[:16]}…)")
    try:
        key.verify(bytes.fromhex(seal.signature), statement(seal.seq, bytes.fromhex(seal.hash), seal.store))
    except (InvalidSignature, ValueError):
        return Finding("audit.signature", f"{where} is not signed by its key")
    if seal.seq not in hashes:
        return Finding(
            "audit.truncated", f"{where} signs row {seal.seq}, but the log ends at {max(hashes, default=0)}; rows were cut off"
        )
    if hashes[seal.seq] != seal.hash:
        return Finding("audit.rewritten", f"{where} signs another row {seal.seq} than the log has; it was made anew")
    return None
