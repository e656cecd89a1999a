"""What a caller points at without saying it: the one of a complete list, the pages and the only address at a place, who paid.

Untrusted content vouches for nothing. But a caller can describe a value so exactly that no planner is needed to find it: "the channel
starting with External", "the largest file", "the address on www.dora.example". Then the gate finds it itself, in what the reads
answered, and only that one value may be used. What a stranger adds to such a place makes it ambiguous, and then nothing is vouched for:

- of a *complete list*, told by a read that was given no arguments and so cannot have been narrowed by the planner, the one item that
  begins as the caller says, or is the greatest or least in what the caller says;
- at a *place that the caller named* (a channel, a file, a page that the read was given in the caller's words) the only mail address,
  if it bears a name of the caller's; and for reading only, the few web addresses, if the caller speaks of pages;
- of a payment of exactly a price that the caller stated, whoever made it, for paying that back.

>>> asked = Described()
>>> asked.read("Delete the largest file and join the channel starting with Ext.")
>>> list(asked.chosen([{"id": 4, "size": 12}, {"id": 5, "size": 13}], frozenset({"fil"})))
[('id', '5')]
>>> list(asked.chosen(["general", "Ext_0"], frozenset({"channel"})))
[('', 'Ext_0')]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice

import msgspec

from quarterdeck.core.errands import KNOWN_WORDS, stem, stems_of, unquoted, words_of
from quarterdeck.core.records import Record, identifier, records

MAX_LINKS = 8
"""The most web addresses at one place: which of them are opened, and in which order, can tell somebody no more than a few bits."""
MAX_POINTERS = 64
"""The most descriptions, names and prices of one run's requests that are kept."""

