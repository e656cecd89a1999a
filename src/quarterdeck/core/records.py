"""Which identifiers the records of a result give to what a caller named.

"Move my dentist to Friday" names an event by its title; the call needs its identifier. The identifier stands in a calendar that others
write into, so it is not trusted as a text. But it was given by the system that keeps the record, not by the author of its contents, and
the record is the one whose title the caller named. Such an identifier may be used for what the caller asked to have done, with a tool
about the same thing. Addresses, accounts and links are never identifiers: whoever wrote the record chose those.

A record is a JSON object. What *names* it are its texts under a field such as ``title`` or ``filename``, what *identifies* it are its
values under ``id`` and the like. JSON inside a text has authors of its own and is not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

import msgspec

from quarterdeck.core.errands import stems_of, words_of

MAX_RECORDS = 5_000
"""The most records of one result that are looked at."""
MAX_NAME = 120
"""The longest text, in characters, that is taken for the name of a record."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_NAMING = stems_of("name title filename path subject slug summary")
_PARTIES = stems_of("name recipient sender payee payer merchant vendor company counterparty account iban customer subject memo")
_IDENTIFYING = stems_of("id uid uuid key number nr no ref code")
_MONEY = stems_of("amount price total sum cost fee cents minor")
_MINOR = stems_of("cents minor")


class Record(msgspec.Struct, frozen=True):
    """One object of a result: the fields and values that identify it, its names, and amounts with the parties they are of."""

    identifiers: tuple[tuple[str, str], ...] = ()
    names: tuple[str, ...] = ()
    amounts: tuple[Decimal, ...] = ()
    parties: tuple[str, ...] = ()
    fields: Mapping[str, object] = {}


def identifier(value: object) -> str:
    """A value in the form in which identifiers are compared, or an empty string if it cannot be one.

    >>> identifier(24), identifier("msg_9f"), identifier("ann@example.com")
    ('24', 'msg_9f', '')
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        return ""
    text = str(value)
    return text if _IDENTIFIER.match(text) else ""


def records(value: object) -> Iterator[Record]:
    """Every record in a JSON value, at most :data:`MAX_RECORDS` of them. What a record with an identifier holds is its content, which
    may have been written by anybody: no record is looked for in there.
    """
    stack, seen = [value], 0
    while stack and seen < MAX_RECORDS:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend([each for each in reversed(item) if isinstance(each, list | dict)])
        elif isinstance(item, dict):
            seen += 1
            found = _record(item)
            if not found.identifiers:
                stack.extend([each for each in item.values() if isinstance(each, list | dict)])
            yield found


def _record(item: dict[str, object]) -> Record:
    identifiers, names, amounts, parties = [], [], [], []
    for key, value in item.items():
        words = words_of(str(key)) or ("",)
        last = words[-1]
        if last in _IDENTIFYING and (found := identifier(value)):
            identifiers.append((str(key), found))
        if isinstance(value, str) and 2 < len(value) <= MAX_NAME:
            if last in _NAMING:
                names.append(value)
            if last in _PARTIES:
                parties.append(value)
        if last in _MONEY and isinstance(value, int | float) and not isinstance(value, bool):
            try:
                amounts.append(Decimal(str(value)) / (100 if last in _MINOR else 1))
            except InvalidOperation:
                continue
    return Record(tuple(identifiers), tuple(names), tuple(amounts), tuple(parties), item)


def named(value: object, names: Callable[[str], bool], *, asked: bool) -> Iterator[tuple[str, str]]:
    """The identifiers, with their fields, of records that the caller named, each by a name that no other record here has.

    ``asked``: the read itself was for something that the caller named; then the only record that it found is meant as well.
    """
    found = list(records(value))
    bearing = [each for each in found if each.identifiers]
    if asked and len(bearing) == 1:
        yield from bearing[0].identifiers
        return
    count: dict[str, int] = {}
    for each in bearing:
        for name in {name.casefold() for name in each.names}:
            count[name] = count.get(name, 0) + 1
    for each in bearing:
        if any(count[name.casefold()] == 1 and names(name) for name in each.names):
            yield from each.identifiers


def chosen(value: object, names: Callable[[str], bool]) -> Mapping[str, object]:
    """The fields of the one record that the caller named, by a name that no other record here has; nothing if it is not one."""
    bearing = [each for each in records(value) if each.names and any(names(name) for name in each.names)]
    return bearing[0].fields if len(bearing) == 1 else {}


def owed(value: object, names: Callable[[str], bool]) -> Iterator[Decimal]:
    """The amounts of records of a party that the caller named."""
    for each in records(value):
        if each.amounts and any(names(party) for party in each.parties):
            yield from each.amounts
