"""Where values come from: which words stand in what a run may trust.

What a model writes into a call is trusted as a *value* only if it stands, exactly or in a plainly canonical form, in trusted text: the
caller's request, the agent's instructions, the operator's configuration, the result of a trusted source. So a value that was found only
in untrusted content is not trusted, and neither is one that was decoded, put together, re-cased or written with look-alikes: trust is
never the result of guessing. Canonical forms are few: the case of a host or mail domain, the grouping of digits, Unicode's NFC, quotes
and punctuation around a value.

>>> origins = Origins()
>>> origins.ask("Please pay $1,200.00 to alice@Example.com, IBAN GB29 NWBK 6016 1331 9268 19.")
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
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from quarterdeck.core.errands import Errand, nouns, stem
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identifiers import Given, Identifiers
from quarterdeck.core.labels import Labels
from quarterdeck.core.places import Described, payments
from quarterdeck.core.records import chosen, named, owed, records
from quarterdeck.core.stated import Stated, host_of
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus

MAX_MARKS = 32_768
"""The most hashes of words and spans kept of one run: about 2 MB. What does not fit is not trusted."""
MAX_TRUSTED_TEXT = 262_144
"""The most characters of one trusted text that are looked at."""
MAX_WISH = 32_768
"""The most characters of one text in which is looked for what it asks for and what it names."""
MAX_VALUE = 4_096
"""The longest value that is compared in more than its whole. A longer one is trusted only as a whole text."""
MAX_WAITING = 262_144
"""The most bytes of trusted results kept unread until something untrusted is read; later ones are read at once."""
REQUEST_SPAN = 8
"""The longest value, in words, that is found inside a request or inside instructions."""
ITEMS = "."
"""The field that stands in ``trusted_fields`` for the items of a result that is a list of texts or numbers, each as a whole."""
RESULT_SPAN = 3
"""The longest value, in words, that is found inside a longer text of a trusted result; whole texts always are."""

_EDGES = " \t\r\n\"'`“”‘’«»()[]{}<>,;:!?.#@*"
_WORDS = re.compile(r"[^\s,;|()\[\]{}<>\"`“”«»]+")
_PARTS = re.compile(r"[=]|:(?!//)")
_NUMBER = re.compile(r"(?<![\w.,/:+-])[$€£¥]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,15}(?:\.\d{1,9})?)(?![\d/:-]|[.,]\d)")
_PERCENT = re.compile(r"\d+(?:\.\d+)?\s?(?:%|percent\b)")
_PLAIN_NUMBER = re.compile(r"[$€£¥]?[0-9]{1,15}(?:\.[0-9]{1,9})?\Z")
_MAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\Z")
_LINK = re.compile(r"(?i)(https?|ftp)://[A-Za-z0-9.-]+(:\d+)?(?=[/?#]|\Z)")
_GROUPS = re.compile(r"[\s-]+")
_GROUPED = re.compile(r"\w(?:[ -]?\w)*\Z")
_BLANKS = 2
_DIGITS = re.compile(r"\d")
_MANY = 6
_STOPS = ".,;:!?"
_LOOSE = re.compile(r"[^\W_]+")
_RUN_ON = re.compile(r"(?<!\S)(\S{1,200}[a-z]{2})\.[A-Z][a-z]*(?!\S)")
_TIME = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?)?\Z|\d{1,2}:\d{2}\Z")
_SHORT_NAME = 3
_LINKING = frozenset([stem(word) for word in ("link", "linked", "cited")])


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
        word = (link[0].lower() + word[link.end() :]).removesuffix("/")
    return word


def _numeral(exact: Decimal) -> int:
    """The hash of a number: of its digits, because Python's own hash of numbers can be hit on purpose."""
    return hash(f"number {exact.normalize():f}")


def number(value: object) -> Decimal | None:
    """A JSON number, or a text that is nothing but one, exactly; ``None`` for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not _PLAIN_NUMBER.match(value):
            return None
        value = value.lstrip("$€£¥")
    if not isinstance(value, int | float | str) or (isinstance(value, int) and abs(value) >= 10**15):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


class Source(msgspec.Struct, frozen=True):
    """What is to be known of a tool to judge what it answered. ``reaches``: a read fetches from where its arguments say, so that the
    system that answers is not the tenant's own."""

    name: str = ""
    effect: EffectClass = EffectClass.IRREVERSIBLE
    reaches: bool = True
    trusted_fields: frozenset[str] = frozenset()


_UNKNOWN = Source()


