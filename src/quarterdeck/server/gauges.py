"""Counters and gauges of one process, for Prometheus. Labels are route templates, verbs, statuses and declared names: never ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from quarterdeck.app.runtime import Runtime
from quarterdeck.core.windows import STANDINGS, WINDOWS, outlook, window_of
from quarterdeck.server.callers import Streams
from quarterdeck.server.governing import governing

FRESH_S = 1.0
"""How long the count of runs by status is remembered: asking for it more often costs the store nothing."""
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Gauges(Collector):
    """What the door has counted, and what the runtime says at the moment of asking."""

    def __init__(self, runtime: Runtime, streams: Streams) -> None:
        self._runtime = runtime
        self._streams = streams
        self._standing: Mapping[str, int] = {}
        self._fresh_until_s = float("-inf")
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "quarterdeck_http_requests",
            "Requests by route, verb and status",
            ("route", "verb", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "quarterdeck_http_request_seconds",
            "Time to the end of the answer, streams and waits apart",
            ("route",),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._problems = Counter(
            "quarterdeck_http_problems",
            "Requests that were refused, by the code of the problem",
            ("code",),
            registry=self._registry,
        )
        self._registry.register(self)

    def count(self, route: str, verb: str, status: int, seconds: float | None) -> None:
        """One request has been answered; ``seconds`` is left out where the caller chose how long it takes."""
        self._requests.labels(route, verb, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def refuse(self, code: str) -> None:
        """A request was refused with this code, such as ``idempotency.body_differs``."""
        self._problems.labels(code).inc()

    def standing(self) -> Mapping[str, int]:
        """Runs that have not ended, by status; read from the store at most once a second."""
        now_s = self._runtime.parts.clock.boottime_s()
        if now_s >= self._fresh_until_s:
            self._standing = self._runtime.insights.standing()
            self._fresh_until_s = now_s + FRESH_S
        return self._standing

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing ahead: what there is depends on the deck."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What the runtime says now."""
        streams = GaugeMetricFamily("quarterdeck_http_streams", "Event streams that are open")
        streams.add_metric([], self._streams.open)
        yield streams
        runs = GaugeMetricFamily("quarterdeck_runs", "Runs that have not ended, by status", labels=["status"])
        for status in ("queued", "running", "waiting"):
            runs.add_metric([status], self.standing().get(status, 0))
        yield runs
        driven = GaugeMetricFamily("quarterdeck_runs_driven", "Runs that this process drives now")
        driven.add_metric([], self._runtime.active)
        yield driven
        silent = GaugeMetricFamily(
            "quarterdeck_tool_silent_seconds", "Since the last heartbeat of the most silent call under way", labels=["tool"]
        )
        for tool, silent_s in sorted(self._runtime.silences().items()):
            silent.add_metric([tool], silent_s)
        yield silent
        abandoned = CounterMetricFamily(
            "quarterdeck_tool_abandoned", "Calls that fell silent and were abandoned", labels=["tool"]
        )
        for tool, count in sorted(self._runtime.parts.services.pulses.abandoned.items()):
            abandoned.add_metric([tool], count)
        yield abandoned
        yield from self._dependencies()
        yield from self._accounts()
        yield from governing(self._runtime)

    def _accounts(self) -> Iterator[Metric]:
        """How shared accounts stand: those that the deck names one by one, all of them in numbers."""
        deck, now_us = self._runtime.deck, self._runtime.parts.clock.now_us()
        named = {name for name in (*deck.accounts, *[name for name, _ in deck.periods]) if not name.endswith("*")}
        standings = dict.fromkeys(STANDINGS, 0)
        used = GaugeMetricFamily(
            "quarterdeck_account_used_ratio",
            "Spent and reserved part of the limit of an account that the deck names",
            labels=["account", "dimension"],
        )
        forecast = GaugeMetricFamily(
            "quarterdeck_account_exhausted_seconds",
            "Until an account that the deck names is used up at the present rate, if its period does not end first",
            labels=["account", "dimension"],
        )
        for row in self._runtime.budgets():
            if row.limit is None:
                continue
            seen = outlook(row.account, row.limit, row.committed, row.reserved, now_us)
            standings[seen.standing] += 1
            name, _, period = row.account.partition("@")
            per = _per(row.account, now_us)
            if name in named and (not period or per is not None):
                ratio = (row.committed + row.reserved) / row.limit if row.limit else 1.0
                label = [f"{name}@{per}" if period else row.account, row.dimension]
                used.add_metric(label, ratio)
                if seen.exhausted_in_s is not None:
                    forecast.add_metric(label, seen.exhausted_in_s)
        accounts = GaugeMetricFamily("quarterdeck_accounts", "Limited accounts, by how they stand", labels=["standing"])
        for standing, count in standings.items():
            accounts.add_metric([standing], count)
        yield from (accounts, used, forecast)

    def _dependencies(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "quarterdeck_dependency_calls", "Calls of a model or tool, by how they ended", labels=["dependency", "outcome"]
        )
        attempts = CounterMetricFamily("quarterdeck_dependency_attempts", "Attempts, retries included", labels=["dependency"])
        flying = GaugeMetricFamily("quarterdeck_dependency_in_flight", "Attempts under way", labels=["dependency"])
        open_ = GaugeMetricFamily("quarterdeck_dependency_open", "1 while the breaker lets no call pass", labels=["dependency"])
        for view in self._runtime.dependencies():
            figures = view.figures
            rejected = figures.rejected_by_breaker + figures.rejected_by_bulkhead + figures.rejected_by_rate
            ended = {"success": figures.success, "timeout": figures.timeout, "error": figures.error, "rejected": rejected}
            for outcome, count in ended.items():
                calls.add_metric([view.name, outcome], count)
            attempts.add_metric([view.name], figures.attempts)
            flying.add_metric([view.name], figures.in_flight)
            open_.add_metric([view.name], 0 if view.breaker.state == "closed" else 1)
        yield from (calls, attempts, flying, open_)


def _per(account: str, now_us: int) -> str | None:
    """The present period of an account's name, as a word that does not grow with time; ``None`` for that of another one."""
    return next((each for each in WINDOWS if account.endswith(f"@{window_of(each, now_us)}")), None)
