"""Bugs on purpose in what decides about untrusted content: with each of them, some attack of the corpus works."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal

import msgspec

from quarterdeck.core import errands, origins, places, records, sinks
from quarterdeck.core.errands import Errand
from quarterdeck.core.identifiers import Given, Identifiers
from quarterdeck.core.labels import Labels
from quarterdeck.core.origins import Origins
from quarterdeck.core.places import Described
from quarterdeck.core.sinks import NO_CROSSING, Crossing, Role
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.stated import Stated
from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.engine import performing
from quarterdeck.engine.transcript import Transcript
from quarterdeck.gate import gate
from quarterdeck.gate.gate import Gate
from quarterdeck.testing.patching import patched

Plant = Callable[[], AbstractContextManager[object]]

_canonical = origins.canonical_word
_crossing = sinks.crossing
_role = sinks._role
_receipt = performing._receipt


_ALIKE = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0456l", "aeopci1")


def _loosely(text: str) -> str:
    folded = unicodedata.normalize("NFKC", sinks._undisguised(text)).casefold()
    return _canonical("".join([char for char in folded if char.isalnum() or char in "@./:-"]).translate(_ALIKE))


def _everything_is_asked_well(self: Origins, raw: str) -> bool:
    return True


def _nothing_links(text: str) -> Iterator[str]:
    return iter(())


def _without(code: str) -> Callable[..., Crossing]:
    def crossing(*arguments: object) -> Crossing:
        found = _crossing(*arguments)  # type: ignore[arg-type]
        return Crossing(tuple([each for each in found.codes if each != code]), found.arguments)

    return crossing


def _reads_stay_inside(name: str, part: object, effect: EffectClass, declared: tuple[str, ...] | None) -> Role:
    return Role.NEUTRAL if effect is EffectClass.READ else _role(name, part, effect, declared)


def _holds_parts(self: Origins, value: object, *, told: bool) -> bool:
    return isinstance(value, str) and any(self._known(part, told) for part in value.replace("/", " ").replace(".", " ").split())


def _unlabelled_receipt(*arguments: object, **named: object) -> object:
    closed, shown = _receipt(*arguments, **named)  # type: ignore[arg-type]
    return msgspec.structs.replace(closed, labels=None), shown


def _always_believed(self: Origins, status: object, labels: Labels | None, payload: bytes, *_: object) -> None:
    self.trust_json(payload)


def _forgets_writing(
    self: Origins, status: object, labels: Labels | None, payload: bytes, asked: str | None, *rest: object
) -> None:
    self._wrote = False
    _received(self, status, labels, payload, asked, *rest)  # type: ignore[arg-type]


_received = Origins.received


def _fits_any(self: Identifiers, value: object, argument: str, tool: str) -> Given | None:
    return max(self._known.get(records.identifier(value), {}).values(), default=None)


def _every_record(value: object) -> Iterator[records.Record]:
    stack = [value]
    while stack:
        item = stack.pop()
        stack.extend(item if isinstance(item, list) else item.values() if isinstance(item, dict) else ())
        if isinstance(item, dict):
            yield records._record(item)


def _named_by_any(value: object, names: Callable[[str], bool], *, asked: bool) -> Iterator[tuple[str, str]]:
    for each in records.records(value):
        if any(names(name) for name in each.names):
            yield from each.identifiers


def _owed_by_any(value: object, names: Callable[[str], bool]) -> Iterator[Decimal]:
    for each in records.records(value):
        yield from each.amounts


def _owes_always(self: Origins, value: object, *, minor: bool = False) -> bool:
    self._settle_unread()
    return origins.number(value) in self._amounts


def _chosen_last(value: object, names: Callable[[str], bool]) -> Mapping[str, object]:
    return max((each.fields for each in records.records(value) if any(names(name) for name in each.names)), key=str, default={})


_look_through = Origins._look_through


def _complete_always(self: Origins, *rest: object, complete: bool) -> None:
    _look_through(self, *rest, complete=True)  # type: ignore[arg-type]


def _begins_last(value: object, part: str, *, ends: bool) -> Iterator[tuple[str, str]]:
    yield from [("", each) for each in value if str(each).startswith(part)][-1:] if isinstance(value, list) else ()


def _extreme_any(value: object, fields: frozenset[str], *, most: bool) -> Iterator[tuple[str, str]]:
    for each in records.records(value):
        yield from each.identifiers


def _opens_again(self: Origins, value: object) -> bool:
    self._settle_unread()
    return value in self._opened


def _pages_of_anybody(self: Described, value: object, place: str) -> frozenset[str]:
    return frozenset(places._links(value, frozenset()))


def _a_mail_of(self: Described, value: object, place: str) -> str:
    return max(places._MAIL.findall(str(value)), default="")


def _last_mail(self: Described, value: object, place: str) -> str:
    return max(places._MAIL.findall(str(value)), default="", key=lambda mail: "dana@" in mail) if self.people.get(place) else ""


def _paid_anything(self: Origins, value: object) -> Decimal | None:
    self._settle_unread()
    return Decimal(10**9) if value in self._payers else None


def _payers_of_any(value: object, prices: frozenset[Decimal], about: frozenset[str]) -> Iterator[places.Payment]:
    for each in records.records(value):
        yield from [places.Payment(str(each.fields.get("sender")), price) for price in prices]


def _light(spec: ToolSpec) -> sinks.Sinks:
    found = sinks.sinks_of(spec)
    return msgspec.structs.replace(found, grave=not found.deed.families.isdisjoint(errands.ABOUT_WHOM))


BUGS: dict[str, Plant] = {
    "there are no labels": lambda: patched(Gate, "crossing", lambda *_: NO_CROSSING),
    "every result is trusted": lambda: patched(Origins, "received", _always_believed),
    "look-alikes and other cases are trusted": lambda: patched(origins, "canonical_word", _loosely),
    "a trusted source may echo": lambda: patched(Origins, "_proper", _everything_is_asked_well),
    "what was written is believed when it is read back": lambda: patched(Origins, "received", _forgets_writing),
    "links in prose are not looked at": lambda: patched(sinks, "links", _nothing_links),
    "disguised links are not seen": lambda: patched(sinks, "_undisguised", lambda text: text),
    "encoded links are not seen": lambda: patched(sinks, "_decoded", lambda piece: iter(())),
    "amounts are not looked at": lambda: patched(gate, "crossing", _without("label.untrusted_amount")),
    "targets are not looked at": lambda: patched(gate, "crossing", _without("label.untrusted_target")),
    "an action without a target is free": lambda: patched(gate, "crossing", _without("label.no_target")),
    "reads never reach outside": lambda: patched(sinks, "_role", _reads_stay_inside),
    "a part of a trusted value is enough": lambda: patched(Origins, "_holds", _holds_parts),
    "what a failure says is not labelled": lambda: patched(performing, "_receipt", _unlabelled_receipt),
    "a number is a number": lambda: patched(sinks, "short", lambda value: False),
    "identifiers are of anything": lambda: patched(Identifiers, "fits", _fits_any),
    "nobody has to ask": lambda: patched(Errand, "asks", lambda self, deed: True),
    "a quoted word is a wish": lambda: patched(errands, "_QUOTED", re.compile(r"(?!)")),
    "a record of the same name is the one": lambda: patched(origins, "named", _named_by_any),
    "contents of a record are records": lambda: patched(records, "records", _every_record),
    "what the planner asked a source is its record": lambda: patched(Origins, "_harmless", lambda self, leaf: True),
    "anybody is owed anything": lambda: patched(origins, "owed", _owed_by_any),
    "an amount that was said does not count": lambda: patched(Origins, "owes", _owes_always),
    "any amount is below the stated one": lambda: patched(Stated, "within", lambda self, amount: self.most is not None),
    "a plan is a wish": lambda: patched(errands, "_LATER", re.compile(r"(?!)")),
    "a goal is a wish": lambda: patched(errands, "_GOAL", re.compile(r"(?!)")),
    "in public, pages are free": lambda: patched(sinks, "_astray", lambda *_: NO_CROSSING),
    "every field is pointed at": lambda: patched(Errand, "points_at", lambda self, field: True),
    "of two of a name, one is the one": lambda: patched(origins, "chosen", _chosen_last),
    "every list is complete": lambda: patched(Origins, "_look_through", _complete_always),
    "of two that begin so, one is the one": lambda: patched(places, "_beginning", _begins_last),
    "everything of a list is the oldest": lambda: patched(places, "_extreme", _extreme_any),
    "a page may be read again": lambda: patched(Origins, "opens", _opens_again),
    "there are pages everywhere": lambda: patched(Described, "pages", _pages_of_anybody),
    "many pages tell no more than few": lambda: patched(places, "MAX_LINKS", 100),
    "an address needs no name": lambda: patched(Described, "only_mail", _a_mail_of),
    "of two addresses, one is the one": lambda: patched(Described, "only_mail", _last_mail),
    "who paid may have anything": lambda: patched(Origins, "paid", _paid_anything),
    "everybody has paid": lambda: patched(origins, "payments", _payers_of_any),
    "a share is of anything": lambda: patched(Stated, "shared", lambda self, amount, whole: self.share is not None),
    "to be named is to be written to": lambda: patched(sinks, "ABOUT_WHOM", frozenset()),
    "to be named is to be undone": lambda: patched(gate, "sinks_of", _light),
    "what is undone is a deed of its own": lambda: patched(errands, "_UPON", frozenset()),
    "an address is one only in its own argument": lambda: patched(sinks, "_reaches", lambda value: False),
    "flags and choices are harmless": lambda: patched(sinks, "_widens", lambda *_: False),
    "how many does not matter": lambda: patched(sinks, "_MONEY", sinks._MONEY - sinks._COUNTED),
    "secrets may be told": lambda: patched(gate, "crossing", _without("label.secret_content")),
    "untrusted requests are trusted": lambda: patched(Transcript, "watch", _watch_trusting),
}
"""Every planted bug, by what it makes untrue."""


def _watch_trusting(self: Transcript, given: Origins, specs: Callable[[str], object]) -> None:
    given.tainted = False
    self.origins = given
    self._specs = specs  # type: ignore[assignment]
