"""The shop's data, made up: the same customers and orders for the same seed, on every machine and every version of Python.

Nothing here is drawn from a stream of random numbers. Each fact is a hash of the seed and of what the fact is about, so adding a
field or an order leaves all the others as they are, and the tickets in ``tickets/`` can name orders that exist.

>>> orders(seed=7)[0]
Order(id='A1001', customer='kaya.garcia@example.com', item='yoga mat', amount_usd=32, status='delivered', placed='2026-11-15')
>>> orders(seed=7) == orders(seed=7), orders(seed=7) == orders(seed=8)
(True, False)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import msgspec

SEED = 7
ORDERS = 320
CUSTOMERS = 80

_FIRST = (
    "ada",
    "ben",
    "carla",
    "dev",
    "elif",
    "farid",
    "greta",
    "hugo",
    "ines",
    "jonas",
    "kaya",
    "lena",
    "marco",
    "nina",
    "omar",
    "petra",
)
_LAST = (
    "adler",
    "baker",
    "costa",
    "diaz",
    "evans",
    "fischer",
    "garcia",
    "haas",
    "ito",
    "jensen",
    "kim",
    "lopez",
    "moreau",
    "novak",
    "silva",
)
_STREETS = ("Mill Lane", "Station Road", "Oak Avenue", "River Street", "Church Hill", "Garden Way")
_TOWNS = ("Lisbon", "Porto", "Leipzig", "Lyon", "Malmo", "Graz", "Ghent", "Turin")
_ITEMS = (
    ("tea towel", 9), ("coffee mug", 14), ("desk lamp", 24), ("yoga mat", 32), ("wool blanket", 48),
    ("backpack", 75), ("office chair", 140), ("road bike helmet", 95), ("espresso machine", 420), ("standing desk", 690),
)  # fmt: skip
_STATUSES = ("delivered", "delivered", "delivered", "shipped", "packed", "lost")

T = TypeVar("T")


class Customer(msgspec.Struct, frozen=True):
    """Somebody who has bought something; the e-mail address is the name under which everything else knows them."""

    email: str
    name: str
    address: str


class Order(msgspec.Struct, frozen=True):
    """One order. Amounts in this shop are whole dollars, so that even a very small model can copy them."""

    id: str
    customer: str
    item: str
    amount_usd: int
    status: str
    placed: str


def _pick(choices: Sequence[T], *about: object) -> T:
    """One of ``choices``, settled for ever by what the choice is about."""
    return choices[_number(len(choices), *about)]


def _number(below: int, *about: object) -> int:
    digest = hashlib.sha256("/".join(map(str, about)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def customers(seed: int = SEED, count: int = CUSTOMERS) -> list[Customer]:
    """``count`` customers with addresses that differ."""
    found: dict[str, Customer] = {}
    number = 0
    while len(found) < count:
        first, last = _pick(_FIRST, seed, "first", number), _pick(_LAST, seed, "last", number)
        street = f"{_number(98, seed, 'house', number) + 1} {_pick(_STREETS, seed, 'street', number)}"
        email = f"{first}.{last}@example.com"
        name = f"{first} {last}".title()
        found.setdefault(email, Customer(email, name, f"{street}, {_pick(_TOWNS, seed, 'town', number)}"))
        number += 1
    return list(found.values())


def orders(seed: int = SEED, count: int = ORDERS) -> list[Order]:
    """``count`` orders of those customers, numbered from A1001."""
    buyers = customers(seed)
    made = []
    for number in range(1001, 1001 + count):
        item, amount_usd = _pick(_ITEMS, seed, "item", number)
        day = _number(50, seed, "day", number)
        placed = f"2026-{10 if day < 31 else 11}-{day + 1 if day < 31 else day - 30:02d}"
        status = _pick(_STATUSES, seed, "status", number)
        made.append(Order(f"A{number}", _pick(buyers, seed, "buyer", number).email, item, amount_usd, status, placed))
    return made
