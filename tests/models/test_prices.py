"""Prices: from the kept list, never below what a plain call can cost, and never zero for want of knowledge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version

from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from quarterdeck.models.prices import LIST_DAY, LIST_VERSION, price_of
from quarterdeck.ports.model import Price


@contextmanager
def listing(prices: ModelPrice | list[ConditionalPrice], provider: str = "shop") -> Iterator[None]:
    info = ModelInfo("m", ClauseEquals("m"), prices=prices)
    one = Provider(provider, provider, r"https://api\.shop\.example", model_match=ClauseEquals("m"), models=[info])
    set_custom_snapshot(DataSnapshot([one], from_auto_update=False))
    try:
        yield
    finally:
        set_custom_snapshot(None)


def usd(read: str, written: str, **more: str) -> ModelPrice:
    prices = {"input_mtok": read, "output_mtok": written} | more
    return ModelPrice(**{key: Decimal(value) for key, value in prices.items()})


def test_the_day_of_the_list_is_stated_for_the_release_that_is_installed() -> None:
    assert version("genai-prices") == LIST_VERSION, "a new list: look up its newest change and set LIST_DAY and LIST_VERSION"


def test_the_day_is_a_change_that_the_list_records() -> None:
    from genai_prices.data import providers

    days = {
        price.constraint.start_date
        for provider in providers
        for model in provider.models
        if isinstance(model.prices, list)
        for price in model.prices
        if isinstance(price.constraint, StartDateConstraint)
    }
    assert LIST_DAY in days


def test_a_known_model_by_provider_by_name_and_by_address() -> None:
    expected = Price(150_000, 600_000, LIST_DAY.isoformat())
    assert price_of("openai", "gpt-4o-mini") == expected
    assert price_of(None, "gpt-4o-mini") == expected
    assert price_of(None, "gpt-4o-mini", api_url="https://api.openai.com/v1") == expected


def test_what_the_list_does_not_know_is_none() -> None:
    assert price_of("openai", "no-such-model") is None
    assert price_of("no-such-provider", "gpt-4o-mini") is None
    assert price_of(None, "gpt-4o-mini", api_url="http://127.0.0.1:8000/v1") is None


def test_fractions_of_a_micro_dollar_round_up() -> None:
    with listing(usd("0.0000001", "1.0000001")):
        assert price_of("shop", "m") == Price(1, 1_000_001, LIST_DAY.isoformat())


def test_no_token_price_or_a_price_per_request_is_none() -> None:
    with listing(ModelPrice()):
        assert price_of("shop", "m") is None
    with listing(ModelPrice(input_mtok=Decimal(1))):
        assert price_of("shop", "m") is None
    with listing(usd("1", "2", requests_kcount="5")):
        assert price_of("shop", "m") is None


def test_a_free_model_is_free_because_the_list_says_so() -> None:
    with listing(usd("0", "0")):
        assert price_of("shop", "m") == Price(0, 0, LIST_DAY.isoformat())


def test_reasoning_counts_where_it_is_dearer_and_cached_input_never_makes_it_cheaper() -> None:
    with listing(usd("2", "8", output_reasoning_mtok="9", cache_read_mtok="0.2")):
        assert price_of("shop", "m") == Price(2_000_000, 9_000_000, LIST_DAY.isoformat())


def test_writing_a_cache_counts_where_it_happens_unasked() -> None:
    prices = usd("2", "8", cache_write_mtok="2.5")
    with listing(prices, "openai"):
        assert price_of("openai", "m") == Price(2_500_000, 8_000_000, LIST_DAY.isoformat())
    with listing(prices, "anthropic"):
        assert price_of("anthropic", "m") == Price(2_000_000, 8_000_000, LIST_DAY.isoformat())


def test_tiers_count_if_a_request_can_reach_them() -> None:
    tiered = TieredPrices(Decimal(1), [Tier(50_000, Decimal(2)), Tier(200_000, Decimal(4))])
    with listing(ModelPrice(input_mtok=tiered, output_mtok=Decimal(3))):
        assert price_of("shop", "m") == Price(2_000_000, 3_000_000, LIST_DAY.isoformat())
        assert price_of("shop", "m", largest_input_tokens=50_000) == Price(1_000_000, 3_000_000, LIST_DAY.isoformat())
        assert price_of("shop", "m", largest_input_tokens=500_000) == Price(4_000_000, 3_000_000, LIST_DAY.isoformat())


def test_dated_prices_follow_the_day_and_the_dearest_hour_counts() -> None:
    night = TimeOfDateConstraint(time(16, 30, tzinfo=UTC), time(0, 30, tzinfo=UTC))
    with listing([ConditionalPrice(prices=usd("2", "4")), ConditionalPrice(night, prices=usd("1", "5"))]):
        assert price_of("shop", "m") == Price(2_000_000, 5_000_000, LIST_DAY.isoformat())
    later = StartDateConstraint(date(2026, 12, 1))
    with listing([ConditionalPrice(prices=usd("2", "4")), ConditionalPrice(later, prices=usd("1", "1"))]):
        assert price_of("shop", "m", on=date(2026, 11, 30)) == Price(2_000_000, 4_000_000, "2026-11-30")
        assert price_of("shop", "m", on=date(2026, 12, 1)) == Price(1_000_000, 1_000_000, "2026-12-01")


def test_the_same_price_as_the_list_itself_computes() -> None:
    from genai_prices import Usage, calc_price

    noon = datetime(LIST_DAY.year, LIST_DAY.month, LIST_DAY.day, 12, tzinfo=UTC)
    usage = Usage(input_tokens=10_000, output_tokens=1_000)
    for name in ("gpt-4o", "gpt-4.1", "gpt-5", "o3"):
        price = price_of("openai", name)
        assert price is not None
        ours = (10_000 * price.input_microusd_per_mtok + 1_000 * price.output_microusd_per_mtok) / 1e12
        assert float(calc_price(usage, name, provider_id="openai", genai_request_timestamp=noon).total_price) == ours
