"""The ``Authorization`` header: one scheme, one credential, read strictly, and handed to whoever knows its shape."""

from __future__ import annotations

import re
from typing import Protocol

from quarterdeck.core.apikeys import SCHEME
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.identity import Principal

MAX_HEADER = 16_384
"""The longest ``Authorization`` header that is read, in characters."""
CHALLENGE = 'Bearer realm="quarterdeck"'
"""What an answer 401 carries as ``WWW-Authenticate``."""

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.ASCII | re.IGNORECASE)


class Authenticator(Protocol):
    """Finds out who asks."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal of a request with this ``Authorization`` header (``None``: it has none).

        Raises :class:`Unauthenticated` with an ``auth.*`` code where it does not hold, and :class:`Unavailable` where that cannot be
        found out now. Never answers with somebody who was not proven.
        """
        ...


def credential(authorization: str | None) -> str:
    """The credential of a bearer header; raises :class:`Unauthenticated` (``auth.missing``, ``auth.malformed``).

    >>> credential("Bearer abc.def")
    'abc.def'
    """
    if authorization is None:
        raise Unauthenticated("auth.missing", "say who you are: send the header 'Authorization: Bearer <key or token>'")
    found = _BEARER.fullmatch(authorization) if len(authorization) <= MAX_HEADER else None
    if found is None:
        raise malformed()
    return found[1]


def malformed() -> Unauthenticated:
    """The refusal of what is neither a whole key nor a token; it repeats nothing of what was sent."""
    return Unauthenticated(
        "auth.malformed",
        "the credential is cut, mistyped or of no known form; send 'Authorization: Bearer <key or token>', whole",
    )


class Chain:
    """Picks the one authenticator whose credential this looks like. What looks like none is refused, not tried.

    ``anonymous`` is asked only where there is no header at all: a credential that was sent must hold.
    """

    def __init__(self, keys: Authenticator, tokens: Authenticator | None = None, anonymous: Authenticator | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        self._anonymous = anonymous

    async def authenticate(self, authorization: str | None) -> Principal:
        """See :meth:`Authenticator.authenticate`."""
        if authorization is None and self._anonymous is not None:
            return await self._anonymous.authenticate(None)
        text = credential(authorization)
        if text.startswith(SCHEME):
            return await self._keys.authenticate(authorization)
        if text.count(".") == 2 and self._tokens is not None:
            return await self._tokens.authenticate(authorization)
        raise malformed()
