"""What the mechanisms are worth under open load: the figures of `benchmarks/dependency.py`, in short."""

from __future__ import annotations

import pytest

from benchmarks.dependency import Trouble, measure


@pytest.mark.parametrize("trouble", ["outage", "slow"])
def test_without_them_a_failing_provider_is_hammered_and_with_them_it_is_let_alone(trouble: Trouble) -> None:
    bare, kept = measure("retries", trouble), measure("all, fallback", trouble)
    assert bare[1].amplification > 4.5
    assert bare[1].success < 0.1
    assert kept[1].amplification < 0.1
    assert min(phase.success for phase in kept) > 0.99
    assert kept[3].p99_ms <= 110.0, "it has recovered"
    assert kept[1].provider_at_once <= 40 < 100 < bare[1].provider_at_once or trouble == "outage"
