"""The notary: signs the audit log, so that rewriting it or cutting it off is found by somebody who has only the public key.

The key is made on the first start, in a file that its owner alone can read, apart from the store; its public half lies beside it. A seal is
a row of the log itself that signs the number and hash of a row before it, and a line of a file beside the store, so that a log that was cut
off behind a seal is found as long as that file, or a copy of it, is there. The notary signs only what follows what it has signed before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from quarterdeck.core.audit import ORIGIN, SEAL, Audit, Seal, require_linked, seal_of, statement
from quarterdeck.core.commit import AddAudit, Applied, Op, Refused, audit_of
from quarterdeck.core.errors import Corrupt, Unavailable, UsageError
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import AuditLog

KEY_VARIABLE = "QUARTERDECK_AUDIT_KEY"
"""Names the key's file where it shall lie elsewhere than beside the store."""
PAGE = 1_000
"""Rows read at once."""
Apply = Callable[[Op], Awaitable[Applied | Refused]]
_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder(order="deterministic")


def key_path(store: Path | None) -> Path | None:
    """Where the key of a store lies: where the variable says, else beside the file; ``None`` for a database without the variable."""
    named = os.environ.get(KEY_VARIABLE)
    if named:
        return Path(named)
    return None if store is None else store.with_name(f"{store.name}.audit-key")


def public_path(key: Path) -> Path:
    """Where the public half of a key lies."""
    return key.with_name(f"{key.name}.pub")


def seals_path(key: Path) -> Path:
    """Where the seals that a key has made are kept beside the store."""
    return key.with_name(f"{key.name}.seals")


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key of this file; made, with mode 0600, if there is none. Raises :class:`UsageError` (``audit.key``) for another file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _present(path)
    except OSError as error:
        raise UsageError("audit.key", f"{path} cannot be written ({error.strerror}); name another in {KEY_VARIABLE}") from None
    made = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    public_path(path).write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return made


def public_key(path: Path) -> Ed25519PublicKey:
    """A public key from its file; raises :class:`UsageError` (``audit.key``)."""
    try:
        found = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError("audit.key", f"{path} holds no public key ({error})") from None
    if not isinstance(found, Ed25519PublicKey):
        raise UsageError("audit.key", f"{path} holds a key of another kind; it must be Ed25519")
    return found


def name_of(key: Ed25519PublicKey) -> str:
    """A public key as hex; how seals name it."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def kept_seals(path: Path) -> list[Seal]:
    """The seals that were kept in a file; raises :class:`Corrupt` (``audit.seals``) for what is none."""
    try:
        return [msgspec.json.decode(line, type=Seal) for line in path.read_bytes().splitlines() if line.strip()]
    except msgspec.MsgspecError as error:
        raise Corrupt("audit.seals", f"{path} cannot be read ({error})") from None


class Notary:
    """Signs one store's log with one key. ``broken`` is what was found wrong with the log; then nothing more is signed."""

    def __init__(self, apply: Apply, log: AuditLog, clock: Clock, store: int, path: Path) -> None:
        self._apply = apply
        self._audit = log
        self._clock = clock
        self._store = store
        self._path = path
        self._key = signing_key(path)
        self._last, self._head = 0, ORIGIN
        self._unsealed = False
        self._working = False
        self.broken: Corrupt | None = None

    @property
    def behind(self) -> bool:
        """Whether the log has rows that this notary has not looked at."""
        return self.broken is None and bool(self._audit.audit(self._last, 1))

    async def seal(self) -> Seal | None:
        """Sign the log up to now, if something was told since the last seal. Never fails because of the log: what is wrong is logged."""
        if self._working or self.broken is not None:
            return None
        self._working = True
        try:
            if not self._look():
                return None
            made = self._signed(self._last, self._head)
            told = Audit(SEAL, "notary", str(made.seq), self._clock.now_us(), detail=_encoder.encode(made).decode())
            if isinstance(await self._apply(AddAudit(told)), Applied):
                self._keep(made)
                self._unsealed = False
                return made
            return None
        except Unavailable as error:
            _log.warning("the audit log was not signed now: %s", error)
            return None
        except Corrupt as error:
            self.broken = error
            _log.error("the audit log is not signed any more: %s", error)
            return None
        finally:
            self._working = False

    def _look(self) -> bool:
        """Read what is new; whether any of it is no seal."""
        while page := self._audit.audit(self._last, PAGE):
            self._last, self._head = require_linked(page, self._head, self._last)
            for row in page:
                # Whoever sealed this row has sealed those before it, but not what came between the look and the seal.
                sealed = seal_of(row)
                self._unsealed = row.seq - 1 > sealed.seq if sealed is not None else True
            if len(page) < PAGE:
                break
        return self._unsealed

    def _signed(self, seq: int, head: bytes) -> Seal:
        signature = self._key.sign(statement(seq, head, self._store))
        return Seal(seq, head.hex(), self._store, name_of(self._key.public_key()), signature.hex())

    def _keep(self, made: Seal) -> None:
        with seals_path(self._path).open("ab") as file:
            file.write(_encoder.encode(made) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def sealing(apply: Apply, notary: Notary) -> Apply:
    """Applies operations, and has the log signed behind each that is told in it."""

    async def applied(op: Op) -> Applied | Refused:
        outcome = await apply(op)
        if audit_of(op) is not None and isinstance(outcome, Applied):
            await notary.seal()
        return outcome

    return applied


def _present(path: Path) -> Ed25519PrivateKey:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise UsageError("audit.key", f"{path} can be read by others (mode {mode:03o}); chmod 600 it")
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise UsageError("audit.key", f"{path} holds no key ({error}); name another in {KEY_VARIABLE}") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise UsageError("audit.key", f"{path} holds a key of another kind; it must be Ed25519")
    return found
