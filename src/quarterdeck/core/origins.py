"""Where values come from: which words stand in what a run may trust.

What a model writes into a call is trusted as a *value* only if it stands, exactly or in a plainly canonical form, in trusted text: the
caller's request, the agent's instructions, the operator's configuration, the result of a trusted source. So a value that was found only
in untrusted content is not trusted, and neither is one that was decoded, put together, re-cased or written with look-alikes: trust is
never the result of guessing. Canonical forms are few: the case of a host or mail domain, the grouping of digits, Unicode's NFC, quotes
and punctuation around a value.

>>> origins = Origins()
>>> origins.trust("Please pay $1,200.00 to alice@Example.com, IBAN GB29 NWBK 6016 1331 9268 19.")
>>> [
...     origins.holds(value)
...     for value in ("alice@example.com", 1200, "GB29NWBK60161331926819", "alice@examp1e.com", "ALICE@example.com")
... ]
[True, True, True, False, False]

Texts are not kept: only hashes of their words and of spans of a few words, at most :data:`MAX_MARKS` of them. What does not fit is not
trusted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Labels
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus

MAX_MARKS = 32_768
"""The most hashes of words and spans kept of one run: about 2 MB. What does not fit is not trusted."""
MAX_TRUSTED_TEXT = 262_144
"""The most characters of one trusted text that are looked at."""
MAX_WAITING = 262_144
"""The most bytes of trusted results kept unread until something untrusted is read; later ones are read at once."""
REQUEST_SPAN = 8
"""The longest value, in words, that is found inside a request or inside instructions."""
RESULT_SPAN = 3
"""The longest value, in words, that is found inside a longer text of a trusted result; whole texts always are."""

_EDGES = " \t\r\n\"'`“”‘’«»()[]{}<>,;:!?.#@*"
_WORDS = re.compile(r"[^\s,;|()\[\]{}<>\"`“”«»]+")
_PARTS = re.compile(r"[=]|:(?!//)")
_NUMBER = re.compile(r"(?<![\w.,/:+-])[$€£¥]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,15}(?:\.\d{1,9})?)(?![\d/:-]|[.,]\d)")
_PLAIN_NUMBER = re.compile(r"[$€£¥]?\d{1,15}(?:\.\d{1,9})?\Z")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\Z")
_LINK = re.compile(r"(?i)(https?|ftp)://[A-Za-z0-9.-]+(:\d+)?(?=[/?#]|\Z)")
_GROUPS = re.compile(r"[\s-]+")
_DIGITS = re.compile(r"\d")
_MANY = 6


def canonical_word(text: str) -> str:
    """A value in the one form in which it is compared: NFC, hosts and mail domains in lower case, no slash at the end of a link.

    >>> canonical_word("HTTPS://Example.COM/Path/"), canonical_word("Ada@Example.COM")
    ('https://example.com/Path', 'Ada@example.com')
    """
    word = text.strip()
    if not word.isascii():
        word = unicodedata.normalize("NFC", word)
    if _MAIL.match(word):
        user, _, domain = word.partition("@")
        return f"{user}@{domain.lower()}"
    link = _LINK.match(word)
    if link is not None:
        word = (link[0].lower() + word[link.end() :]).rstrip("/")
    return word


def number(value: object) -> Decimal | None:
    """A JSON number, or a text that is nothing but one, exactly; ``None`` for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not _PLAIN_NUMBER.match(value):
            return None
        value = value.lstrip("$€£¥")
    if not isinstance(value, int | float | str):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


