"""Where requests go, and with which key: checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlsplit

from quarterdeck.client.errors import ClientError

MAX_KEY_CHARS = 8_192
"""A longer key is a mistake."""
_KEY = re.compile(r"[\x21-\x7e]+\Z")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*\Z")


class Key:
    """A key, or a function that gives one and is asked at each request. It shows itself to nobody."""

    def __init__(self, key: str | Callable[[], str] | None) -> None:
        self._ask = key if callable(key) else None
        self._text = None if callable(key) or key is None else _checked(key)

    def __repr__(self) -> str:
        return "Key()"

    def text(self) -> str | None:
        """The key of the next request."""
        return self._text if self._ask is None else _checked(self._ask())


def _checked(key: object) -> str:
    if not isinstance(key, str) or len(key) > MAX_KEY_CHARS or not _KEY.match(key):
        raise ClientError("client.key", "the key is no text of printable ASCII without spaces; it is not shown here")
    return key


def checked_url(url: str, *, insecure: bool) -> str:
    """The root of a server's addresses, without a slash at its end. Raises :class:`ClientError` (``client.url``).

    Beyond this machine it has to be https, unless ``insecure`` says otherwise: the key would be read by everybody on the way.

    >>> checked_url("https://deck.example/api/", insecure=False), checked_url("http://127.0.0.1:8321", insecure=False)
    ('https://deck.example/api', 'http://127.0.0.1:8321')
    >>> checked_url("http://deck.example", insecure=False)
    Traceback (most recent call last):
    ...
    quarterdeck.client.errors.ClientError: client.url: http to another machine would show the key on the way; use https
    """
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClientError("client.url", "write the server's address as https://HOST or http://127.0.0.1:PORT")
    if parts.username is not None or parts.password is not None:
        raise ClientError("client.url", "an address with a user or password in it ends up in logs; give the key apart")
    if parts.query or parts.fragment or not _PATH.match(parts.path) or "//" in parts.path or "/." in parts.path:
        raise ClientError("client.url", "the address has a host and at most a plain path; leave the rest out")
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname):
        raise ClientError("client.url", "http to another machine would show the key on the way; use https")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _split(url: object) -> SplitResult:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise ClientError("client.url", "the address is printable ASCII; write other host names in their xn-- form")
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at, so that one which is no number is found here
    except ValueError:
        raise ClientError("client.url", "this is no address; write https://HOST or http://127.0.0.1:PORT") from None
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine; a name other than ``localhost`` never counts.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.0.0.1.example.com", "10.0.0.1")]
    [True, True, True, False, False]
    """
    if host.casefold() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def segment(name: str) -> str:
    """A name as one segment of a path.

    >>> segment("run_1"), segment("a/b:cancel")
    ('run_1', 'a%2Fb%3Acancel')
    """
    if name in ("", ".", ".."):
        raise ClientError("client.name", f"{name!r} names nothing that a server has")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:
        raise ClientError("client.name", "a name is text that UTF-8 can write") from None
