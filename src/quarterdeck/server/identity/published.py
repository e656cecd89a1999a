"""The signing keys that an identity provider publishes: fetched with bounds, remembered, and fetched again when they change."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from quarterdeck.core.canonical import parse
from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.core.limits import RatePolicy, TokenBucket
from quarterdeck.ports.clock import Clock
from quarterdeck.server.identity.anonymous import is_loopback

MAX_KEY_SET = 65_536
"""The longest key set that is read, in bytes."""
MAX_ISSUER_KEYS = 64
"""The most keys of one key set; a longer one is refused as a whole."""
MIN_RSA_BITS = 2_048
"""Shorter RSA keys are passed over."""
FETCH_S = 5.0
"""How long one fetch of a key set may take, whole, in seconds."""
KEYS_FRESH_S = 300.0
"""How long a key set is used without asking again, so how long a withdrawn key may still be good."""
KEYS_STALE_S = 3_600.0
"""How long a key set is used while the provider cannot be reached; after that no token is accepted."""
FETCH_EVERY_S = 10.0
"""How often, in the long run, an unknown key or a failed fetch may lead to another fetch; three may follow each other at once."""

PublishedKey = RSAKey | ECKey | OKPKey
"""A public key of the provider."""
Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the bytes of a key set, or raises :class:`Unavailable`."""

_KINDS: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


def checked_url(url: str) -> str:
    """``url`` if keys may come from there: https, or plain http from this machine; raises :class:`UsageError` (``auth.url``)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.username or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise UsageError(
            "auth.url", "signing keys are fetched over https (or plain http from this machine), without a password in the URL"
        )
    return url


async def fetched(url: str) -> bytes:
    """The body at ``url``: no redirects, at most :data:`MAX_KEY_SET` bytes, whole within :data:`FETCH_S`, as it was sent."""
    body = bytearray()
    try:
        async with (
            asyncio.timeout(FETCH_S),
            httpx2.AsyncClient(timeout=FETCH_S, follow_redirects=False, trust_env=url.startswith("https:")) as client,
            client.stream("GET", url, headers={"Accept": "application/json", "Accept-Encoding": "identity"}) as response,
        ):
            if response.status_code != 200:
                raise _unreachable(f"it answered {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_KEY_SET:
                    raise _unreachable(f"its key set is longer than {MAX_KEY_SET} bytes")
    except (httpx2.HTTPError, TimeoutError, OSError) as error:
        raise _unreachable(type(error).__name__) from None
    return bytes(body)


class PublishedKeys:
    """One provider's keys. Any number of requests may ask at once; at most one fetch is under way.

    A key that is not in the set leads to a new fetch, so a rotation is noticed at once, but only every :data:`FETCH_EVERY_S`, so that
    made-up key names cannot be used to load the provider.
    """

    def __init__(self, url: str, clock: Clock, fetch: Fetch = fetched) -> None:
        self._url = checked_url(url)
        self._clock = clock
        self._fetch = fetch
        self._keys: dict[tuple[str, str], PublishedKey] = {}
        self._read_at_s: float | None = None
        self._tries = 0
        self._lock = asyncio.Lock()
        policy = RatePolicy(rate_per_s=1.0 / FETCH_EVERY_S, burst=3, max_wait_s=0.0)
        self._allowance = TokenBucket(policy, clock.boottime_s())

    async def find(self, kid: str, kind: str) -> PublishedKey | None:
        """The key with this name and kind (``RSA``, ``EC``, ``OKP``), or ``None``.

        Raises :class:`Unavailable` (``auth.keys_unavailable``) while no key set is known that is recent enough.
        """
        tries = self._tries
        if self._age_s() >= KEYS_FRESH_S:
            await self._refresh()
        if (kid, kind) not in self._keys and self._tries == tries:
            await self._refresh()
        return self._keys.get((kid, kind))

    def _age_s(self) -> float:
        return float("inf") if self._read_at_s is None else self._clock.boottime_s() - self._read_at_s

    async def _refresh(self) -> None:
        tries = self._tries
        async with self._lock:
            wait_s = 0.0
            if self._tries == tries:  # nobody else has just tried
                wait_s = self._allowance.try_take(self._clock.boottime_s())
                if wait_s == 0.0:
                    await self._read()
        if self._age_s() >= KEYS_STALE_S:
            raise Unavailable(
                "auth.keys_unavailable",
                "the identity provider's signing keys cannot be fetched now; try again, or use an API key",
                retry_after_s=max(wait_s, 1.0),
            )

    async def _read(self) -> None:
        try:
            self._keys = usable_keys(await self._fetch(self._url))
            self._read_at_s = self._clock.boottime_s()
        except Unavailable:
            pass  # what is known serves on, for as long as it is recent enough
        self._tries += 1  # whoever waited meanwhile need not try as well, unless this was cancelled


def usable_keys(text: bytes) -> dict[tuple[str, str], PublishedKey]:
    """The keys of a key set that can verify signatures, by name and kind; raises :class:`Unavailable` if it is none, or has none.

    Passed over: secret keys of any kind, keys without a name, for encryption, of unknown kinds, or too short.
    """
    try:
        document = parse(text, max_bytes=MAX_KEY_SET)
    except UsageError as error:
        raise _unreachable(f"its key set is no JSON ({error.code})") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_ISSUER_KEYS:
        raise _unreachable("what it publishes is no key set")
    found: dict[tuple[str, str], PublishedKey] = {}
    for item in listed:
        if isinstance(item, dict) and _is_usable(item):
            key = _imported(item)
            if key is not None:
                found.setdefault((str(item["kid"]), str(item["kty"])), key)
    if not found:
        raise _unreachable("its key set has no usable key")
    return found


def _imported(item: Mapping[str, object]) -> PublishedKey | None:
    """The key, bound to the algorithm that it is published for, if any; ``EdDSA`` is an older name of the only one for its kind."""
    texts: dict[str, str | list[str]] = {name: value for name, value in item.items() if isinstance(value, str)}
    if texts.get("alg") == "EdDSA":
        del texts["alg"]
    try:
        return _KINDS[str(item["kty"])].import_key(texts)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _is_usable(item: Mapping[str, object]) -> bool:
    operations = item.get("key_ops")
    modulus = item.get("n")
    return (
        item.get("kty") in tuple(_KINDS)
        and isinstance(item.get("kid"), str)
        and item.get("use") in (None, "sig")
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        and "d" not in item
        and (item["kty"] != "RSA" or (isinstance(modulus, str) and _bits(modulus) >= MIN_RSA_BITS))
    )


def _bits(modulus: str) -> int:
    try:
        return int.from_bytes(urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4)), "big").bit_length()
    except ValueError:
        return 0


def _unreachable(why: str) -> Unavailable:
    return Unavailable("auth.keys_unavailable", f"the identity provider's signing keys cannot be used: {why}")
