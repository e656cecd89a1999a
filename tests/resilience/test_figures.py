"""The figures say what happened, within stated errors, and the hint points at the likely cause."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.dependency import DependencyMetrics, DependencyPolicy, Figures, Histogram, quantile_ms
from quarterdeck.core.errors import UsageError
from quarterdeck.core.retry import ErrorClass

POLICY = DependencyPolicy(timeout_s=1.0)


@given(st.lists(st.integers(0, 2**39), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_percentiles_are_never_too_low_and_at_most_a_sixteenth_too_high(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    rank = max(1, -int(-share * len(values) // 1))
    exact = sorted(values)[rank - 1]
    found_us = quantile_ms(tuple(histogram.counts), share) * 1_000
    assert exact - 0.5 <= found_us <= exact * (1 + 1 / 16) + 0.5


def test_the_histogram_does_not_grow() -> None:
    histogram = Histogram()
    size = len(histogram.counts)
    for exponent in range(200):
        histogram.add(2**exponent)
    histogram.add(-5)
    assert len(histogram.counts) == size == 592
    assert sum(histogram.counts) == 201


def test_nothing_measured_is_nothing() -> None:
    view = DependencyMetrics().view()
    assert (view.avg_latency_ms, view.latency_ms(0.99), view.success_ratio, view.avg_queue_wait_ms) == (
        0.0,
        0.0,
        0.0,
        0.0,
    )
    assert view.hint(POLICY).startswith("idle")


def test_the_average_is_of_successes_only_and_exact() -> None:
    metrics = DependencyMetrics()
    for service_s in (0.1, 0.3):
        metrics.began_at_once()
        metrics.attempted(1)
        metrics.succeeded(service_s)
    metrics.began_at_once()
    metrics.attempted(1)
    metrics.served(30.0)
    metrics.failed(ErrorClass.TIMEOUT)
    view = metrics.view()
    assert (view.latency_ms_total, view.avg_latency_ms, view.service_us_total) == (400.0, 200.0, 30_400_000)
    assert (view.success_ratio, view.timeout_ratio) == (2 / 3, 1 / 3)


def test_two_views_give_the_interval_between_them() -> None:
    metrics = DependencyMetrics()

    def fail(error_class: ErrorClass) -> None:
        metrics.began_at_once()
        metrics.attempted(1)
        metrics.failed(error_class)

    fail(ErrorClass.SERVER)
    earlier = metrics.view()
    for _ in range(3):
        metrics.began_at_once()
        metrics.attempted(1)
        metrics.succeeded(0.5)
    fail(ErrorClass.CLIENT)
    between = metrics.view(in_flight=2).since(earlier)
    assert (between.total, between.success, between.error, between.in_flight) == (4, 3, 1, 2)
    assert between.errors_by_class == {"client": 1}
    assert sum(between.latencies) == 3
    assert between.latency_ms(0.5) == pytest.approx(500, rel=1 / 16)


def hint(success: int = 0, service_s: float = 0.01, wait_s: float = 0.0, **counters: object) -> str:
    metrics = DependencyMetrics()
    for _ in range(success):
        metrics.began()
        metrics.waited(wait_s)
        metrics.attempted(1)
        metrics.succeeded(service_s)
    view = metrics.view()
    extra = sum(count for name, count in counters.items() if name != "retry" and isinstance(count, int))
    return msgspec.structs.replace(view, total=view.total + extra, **counters).hint(POLICY)


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("healthy", {"success": 100}),
        ("is the upstream slow", {"success": 10, "timeout": 5}),
        ("time-out of 1000 ms too small", {"success": 10, "service_s": 0.9, "timeout": 5}),
        ("concurrency is so high", {"success": 10, "wait_s": 3.0, "timeout": 5}),
        ("our own slots", {"success": 10, "rejected_by_bulkhead": 5}),
        ("our own rate limit", {"success": 10, "rejected_by_rate": 5}),
        ("mostly server: is the upstream unstable", {"success": 10, "retry": 5, "retries_by_class": {"server": 5}}),
        ("errors retried that cannot be recovered", {"success": 10, "retry": 5, "retries_by_class": {"unknown": 5}}),
        ("mostly invalid", {"success": 10, "error": 2, "errors_by_class": {"invalid": 2}}),
        ("the breaker refuses", {"success": 10, "rejected_by_breaker": 2}),
    ],
)
def test_the_hint_names_what_to_check_first(said: str, figures: dict[str, object]) -> None:
    assert said in hint(**figures)  # type: ignore[arg-type]


def test_a_long_tail_is_pointed_out() -> None:
    metrics = DependencyMetrics()
    for number in range(200):
        metrics.began_at_once()
        metrics.succeeded(0.9 if number % 50 == 0 else 0.01)
    assert "p99" in metrics.view().hint(POLICY)


def test_figures_travel_as_json() -> None:
    view = DependencyMetrics().view()
    assert msgspec.json.decode(msgspec.json.encode(view), type=Figures) == view


def test_the_defaults_by_kind() -> None:
    model, tool, careless = (
        DependencyPolicy.for_model(),
        DependencyPolicy.for_tool(True),
        DependencyPolicy.for_tool(False),
    )
    assert (model.timeout_s, model.retry.max_attempts, model.retry.base_s, model.retry.cap_s) == (30.0, 5, 1.0, 60.0)
    assert (tool.timeout_s, tool.retry.max_attempts, tool.retry.base_s) == (30.0, 4, 0.1)
    assert (tool.retry.unknown_is_transient, careless.retry.unknown_is_transient) == (True, False)
    breaker = model.breaker
    assert (breaker.failures, breaker.window_s, breaker.failure_rate, breaker.min_calls) == (5, 60.0, 0.5, 20)
    assert (breaker.open_s, breaker.probes) == (30.0, 1)
    with pytest.raises(UsageError, match=r"dependency\.policy_invalid"):
        DependencyPolicy(timeout_s=0.0)
