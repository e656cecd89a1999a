"""What a caller asks to have done: which kinds of action trusted text speaks of.

Whom an action may reach is a matter of values (:mod:`quarterdeck.core.origins`); whether anybody wanted such an action at all is a
matter of words. A hijacked planner that may only use trusted values can still pick one of them for something that nobody asked for:
book a hotel of the list that it was to compare. So where a value comes from a list and not from the caller, the caller's words have to
speak of that kind of action. Only trusted text is read, so nobody else can add to it; what is quoted in it is a value, not a wish.

Words are compared by their stems, and verbs of one family stand for each other if the text also names what the tool is about. A text in
which no word is known (another language, an order as data) asks for nothing that could be told: :attr:`Errand.understood` is false.

>>> errand = Errand()
>>> errand.read("Compare the hotels in Bern, and please book the cheapest one.")
>>> [errand.asks(Deed.of(name)) for name in ("reserve_hotel", "send_email", "book_table")]
[True, False, True]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

_FAMILIES = {
    "send": "send sent forward email mail message dm write text reply respond answer notify deliver submit post publish tell "
    "inform share greet ping comment say",
    "pay": "pay paid transfer refund remit wire reimburse repay settle purchase buy donate tip charge money payment order",
    "book": "book booking reserve reservation rent",
    "create": "create add append insert make new put write save store note record open draft upload copy duplicate register "
    "schedule plan post generate keep",
    "change": "update change modify edit adjust move reschedule set replace rename correct fix shift postpone reset switch",
    "remove": "delete remove cancel clear drop erase discard unsubscribe kick ban revoke archive trash purge close",
    "share": "share grant invite add give join",
    "run": "run execute start launch deploy merge push restart trigger invoke call",
    "approve": "approve accept confirm sign release",
}
_ASKING = (
    "find show list what who whom how when where which read check look summarise summarize summary search get recommend suggest "
    "is are can could please give tell compare describe explain see need want would"
)
_NOUNS_TOO = "mail email message text post note order comment record draft book booking plan schedule payment money"
_LEADING = "and then please to also or you now just must should will i we"
_GENERIC = (
    "get list search find read fetch lookup show by id ids uid key of in on to for from the a an with and all my new by name "
    "names number no nr reference ref code uuid details info information data item items record records query current"
)
_TOKENS = re.compile(r"[^\W_]+|[.!?:;,\n]")
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_QUOTED = re.compile(r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|`[^`\n]{1,400}`|(?<!\w)['‘][^'’\n]{1,400}['’](?!\w)")
_LATER = re.compile(
    r"(?i)\b(?:looking|planning|plan|plans|hoping|hope|going|intend\w*|about)\s+to\s+\w+|\bremind\w*[^.!?;,\n]{0,60}?\s(?-i:to)\s+\w+"
    r"|\b(?:thinking\s+(?:of|about)|considering|before|after|without)\s+\w+ing\b"
)
_GOAL = re.compile(r"(?i)\b(?:want|like|love|wish|need)\s+to\s+\w+")
_ADVICE = re.compile(r"(?i)\b(?:recommend|suggest|advise|which one)\b")
_TOWARDS = re.compile(r"(?i)\b(?:for|to|with)\s+\S{1,64}@\w")
_OWN = re.compile(r"(?i)(?:\b(?:same|his|her|their|its|whose)|\w[’']s)\s+([^\W_]+)")
_ENDS = ("ing", "ies", "ied", "es", "ed", "s", "e", "y")
ABOUT_WHOM = frozenset(("send", "pay", "share"))
"""Families whose verbs need no object: what counts is whom they reach."""
MAX_STEMS = 4096
"""The most different words of trusted text that are kept to tell what a caller asks for."""


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """A word without its ending, roughly: forms of one word agree, and that is all that it is for.

    >>> {stem(word) for word in ("cancel", "cancelled", "canceling", "Cancels")}
    {'cancel'}
    """
    word = word.lower()
    for end in _ENDS:
        if word.endswith(end) and len(word) - len(end) >= 3:
            word = word[: -len(end)]
            break
    return word[:-1] if len(word) > 2 and word[-1] == word[-2] else word


_VERBS: dict[str, frozenset[str]] = {}
for _family, _words in _FAMILIES.items():
    for _word in _words.split():
        _VERBS[stem(_word)] = _VERBS.get(stem(_word), frozenset()) | {_family}
_KNOWN = frozenset(_VERBS) | {stem(word) for word in _ASKING.split()}
KNOWN_WORDS = _KNOWN
"""The stems of words that say what to do, and of those that ask."""
_ALSO_NOUNS = frozenset([stem(word) for word in _NOUNS_TOO.split()])
_UPON = frozenset(("remove", "change", "approve"))
_DROPPED = frozenset([stem(word) for word in _GENERIC.split()])
_BEFORE = frozenset(_LEADING.split())


def words_of(name: str) -> tuple[str, ...]:
    """The stems of a name of code.

    >>> words_of("send_mailTo")
    ('send', 'mail', 'to')
    """
    return tuple([stem(word) for word in _SPLIT.split(name) if word])


def stems_of(words: str) -> frozenset[str]:
    """The stems of words with blanks between them."""
    return frozenset([stem(word) for word in words.split()])


def nouns(*names: str) -> frozenset[str]:
    """What names of tools, arguments and fields are about: their stems without verbs and without what every name has.

    >>> sorted(nouns("search_calendar_events", "event_id"))
    ['calendar', 'event']
    """
    return frozenset([word for name in names for word in words_of(name) if word not in _DROPPED and not word.isdigit()])


def _said(text: str) -> str:
    """A text without what is quoted in it, what is only planned, and where advice is asked for, without the goal that it is for.

    >>> _said("I'm looking to book a room. Suggest one, and remind me to pay."), _said("I want to book a room. Recommend one.")
    ("I'm   a room. Suggest one, and  .", 'I   a room. Recommend one.')
    """
    text = _LATER.sub(" ", _QUOTED.sub(" ", text))
    return _GOAL.sub(" ", text) if _ADVICE.search(text) else text


def unquoted(text: str) -> str:
    """A text without what is quoted in it."""
    return _QUOTED.sub(" ", text)


class Deed(msgspec.Struct, frozen=True):
    """What a tool does, by its name: its verbs, their families, what it is about, and whether any of this is money."""

    verbs: frozenset[str]
    families: frozenset[str]
    about: frozenset[str]
    pays: bool = False

    @staticmethod
    def of(name: str) -> Deed:
        """The deed of a tool of this name; a name without a known verb is one itself. What is undone or changed is no deed of its own.

        >>> [sorted(Deed.of(name).families) for name in ("cancel_order", "order_pizza", "send_money")]
        [['remove'], ['pay'], ['pay', 'send']]
        """
        words = words_of(name)
        known = [word for word in words if word in _VERBS]
        undoes = bool(known) and not _VERBS[known[0]].isdisjoint(_UPON)
        verbs = frozenset([word for word in known if not undoes or word == known[0] or word not in _ALSO_NOUNS]) or frozenset(
            words[:1]
        )
        families = frozenset([family for verb in verbs for family in _VERBS.get(verb, ())])
        return Deed(verbs, families, nouns(name) - verbs, any("pay" in _VERBS[word] for word in known))


class Errand:
    """The kinds of action that a caller's texts speak of."""

    __slots__ = ("_families", "_fields", "_stems", "_verbs", "understood")

    def __init__(self) -> None:
        self._stems: set[str] = set()
        self._verbs: set[str] = set()
        self._families: set[str] = set()
        self._fields: set[str] = set()
        self.understood = False

    def read(self, text: str) -> None:
        """Take in one more text of somebody who may ask."""
        if _TOWARDS.search(text):
            self._families |= {"send", "share"}
        self._fields.update([stem(word) for word in _OWN.findall(text)][: MAX_STEMS - len(self._fields)])
        tokens = _TOKENS.findall(_said(text))
        before = "."
        for place, token in enumerate(tokens):
            word = stem(token)
            if word in _KNOWN:
                self.understood = True
            if word in _VERBS and len(self._verbs) < MAX_STEMS and self._wanted(word, before, tokens[place + 1 : place + 2]):
                self._verbs.add(word)
                self._families |= _VERBS[word]
                if word == "set" and tokens[place + 1 : place + 2] == ["up"]:
                    self._families.add("create")
            if len(self._stems) < MAX_STEMS and len(word) < 40:
                self._stems.add(word)
            before = token.lower()

    @staticmethod
    def _wanted(word: str, before: str, after: Iterable[str]) -> bool:
        """Whether a word is a wish: not one that tells the caller something, and no noun."""
        if any(each.lower() in ("me", "us") for each in after):
            return False
        return word not in _ALSO_NOUNS or not before[0].isalnum() or before in _BEFORE

    def asks(self, deed: Deed) -> bool:
        """Whether something of this kind is asked for: by its verb, or by one of its family together with what it is about."""
        if deed.verbs & self._verbs or (not deed.families and deed.verbs & self._stems):
            return True
        shared = deed.families & self._families
        return bool(shared) and (not deed.about or bool(deed.about & self._stems) or bool(shared & ABOUT_WHOM))

    def speaks_of(self, words: frozenset[str]) -> bool:
        """Whether any of these stems stands in it."""
        return not words.isdisjoint(self._stems)

    def points_at(self, field: str) -> bool:
        """Whether it speaks of a field of something: "the same participants", "her email address"."""
        return bool(nouns(field) & self._fields)

    def allows(self, deed: Deed) -> bool:
        """The same, where it is known already that it is done to what the caller named: what the tool is about need not be."""
        return self.asks(deed) or bool(deed.families & self._families)
