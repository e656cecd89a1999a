"""Bugs on purpose in what decides about untrusted content: with each of them, some attack of the corpus works."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import msgspec

from quarterdeck.core import origins, sinks
from quarterdeck.core.labels import Labels
from quarterdeck.core.origins import Origins
from quarterdeck.core.sinks import NO_CROSSING, Crossing, Role
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
_trust = Origins.trust


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


def _by_parts(self: Origins, text: str, span: int = 8) -> None:
    _trust(self, text, span)
    for word in text.replace("/", " ").replace("@", " ").replace(".", " ").split():
        self._mark(word)


def _holds_parts(self: Origins, value: object) -> bool:
    return isinstance(value, str) and any(hash(part) in self._marks for part in value.replace("/", " ").replace(".", " ").split())


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

BUGS: dict[str, Plant] = {
    "there are no labels": lambda: patched(Gate, "crossing", lambda *_: NO_CROSSING),
    "every result is trusted": lambda: patched(Origins, "received", _always_believed),
    "look-alikes and other cases are trusted": lambda: patched(origins, "canonical_word", _loosely),
    "a trusted source may echo": lambda: patched(Origins, "_asked", _everything_is_asked_well),
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
    "untrusted requests are trusted": lambda: patched(Transcript, "watch", _watch_trusting),
}
"""Every planted bug, by what it makes untrue."""


def _watch_trusting(self: Transcript, given: Origins, specs: Callable[[str], object]) -> None:
    given.tainted = False
    self.origins = given
    self._specs = specs  # type: ignore[assignment]
