"""Making, ending and listing API keys; the routes and the command line call these and decide nothing themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from quarterdeck.core.apikeys import PREFIX_BYTES, SECRET_BYTES, assembled, digest_of, prefix_of
from quarterdeck.core.audit import Audit
from quarterdeck.core.commit import AddKey, Applied, Op, Outcome, RevokeKey
from quarterdeck.core.contract import checked_key
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.identity import EVERY_TENANT, Action, Grant, Principal, Role, checked_grants, checked_subject
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.store import Insights, KeyRow
from quarterdeck.server.identity.keyring import KeyCache

MAX_KEYS = 10_000
"""The most keys in force at once."""
MAX_LIFETIME_S = 10 * 366 * 86_400
"""The longest time until a key expires, in seconds; a key without an expiry says so in every list."""

Apply = Callable[[Op], Awaitable[Outcome]]
"""Applies one operation durably: a journal's ``submit``, or a visitor's way to a file that another process owns. Giving the same
operation again after an unknown outcome is harmless, so whatever repeats by itself may stand here too."""

LOCAL_OPERATOR = Principal("local operator", "service", (Grant(EVERY_TENANT, Role.ADMIN),))
"""Who acts for somebody that can write the store's file itself: the command line. It is how to get in again after losing every key."""


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a new key: who it stands for, what it may do where, and for how long (``None``: until it is revoked)."""

    subject: str
    label: str
    grants: tuple[Grant, ...]
    lifetime_s: int | None = None


class KeyInfo(msgspec.Struct, frozen=True):
    """One key as lists show it. ``status`` is ``active``, ``expired`` or ``revoked``; times in microseconds since 1970, UTC."""

    prefix: str
    status: str
    label: str
    subject: str
    grants: tuple[Grant, ...]
    created_by: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    revoked_by: str
    reason: str


class NewKey:
    """A key that was just made. ``text`` is shown to its holder once; nothing can give it back later, and printing this does not."""

    __slots__ = ("info", "text")

    def __init__(self, text: str, info: KeyInfo) -> None:
        self.text = text
        self.info = info

    def __repr__(self) -> str:
        return f"NewKey(qd_{self.info.prefix}_..., {self.info.subject!r})"


async def create_key(
    apply: Apply, insights: Insights, clock: Clock, entropy: Entropy, *, request: KeyRequest, by: Principal
) -> NewKey:
    """Make a key; it is durable when this returns.

    Raises :class:`Refused` (``auth.beyond_rights``) unless ``by`` manages keys in every tenant of the grants and holds each right that
    they give, and :class:`UsageError` for a request that does not fit. If it raises :class:`Unavailable`, a key may have been stored
    whose text nobody has; it shows in the list and can be revoked.
    """
    grants = checked_grants(request.grants)
    subject, label = checked_subject(request.subject), checked_key("label", request.label)
    lifetime_s = request.lifetime_s
    if lifetime_s is not None and not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise UsageError("auth.lifetime", f"a key lives 1-{MAX_LIFETIME_S} seconds, or without limit")
    if not by.may_give(grants):
        raise Refused("auth.beyond_rights", f"{by.subject} may not hand out these rights; ask somebody who has them")
    now_us = clock.now_us()
    rows = insights.keys()
    if sum(_status(row, now_us) == "active" for row in rows) >= MAX_KEYS:
        raise UsageError("auth.keys_full", f"there are {MAX_KEYS} keys in force; revoke some first")
    expires_at_us = None if lifetime_s is None else now_us + lifetime_s * 1_000_000
    text, op = _minted(entropy, AddKey("", b"", label, subject, grants, by.subject, now_us, expires_at_us), by.subject)
    if not await _applied(apply, op):
        raise UsageError("auth.key_taken", "another key has this prefix, by chance; make it again")
    return NewKey(text, _info(_row(op), now_us))


async def revoke_key(
    apply: Apply,
    insights: Insights,
    clock: Clock,
    *,
    prefix: str,
    by: Principal,
    reason: str = "",
    cache: KeyCache | None = None,
) -> KeyInfo:
    """End a key for ever; a second time changes nothing. This process forgets it at once if ``cache`` is its authenticator's.

    Raises :class:`UsageError` (``auth.no_such_key``) for a prefix that does not exist, or that ``by`` may not know of.
    """
    row = insights.key(prefix)
    if row is None or not _manages(by, row):
        raise UsageError("auth.no_such_key", f"there is no key {prefix[:40]!r}; list the keys for their prefixes")
    now_us = clock.now_us()
    why = checked_key("reason", reason) if reason else ""
    told = Audit("key.revoked", by.subject, f"key:{prefix}", now_us, why)
    if not await _applied(apply, RevokeKey(prefix, by.subject, why, now_us, told)):
        raise UsageError("auth.no_such_key", f"there is no key {prefix[:40]!r}; list the keys for their prefixes")
    if cache is not None:
        cache.forget(prefix)
    return _info(insights.key(prefix) or row, clock.now_us())


def list_keys(insights: Insights, clock: Clock, *, by: Principal) -> Sequence[KeyInfo]:
    """The keys that ``by`` manages, the oldest first: those whose every grant is in a tenant where ``by`` manages keys."""
    rows = insights.keys()
    return [_info(row, clock.now_us()) for row in rows if _manages(by, row)]


async def ensure_first_admin(apply: Apply, insights: Insights, clock: Clock, entropy: Entropy) -> str | None:
    """Make a key with every right in a store that never had any, and return its text, to be printed once; otherwise ``None``.

    Of many processes that start at once, one makes it. It is made once in a store's life: neither revoking nor losing it makes another.
    """
    if insights.keys():
        return None
    grants = (Grant(EVERY_TENANT, Role.ADMIN),)
    text, op = _minted(
        entropy, AddKey("", b"", "first key", "admin", grants, "first start", clock.now_us(), first=True), "first start"
    )
    return text if await _applied(apply, op) else None


def _minted(entropy: Entropy, op: AddKey, by: str) -> tuple[str, AddKey]:
    text = assembled(entropy.token(PREFIX_BYTES), entropy.token(SECRET_BYTES))
    prefix = prefix_of(text) or ""
    digest, grants = digest_of(text), [f"{grant.role}@{grant.tenant}" for grant in op.grants]
    given = {"subject": op.subject, "grants": grants, "digest": digest.hex()}
    told = Audit("key.made", by, f"key:{prefix}", op.at_us, detail=msgspec.json.encode(given).decode())
    return text, msgspec.structs.replace(op, prefix=prefix, digest=digest, audit=told)


async def _applied(apply: Apply, op: Op) -> bool:
    return isinstance(await apply(op), Applied)


def _manages(by: Principal, row: KeyRow) -> bool:
    return all(by.may(Action.KEYS_MANAGE, grant.tenant) for grant in row.grants)


def _row(op: AddKey) -> KeyRow:
    return KeyRow(op.prefix, op.digest, op.label, op.subject, op.grants, op.created_by, op.at_us, op.expires_at_us)


def _status(row: KeyRow, now_us: int) -> str:
    if row.revoked_at_us is not None:
        return "revoked"
    return "expired" if row.expires_at_us is not None and row.expires_at_us <= now_us else "active"


def _info(row: KeyRow, now_us: int) -> KeyInfo:
    return KeyInfo(
        row.prefix,
        _status(row, now_us),
        row.label,
        row.subject,
        row.grants,
        row.created_by,
        row.created_at_us,
        row.expires_at_us,
        row.revoked_at_us,
        row.revoked_by,
        row.reason,
    )
