"""What the authority does, in numbers for who watches: approvals that wait, refusals by code, switches, when accounts will be used up.

Labels are codes of the catalogue, codes that the deck's policies and limits declare, kinds of switches and accounts that the deck names: so
their number does not grow with use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from quarterdeck.app import switching
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.controls import PLAIN, SWITCHES, in_force
from quarterdeck.ports.store import MAX_PAGE


def governing(runtime: Runtime) -> Iterator[Metric]:
    """What the gate and people have decided, and what waits for them."""
    yield from _approvals(runtime)
    yield _refusals(runtime)
    yield _switches(runtime)


def _approvals(runtime: Runtime) -> Iterator[Metric]:
    """The nearest deadlines come first, so one page says what is urgent; more than a page are shown as a page."""
    now_us = runtime.parts.clock.now_us()
    rows = runtime.insights.approvals(limit=MAX_PAGE)
    waiting = GaugeMetricFamily(
        "quarterdeck_approvals",
        f"Approvals that wait for a person, to {MAX_PAGE}, by whether they are in time",
        labels=["standing"],
    )
    late = sum(row.expires_at_us <= now_us for row in rows)
    waiting.add_metric(["waiting"], len(rows) - late)
    waiting.add_metric(["expired"], late)
    yield waiting
    nearest = GaugeMetricFamily("quarterdeck_approval_nearest_seconds", "Until the nearest deadline of an approval that waits")
    if len(rows) > late:
        nearest.add_metric([], (rows[late].expires_at_us - now_us) / 1e6)
    yield nearest


def _refusals(runtime: Runtime) -> Metric:
    refused = CounterMetricFamily(
        "quarterdeck_gate_refusals",
        "Proposals that this process did not simply allow, by what was decided and why",
        labels=["ruling", "code"],
    )
    for (ruling, code), count in sorted(runtime.parts.services.refusals.counted.items()):
        refused.add_metric([ruling, code], count)
    return refused


def _switches(runtime: Runtime) -> Metric:
    now_us = runtime.parts.clock.now_us()
    found = Counter(one.kind for one in in_force(switching.stored(runtime.insights)[1], now_us))
    switches = GaugeMetricFamily("quarterdeck_switches", "Switches that are on, by kind", labels=["kind"])
    for kind in (*SWITCHES, *PLAIN):
        switches.add_metric([kind], found[kind])
    return switches