class Origins:
    """What one run may trust, as hashes; folded from the journal's contents, like the transcript. Deterministic within a process.

    ``tainted``: something untrusted was read. From then on a trusted source's result is believed only if everything that it was asked
    is trusted itself (else it may only echo), and never again once the run has written something untrusted anywhere.
    """

    __slots__ = ("_marks", "_patterns", "_waiting", "_waiting_bytes", "_wrote", "tainted")

    def __init__(self, patterns: Iterable[str] = (), *, tainted: bool = False) -> None:
        self._marks: set[int] = set()
        self._patterns = tuple(patterns)
        self._waiting: list[tuple[bytes, frozenset[str]]] = []
        self._waiting_bytes = 0
        self._wrote = False
        self.tainted = tainted

    def trust(self, text: str, span: int = REQUEST_SPAN) -> None:
        """Everything that stands in this text may be acted upon."""
        text = text[:MAX_TRUSTED_TEXT]
        self._mark(text)
        words = _WORDS.findall(text)
        for size in range(1, span + 1):
            if len(self._marks) >= MAX_MARKS:
                return
            for start in range(len(words) - size + 1):
                chosen = words[start : start + size]
                if size == 1:
                    self._word(chosen[0])
                else:
                    self._mark(" ".join(chosen))
        for found in _NUMBER.finditer(text):
            self._number(Decimal(found[1].replace(",", "")))

    def trust_json(self, payload: bytes, span: int = RESULT_SPAN, only: frozenset[str] = frozenset()) -> None:
        """Everything in this JSON may be acted upon; where ``only`` names fields, what stands in these."""
        for name, leaf in leaves(msgspec.json.decode(payload)):
            if only and name not in only:
                continue
            if isinstance(leaf, str):
                self.trust(leaf, span)
            elif (exact := number(leaf)) is not None:
                self._number(exact)

    def holds(self, value: object) -> bool:
        """Whether a value, or everything in it, stands in trusted text."""
        self._settle()
        return all(self._holds(leaf) for _, leaf in leaves(value))

    def received(
        self,
        status: ReceiptStatus,
        labels: Labels | None,
        payload: bytes,
        asked: str | None,
        trusted_fields: frozenset[str] = frozenset(),
        effect: EffectClass = EffectClass.READ,
    ) -> None:
        """Take in a receipt: what a tool answered, to which arguments (``None``: not known any more), and with which labels."""
        untrusted = labels is not None and labels.untrusted
        believed = not self.tainted or (not self._wrote and asked is not None and self._asked(asked))
        if status is ReceiptStatus.SUCCEEDED and believed and (not untrusted or trusted_fields):
            self._believe(payload, trusted_fields if untrusted else frozenset())
        if self.tainted and effect is not EffectClass.READ and not believed:
            self._wrote = True
        self.tainted = self.tainted or untrusted

    def _believe(self, payload: bytes, only: frozenset[str]) -> None:
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > MAX_WAITING:
            self._settle()
            self.trust_json(payload, only=only)
        else:
            self._waiting.append((payload, only))

    def _settle(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            for payload, only in waiting:
                self.trust_json(payload, only=only)

    def _asked(self, raw: str) -> bool:
        try:
            return self.holds(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
            return False

    def _word(self, word: str) -> None:
        self._mark(word)
        for part in _PARTS.split(word):
            if part != word:
                self._mark(part)
        bare = word.strip(_EDGES)
        if bare.endswith(("'s", "’s")):
            self._mark(bare[:-2])

    def _mark(self, text: str) -> None:
        for word in {canonical_word(text), canonical_word(text.strip(_EDGES))}:
            if word and len(self._marks) < MAX_MARKS:
                self._marks.add(hash(word))
                if _many_digits(word) and (joined := _GROUPS.sub("", word)) != word:
                    self._marks.add(hash(joined))

    def _number(self, exact: Decimal) -> None:
        if len(self._marks) < MAX_MARKS:
            self._marks.add(hash(("number", exact)))

    def _holds(self, leaf: object) -> bool:
        if leaf is None or isinstance(leaf, bool):
            return True
        exact = number(leaf)
        if exact is not None and hash(("number", exact)) in self._marks:
            return True
        if not isinstance(leaf, str):
            return False
        word = canonical_word(leaf)
        if not word or hash(word) in self._marks or any(_matches(pattern, word) for pattern in self._patterns):
            return True
        if word[0] in "#@" and hash(word[1:]) in self._marks:
            return True
        if _many_digits(word) and hash(_GROUPS.sub("", word)) in self._marks:
            return True
        parts = [part for part in re.split(r"[,;]", leaf) if part.strip()]
        return len(parts) > 1 and all(self._holds(part) for part in parts)


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every value in a JSON value that holds no others, each under the name of the nearest field."""
    stack = [(name, value)]
    while stack:
        near, item = stack.pop()
        if isinstance(item, dict):
            stack.extend([(str(key), inner) for key, inner in item.items()])
        elif isinstance(item, list):
            stack.extend([(near, inner) for inner in item])
        else:
            yield near, item


def _many_digits(word: str) -> bool:
    return len(_DIGITS.findall(word)) >= _MANY


def checked_pattern(pattern: str) -> str:
    """Return a configured value if it is one; raises :class:`UsageError` (``label.pattern``) for one that would cover too much.

    >>> checked_pattern("*@example.com"), checked_pattern("https://api.example.com/*")
    ('*@example.com', 'https://api.example.com/*')
    """
    fixed = pattern.strip("*")
    wild = pattern != fixed
    host_open = wild and pattern.endswith("*") and "://" in fixed and "/" not in fixed.partition("://")[2]
    mail_open = wild and pattern.startswith("*") and not ("@" in fixed or fixed.startswith((".", "/")))
    if len(fixed) < 3 or "*" in fixed or (pattern.startswith("*") and pattern.endswith("*")) or host_open or mail_open:
        said = f"{pattern[:80]!r} is no value to trust; write an exact one, *@example.com, or https://api.example.com/*"
        raise UsageError("label.pattern", said)
    return canonical_word(pattern)


def _matches(pattern: str, word: str) -> bool:
    """Whether a configured value covers a word: exactly, or by one star at its beginning or end."""
    if pattern.startswith("*"):
        return word.endswith(pattern[1:]) and (_MAIL.match(word) is not None or "@" not in pattern)
    if pattern.endswith("*"):
        return word.startswith(pattern[:-1]) and ".." not in word
    return word == pattern
