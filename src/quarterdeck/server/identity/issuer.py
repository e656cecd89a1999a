"""Tokens of an identity provider: signed JWTs, accepted by what is configured here and by nothing that they say themselves.

The traps that RFC 8725 lists are closed by construction: the algorithm must be one of the configured ones, which are all asymmetric;
the key is of the kind that this algorithm needs and comes from the configured key set by its exact name; headers that bring or name
keys (``jwk``, ``x5c``, ``jku``, ``x5u``) have no effect, ones that change the meaning of the rest (``crit``) are refused; text that two
readers could read differently (duplicate names, two spellings of one signature) is refused before anything is verified.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

import msgspec
from joserfc import jws
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from quarterdeck.core.canonical import Json, parse
from quarterdeck.core.errors import Unauthenticated, UsageError
from quarterdeck.core.identity import Principal, checked_subject
from quarterdeck.ports.clock import Clock
from quarterdeck.server.identity.bearer import credential
from quarterdeck.server.identity.mapping import GrantRule, granted
from quarterdeck.server.identity.published import Fetch, PublishedKeys, checked_url, fetched

MAX_TOKEN = 8_192
"""The longest token that is read, in characters."""
MAX_KID = 256
"""The longest name of a signing key, in characters."""
MAX_LEEWAY_S = 300
"""The largest difference between the provider's clock and ours that may be allowed for."""
MAX_TOKEN_LIFETIME_S = 86_400
"""The longest time between a token's issue and its expiry."""

ALGORITHMS: Mapping[str, str] = {
    **{f"RS{bits}": "RSA" for bits in (256, 384, 512)},
    **{f"PS{bits}": "RSA" for bits in (256, 384, 512)},
    **{f"ES{bits}": "EC" for bits in (256, 384, 512)},
    "Ed25519": "OKP",
}
"""The algorithms that may be configured, with the kind of key that each needs. There is no symmetric one, and no ``none``."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which tokens are accepted, and what they are worth. All of it comes from the configuration.

    ``audience`` is the name of this service at the provider. ``types`` are accepted values of the header ``typ``; a provider that
    writes ``JWT`` into its access tokens has to be allowed that by name, since its ID tokens then look alike but for the audience.
    ``subject_prefix`` is put before the subject, to keep it apart from keys' subjects and other providers'.
    """

    issuer: str
    audience: str
    key_set_url: str
    algorithms: tuple[str, ...] = ("RS256",)
    types: tuple[str, ...] = ("at+jwt",)
    rules: tuple[GrantRule, ...] = ()
    subject_claim: str = "sub"
    subject_prefix: str = ""
    leeway_s: int = 30
    max_lifetime_s: int = MAX_TOKEN_LIFETIME_S

    def __post_init__(self) -> None:
        checked_url(self.key_set_url)
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise UsageError(
                "auth.algorithms", f"tokens may be signed with {', '.join(ALGORITHMS)}; not with {unknown or 'nothing'}"
            )
        if not (self.issuer and self.audience and self.types and all(self.types) and self.subject_claim):
            raise UsageError(
                "auth.settings", "issuer, audience, types and subject_claim are needed to tell our tokens from others'"
            )
        if not (0 <= self.leeway_s <= MAX_LEEWAY_S and 0 < self.max_lifetime_s <= MAX_TOKEN_LIFETIME_S):
            raise UsageError("auth.settings", f"leeway_s is 0-{MAX_LEEWAY_S}, max_lifetime_s 1-{MAX_TOKEN_LIFETIME_S}")


class OidcAuthenticator:
    """Knows the users and services of one identity provider. Nothing about tokens is remembered: each is verified each time."""

    def __init__(self, settings: OidcSettings, clock: Clock, fetch: Fetch = fetched) -> None:
        self._settings = settings
        self._clock = clock
        self._keys = PublishedKeys(settings.key_set_url, clock, fetch)
        self._types = frozenset(_media_type(name) for name in settings.types)

    async def authenticate(self, authorization: str | None) -> Principal:
        """Whom the token was issued to; raises :class:`Unauthenticated`, or :class:`Unavailable` (``auth.keys_unavailable``)."""
        token = credential(authorization)
        algorithm, kid = self._header(token)
        key = await self._keys.find(kid, ALGORITHMS[algorithm])
        if key is None:
            raise _refused()
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        registry.max_header_length = MAX_TOKEN
        try:
            payload = jws.deserialize_compact(token, key, registry=registry).payload
            claims = _object(payload or b"")
        except (JoseError, ValueError, TypeError):
            raise _refused() from None
        self._check(claims)
        return self._principal(claims)

    def _header(self, token: str) -> tuple[str, str]:
        segments = token.split(".")
        if len(token) > MAX_TOKEN or len(segments) != 3 or not all(_is_canonical(segment) for segment in segments):
            raise _refused()
        header = _object(_decoded(segments[0]))
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
        if not isinstance(algorithm, str) or algorithm not in self._settings.algorithms:
            raise _refused()
        if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
            raise _refused()
        if not isinstance(kind, str) or _media_type(kind) not in self._types or "crit" in header or "b64" in header:
            raise _refused()
        return algorithm, kid

    def _check(self, claims: dict[str, Json]) -> None:
        """Whether a token that is genuine is meant for us, and now. From here on its flaws may be named."""
        now_s = self._clock.now_us() // 1_000_000
        registry = JWTClaimsRegistry(
            now=now_s,
            leeway=self._settings.leeway_s,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError:
            raise Unauthenticated("auth.expired", "this key or token has expired; get another") from None
        except JoseError as error:
            name = str(getattr(error, "claim", "") or "claims")[:40]
            raise Unauthenticated("auth.token_invalid", f"the token is genuine, but its {name!r} does not fit here") from None
        issued, expires = claims["iat"], claims["exp"]
        if not isinstance(issued, int | float) or not isinstance(expires, int | float):
            raise _refused()
        if expires - issued > self._settings.max_lifetime_s:
            raise Unauthenticated(
                "auth.token_invalid", f"the token lives longer than {self._settings.max_lifetime_s} s, the most here"
            )

    def _principal(self, claims: dict[str, Json]) -> Principal:
        subject = claims.get(self._settings.subject_claim)
        if not isinstance(subject, str) or not subject:
            raise Unauthenticated("auth.token_invalid", f"the token is genuine, but has no {self._settings.subject_claim!r}")
        try:
            name = checked_subject(self._settings.subject_prefix + subject)
        except UsageError:
            raise Unauthenticated(
                "auth.token_invalid", "the token is genuine, but its subject cannot be used as a name"
            ) from None
        own = claims.get("sub") == (claims.get("client_id") or claims.get("azp"))
        return Principal(name, "service" if own else "user", granted(claims, self._settings.rules))


def _refused() -> Unauthenticated:
    """The one answer to every token whose signature has not held."""
    return Unauthenticated(
        "auth.token_invalid", "the token is not one that is accepted here; get one from the configured provider"
    )


def _object(text: bytes) -> dict[str, Json]:
    try:
        value = parse(text, max_bytes=MAX_TOKEN)
    except UsageError:
        raise _refused() from None
    if not isinstance(value, dict):
        raise _refused()
    return value


def _decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def _is_canonical(segment: str) -> bool:
    """Whether a segment is base64url in its only spelling: without padding, foreign characters or unused bits."""
    if _SEGMENT.fullmatch(segment) is None or len(segment) % 4 == 1:
        return False
    return urlsafe_b64encode(_decoded(segment)).rstrip(b"=").decode() == segment


def _media_type(name: str) -> str:
    return name.lower().removeprefix("application/")
