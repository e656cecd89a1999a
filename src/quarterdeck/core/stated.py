"""What a caller's text states besides words: the greatest price, the hosts of its web addresses, and titles with places to be filled.

A caller who says "refund them what they paid too much of the 12.00" sets a bound: whoever hijacks the planner may return less, never
more. A caller who names a page to read has said where to read. A caller who writes "call it 'Dinner at {restaurant}'" has given a title.

>>> stated = Stated()
>>> stated.read("We spent 12.00, or 11 euros. See www.menu.example/today and call it 'Dinner at {place}'.")
>>> stated.most, sorted(stated.hosts), stated.fills("Dinner at Chez Ami"), stated.fills("Dinner for two")
(Decimal('12.00'), ['menu.example'], True, False)
"""

from __future__ import annotations

import re
from decimal import Decimal

MAX_HOSTS = 1_024
"""The most hosts kept of one run."""
MAX_PRICES = 64
"""The most prices kept of one run, each for itself."""
MAX_TEMPLATES = 32
"""The most titles with places to be filled kept of one run."""
MAX_TITLE = 256
"""The longest title, in characters, that is compared with them."""

_SUM = r"\d{1,3}(?:,\d{3})+(?:\.\d{1,9})?|\d{1,12}(?:\.\d{1,9})?"
_BEFORE = r"(?<![\w.,/:+-])"
_PRICE = re.compile(
    rf"(?i)[$€£¥]\s?({_SUM})|{_BEFORE}({_SUM})\s?(?:[$€£¥]|(?:dollars?|euros?|pounds?|usd|eur|gbp|chf)\b)"
    rf"|{_BEFORE}(\d{{1,12}}\.\d\d)(?![\w/:%-]|[.,]\d|\s?%)"
)
_ADDRESS = re.compile(
    r"(?i)(?<![\w@.-])(?:https?://|www\.)([a-z0-9-]+(?:\.[a-z0-9-]+)+)|(?<![\w@./-])([a-z0-9-]+(?:\.[a-z0-9-]+)+)/\w"
)
_TEMPLATE = re.compile(r"[\"'“‘]([^\"'“”‘’\n]{0,80}\{[^{}\n]{1,40}\}[^\"'“”‘’\n]{0,80})[\"'”’]")
_SHARE = re.compile(r"(?i)(?<![\w.,])(\d{1,3}(?:\.\d{1,4})?)\s?(?:%|percent\b|per\s+cent\b)")
_PLACE = re.compile(r"\\?\{[^{}]{1,40}\}")
_FEWEST = 4


def host_of(address: str) -> str:
    """The host of a web address without ``www.``, or an empty string.

    >>> host_of("https://WWW.news.example/a"), host_of("www.news.example"), host_of("https://u@news.example/"), host_of("plan")
    ('news.example', 'news.example', '', '')
    """
    found = re.match(r"(?i)(?:https?://)?([a-z0-9-]+(?:\.[a-z0-9-]+)+)(?=[/?#]|\Z)", address.strip())
    return found[1].lower().removeprefix("www.") if found is not None else ""


class Stated:
    """The prices, hosts and titles of one run's trusted requests."""

    __slots__ = ("_templates", "hosts", "most", "prices", "share")

    def __init__(self) -> None:
        self.most: Decimal | None = None
        self.prices: set[Decimal] = set()
        self.share: Decimal | None = None
        self.hosts: set[str] = set()
        self._templates: list[re.Pattern[str]] = []

    def read(self, text: str) -> None:
        """Take in one more text of somebody who may ask."""
        for found in _PRICE.finditer(text):
            price = Decimal((found[1] or found[2] or found[3]).replace(",", ""))
            self.most = price if self.most is None else max(self.most, price)
            if len(self.prices) < MAX_PRICES:
                self.prices.add(price)
        for found in _SHARE.finditer(text):
            share = Decimal(found[1])
            self.share = share if self.share is None else max(self.share, share)
        for found in _ADDRESS.finditer(text):
            if len(self.hosts) < MAX_HOSTS:
                self.hosts.add((found[1] or found[2]).lower().removeprefix("www."))
        for found in _TEMPLATE.finditer(text):
            fixed = _PLACE.sub("", found[1])
            if len(self._templates) < MAX_TEMPLATES and len(re.sub(r"[\W_]", "", fixed)) >= _FEWEST:
                parts = _PLACE.split(found[1])
                self._templates.append(re.compile(r"[^\n]{1,80}?".join(re.escape(part) for part in parts), re.IGNORECASE))

    def within(self, amount: Decimal) -> bool:
        """Whether an amount is no more than the greatest price that was stated."""
        return self.most is not None and 0 < amount <= self.most

    def shared(self, amount: Decimal, whole: Decimal) -> bool:
        """Whether an amount is no more than the greatest share that was stated, of this whole, and the greatest price together."""
        return self.share is not None and 0 < amount <= whole * self.share / 100 + (self.most or 0)

    def fills(self, title: str) -> bool:
        """Whether a title is one that was stated, with its places filled."""
        return len(title) <= MAX_TITLE and any(each.fullmatch(title) for each in self._templates)
