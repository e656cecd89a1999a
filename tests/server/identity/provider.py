"""An identity provider for tests: keys, a key set, and tokens as good or as bad as asked for."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.identity import Grant, Role
from quarterdeck.server.identity import GrantRule, OidcAuthenticator, OidcSettings
from quarterdeck.testing.clock import EPOCH_US, VirtualClock

ISSUER = "https://id.example"
AUDIENCE = "https://quarterdeck.example"
NOW_S = EPOCH_US // 1_000_000
RULES = (
    GrantRule(("groups",), "approvers", (Grant("acme", Role.APPROVER),)),
    GrantRule(("realm_access", "roles"), "ops", (Grant("acme", Role.OPERATOR), Grant("globex", Role.OPERATOR))),
    GrantRule(("scope",), "runs:write", (Grant("acme", Role.SUBMITTER),)),
)

RSA, OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"}), RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed-1"})


def published(*keys: RSAKey | ECKey | OKPKey, **more: Any) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(private=False), **more} for key in keys]}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    plain = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": NOW_S,
        "exp": NOW_S + 300,
        "client_id": "app",
        "groups": ["approvers"],
    }
    return {name: value for name, value in {**plain, **changed}.items() if value is not None}


def header(**changed: Any) -> dict[str, Any]:
    plain = {"alg": "RS256", "kid": "rsa-1", "typ": "at+jwt"}
    return {name: value for name, value in {**plain, **changed}.items() if value is not None}


def b64(value: bytes | str) -> str:
    return urlsafe_b64encode(value.encode() if isinstance(value, str) else value).rstrip(b"=").decode()


def signed(head: dict[str, Any] | str, body: dict[str, Any] | str, key: Any = RSA, algorithm: str = "RS256") -> str:
    """A token over exactly this text, whatever its header claims about the algorithm."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (head, body)]
    text = ".".join(b64(part) for part in parts)
    signature = jws.JWSRegistry.algorithms[algorithm].sign(text.encode(), key)
    return f"{text}.{b64(signature)}"


def token(key: Any = RSA, algorithm: str = "RS256", **changed: Any) -> str:
    return signed(header(alg=algorithm, kid=key.kid), claims(**changed), key, algorithm)


class Provider:
    """What the key set's address answers, and how often it was asked; ``None`` is an outage."""

    def __init__(self, *keys: Any) -> None:
        self.answer: bytes | None = published(*(keys or (RSA, EC, ED)))
        self.asked = 0

    async def fetch(self, url: str) -> bytes:
        assert url == f"{ISSUER}/keys"
        self.asked += 1
        if self.answer is None:
            raise Unavailable("auth.keys_unavailable", "out")
        return self.answer


def settings(**changed: Any) -> OidcSettings:
    return OidcSettings(**{"issuer": ISSUER, "audience": AUDIENCE, "key_set_url": f"{ISSUER}/keys", "rules": RULES, **changed})


def authenticator(clock: VirtualClock | None = None, provider: Provider | None = None, **changed: Any) -> OidcAuthenticator:
    return OidcAuthenticator(settings(**changed), clock or VirtualClock(), (provider or Provider()).fetch)
