"""Simulated operating-system processes on one virtual event loop: they can be paused and they can die, at any moment.

A process is a context: every task and callback that starts in it belongs to it. While it is *frozen* none of them runs, not even
those whose timers have passed; that is what SIGSTOP does, or a machine that stalls. A process that is *dead* is frozen for ever: its
``finally`` blocks do not run, its last words are not heard. The order in which ready callbacks run is drawn from the seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from quarterdeck.testing.clock import VirtualClock, VirtualLoop

T = TypeVar("T")

MAX_TICKS = 400_000
"""Ticks of one simulation before it counts as spinning."""


class Process:
    """One simulated process. ``generation`` tells restarts of the same place apart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.paused = 0
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    def spawn(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a coroutine in this process."""
        return asyncio.get_running_loop().create_task(coro, name=name, context=self.context)

    def die(self) -> None:
        """Nothing of this process runs from now on."""
        self.frozen = self.dead = True


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current() -> Process | None:
    """The process whose code runs now; ``None`` is the world outside of all of them."""
    return _PROCESS.get()


def world() -> Context:
    """A context outside of all processes, for what goes on whoever is paused or dead."""
    context = copy_context()
    context.run(_PROCESS.set, None)
    return context


class SimulatedLoop(VirtualLoop):
    """A virtual loop that knows processes. ``thaw`` lets a frozen one go on."""

    def __init__(self, clock: VirtualClock, seed: int, *, shuffle: bool, max_ticks: int = MAX_TICKS) -> None:
        super().__init__(clock, seed=seed, max_ticks=max_ticks)
        self._parked: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []  # a dead process's tasks must not be collected, and complain, at some moment
        self.set_task_factory(self._make_task)
        self._ready = _Ready(random.Random(seed), shuffle, self._parked, self)  # type: ignore[assignment]  # the base class's queue

    def _make_task(
        self,
        _loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, context=context)
        self._tasks.append(task)
        return task

    def thaw(self, process: Process) -> None:
        """Let a process run again; what became due meanwhile runs now."""
        process.frozen = False
        back = [handle for handle in self._parked if _owner(handle) is process]
        self._parked[:] = [handle for handle in self._parked if _owner(handle) is not process]
        self._ready.extend(back)


class _Ready(deque[asyncio.Handle]):
    """The queue of ready callbacks: hands them out in a drawn order, and sets those of frozen processes aside."""

    def __init__(self, source: random.Random, shuffle: bool, parked: list[asyncio.Handle], loop: SimulatedLoop) -> None:
        super().__init__()
        self._random = source.random
        self._shuffle = shuffle
        self._parked = parked
        self._nothing = asyncio.Handle(int, (), loop)
        self._nothing.cancel()

    def popleft(self) -> asyncio.Handle:
        if self._shuffle and len(self) > 1:
            self.rotate(-int(self._random() * len(self)))
        handle = super().popleft()
        owner = _owner(handle)
        if owner is not None and owner.frozen:
            self._parked.append(handle)
            return self._nothing
        return handle


def _owner(handle: asyncio.Handle) -> Process | None:
    context: Context | None = handle._context  # type: ignore[attr-defined]
    return context.get(_PROCESS) if context is not None else None
