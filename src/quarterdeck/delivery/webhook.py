"""Signed webhooks, as `Standard Webhooks <https://www.standardwebhooks.com>`_ has them: three headers and an HMAC.

>>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import urlsplit

from quarterdeck.core.errors import UsageError
from quarterdeck.ports.outbox import DeliveryFailed, Message

PREFIX = "whsec_"
"""How a secret begins; the rest is base64."""
MIN_SECRET = 24
"""Bytes that a secret has at least."""
_LATER = frozenset({408, 409, 425, 429})
"""Answers of a client's fault that may pass."""


def sign(secret: str, message: str, timestamp_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``: over the message's name, the time and the body, in this order."""
    signed = f"{message}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode("ascii")


class Webhook:
    """Posts each message to one URL. ``secrets`` sign it, several while one replaces another.

    The receiver compares one of the signatures and looks at the time before it believes anything. Redirects are not followed: only the
    configured address ever gets a message. Raises :class:`UsageError` (``webhook.url``, ``webhook.secret``) for what cannot be used.
    """

    def __init__(self, url: str, *secrets: str, now_s: Callable[[], int], content_type: str = "application/json") -> None:
        asked = urlsplit(url)
        loopback = asked.scheme == "http" and asked.hostname in ("127.0.0.1", "localhost", "::1")
        if not ((asked.scheme == "https" and asked.hostname) or loopback):
            raise UsageError("webhook.url", "a webhook goes to an https:// address; plain http only to this machine")
        if not secrets or any(len(_key(secret)) < MIN_SECRET for secret in secrets):
            raise UsageError("webhook.secret", f"a webhook is signed with at least {MIN_SECRET} bytes: whsec_ and their base64")
        self._url = url
        self._secrets = secrets
        self._now_s = now_s
        self._content_type = content_type

    async def deliver(self, message: Message) -> None:
        """Post it; any answer from 200 to 299 means that it has arrived."""
        import httpx2

        at_s = self._now_s()
        signatures = " ".join(sign(secret, message.message, at_s, message.body) for secret in self._secrets)
        headers = {
            "content-type": self._content_type,
            "webhook-id": message.message,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signatures,
        }
        try:
            async with httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None) as client:
                answer = await client.post(self._url, content=message.body, headers=headers)
        except httpx2.HTTPError as error:
            raise DeliveryFailed("webhook.unreachable", type(error).__name__) from None
        status = answer.status_code
        if 200 <= status < 300:
            return
        said = f"the receiver answered {status}"
        if status == 410:
            raise DeliveryFailed("webhook.gone", said, transient=False)
        transient = status >= 500 or status in _LATER
        raise DeliveryFailed(
            "webhook.refused", said, transient=transient, retry_after_s=_retry_after(answer.headers.get("retry-after"))
        )


def _retry_after(said: str | None) -> float | None:
    """Seconds, where the receiver gave a number of them."""
    return float(said) if said is not None and said.isdigit() and len(said) < 9 else None


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("webhook.secret", "a secret of a webhook is whsec_ and base64") from None
