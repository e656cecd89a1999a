"""The five-request timeline gives its table exactly, and its experiments show what they claim."""

from __future__ import annotations

import pytest

from examples.timeline.__main__ import (
    concurrency_compared,
    expensive_compared,
    main,
    retries_compared,
    timeline,
    timeout_compared,
)

RESULTS = [
    {"ok": True, "result": {"task_id": "r1", "result": "ok:refund"}, "attempts": 1},
    {"ok": False, "error": "timeout"},
    {"ok": False, "error": "upstream_error"},
    {"ok": False, "error": "circuit_open"},
    {"ok": False, "error": "circuit_open"},
]
METRICS = {
    "total": 5,
    "success": 1,
    "timeout": 1,
    "error": 1,
    "retry": 2,
    "rejected_by_breaker": 2,
    "latency_ms_total": 200.0,
    "avg_latency_ms": 200.0,
    "breaker_open": True,
}


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_the_table_is_exact_and_one_after_another_concurrency_changes_nothing(concurrency: int) -> None:
    answers, summary, hint = timeline(concurrency=concurrency)
    assert answers == RESULTS
    assert summary == METRICS
    assert list(summary) == list(METRICS)
    assert "20% of the calls time out" in hint


def test_at_once_less_concurrency_is_queueing_and_not_slower_service() -> None:
    one, three = concurrency_compared(1), concurrency_compared(3)
    assert one["service_ms"] == three["service_ms"] == 300.0
    assert (one["queue_wait_ms"], three["queue_wait_ms"]) == (1_200.0, 300.0)
    assert (one["all_done_after_s"], three["all_done_after_s"]) == (2.7, 0.9)


def test_a_time_out_above_the_slow_request_ends_the_time_outs_and_keeps_the_breaker_closed() -> None:
    assert timeout_compared(0.7) == timeout_compared(0.9) | {"timeout_s": 0.7}
    assert timeout_compared(0.9)["timeout_rate"] == 0.2
    assert timeout_compared(1.1) == {"timeout_s": 1.1, "timeout_rate": 0.0, "success_rate": 0.8, "breaker_open": False}


def test_retries_of_a_permanent_error_only_multiply_load_and_lock_others_out() -> None:
    unclassified, classified = retries_compared(False), retries_compared(True)
    assert (unclassified["attempts_per_call"], unclassified["others_locked_out"]) == (4.0, True)
    assert (classified["attempts_per_call"], classified["retries"], classified["others_locked_out"]) == (1.0, 0, False)
    assert classified["seconds_wasted"] == 0.0


def test_an_expensive_tool_with_its_own_limits_leaves_the_others_alone() -> None:
    assert expensive_compared(False) == {"protected": False, "cheap_done_after_s": 60.3, "expensive_refused": 0}
    assert expensive_compared(True) == {"protected": True, "cheap_done_after_s": 0.3, "expensive_refused": 10}


def test_it_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    assert "\n".join(str(answer) for answer in RESULTS) in printed
    assert str(METRICS) in printed
