"""Who is asking: from an ``Authorization`` header to a :class:`~quarterdeck.core.identity.Principal`, or to a refusal.

A door holds one :class:`Authenticator` and calls it once per request. There are three ways to be known, and :class:`Chain` picks by
the shape of what was sent, never by trying one after the other:

* an **API key** of this store (:class:`KeyAuthenticator`): found by its public prefix, compared by hash in constant time, in force
  until it expires or is revoked; a revocation reaches every process within :data:`FRESH_S`;
* a **token of an identity provider** (:class:`OidcAuthenticator`): a signed JWT whose algorithm, issuer, audience, type and times
  must fit the configuration; what it says about groups or roles becomes grants only by configured rules;
* **nobody, on this machine only** (:class:`LoopbackAnonymous`), for development, and only where it was asked for by name.

This room says who somebody is. What that somebody may do is asked of the principal, by the door, before every action. Keys and tokens
are never stored, logged or put into an error's text, and what an error says to the outside helps only who holds valid credentials:
an unknown key and a wrong one are told apart by nothing, and a token's flaw is named only after its signature held. When the store
or the provider cannot be asked, the answer is :class:`~quarterdeck.core.errors.Unavailable`; it is never yes.

Managing keys (:func:`create_key`, :func:`revoke_key`, :func:`list_keys`, :func:`ensure_first_admin`) is here as functions, for routes
and the command line alike; nobody can hand out a right that they do not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quarterdeck.server.identity.anonymous import LoopbackAnonymous
from quarterdeck.server.identity.bearer import CHALLENGE, Authenticator, Chain
from quarterdeck.server.identity.keyring import FRESH_S, KeyAuthenticator, KeyCache
from quarterdeck.server.identity.keys import (
    LOCAL_OPERATOR,
    Apply,
    KeyInfo,
    KeyRequest,
    NewKey,
    create_key,
    ensure_first_admin,
    list_keys,
    revoke_key,
)
from quarterdeck.server.identity.mapping import GrantRule

if TYPE_CHECKING:
    from quarterdeck.server.identity.issuer import OidcAuthenticator, OidcSettings

__all__ = [
    "CHALLENGE",
    "FRESH_S",
    "LOCAL_OPERATOR",
    "Apply",
    "Authenticator",
    "Chain",
    "GrantRule",
    "KeyAuthenticator",
    "KeyCache",
    "KeyInfo",
    "KeyRequest",
    "LoopbackAnonymous",
    "NewKey",
    "OidcAuthenticator",
    "OidcSettings",
    "create_key",
    "ensure_first_admin",
    "list_keys",
    "revoke_key",
]


def __getattr__(name: str) -> object:
    """What verifies signatures brings a cryptography library; it is imported where a provider is configured, and not before."""
    if name in ("OidcAuthenticator", "OidcSettings"):
        from quarterdeck.server.identity import issuer

        return getattr(issuer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
