"""Virtual time: a clock that only moves when told, and an event loop that tells it.

On a :class:`VirtualLoop` nothing waits. When no callback is ready, the clock jumps to the next timer; an hour of
back-off takes microseconds, and the same seed gives the same history. With ``shuffle``, ready callbacks run in an order
drawn from the seed instead of first in, first out: code that is only right by luck of scheduling fails under some seed
and then fails again under it.

The loop has no sockets, signals or subprocesses, and no threads to wait for: what would wait for the outside is a
:class:`Deadlock`, at once, instead of a test that hangs. A loop that spins without time passing is ended by
``max_ticks``.

>>> async def main() -> tuple[float, int]:
...     loop = asyncio.get_running_loop()
...     await asyncio.gather(sleep(3_600), sleep(60))
...     return loop.time(), 1
>>> run(main())
(3600.0, 1)
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, where virtual wall clocks begin."""

MAX_TICKS = 10_000_000


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: on a real loop this program would wait for ever."""


class VirtualClock:
    """A ``Clock`` that stands still until it is advanced; by hand, or by the loop that it belongs to.

    >>> clock = VirtualClock()
    >>> clock.advance(1.5)
    >>> clock.suspend(60.0)
    >>> clock.step_wall(-10.0)
    >>> clock.monotonic_s(), clock.boottime_s(), clock.now_us() - EPOCH_US
    (1.5, 61.5, 51500000)
    """

    def __init__(self, epoch_us: int = EPOCH_US) -> None:
        self._epoch_us = epoch_us
        self._monotonic_s = 0.0
        self._suspended_s = 0.0

    def now_us(self) -> int:
        """Wall-clock UTC in microseconds."""
        return self._epoch_us + round(self.boottime_s() * 1_000_000)

    def monotonic_s(self) -> float:
        """Seconds since this clock began, suspension not counted."""
        return self._monotonic_s

    def boottime_s(self) -> float:
        """Seconds since this clock began, suspension counted."""
        return self._monotonic_s + self._suspended_s

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running virtual loop; on a real one, which would really sleep, this is an error."""
        await sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass on all three clocks. Timers that become due fire at the loop's next tick, as after a long
        block.
        """
        self.advance_to(self._monotonic_s + seconds)

    def advance_to(self, monotonic_s: float) -> None:
        """Let time pass until this reading; an earlier one changes nothing."""
        self._monotonic_s = max(self._monotonic_s, monotonic_s)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: wall and boot time pass, monotonic time (and so every timer) does not."""
        self._suspended_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Someone sets the wall clock, forward or back."""
        self._epoch_us += round(seconds * 1_000_000)


async def sleep(seconds: float, result: T | None = None) -> T | None:
    """What ``asyncio.sleep`` is, but only on a :class:`VirtualLoop`; zero or less yields once."""
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        raise RuntimeError("a virtual sleep on a real event loop would take real time; use quarterdeck.testing.clock.run")
    return await asyncio.sleep(max(0.0, seconds), result)


class SeededEntropy:
    """An ``Entropy`` that is the same for the same seed; its tokens are guessable by design.

    >>> SeededEntropy(7).token(4) == SeededEntropy(7).token(4)
    True
    """

    def __init__(self, seed: int = 0) -> None:
        source = random.Random(seed)
        self.uniform: Callable[[], float] = source.random
        self.token: Callable[[int], bytes] = source.randbytes


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time. ``seed`` with ``shuffle`` draws the order of ready callbacks."""

    def __init__(
        self, clock: VirtualClock | None = None, *, seed: int = 0, shuffle: bool = False, max_ticks: int = MAX_TICKS
    ) -> None:
        super().__init__()
        self.clock = clock if clock is not None else VirtualClock()
        self.ticks = 0
        self._max_ticks = max_ticks
        self._clock_resolution = 1e-9
        self._selector = self  # the base class asks its selector to wait; we are it, and never wait
        if shuffle:
            self._ready: deque[object] = _Shuffled(random.Random(seed))

    def time(self) -> float:
        """The clock's monotonic time."""
        return self.clock.monotonic_s()

    def select(self, timeout: float | None) -> list[object]:
        """Called by the base class when it would wait: jump to the next timer instead."""
        self.ticks += 1
        if self.ticks > self._max_ticks:
            self.ticks = 0  # so that the clean-up after this error can still run
            raise RuntimeError(f"{self._max_ticks} ticks of the loop: something spins without time passing")
        if timeout is None:
            raise Deadlock(f"nothing is ready and no timer is set at {self.time()} s; waiting: {self._waiting()}")
        if timeout > 0:
            scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
            self.clock.advance_to(scheduled[0].when())
        return []

    def _waiting(self) -> str:
        return ", ".join(sorted(task.get_name() for task in asyncio.all_tasks(self))) or "no task"

    def _process_events(self, event_list: list[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody has to be woken."""


class _Shuffled(deque[object]):
    """The queue of ready callbacks; hands them out in an order drawn from a seeded source."""

    def __init__(self, source: random.Random) -> None:
        super().__init__()
        self._source = source

    def popleft(self) -> object:
        if len(self) > 1:
            self.rotate(-self._source.randrange(len(self)))
        return super().popleft()


def run(
    main: Coroutine[Any, Any, T],
    seed: int | None = None,
    *,
    clock: VirtualClock | None = None,
    shuffle: bool = False,
    max_ticks: int = MAX_TICKS,
) -> T:
    """Run a coroutine on a fresh :class:`VirtualLoop` and return its result; what is left running is cancelled.

    Deterministic: the same program with the same seed takes the same steps. ``clock`` is for programs that need the
    clock outside of the loop as well.
    """
    loop = VirtualLoop(clock, seed=seed or 0, shuffle=shuffle, max_ticks=max_ticks)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
