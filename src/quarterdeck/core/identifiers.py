"""Identifiers that a run may use, each with what it identifies.

"13" says nothing by itself: in "June 13" it is a day, in "file 13" it is a file, in a trusted list of payments it is whatever the field
says. So identifiers, and above all short numbers, are kept together with what they identify, and one of them fits an argument only if
both are about the same thing.

>>> known = Identifiers()
>>> known.asked("By June 13, delete file 4 and merge 52.")
>>> [
...     known.fits(value, argument, tool) is not None
...     for value, argument, tool in (
...         ("13", "file_id", "delete_file"),
...         ("4", "file_id", "delete_file"),
...         ("4", "user_id", "ban_user"),
...         (52, "number", "merge"),
...     )
... ]
[False, True, False, True]
"""

from __future__ import annotations

import re
from enum import IntEnum

from quarterdeck.core.errands import nouns, stem
from quarterdeck.core.records import identifier

MAX_IDENTIFIERS = 8_192
"""The most identifiers kept of one run. What does not fit is not trusted."""

_NUMBERS = re.compile(r"(#\s?)?(?<![\w.,/:+-])(\d{1,5})(?![\w/:+-]|[.,]\d)|([^\W\d_][\w'’]*)|([^\s])")
_SHORT = re.compile(r"0*\d{1,5}([.,]0*)?\Z")
_AROUND = " \t\r\n\"'`()[]{}<>;:!?#@*+-$€£¥%/\\"
_SAID = frozenset(("number", "no", "nr", "id", "ids"))
_LINKING = _SAID | frozenset(("and", "or", "on", "to", "of", "in", "the", "a", "an"))
_TIME_WORDS = (
    "january february march april may june july august september october november december jan feb mar apr jun jul aug "
    "sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday day week month year hour minute "
    "second at by until from before after since for around about next last first top past least most than page version "
    "only up within over under every room euro euros dollar dollars pound pounds usd eur gbp is are was with"
)
_TIMES = frozenset([stem(word) for word in _TIME_WORDS.split()])
ANYTHING = "#"
"""What an identifier identifies that was only called one."""


class Given(IntEnum):
    """How an identifier came to a run: in a record that the caller named, from a trusted source, or from the caller."""

    NAMED = 1
    TOLD = 2
    ASKED = 3


def short(value: object) -> bool:
    """Whether a value is, or may be read as, a short number, which is an identifier only where it is called one.

    >>> [short(value) for value in (13, "#13", " 13.0", 13.0, "\uff11\uff13", "A13", 123456)]
    [True, True, True, True, True, False, False]
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    return _SHORT.match(str(value)[:64].strip(_AROUND)) is not None


class Identifiers:
    """The identifiers of one run: by value, what each identifies and how it came."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, dict[frozenset[str], Given]] = {}

    def learn(self, value: object, about: frozenset[str], given: Given) -> None:
        """Keep one identifier."""
        text = identifier(value)
        if not text or (len(self._known) >= MAX_IDENTIFIERS and text not in self._known):
            return
        kept = self._known.setdefault(text, {})
        kept[about] = max(given, kept.get(about, given))

    def asked(self, text: str) -> None:
        """Keep the short numbers of a caller's text, each with the word that says what it is."""
        word, said = "", False
        for mark, digits, letters, other in _NUMBERS.findall(text):
            if letters:
                lowered = letters.lower()
                said = said or lowered in _SAID
                if lowered not in _LINKING:
                    word, said = stem(letters), False
            elif digits:
                if mark or said:
                    self.learn(digits, frozenset((ANYTHING,)), Given.ASKED)
                if word and word not in _TIMES:
                    self.learn(digits, frozenset((word,)), Given.ASKED)
            elif other == "#":
                said = True
            elif other in ".!?;":
                word, said = "", False

    def fits(self, value: object, argument: str, tool: str) -> Given | None:
        """How an identifier came that may be given to this argument of this tool; ``None`` if none of that value may."""
        kept = self._known.get(identifier(value))
        if not kept:
            return None
        own = nouns(argument)
        about = own | nouns(tool)
        found = [
            given
            for what, given in kept.items()
            if what & about or (given is Given.ASKED and (ANYTHING in what or not own)) or not (what or about)
        ]
        return max(found, default=None)