class Origins:
    """What one run may trust, as hashes; folded from the journal's contents, like the transcript. Deterministic within a process.

    Texts of the caller and of the operator are *asked*: what stands there may be acted upon, and they say which actions are wanted
    (:class:`~quarterdeck.core.errands.Errand`). Trusted results only *tell*. Identifiers are kept with what they identify, so that the
    number of one thing is never that of another.

    ``tainted``: something untrusted was read. From then on a trusted source's result is believed only if everything that it was asked
    is trusted itself (else it may only echo), and never again once the run has written something untrusted anywhere.
    """

    __slots__ = (
        *("_amounts", "_asked", "_described", "_identifiers", "_marks", "_names", "_only", "_opened", "_patterns", "_payers"),
        *("_pointed", "_read", "_stated", "_unread", "_unread_bytes", "_waiting", "_waiting_bytes", "_wrote"),
        *("errand", "stated", "tainted"),
    )

    def __init__(self, patterns: Iterable[str] = (), *, tainted: bool = False) -> None:
        self._marks: set[int] = set()
        self._asked: set[int] = set()
        self._names: set[int] = set()
        self._identifiers = Identifiers()
        self._amounts: set[Decimal] = set()
        self._pointed: set[str] = set()
        self._only: set[str] = set()
        self._opened: set[str] = set()
        self._read: set[str] = set()
        self._payers: dict[str, Decimal] = {}
        self._stated = False
        self._unread: list[tuple[bytes, str, Source, bool]] = []
        self._unread_bytes = 0
        self.errand = Errand()
        self.stated = Stated()
        self._described = Described()
        self._patterns = tuple(patterns)
        self._waiting: list[tuple[bytes, Source, bool]] = []
        self._waiting_bytes = 0
        self._wrote = False
        self.tainted = tainted

    def ask(self, text: str) -> None:
        """A text of somebody who may ask: everything that stands in it may be acted upon, and what it asks for is wanted."""
        self._settle_unread()
        marks, self._marks = self._marks, self._asked
        try:
            self.trust(text, REQUEST_SPAN)
            for found in _RUN_ON.findall(text[:MAX_WISH]):
                self._word(found)
        finally:
            self._marks = marks
        text = text[:MAX_WISH]
        self._stated = self._stated or _NUMBER.search(_PERCENT.sub(" ", text)) is not None
        self.stated.read(text)
        self._described.read(text)
        self.errand.read(text)
        self._identifiers.asked(text)
        words = _loose(text).split()
        for size in range(1, REQUEST_SPAN + 1):
            for start in range(len(words) - size + 1):
                if len(self._names) >= MAX_MARKS:
                    return
                self._names.add(hash(" ".join(words[start : start + size])))

    def ask_json(self, payload: bytes) -> None:
        """The same, of every text and number in this JSON."""
        for name, leaf in leaves(msgspec.json.decode(payload)):
            if isinstance(leaf, str):
                self.ask(leaf)
            elif (exact := number(leaf)) is not None and len(self._asked) < MAX_MARKS:
                self._stated = True
                self._asked.add(_numeral(exact))
            if name:
                self._identifiers.learn(leaf, nouns(name), Given.ASKED)

    def trust(self, text: str, span: int = RESULT_SPAN) -> None:
        """Everything that stands in this text, which a trusted source told, may be acted upon where it is asked for."""
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

    def trust_json(self, payload: bytes, only: frozenset[str] = frozenset(), source: Source | None = None) -> None:
        """Everything in this JSON may be; where ``only`` names fields, what stands in these."""
        value = msgspec.json.decode(payload)
        for name, leaf in leaves(value):
            if only and (name or ITEMS) not in only:
                continue
            if only and not name:
                self._whole(leaf)
            elif isinstance(leaf, str):
                self.trust(leaf)
            elif (exact := number(leaf)) is not None:
                self._number(exact)
        about = nouns(source.name) if source is not None else frozenset()
        for each in records(value):
            for field, identified in each.identifiers:
                if not only or field in only:
                    self._identifiers.learn(identified, about | nouns(field), Given.TOLD)

    def holds(self, value: object) -> bool:
        """Whether a value, or everything in it, stands in trusted text."""
        self._settle()
        return all(self._holds(leaf, told=True) for _, leaf in leaves(value))

    def asked(self, value: object) -> bool:
        """Whether it stands in what the caller or the operator said."""
        return all(self._holds(leaf, told=False) for _, leaf in leaves(value))

    def calls(self, text: str) -> bool:
        """Whether the caller used these words, in whatever case: enough for what a thing is called, never for whom it reaches."""
        return _SHORT_NAME < len(text) <= MAX_VALUE and hash(_loose(text)) in self._names

    def identifies(self, value: object, argument: str, tool: str) -> Given | None:
        """How an identifier came that fits this argument of this tool, if one did."""
        self._settle()
        self._settle_unread()
        return self._identifiers.fits(value, argument, tool)

    def owes(self, value: object, *, minor: bool = False) -> bool:
        """Whether an amount to be paid is no more than the greatest price that the caller stated or, where the caller has named no number
        at all, than a record of a party that the caller named has; or, where a share was stated, no more than that share of the record
        and the greatest price together. ``minor``: the value is in cents.
        """
        self._settle_unread()
        exact = number(value)
        if exact is None or exact <= 0:
            return False
        exact = exact / 100 if minor else exact
        if self.stated.within(exact) or any(self.stated.shared(exact, each) for each in self._amounts):
            return True
        return not self._stated and any(exact <= each for each in self._amounts)

    def opens(self, value: object) -> bool:
        """Whether a web address may be read because it stands where the caller said that there are pages to read; once, so that nothing is
        told by how often."""
        self._settle_unread()
        return isinstance(value, str) and value in self._opened and value not in self._read

    def only(self, value: object) -> bool:
        """Whether a mail address is the only one at a place that the caller named, and has a name of the caller's."""
        self._settle_unread()
        return isinstance(value, str) and canonical_word(value) in self._only

    def paid(self, value: object) -> Decimal | None:
        """How much the caller wants to go back to whom this is: what they paid; ``None`` if nothing."""
        self._settle_unread()
        return self._payers.get(value) if isinstance(value, str) else None

    def pointed(self, value: object) -> bool:
        """Whether a mail address is in a field that the caller pointed at ("the same participants as"), of the one record that the
        caller named."""
        self._settle_unread()
        return isinstance(value, str) and canonical_word(value) in self._pointed

    def strays(self, value: object) -> bool:
        """Whether an address is on none of the hosts that the caller named, where the caller named some and spoke of no links."""
        if not self.stated.hosts or self.errand.speaks_of(_LINKING):
            return False
        texts = [leaf for _, leaf in leaves(value) if isinstance(leaf, str)]
        return any(host_of(text) not in self.stated.hosts and not self.holds(text) for text in texts)

    def wrote(self) -> None:
        """Something may have been written that is not known any more: if the run is tainted, no answer is believed from now on."""
        self._wrote = self._wrote or self.tainted

    def received(
        self, status: ReceiptStatus, labels: Labels | None, payload: bytes, asked: str | None, source: Source = _UNKNOWN
    ) -> None:
        """Take in a receipt: what a tool answered, to which arguments (``None``: not known any more), and with which labels."""
        untrusted = labels is not None and labels.untrusted
        reads = source.effect is EffectClass.READ
        believed = not self.tainted or (not self._wrote and asked is not None and self._proper(asked))
        if status is ReceiptStatus.SUCCEEDED:
            if believed and (not untrusted or source.trusted_fields):
                self._believe(payload, source, untrusted)
            if asked is not None and reads and (untrusted or not believed):
                self._keep(payload, asked, source)
            if asked is not None and not reads:
                self._made(payload, asked, source.name)
        if self.tainted and not reads and not believed:
            self._wrote = True
        if reads and source.reaches and asked is not None:
            self._read.update([leaf for leaf in _arguments(asked) or () if isinstance(leaf, str) and leaf in self._opened])
        self.tainted = self.tainted or untrusted

    def _believe(self, payload: bytes, source: Source, untrusted: bool) -> None:
        self._waiting.append((payload, source, untrusted))
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > MAX_WAITING:
            self._settle()

    def _settle(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            for payload, source, untrusted in waiting:
                self.trust_json(payload, source.trusted_fields if untrusted else frozenset(), source)

    def _keep(self, payload: bytes, asked: str, source: Source) -> None:
        """Records of an untrusted source: their contents are not believed, but the identifiers of those that the caller named."""
        if source.reaches and not self._described.people:
            return
        self._unread.append((payload, asked, source, self._wrote))
        self._unread_bytes += len(payload)
        if self._unread_bytes > MAX_WAITING:
            self._settle_unread()

    def _settle_unread(self) -> None:
        if not self._unread:
            return
        self._settle()
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for payload, asked, source, wrote in unread:
            given = _arguments(asked)
            if given is None or len(payload) > MAX_WAITING or not all(self._harmless(leaf) for leaf in given):
                continue
            value = msgspec.json.decode(payload)
            words = [leaf for leaf in given if isinstance(leaf, str)]
            if words and all(self._spoken(leaf) for leaf in words):
                self._visit(value, source, words)
            if not source.reaches:
                self._look_through(value, source, given, complete=not wrote and all(leaf is None for leaf in given))

    def _look_through(self, value: object, source: Source, given: list[object], *, complete: bool) -> None:
        """Take in what the records of the system's own give to what the caller named, or described of all that there is."""
        meant = any(isinstance(leaf, str) and self.calls(leaf) for leaf in given)
        for field, identified in named(value, self.calls, asked=meant):
            self._identifiers.learn(identified, nouns(source.name, field), Given.NAMED)
        about = nouns(source.name)
        if complete:
            for field, identified in self._described.chosen(value, about):
                self._identifiers.learn(identified, about | nouns(field), Given.NAMED)
        self._amounts.update(owed(value, self._named))
        self._point(chosen(value, self.calls))
        if self._described.refunds:
            self._payers.update({each.payer: each.amount for each in payments(value, frozenset(self.stated.prices), about)})

    def _visit(self, value: object, source: Source, places: list[str]) -> None:
        """Take in the addresses at a place that the caller named."""
        for place in places:
            if len(self._only) < MAX_MARKS and (mail := self._described.only_mail(value, place)):
                self._only.add(canonical_word(mail))
        if not source.reaches and len(self._opened) < MAX_MARKS:
            self._opened.update(self._described.pages(value, " ".join(places)))

    def _named(self, text: str) -> bool:
        """Whether the caller used these words, or a name in them."""
        return self.calls(text) or self._described.speaks_of(text)

    def _spoken(self, text: str) -> bool:
        """Whether a text that a read was given is the caller's, and no time: a place that the caller named."""
        return _TIME.match(text) is None and (self.calls(text) or self._holds(text, told=False))

    def _point(self, fields: Mapping[str, object]) -> None:
        for field, value in fields.items():
            if self.errand.points_at(field):
                given = value if isinstance(value, list) else [value]
                mails = [canonical_word(each) for each in given if isinstance(each, str) and _MAIL.match(each)]
                self._pointed.update(mails[: MAX_MARKS - len(self._pointed)])

    def _harmless(self, leaf: object) -> bool:
        """Whether an argument of a read can have smuggled nothing into its answer: a number, a time, or words of the caller."""
        if not isinstance(leaf, str):
            return True
        return _TIME.match(leaf) is not None or self.calls(leaf) or self._holds(leaf, told=True)

    def _made(self, payload: bytes, asked: str, name: str) -> None:
        """The identifiers that a system gave to what this run itself has made, if they are not what it was told."""
        value = msgspec.json.decode(payload)
        if not isinstance(value, dict):
            return
        for each in records(value | {key: None for key, inner in value.items() if isinstance(inner, dict | list)}):
            for field, identified in each.identifiers:
                if identified not in asked:
                    self._identifiers.learn(identified, nouns(name, field), Given.TOLD)

    def _proper(self, raw: str) -> bool:
        given = _arguments(raw)
        return given is not None and self.holds(given)

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

    def _whole(self, leaf: object) -> None:
        """One item of a list, which may be acted upon as it is, and no word in it."""
        exact = number(leaf)
        if exact is not None:
            self._number(exact)
        elif isinstance(leaf, str) and len(leaf) <= MAX_VALUE:
            self._mark(leaf)

    def _number(self, exact: Decimal) -> None:
        if len(self._marks) < MAX_MARKS:
            self._marks.add(_numeral(exact))

    def _holds(self, leaf: object, *, told: bool) -> bool:
        if leaf is None or isinstance(leaf, bool):
            return True
        exact = number(leaf)
        if exact is not None and self._marked(_numeral(exact), told):
            return True
        if not isinstance(leaf, str):
            return False
        if len(leaf) > len(leaf.strip()) + _BLANKS:
            return False
        word = canonical_word(leaf)
        if not word or self._known(word, told) or any(_matches(pattern, word) for pattern in self._patterns):
            return True
        if len(word) > MAX_VALUE:
            return False
        if word[0] in "#@" and self._known(word[1:], told):
            return True
        if word[-1] in _STOPS and self._known(word[:-1], told):
            return True
        if _many_digits(word) and _GROUPED.match(word) and self._known(_GROUPS.sub("", word), told):
            return True
        parts = re.split(r"[,;]", leaf)
        parts = parts if parts[-1].strip() else parts[:-1]
        return len(parts) > 1 and all(part.strip() and self._holds(part, told=told) for part in parts)

    def _known(self, word: str, told: bool) -> bool:
        return self._marked(hash(word), told)

    def _marked(self, mark: int, told: bool) -> bool:
        return mark in self._asked or (told and mark in self._marks)


def _loose(text: str) -> str:
    """The words of a text without case, punctuation and spacing."""
    return " ".join(_LOOSE.findall(unicodedata.normalize("NFC", text).casefold()))


def _arguments(raw: str) -> list[object] | None:
    """Every value of a call's arguments; ``None`` if they cannot be read."""
    try:
        return [leaf for _, leaf in leaves(msgspec.json.decode(raw))]
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError):
        return None


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
