"""Shapes: the types that policies can see, and the only way in for untrusted values.

A shape turns a JSON value into a *key* (hashable, of one type only, free of anything that the shape does not name) and
a key into Cedar's JSON. Policies are evaluated on what the key says and on nothing else, which makes two things true
by construction: a remembered verdict equals a fresh one, and a value can never be read as something other than its
declared type.

>>> shape = Record((Field("amount_cents", Whole(), required=True), Field("note", Text(), required=False)))
>>> form = compiled(shape)
>>> form.read({"amount_cents": 1200, "note": None, "unknown": {"__entity": {"type": "Agent", "id": "root"}}})
(1200, None)
>>> form.show((1200, None))
{'amount_cents': 1200}
>>> form.read({"amount_cents": 2**63})
Traceback (most recent call last):
quarterdeck.policy.shapes.Unreadable: policy.unrepresentable: an integer beyond 64 bits has no exact form in a policy
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import TypeAlias, assert_never

from quarterdeck.core.errors import Refused
from quarterdeck.policy.escape import escaped

MAX_DEPTH = 8
"""Levels of nesting inside a tool's arguments that policies can see."""
MAX_SET_ITEMS = 4096
"""Items of an array that a policy reads; a longer one is denied with ``policy.too_large``."""

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_DECIMAL_MIN, _DECIMAL_MAX = Decimal("-922337203685477.5808"), Decimal("922337203685477.5807")
_WIDE = Context(prec=40)
_FOUR_DIGITS = Decimal("0.0001")


class Unreadable(Refused):
    """A value cannot be shown to policies; the proposal is denied with ``code``."""


@dataclass(frozen=True, slots=True)
class Text:
    """Cedar ``String``."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Cedar ``Long``: an integer of 64 bits."""


@dataclass(frozen=True, slots=True)
class Truth:
    """Cedar ``Bool``."""


@dataclass(frozen=True, slots=True)
class Number:
    """Cedar ``decimal``: at most four digits after the point, exact."""


@dataclass(frozen=True, slots=True)
class Many:
    """Cedar ``Set``: order and repetitions are not visible."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute of a record; one that is not ``required`` is optional in Cedar and null is the same as absent."""

    name: str
    shape: Shape
    required: bool


@dataclass(frozen=True, slots=True)
class Record:
    """A Cedar record with exactly these attributes."""

    fields: tuple[Field, ...]


Shape: TypeAlias = Text | Whole | Truth | Number | Many | Record
Key: TypeAlias = "str | int | bool | tuple[Key, ...] | None"


@dataclass(frozen=True, slots=True)
class Form:
    """A compiled shape: ``read`` makes the key of a raw value, ``show`` Cedar's JSON of a key."""

    read: Callable[[object], Key]
    show: Callable[[Key], object]


def compiled(shape: Shape) -> Form:
    """Compile ``shape`` once, so that reading a request costs no lookups. ``read`` raises :class:`Unreadable`."""
    match shape:
        case Text():
            return Form(_read_text, _show_plain)
        case Whole():
            return Form(_read_whole, _show_plain)
        case Truth():
            return Form(_read_truth, _show_plain)
        case Number():
            return Form(_read_number, _show_number)
        case Many(item):
            return _many(compiled(item))
        case Record(fields):
            return _record(fields)
        case _:
            assert_never(shape)


def pruned(shape: Record, paths: Iterable[tuple[str, ...]]) -> Record:
    """The part of ``shape`` that lies on or below ``paths``. The empty path is all of it; a path that leads nowhere,
    nothing.

    >>> spent = Field("spent", Record((Field("tokens", Whole(), True), Field("tool_calls", Whole(), True))), True)
    >>> [field.name for field in pruned(Record((spent, Field("turn", Whole(), True))), [("turn",)]).fields]
    ['turn']
    """
    below: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        if not path:
            return shape
        below.setdefault(path[0], []).append(path[1:])
    kept = []
    for field in shape.fields:
        rest = below.get(escaped(field.name))
        if rest is None:
            continue
        inner = pruned(field.shape, rest) if isinstance(field.shape, Record) else field.shape
        kept.append(Field(field.name, inner, field.required))
    return Record(tuple(kept))


