"""A small stage for suites that run inside one process: a store in memory, a clock that a tool can push, a model that remembers what
it was shown, and providers that keep their own ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from quarterdeck import Quarterdeck
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.app.views import RunResult
from quarterdeck.core import events as ev
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.model import Message, ModelReply, ModelRequest, Price
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.testing import ledger
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.scripted import ScriptedModel

PATIENCE_S = 10.0
"""How long a case waits for something that comes at once where nothing is wrong."""
QUICK = DependencyPolicy(retry=RetryPolicy(max_attempts=4, base_s=0.001, cap_s=0.002))
"""Four attempts, hardly apart."""
PRICE = Price(1_000_000, 2_000_000, "2026-01-01")


class PushedClock(SystemClock):
    """The machine's clocks, ahead by what a case has pushed them."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def push(self, seconds: float) -> None:
        """So much time passes now, on every clock."""
        self.ahead_s += seconds

    def now_us(self) -> int:
        return super().now_us() + int(self.ahead_s * 1e6)

    def boottime_s(self) -> float:
        return super().boottime_s() + self.ahead_s


class Remembering(ScriptedModel):
    """A script that keeps what it was shown."""

    def __init__(self, turns: Sequence[object], price: Price | None = None) -> None:
        super().__init__(turns, price=price)  # type: ignore[arg-type]
        self.shown: list[tuple[Message, ...]] = []

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        self.shown.append(request.messages)
        return await super().propose(request, emit)

    @property
    def answers(self) -> dict[str, str]:
        """The tool answers in the newest request, by the model's own call id."""
        return {message.call_id: message.content for message in self.shown[-1] if message.role == "tool"} if self.shown else {}


@dataclass
class Provider:
    """The other side: what it was asked, and what it did, by key."""

    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def once(self, key: str) -> None:
        """Do it, unless it was done under this key."""
        self.asked.append(key)
        if key not in self.done:
            self.done.append(key)

    def blindly(self, key: str) -> None:
        """Do it, whatever was done before."""
        self.asked.append(key)
        self.done.append(key)


@asynccontextmanager
async def on_stage(
    deck: Quarterdeck, store: MemoryStore | None = None, clock: PushedClock | None = None, worker: str | None = None
) -> AsyncIterator[Runtime]:
    """Run a deck on a store in memory."""
    chosen = store if store is not None else MemoryStore()

    async def open_store(_: Entropy) -> tuple[Journal, Insights]:
        return chosen, chosen

    starting = deck.start(open_store=open_store, clock=clock or PushedClock(), worker=worker, drain_s=0.0)
    async with starting as runtime:
        yield runtime


async def rested(handle: RunHandle) -> RunResult:
    """How a run stands when it rests; a run that does not come to rest is a finding, not a hang."""
    return await handle.rest(PATIENCE_S)


async def ended(handle: RunHandle) -> RunResult:
    """How a run ended; with the same patience."""
    return await handle.result(PATIENCE_S)


async def until(condition: Callable[[], bool]) -> bool:
    """Whether this becomes true, while the loop goes round; false once patience is over."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + PATIENCE_S
    while not condition():
        if loop.time() > end_s:
            return False
        await asyncio.sleep(0.002)
    return True


def events_of(runtime: Runtime, run_id: str) -> list[ev.Event]:
    """A run's journal."""
    return ledger.journal(runtime.insights, run_id)


def receipts(runtime: Runtime, run_id: str) -> list[ev.ToolClosed]:
    """The receipts of a run's tool calls."""
    return [event for event in events_of(runtime, run_id) if isinstance(event, ev.ToolClosed)]


def sound(runtime: Runtime, run_id: str) -> list[str]:
    """What must hold after every case: the chain verifies, the accounts are the fold of the journals, no effect is open."""
    found = list(ledger.differences(runtime.insights, overdraft=False))
    try:
        verify_run(runtime.insights, run_id)
    except QuarterdeckError as error:
        found.append(f"{run_id}: {error}")
    opened = {event.call for event in events_of(runtime, run_id) if isinstance(event, ev.ToolOpened)}
    closed = {event.call for event in receipts(runtime, run_id)}
    found += [f"{call} was opened and never closed" for call in sorted(opened - closed)]
    return found


def expect(found: list[str], what: str, is_: object, wanted: object) -> None:
    """Add a finding where something is not what it should be."""
    if is_ != wanted:
        found.append(f"{what} is {is_!r}, not {wanted!r}")