_MOST = "largest biggest greatest longest highest newest latest recent dearest"
_LEAST = "smallest shortest lowest oldest earliest cheapest"
_SIZES = stems_of("size bytes length")
_PRICES = stems_of("price cost")
_RATES = stems_of("rating score stars")
_TIMES = stems_of("date time created modified updated timestamp at")
_MEASURES = {
    **dict.fromkeys(["largest", "biggest", "greatest", "longest", "smallest", "shortest"], _SIZES),
    **dict.fromkeys(["highest", "lowest"], _RATES),
    **dict.fromkeys(["cheapest", "dearest"], _PRICES),
    **dict.fromkeys(["newest", "latest", "recent", "oldest", "earliest"], _TIMES),
}
_GREATEST = frozenset(_MOST.split())
_SUPERLATIVE = re.compile(rf"(?i)\b(?:the|my)\s+(?:single\s+|most\s+)?({'|'.join(_MEASURES)})\s+([^\W\d_]{{3,40}})")
_BEGINNING = re.compile(
    r"(?i)\b([^\W\d_]{3,40})\s+(?:(?:that|which|whose\s+name)\s+)?(start|begin|end)(?:s|ning|ting|ing)?\s+(?:with|in)\s+"
    r"[\"'“‘]?([\w-]*\w)"
)
_NAME = re.compile(r"(?<![\w@.-])[A-Z][^\W\d_]{2,39}(?![\w@-])")
_MAIL = re.compile(r"(?<![\w.%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_WEB = re.compile(r"(?i)(?:\bhttps?://|(?<![\w@./-])www\.)[^\s<>\"'`()\[\]{}|\\]+")
_STOPS = ".,;:!?*"
_AUTHORS = stems_of("sender author from user poster creator owner")
_PAYERS = stems_of("sender payer from")
_PAGES = stems_of("link links page pages webpage website websites site sites article articles url urls blog")
PAYMENTS = stems_of("transaction payment transfer deposit")
"""The stems of what names of tools say where money is moved."""
_REFUNDS = stems_of("refund reimburse return repay")
_PLACE = re.compile(
    r"(?i)(?:\bhttps?://|(?<![\w@./-])www\.)[^\s<>\"'`()\[\]{}|\\]+|(?<![\w@./-])[\w./-]*\w\.[a-z]{2,5}(?![\w@-])"
)
_NAMED = re.compile(r"[^\W\d_]+")
_LETTERS = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"[.!?;]\s|\n")
_TEXT_TIME = re.compile(r"\d{4}-\d{2}-\d{2}")


class Described:
    """What a caller's texts describe: choices, names of people and things, whether pages are to be read, whether money goes back."""

    __slots__ = ("_beginnings", "_pages", "_superlatives", "names", "people", "refunds")

    def __init__(self) -> None:
        self._beginnings: list[tuple[str, bool, str]] = []
        self._superlatives: list[tuple[str, str]] = []
        self.names: set[str] = set()
        self._pages: list[tuple[frozenset[str], frozenset[str]]] = []
        self.people: dict[str, set[str]] = {}
        self.refunds = False

    def read(self, text: str) -> None:
        """Take in one more text of somebody who may ask."""
        for noun, how, part in _BEGINNING.findall(text):
            if len(self._beginnings) < MAX_POINTERS:
                self._beginnings.append((stem(noun), how.lower() == "end", part))
        for how, noun in _SUPERLATIVE.findall(unquoted(text)):
            if len(self._superlatives) < MAX_POINTERS:
                self._superlatives.append((how.lower(), stem(noun)))
        self.names.update(islice(_names(text), MAX_POINTERS - len(self.names)))
        self.refunds = self.refunds or not _REFUNDS.isdisjoint(words_of(unquoted(text)))
        self._people_of(text)
        for sentence in _SENTENCE.split(text):
            if len(self._pages) < MAX_POINTERS and not _PAGES.isdisjoint(words_of(sentence)):
                self._pages.append((frozenset(_LETTERS.findall(sentence.casefold())), frozenset(_names(sentence))))

    def _people_of(self, text: str) -> None:
        before = 0
        for found in _PLACE.finditer(text):
            if len(self.people) < MAX_POINTERS:
                names = islice(_names(text[before : found.start()]), MAX_POINTERS)
                self.people.setdefault(found[0].rstrip(_STOPS), set()).update(names)
            before = found.end()

    def speaks_of(self, text: str) -> bool:
        """Whether a text holds a name that the caller used."""
        return not self.names.isdisjoint(_NAMED.findall(text.casefold()))

    def pages(self, value: object, place: str) -> frozenset[str]:
        """The web addresses at a place of which the caller says in one sentence that pages are there, if they are few; where that
        sentence names somebody who wrote there, only those in what these wrote.
        """
        words = frozenset(_LETTERS.findall(place.casefold()))
        found: set[str] = set()
        for said, names in self._pages:
            if words <= said:
                found |= _links(value, names)
        return frozenset(found) if len(found) <= MAX_LINKS else frozenset()

    def only_mail(self, value: object, place: str) -> str:
        """The only mail address on a page or in a file, if the part before its ``@`` has a name that the caller gave with this place
        (before it, and behind every place that was named earlier); or nothing.
        """
        names = self.people.get(place)
        found = {mail for text in texts(value) for mail in _MAIL.findall(text)} if names else set()
        if not names or len(found) != 1:
            return ""
        (mail,) = found
        return "" if names.isdisjoint(_NAMED.findall(mail.partition("@")[0].casefold())) else mail

    def chosen(self, value: object, about: frozenset[str]) -> Iterator[tuple[str, str]]:
        """The fields and identifiers of what the caller described, in a complete list of things of this kind."""
        for noun, ends, part in self._beginnings:
            if noun in about:
                yield from _beginning(value, part, ends=ends)
        for how, noun in self._superlatives:
            if noun in about:
                yield from _extreme(value, _MEASURES[how], most=how in _GREATEST)


def _names(text: str) -> Iterator[str]:
    """The words that are written like names, without those that say what to do."""
    return (name.casefold() for name in _NAME.findall(text) if stem(name) not in KNOWN_WORDS)


def _beginning(value: object, part: str, *, ends: bool) -> Iterator[tuple[str, str]]:
    """The one item whose name begins, or ends, with these letters."""

    def fits(name: str) -> bool:
        return name.casefold().endswith(part.casefold()) if ends else name.casefold().startswith(part.casefold())

    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        found = [each for each in value if fits(each)]
        if len(found) == 1 and identifier(found[0]):
            yield "", found[0]
        return
    fitting = [each for each in records(value) if any(fits(name) for name in each.names)]
    if len(fitting) == 1:
        yield from fitting[0].identifiers


def _extreme(value: object, fields: frozenset[str], *, most: bool) -> Iterator[tuple[str, str]]:
    """The one record of all that is the greatest, or least, in the one field that every record has of these."""
    listed = [each for each in records(value) if each.identifiers]
    keys = {str(key) for each in listed for key in each.fields if not fields.isdisjoint(words_of(str(key)))}
    if len(keys) != 1 or len(listed) < _A_FEW:
        return
    key = keys.pop()
    measures = [_measure(each.fields.get(key)) for each in listed]
    if any(measure is None or type(measure) is not type(measures[0]) for measure in measures):
        return
    best = max(measures) if most else min(measures)  # type: ignore[type-var]
    if measures.count(best) == 1:
        yield from listed[measures.index(best)].identifiers


_A_FEW = 2


def _measure(value: object) -> float | str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) and _TEXT_TIME.match(value) else None


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list | dict):
            stack.extend(item.values() if isinstance(item, dict) else item)


def _links(value: object, names: frozenset[str]) -> set[str]:
    by = [(each, author) for each in records(value) if (author := _field(each, _AUTHORS))]
    meant = [each.fields for each, author in by if not names.isdisjoint(_NAMED.findall(author.casefold()))]
    return {link.rstrip(_STOPS) for text in texts(meant or value) for link in _WEB.findall(text)}


class Payment(msgspec.Struct, frozen=True):
    """Who paid, and how much."""

    payer: str
    amount: Decimal


def payments(value: object, prices: frozenset[Decimal], about: frozenset[str]) -> Iterator[Payment]:
    """Who made the only payment of exactly one of these prices, in a list that is of payments."""
    if about.isdisjoint(PAYMENTS):
        return
    found = list(records(value))
    for price in prices:
        of = [each for each in found if price in each.amounts]
        if len(of) == 1 and (payer := _field(of[0], _PAYERS)):
            yield Payment(payer, price)


def _field(record: Record, named: frozenset[str]) -> str:
    """The text of the first field of one of these names."""
    for key, value in record.fields.items():
        if isinstance(value, str) and (words_of(str(key)) or ("",))[-1] in named:
            return value
    return ""
