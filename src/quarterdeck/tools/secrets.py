"""Secrets: handed to a tool's code at the moment of use, and taken out of whatever comes back from it.

A tool declares the secrets that it needs by name; its code asks ``ctx.secrets["name"].reveal()``. Only then is the value read (from the
environment, a file or a function), in the process that performs the tool. The handle ends with the call. Results, the errors that a tool
raises, and the messages that it wants to leave are searched for every value that was revealed in this process, as it is and in the usual
encodings, before anything else sees them: so no journal, log, error, page or model ever does.

What this cannot see: a value that a tool takes apart or encrypts, or sends somewhere itself. Give it only to tools that you trust.
"""

from __future__ import annotations

import base64
import html
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, quote_plus

import msgspec

from quarterdeck.core.contract import checked_name
from quarterdeck.core.errors import UsageError
from quarterdeck.core.progress import Report
from quarterdeck.core.specs import ToolSpec
from quarterdeck.ports.tools import Finding, Publication, Tool, ToolContext, ToolFailure

MIN_SECRET = 6
"""The shortest secret, in characters: shorter ones could not be told from other text."""
MAX_SECRET = 65_536
"""The longest secret, in characters."""
MAX_CHAIN = 8
"""How many causes of an error are searched."""


class Vault:
    """Where the secrets of a deck are read from, by name; and which values were revealed in this process, in all their forms."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], object]] = {}
        self._forms: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def declare(self, name: str, source: Callable[[], object]) -> None:
        """Name a secret. Nothing is read now."""
        if checked_name("secret", name) in self._sources:
            raise UsageError("secret.twice", f"a secret {name!r} exists already; give this one another name")
        self._sources[name] = source

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def reveal(self, name: str) -> str:
        """The value, read now. Raises :class:`ToolFailure` (``secret.missing``, ``secret.unusable``), which says nothing of the value."""
        try:
            value = self._sources[name]()
        except (OSError, KeyError, ValueError, UnicodeError) as error:
            raise ToolFailure("secret.missing", f"the secret {name} cannot be read: {type(error).__name__}") from None
        if not isinstance(value, str) or not MIN_SECRET <= len(value) <= MAX_SECRET or not value.isprintable():
            said = f"the secret {name} is no text of {MIN_SECRET}-{MAX_SECRET} printable characters"
            raise ToolFailure("secret.unusable", said)
        with self._lock:
            for form in forms(value):
                self._forms[form] = f"[secret {name}]".encode()
        return value

    def redacted(self, text: bytes) -> bytes:
        """The same without any value that was revealed, whatever its form."""
        if not self._forms:
            return text
        lower = text.lower()
        for form, shown in sorted(self._forms.items(), key=lambda item: -len(item[0])):
            at = lower.find(form.lower())
            while at >= 0:
                text = text[:at] + shown + text[at + len(form) :]
                lower = text.lower()
                at = lower.find(form.lower(), at + len(shown))
        return text


def forms(value: str) -> set[bytes]:
    """A value as it is, and in the encodings in which it may come back.

    >>> b"czNjcmV0LWtle" in forms("s3cret-key"), b"7333637265742d6b6579" in forms("s3cret-key")
    (True, True)
    """
    raw = value.encode()
    found = {raw, raw.hex().encode(), quote(value, safe="").encode(), quote_plus(value).encode(), html.escape(value).encode()}
    found |= {json.dumps(value)[1:-1].encode(), json.dumps(value, ensure_ascii=False)[1:-1].encode(), raw[::-1]}
    found |= {json.dumps(json.dumps(value))[3:-3].encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # inside a longer text the alignment is not known; what depends on the neighbours is left out
            encoded = encode(b"\0" * shift + raw).rstrip(b"=")
            start = (shift * 8 + 5) // 6
            end = (shift + len(raw)) * 8 // 6
            found.add(encoded[start:end])
    return {form for form in found if len(form) >= MIN_SECRET}


class Handle:
    """One secret for one call. Printing it shows its name only."""

    __slots__ = ("_ended", "_name", "_vault")

    def __init__(self, vault: Vault, name: str, ended: threading.Event) -> None:
        self._vault = vault
        self._name = name
        self._ended = ended

    def reveal(self) -> str:
        """The value. Raises :class:`ToolFailure` (``secret.expired``) once the call for which it was handed out has ended."""
        if self._ended.is_set():
            raise ToolFailure("secret.expired", f"the secret {self._name} was handed out for a call that has ended")
        return self._vault.reveal(self._name)

    def __repr__(self) -> str:
        return f"<secret {self._name}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a handle on a secret does not leave its process")


class SecretiveTool:
    """A tool that is given secrets: hands out handles for each call, and redacts what comes back."""

    def __init__(self, tool: Tool, vault: Vault) -> None:
        self._tool = tool
        self._vault = vault

    @property
    def spec(self) -> ToolSpec:
        """The manifest."""
        return self._tool.spec

    def fit(self, arguments: bytes) -> str:
        """Why these arguments do not fit, or an empty string."""
        return self._tool.fit(arguments)

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Perform once, with handles; the result without secrets."""
        ended = threading.Event()
        try:
            result = self._vault.redacted(await self._tool.perform(arguments, self._given(context, ended)))
            if context.transaction is not None:
                context.transaction.posts[:] = [self._sent(post) for post in context.transaction.posts]
            return result
        except Exception as error:  # the one broad except of redaction
            self._raise(error)
        finally:
            ended.set()

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Find out, with handles; what is found without secrets."""
        ended = threading.Event()
        try:
            finding = await self._tool.reconcile(arguments, self._given(context, ended))
            shown = self._vault.redacted(msgspec.json.encode(finding.result))
        except Exception as error:  # the one broad except of redacted findings
            self._raise(error)
        else:
            return Finding(finding.status, msgspec.json.decode(shown))
        finally:
            ended.set()

    def _sent(self, post: Publication) -> Publication:
        """A message without secrets: it is stored until it has left, and kept after that."""
        headers = tuple([(name, self._said(value)) for name, value in post.headers])
        return Publication(post.topic, self._said(post.key), self._vault.redacted(post.body), headers)

    def _said(self, text: str) -> str:
        return self._vault.redacted(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def _given(self, context: ToolContext, ended: threading.Event) -> ToolContext:
        handles = {name: Handle(self._vault, name, ended) for name in self.spec.secrets}
        take = context.report

        def told(said: Report) -> None:
            if take is not None:
                take(msgspec.structs.replace(said, note=self._said(said.note)))

        return msgspec.structs.replace(context, secrets=handles, report=told)

    def _raise(self, error: Exception) -> NoReturn:
        """The same error, if it and its causes hold no secret; else one of the same kind that says less."""
        chain: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None and len(chain) < MAX_CHAIN:
            chain.append(cause)
            cause = cause.__cause__ or cause.__context__
        if not any(self._holds(one) for one in chain):
            raise error
        if isinstance(error, ToolFailure):
            said = self._vault.redacted(error.message.encode()).decode()
            raise ToolFailure(error.code, said, transient=error.transient, done=error.done) from None
        for one in chain:
            one.args = tuple([self._text(item) for item in one.args])
            if self._holds(one):
                raise ToolFailure("tool.failed", f"{type(error).__name__}: what it says holds a secret", done=None) from None
        raise error

    def _holds(self, error: BaseException) -> bool:
        text = f"{error}\n{error!r}\n{vars(error) if hasattr(error, '__dict__') else ''}".encode("utf-8", "replace")
        return self._vault.redacted(text) != text

    def _text(self, item: object) -> object:
        shown = str(item).encode("utf-8", "replace")
        redacted = self._vault.redacted(shown)
        return item if redacted == shown else redacted.decode()


def source_of(name: str, env: str | None, file: str | Path | None, call: Callable[[], object] | None) -> Callable[[], object]:
    """How a secret is read: exactly one of an environment variable, a file and a function. Raises ``secret.source``."""
    if [env, file, call].count(None) != 2:
        raise UsageError("secret.source", f"secret {name}: name one of env=…, file=… and call=…")
    if env is not None:
        return lambda: os.environ[env]
    if file is not None:
        return lambda: Path(file).read_text("utf-8").strip()
    return call or (lambda: "")


def missing_secrets(tools: Mapping[str, Tool], vault: Vault) -> list[str]:
    """Tools that name secrets which were not declared, as sentences."""
    return [
        f"tool {tool} needs the secret {name!r}, which was not declared; say deck.secret({name!r}, env=…)"
        for tool, made in tools.items()
        for name in made.spec.secrets
        if name not in vault
    ]