def _mismatch(wanted: str, value: object) -> Unreadable:
    return Unreadable("policy.error", f"a policy reads {wanted} here, and the value is of type {type(value).__name__}")


def _read_text(value: object) -> Key:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise _mismatch("a string", value)


def _read_whole(value: object) -> Key:
    if isinstance(value, bool):
        raise _mismatch("an integer", value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int):
        raise _mismatch("an integer", value)
    if not _LONG_MIN <= value <= _LONG_MAX:
        raise Unreadable("policy.unrepresentable", "an integer beyond 64 bits has no exact form in a policy")
    return int(value)


def _read_truth(value: object) -> Key:
    if isinstance(value, bool):
        return value
    raise _mismatch("a boolean", value)


def _read_number(value: object) -> Key:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch("a number", value)
    if value == value and _DECIMAL_MIN <= value <= _DECIMAL_MAX:  # a NaN, unequal to itself, has no order
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        rounded = exact.quantize(_FOUR_DIGITS, context=_WIDE)
        if rounded == exact and _DECIMAL_MIN <= exact <= _DECIMAL_MAX:
            return f"{rounded:f}"
    raise Unreadable("policy.unrepresentable", "a number with more than four decimals has no exact form in a policy")


def _show_plain(key: Key) -> object:
    return key


def _show_number(key: Key) -> object:
    return {"__extn": {"fn": "decimal", "arg": key}}


def _many(item: Form) -> Form:
    def read(value: object) -> Key:
        if not isinstance(value, list | tuple | set | frozenset):
            raise _mismatch("an array", value)
        if len(value) > MAX_SET_ITEMS:
            raise Unreadable("policy.too_large", f"a policy reads an array here; the limit is {MAX_SET_ITEMS} items")
        return tuple([item.read(each) for each in value])

    def show(key: Key) -> object:
        return [item.show(each) for each in _parts(key)]

    return Form(read, show)


def _record(fields: tuple[Field, ...]) -> Form:
    forms = [(field, compiled(field.shape)) for field in fields]
    readers = tuple((field.name, form.read, field.required) for field, form in forms)
    shows = tuple((escaped(field.name), form.show) for field, form in forms)

    def show(key: Key) -> object:
        pairs = zip(shows, _parts(key), strict=True)
        return {name: show_part(part) for (name, show_part), part in pairs if part is not None}

    if len(readers) == 1:
        return Form(_single(*readers[0]), show)

    def read(value: object) -> Key:
        if type(value) is not dict and not isinstance(value, Mapping):  # the exact type first: an ABC is slow to ask
            raise _mismatch("an object", value)
        parts = []
        for name, read_part, required in readers:
            part = value.get(name)
            if part is not None:
                parts.append(read_part(part))
            elif required:
                raise _missing(name)
            else:
                parts.append(None)
        return tuple(parts)

    return Form(read, show)


def _single(name: str, read_part: Callable[[object], Key], required: bool) -> Callable[[object], Key]:
    """As the general reader, for the commonest record by far: one attribute is read."""

    def read(value: object) -> Key:
        if type(value) is not dict and not isinstance(value, Mapping):
            raise _mismatch("an object", value)
        part = value.get(name)
        if part is not None:
            return (read_part(part),)
        if required:
            raise _missing(name)
        return (None,)

    return read


def _missing(name: str) -> Unreadable:
    return Unreadable("policy.error", f"a policy reads {name!r}, and the request does not have it")


def _parts(key: Key) -> tuple[Key, ...]:
    if not isinstance(key, tuple):
        raise TypeError("a key of a set or a record is a tuple")
    return key
