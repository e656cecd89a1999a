"""The difference of two runs, step by step: what each asked for, what it was told, how it ended.

Steps are aligned by what they are (call key, kind, name), so that one which only one of the runs has moves nothing after it. Contents are
compared where they are there, and never shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

import msgspec


class Told(msgspec.Struct, frozen=True):
    """One event as a reader of journals has it, at home or from a server."""

    seq: int
    kind: str
    body: dict[str, object]
    content: object = None


class Line(msgspec.Struct, frozen=True):
    """One step of a run: its place, what was asked for, and how it ended."""

    call: str
    what: str
    asked: str
    ended: str
    result: str = ""


class Pair(msgspec.Struct, frozen=True):
    """The same step of two runs; a side that has no such step is ``None``."""

    left: Line | None
    right: Line | None

    @property
    def same(self) -> bool:
        """Whether both have it, alike."""
        return self.left == self.right


class Comparison(msgspec.Struct, frozen=True):
    """Two runs side by side; ``first`` is the place of the first difference, ``None`` where there is none."""

    pairs: tuple[Pair, ...]
    first: int | None


_ASKED = {"gate.decided": "name", "step.proposed": "name"}
_ENDED = ("tool.closed", "model.closed", "step.closed", "child.ended", "effect.resolved", "step.inherited")


def compared(left: Iterable[Told], right: Iterable[Told]) -> Comparison:
    """Compare two journals."""
    one, other = _lines(left), _lines(right)
    pairs: list[Pair] = []
    matcher = SequenceMatcher(None, [(line.call, line.what) for line in one], [(line.call, line.what) for line in other], False)
    for _, start, end, from_, to in matcher.get_opcodes():
        ours: Sequence[Line | None] = one[start:end]
        theirs: Sequence[Line | None] = other[from_:to]
        length = max(len(ours), len(theirs))
        if [line and line.what for line in ours] == [line and line.what for line in theirs]:
            pairs += [Pair(ours[index], theirs[index]) for index in range(length)]
        else:
            pairs += [Pair(line, None) for line in ours] + [Pair(None, line) for line in theirs]
    first = next((index for index, pair in enumerate(pairs) if not pair.same), None)
    return Comparison(tuple(pairs), first)


def _lines(events: Iterable[Told]) -> list[Line]:
    found: dict[str, Line] = {}
    for event in events:
        body, call = event.body, str(event.body.get("call", ""))
        if event.kind == "run.finished":
            ended = f"{body.get('status')} {body.get('code')}"
            found["end"] = Line("end", "end", "", ended, _hash(event.content))
        elif event.kind in _ASKED and call:
            known = found.get(call)
            what = f"{body.get('proposal') or body.get('step')} {body.get('name')}"
            said = f"{body['ruling']} {_first(body.get('reasons'))}".strip() if event.kind == "gate.decided" else ""
            if known is None:
                found[call] = Line(call, what, str(body.get("digest", "")) if event.kind == "step.proposed" else "", said)
            elif said and not known.result:
                found[call] = msgspec.structs.replace(known, ended=said)
        elif event.kind in _ENDED and call in found:
            inner = msgspec.json.decode(str(body["answer"])) if event.kind == "step.inherited" else body
            ended = f"{inner.get('status') or inner.get('ruling')} {inner.get('code', '')}".strip()
            found[call] = msgspec.structs.replace(found[call], ended=ended, result=_hash(event.content))
    return list(found.values())


def _first(reasons: object) -> str:
    return str(reasons[0]) if isinstance(reasons, (list, tuple)) and reasons else ""


def _hash(content: object) -> str:
    if content is None:
        return ""
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:12]
