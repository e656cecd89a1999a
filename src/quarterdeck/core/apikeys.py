"""The form of an API key, and how it is checked: pure functions over text.

``qd_<prefix>_<secret><check>``: a public prefix of ten characters that finds the stored row, 32 unguessable bytes, and a checksum, so
that a key that was cut or mistyped is refused without asking a store. A store keeps the prefix and the SHA-256 of the whole text; 256
random bits need no slower hash. The shape is fixed, so that scanners for leaked secrets can find it (:data:`SHAPE`).

>>> key = assembled(bytes(10), bytes(32))
>>> prefix_of(key), len(key)
('aaaaaaaaaa', 63)
>>> prefix_of(key[:-1] + "x") is None
True
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from base64 import urlsafe_b64encode

PREFIX_BYTES = 10
"""Random bytes that become a key's public prefix, one character each."""
SECRET_BYTES = 32
"""Random bytes of a key's secret part."""
SHAPE = re.compile(r"qd_([a-z2-7]{10})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{6})", re.ASCII)
"""What every key looks like."""
SCHEME = "qd_"
"""How every key begins."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def assembled(prefix: bytes, secret: bytes) -> str:
    """The key that these random bytes make. Raises :class:`ValueError` unless there are exactly as many as a key needs."""
    if len(prefix) != PREFIX_BYTES or len(secret) != SECRET_BYTES:
        raise ValueError("a key is made of 10 and 32 random bytes")
    public = "".join(_ALPHABET[byte % 32] for byte in prefix)
    body = f"{SCHEME}{public}_{_text(secret)}"
    return body + _check(body)


def prefix_of(key: str) -> str | None:
    """The public prefix of a key whose shape and checksum are right, ``None`` for every other text; it proves nothing."""
    if SHAPE.fullmatch(key) is None or _check(key[:-6]) != key[-6:]:
        return None
    return key[len(SCHEME) : len(SCHEME) + PREFIX_BYTES]


def digest_of(key: str) -> bytes:
    """What a store keeps of a key: the SHA-256 of its whole text."""
    return hashlib.sha256(key.encode()).digest()


def matches(key: str, digest: bytes) -> bool:
    """Whether ``digest`` is of this very key; the time it takes does not depend on where they differ."""
    return hmac.compare_digest(digest_of(key), digest)


def _check(body: str) -> str:
    """CRC-32 as six characters: of ``body`` it notices every error within four neighbouring characters, and nearly all others."""
    return _text(zlib.crc32(body.encode()).to_bytes(4, "big"))


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
