"""What each mechanism is worth when a dependency fails or slows down, under open load, on virtual time: the same figures on every machine.

``python -m benchmarks.dependency`` prints one JSON line. A provider answers in 100 ms; with more than 40 calls at once each takes longer in
proportion. 40 calls a second arrive, whatever becomes of the earlier ones, and latency counts from the moment at which a call was meant to
begin. *Amplification* is how many attempts reach the provider for each call. In ``outage`` it fails wholly for a minute, every second time
for another, and works from then on; in ``slow`` it takes twenty times as long for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import msgspec

from quarterdeck.core.breaker import BreakerPolicy
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.core.retry import RetryBudgetPolicy, RetryPolicy
from quarterdeck.resilience.dependency import Dependency
from quarterdeck.resilience.failures import CallFailed
from quarterdeck.testing.clock import SeededEntropy, VirtualClock, run

RATE = 40.0
PHASE_S = 60.0
SERVICE_S = 0.1
ROOM = 40

Trouble = Literal["outage", "slow"]


class Phase(msgspec.Struct, frozen=True):
    """One minute: the share of calls that succeeded, their latencies, and how many attempts the provider saw for each call."""

    success: float
    p50_ms: float
    p99_ms: float
    amplification: float
    provider_at_once: int


@dataclass
class Provider:
    """What is called. It knows the time only."""

    clock: VirtualClock
    trouble: Trouble | None
    chance: SeededEntropy
    at_once: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    most: dict[int, int] = field(default_factory=dict)

    async def answer(self) -> str:
        phase = int(self.clock.monotonic_s() // PHASE_S)
        self.seen[phase] = self.seen.get(phase, 0) + 1
        self.at_once += 1
        self.most[phase] = max(self.most.get(phase, 0), self.at_once)
        try:
            slow = 20.0 if self.trouble == "slow" and phase == 1 else 1.0
            await self.clock.sleep(SERVICE_S * slow * max(1.0, self.at_once / ROOM))
        finally:
            self.at_once -= 1
        failing = {1: 1.0, 2: 0.5}.get(phase, 0.0) if self.trouble == "outage" else 0.0
        if self.chance.uniform() < failing:
            raise ConnectionError("the provider fails")
        return "ok"


_NEVER = BreakerPolicy(failures=0, min_calls=0)
_ENDLESS = RetryBudgetPolicy(capacity=1e12)
_WIDE = BulkheadPolicy(slots=1_000_000, max_queue=0, max_wait_s=0.0)
_RETRIES = RetryPolicy(max_attempts=5, base_s=0.1, cap_s=2.0)
_BREAKER = BreakerPolicy(failures=5, window_s=10.0, open_s=5.0)
_SLOTS = BulkheadPolicy(slots=ROOM, max_queue=20, max_wait_s=0.5)

VARIANTS: dict[str, DependencyPolicy] = {
    "nothing": DependencyPolicy(30.0, RetryPolicy(max_attempts=1), _NEVER, _WIDE, None, _ENDLESS),
    "retries": DependencyPolicy(1.0, _RETRIES, _NEVER, _WIDE, None, _ENDLESS),
    "retries, budget": DependencyPolicy(1.0, _RETRIES, _NEVER, _WIDE, None, RetryBudgetPolicy()),
    "retries, budget, breaker": DependencyPolicy(1.0, _RETRIES, _BREAKER, _WIDE, None, RetryBudgetPolicy()),
    "all": DependencyPolicy(1.0, _RETRIES, _BREAKER, _SLOTS, None, RetryBudgetPolicy()),
    "all, fallback": DependencyPolicy(1.0, _RETRIES, _BREAKER, _SLOTS, None, RetryBudgetPolicy()),
}
"""Each adds something to the one before; the first waits for half a minute and asks once."""


def measure(variant: str, trouble: Trouble) -> list[Phase]:
    """Four minutes: well, in trouble, still in trouble or after it, and after."""
    clock = VirtualClock()
    provider = Provider(clock, trouble, SeededEntropy(1))
    calls = [0] * 4
    latencies: list[list[float]] = [[], [], [], []]

    async def scene() -> None:
        dependency = Dependency("provider", VARIANTS[variant], clock, SeededEntropy(2))
        other = Provider(clock, None, SeededEntropy(3)) if variant.endswith("fallback") else None
        second = Dependency("second", VARIANTS["all"], clock, SeededEntropy(4))

        async def call(meant_s: float) -> None:
            phase = int(meant_s // PHASE_S)
            calls[phase] += 1
            try:
                await dependency.run(lambda number, timeout_s: provider.answer(), deadline_s=inf)
            except (CallFailed, QuarterdeckError):
                if other is None:
                    return
                spare = other
                try:
                    await second.run(lambda number, timeout_s: spare.answer(), deadline_s=inf)
                except (CallFailed, QuarterdeckError):
                    return
            latencies[phase].append(clock.monotonic_s() - meant_s)

        async with asyncio.TaskGroup() as group:
            for number in range(int(4 * PHASE_S * RATE)):
                meant_s = number / RATE
                await clock.sleep(max(0.0, meant_s - clock.monotonic_s()))
                group.create_task(call(meant_s))

    run(scene(), clock=clock, max_ticks=50_000_000)
    return [_phase(calls[at], sorted(latencies[at]), provider.seen.get(at, 0), provider.most.get(at, 0)) for at in range(4)]


def _phase(calls: int, found: list[float], seen: int, most: int) -> Phase:
    def share(of: float) -> float:
        return round(found[min(len(found) - 1, int(of * len(found)))] * 1_000, 1) if found else 0.0

    return Phase(round(len(found) / calls, 3), share(0.5), share(0.99), round(seen / calls, 2), most)


def everything(progress: Callable[[str], None] = lambda line: None) -> dict[str, dict[str, list[Phase]]]:
    """Every variant in both troubles."""
    found: dict[str, dict[str, list[Phase]]] = {}
    for trouble in ("outage", "slow"):
        found[trouble] = {}
        for variant in VARIANTS:
            found[trouble][variant] = measure(variant, trouble)
            progress(f"{trouble}, {variant}")
    return found


if __name__ == "__main__":
    print(msgspec.json.encode(everything()).decode())
