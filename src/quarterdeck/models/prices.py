"""What tokens cost: a kept price list, dated, read offline.

The list is the snapshot inside the package ``genai-prices``. It is never fetched, so the same installation gives the same
prices on every day and machine, and a run can be recomputed later. An unknown model is ``None``, never zero: a budget that
counts an unknown price as nothing is no budget.

A :class:`~quarterdeck.ports.model.Price` is one number for input and one for output, used both to reserve and to settle. So
each number is the dearest that a plain text call can meet, and these traps are decided as follows:

* *Cached input* is cheaper, but nobody knows before the call whether it hits: all input counts at the full price.
* *Writing a cache* is dearer than plain input at providers that cache unasked (OpenAI's newer models, 1.25 times): there the
  write price counts. Where it happens only on request (Anthropic), it does not count, for we never request it.
* *Reasoning tokens* are output, and count at the reasoning price where that is dearer. Some endpoints leave them out of
  ``completion_tokens``; the adapter reads the larger of that and ``total_tokens - prompt_tokens``.
* *Tiers* raise the price of the whole call above some input length: those reachable with ``largest_input_tokens`` count.
* *Off-peak prices* depend on the hour: the dearest hour counts.
* *Prices per request* (search models) cannot be said in tokens: such a model is ``None``.
* Batch and priority prices are other products: who asks for them through ``extra`` passes the price too.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from quarterdeck.ports.model import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

LIST_VERSION = "0.2.3"
LIST_DAY = date(2026, 11, 9)
"""The newest change that release :data:`LIST_VERSION` of the list records (later dates in it are announcements)."""

LARGEST_INPUT_TOKENS = 128_000
_CACHES_UNASKED = frozenset({"openai", "azure"})


def price_of(
    provider: str | None,
    model: str,
    *,
    api_url: str | None = None,
    on: date = LIST_DAY,
    largest_input_tokens: int = LARGEST_INPUT_TOKENS,
) -> Price | None:
    """The price of ``model`` in micro-dollars per million tokens, rounded up; ``None`` if the list does not know it.

    ``provider`` is the list's id (``openai``, ``groq``, ``mistral``, …); without one it is found by ``api_url``, and without
    that by the model's name. ``on`` picks among dated prices. The first call loads the list, about a second.

    >>> price_of("openai", "gpt-4o-mini")
    Price(input_microusd_per_mtok=150000, output_microusd_per_mtok=600000, as_of='2026-11-09')
    >>> price_of("openai", "no-such-model") is None
    True
    """
    from genai_prices.data_snapshot import get_snapshot

    try:
        found, info = get_snapshot().find_provider_model(model, None, provider, None if provider else api_url)
    except LookupError:
        return None
    lists = _in_force(info, on)
    if not lists or any(prices.requests_kcount is not None for prices in lists):
        return None
    inputs = [_dearest(prices, _input_keys(found), largest_input_tokens) for prices in lists]
    outputs = [_dearest(prices, ("output_mtok", "output_reasoning_mtok"), largest_input_tokens) for prices in lists]
    if None in inputs or None in outputs:
        return None
    return Price(
        _microusd(max(price for price in inputs if price is not None)),
        _microusd(max(price for price in outputs if price is not None)),
        on.isoformat(),
    )


def _input_keys(provider: Provider) -> tuple[str, ...]:
    return ("input_mtok", "cache_write_mtok") if provider.id in _CACHES_UNASKED else ("input_mtok",)


def _in_force(info: ModelInfo, on: date) -> list[ModelPrice]:
    """The prices that hold at some hour of the day; more than one where they depend on the hour."""
    hours = [datetime(on.year, on.month, on.day, hour, 30, tzinfo=UTC) for hour in range(24)]
    found: list[ModelPrice] = []
    for hour in hours:
        prices = info.get_prices(hour)
        if prices not in found:
            found.append(prices)
    return found


def _dearest(prices: ModelPrice, keys: tuple[str, ...], largest_input_tokens: int) -> Decimal | None:
    """The dearest of several prices, of which the first must be known."""
    if getattr(prices, keys[0]) is None:
        return None
    return max(_reachable(price, largest_input_tokens) for key in keys if (price := getattr(prices, key)) is not None)


def _reachable(price: Decimal | TieredPrices, largest_input_tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    return max([price.base, *(tier.price for tier in price.tiers if tier.start < largest_input_tokens)])


def _microusd(usd: Decimal) -> int:
    return int((usd * 1_000_000).to_integral_value(rounding=ROUND_CEILING))
