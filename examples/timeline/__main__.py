"""Five requests, one after another, to an upstream that succeeds, hangs, fails, and is then left alone.

Run it with ``python -m examples.timeline``. It takes no time, because its clock is virtual, and it prints the timeline,
its metrics, and four experiments with them: more or less concurrency, longer time-outs, retries by error type, and an
expensive tool. Everything in it is the product's own: the same ``Dependency`` guards every model and tool of a running
Quarterdeck.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from quarterdeck.core.breaker import BreakerPolicy, BreakerState
from quarterdeck.core.dependency import DependencyPolicy, Figures
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.limits import BulkheadPolicy, RatePolicy
from quarterdeck.core.retry import ErrorClass, Failure, RetryPolicy
from quarterdeck.resilience.dependency import Dependency
from quarterdeck.resilience.failures import CallFailed, classify_by_type
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run


@dataclass(frozen=True)
class Request:
    """One request and how the upstream will treat it."""

    id: str
    payload: str
    latency_s: float
    should_fail: bool = False


REQUESTS = (
    Request("r1", "refund", 0.2),
    Request("r2", "slow", 1.0),
    Request("r3", "fail", 0.1, should_fail=True),
    Request("r4", "normal", 0.3),
    Request("r5", "after_breaker", 0.1),
)


def policy(timeout_s: float = 0.7, concurrency: int = 2) -> DependencyPolicy:
    """One retry, and a breaker that opens after two failed calls."""
    return DependencyPolicy(
        timeout_s=timeout_s,
        retry=RetryPolicy(max_attempts=2, base_s=0.05, unknown_is_transient=True),
        breaker=BreakerPolicy(failures=2),
        concurrency=BulkheadPolicy(slots=concurrency),
    )


class Service:
    """A client of one upstream: makes each request a call of its dependency, and an answer of whatever comes of it."""

    def __init__(self, rules: DependencyPolicy) -> None:
        self.clock = VirtualClock()
        self.dependency = Dependency("upstream", rules, self.clock, SeededEntropy(seed=1))

    async def upstream(self, request: Request) -> dict[str, str]:
        await self.clock.sleep(request.latency_s)
        if request.should_fail:
            raise RuntimeError("upstream_error")
        return {"task_id": request.id, "result": f"ok:{request.payload}"}

    async def handle(self, request: Request) -> dict[str, object]:
        try:
            result, attempts = await self.dependency.run(lambda number, timeout_s: self.upstream(request))
        except CallFailed as failed:
            timed_out = failed.failure.error_class is ErrorClass.TIMEOUT
            return {"ok": False, "error": "timeout" if timed_out else str(failed.error)}
        except QuarterdeckError as refused:
            return {"ok": False, "error": "circuit_open" if refused.code == "breaker.open" else refused.code}
        return {"ok": True, "result": result, "attempts": attempts}

    async def one_by_one(self, requests: tuple[Request, ...] = REQUESTS) -> list[dict[str, object]]:
        return [await self.handle(request) for request in requests]

    async def at_once(self, requests: tuple[Request, ...]) -> list[dict[str, object]]:
        return list(await asyncio.gather(*(self.handle(request) for request in requests)))

    @property
    def figures(self) -> Figures:
        return self.dependency.view().figures

    def summary(self) -> dict[str, object]:
        figures = self.figures
        return {
            "total": figures.total,
            "success": figures.success,
            "timeout": figures.timeout,
            "error": figures.error,
            "retry": figures.retry,
            "rejected_by_breaker": figures.rejected_by_breaker,
            "latency_ms_total": figures.latency_ms_total,
            "avg_latency_ms": round(figures.avg_latency_ms, 2),
            "breaker_open": self.dependency.breaker_state is BreakerState.OPEN,
        }


def timeline(timeout_s: float = 0.7, concurrency: int = 2) -> tuple[list[dict[str, object]], dict[str, object], str]:
    """The five requests in their order: their answers, the metrics, and what the product says to check first."""
    service = Service(policy(timeout_s, concurrency))
    answers = run(service.one_by_one(), clock=service.clock)
    return answers, service.summary(), service.dependency.view().hint


def concurrency_compared(slots: int) -> dict[str, object]:
    """Nine healthy requests of 0.3 s that arrive at once: less concurrency is a longer queue, not a slower upstream.

    One after another (:func:`timeline`), the limit changes nothing at all: there is never more than one request.
    """
    service = Service(policy(concurrency=slots))
    run(service.at_once(tuple(Request(f"c{n}", "same", 0.3) for n in range(9))), clock=service.clock)
    return {
        "slots": slots,
        "success": service.figures.success,
        "service_ms": service.figures.avg_latency_ms,
        "queue_wait_ms": round(service.figures.avg_queue_wait_ms, 1),
        "all_done_after_s": round(service.clock.monotonic_s(), 3),
    }


def timeout_compared(timeout_s: float) -> dict[str, object]:
    """The timeline under another time-out: above the slow request's 1.0 s nothing times out, and the breaker stays
    closed.
    """
    service = Service(policy(timeout_s))
    run(service.one_by_one(), clock=service.clock)
    figures = service.figures
    return {
        "timeout_s": timeout_s,
        "timeout_rate": figures.timeout_ratio,
        "success_rate": figures.success_ratio,
        "breaker_open": service.dependency.breaker_state is BreakerState.OPEN,
    }


def retries_compared(classified: bool) -> dict[str, object]:
    """Twenty invalid requests, with and without a classification of the error. Retrying them can only multiply load.

    That is why "how many retries" cannot be chosen apart from "of which errors".
    """
    clock = VirtualClock()
    rules = DependencyPolicy(retry=RetryPolicy(max_attempts=4, unknown_is_transient=True), breaker=BreakerPolicy(failures=5))
    dependency = Dependency("upstream", rules, clock, SeededEntropy(seed=1))

    async def invalid(number: int, timeout_s: float) -> str:
        raise ValueError("the amount is negative")

    def classify(error: Exception) -> Failure:
        return Failure(ErrorClass.INVALID) if isinstance(error, ValueError) else classify_by_type(error)

    async def main() -> None:
        for _ in range(20):
            try:
                await dependency.run(invalid, classify=classify if classified else classify_by_type)
            except (CallFailed, QuarterdeckError):
                continue

    run(main(), clock=clock)
    view = dependency.view()
    return {
        "classified": classified,
        "attempts_per_call": view.figures.attempts / view.figures.error,
        "retries": view.figures.retry,
        "seconds_wasted": round(clock.monotonic_s(), 1),
        "others_locked_out": view.breaker.state is BreakerState.OPEN,
    }


def expensive_compared(protected: bool) -> dict[str, object]:
    """A cheap tool beside an expensive one that everybody wants: one shared limit, or each its own.

    Protection for the expensive one: a single slot, a turn every ten seconds, a short queue; who does not fit is told
    when to come back, instead of waiting. Its price comes on top (the gate asks a person above a limit, and the budget
    is reserved).
    """
    clock, entropy = VirtualClock(), SeededEntropy(seed=1)
    shared = DependencyPolicy(concurrency=BulkheadPolicy(slots=4, max_queue=100, max_wait_s=600.0))
    tight = DependencyPolicy(
        concurrency=BulkheadPolicy(slots=1, max_queue=2, max_wait_s=30.0),
        rate=RatePolicy(rate_per_s=0.1, max_wait_s=30.0),
    )
    cheap = Dependency("cheap", shared, clock, entropy)
    costly = Dependency("costly", tight, clock, entropy) if protected else cheap
    refused: list[float] = []

    async def call(dependency: Dependency, seconds: float) -> None:
        async def work(number: int, timeout_s: float) -> None:
            await clock.sleep(seconds)

        try:
            await dependency.run(work)
        except QuarterdeckError as refusal:
            refused.append(getattr(refusal, "retry_after_s", 0.0))

    cheap_done_s = 0.0

    async def main() -> None:
        nonlocal cheap_done_s
        expensive = [asyncio.create_task(call(costly, 20.0)) for _ in range(12)]
        await asyncio.gather(*(call(cheap, 0.1) for _ in range(12)))
        cheap_done_s = clock.monotonic_s()
        await asyncio.gather(*expensive)

    run(main(), clock=clock)
    return {"protected": protected, "cheap_done_after_s": round(cheap_done_s, 1), "expensive_refused": len(refused)}


def main() -> None:
    """Print everything."""
    answers, summary, hint = timeline()
    print("results:")
    for answer in answers:
        print(answer)
    print("\nmetrics:")
    print(summary)
    print(f"check first: {hint}")
    print("\nconcurrency (nine requests at once):")
    for slots in (1, 2, 3):
        print(concurrency_compared(slots))
    print("\ntime-out:")
    for timeout_s in (0.7, 0.9, 1.1):
        print(timeout_compared(timeout_s))
    print("\nretries by error type (twenty invalid requests):")
    for classified in (False, True):
        print(retries_compared(classified))
    print("\nan expensive tool:")
    for protected in (False, True):
        print(expensive_compared(protected))


if __name__ == "__main__":
    main()
