"""A time limit that costs nothing where nothing waits.

Most tools of this process answer without ever suspending, and ``asyncio.timeout`` (a timer, two coroutine frames) would
cost more than they do. So the coroutine is stepped once by hand. If it ends in that step, its result is there and no
timer was ever made. If it suspends, what it waits for is handed on to the running task, and the *same* coroutine
continues in the *same* task and context inside ``asyncio.timeout``. Seen from the coroutine nothing differs from a
plain ``await``: exceptions, cancellation, context variables, nested time-outs and task groups.

What cannot be promised: a coroutine that blocks the thread before its first suspension is not interrupted by any
time-out of asyncio, here or elsewhere. The time it took counts, so its limit may have passed when it suspends at last.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Stepped: TypeAlias = Coroutine[object, object, T] | Generator[object, object, T]
"""What is stepped by hand: a coroutine, or what behaves as one."""


class TimedOut(TimeoutError):
    """Our own limit passed; a ``TimeoutError`` of another kind came from inside the coroutine."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no answer within {timeout_s:g} s")
        self.timeout_s = timeout_s


class CutOff(Exception):
    """An attempt was ended from outside while it waited: whoever asked for it has other plans. ``code`` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Reins:
    """What can end an attempt that waits. ``taken`` and ``dropped`` are called when it begins to wait and when it is over; an attempt
    that never waits costs nothing.
    """

    __slots__ = ("_dropped", "_limit", "_taken", "code")

    def __init__(self, taken: Callable[[Reins], None], dropped: Callable[[Reins], None]) -> None:
        self._taken = taken
        self._dropped = dropped
        self._limit: asyncio.Timeout | None = None
        self.code = ""

    def take(self, limit: asyncio.Timeout) -> None:
        """The attempt waits, within this limit."""
        self._limit = limit
        self.code = ""
        self._taken(self)

    def drop(self) -> None:
        """The attempt is over."""
        self._limit = None
        self._dropped(self)

    def cut(self, code: str) -> None:
        """End the attempt: it raises :class:`CutOff` with this code, unless it ends by itself first, or its time has run out. A second
        time changes nothing.
        """
        if self._limit is not None and not self.code and not self._limit.expired():
            self.code = code
            self._limit.reschedule(asyncio.get_running_loop().time())


class Continuation(Generator[object, object, T]):
    """Awaiting this continues a coroutine that was stepped by hand and yielded ``waits_for``; once, in the task that
    stepped it.

    It is an iterator with ``send``, ``throw`` and ``close``, to which an ``await`` passes everything through, as PEP
    380 says.
    """

    __slots__ = ("_coro", "_handed_on", "_waits_for")

    def __init__(self, coro: Stepped[T], waits_for: object) -> None:
        self._coro = coro
        self._waits_for = waits_for
        self._handed_on = False

    def __await__(self) -> Generator[object, object, T]:
        return self

    def send(self, value: object) -> object:
        """The first time, hand on what the coroutine waits for already; from then on, resume it."""
        if self._handed_on:
            return self._coro.send(value)
        self._handed_on = True
        waits_for, self._waits_for = self._waits_for, None
        return waits_for

    def __next__(self) -> object:
        return self.send(None)

    def throw(self, *error: object) -> object:
        """Raise inside the coroutine where it is suspended, also if nothing was handed on yet."""
        self._handed_on = True
        return self._coro.throw(*error)  # type: ignore[call-overload]  # passed through untouched

    def close(self) -> None:
        """End the coroutine; its ``finally`` blocks run."""
        self._coro.close()


async def within(coro: Stepped[T], timeout_s: float, reins: Reins | None = None) -> T:
    """The result of ``coro``, or :class:`TimedOut` after ``timeout_s`` (infinity: never). Call it only inside a task.

    Whatever else the coroutine raises passes unchanged, unless its time had run out before: code that turns the
    cancellation of a time-out into an error of its own is still a time-out, with that error as the cause. A result that
    arrives although the time ran out (the coroutine swallowed the cancellation) is a result. A cancellation from
    outside stays one. ``reins`` can end it before: then it raises :class:`CutOff`.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        waits_for = coro.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    arrived = False
    limit = asyncio.timeout_at(started_s + timeout_s if timeout_s != float("inf") else None)
    try:
        async with limit:
            if reins is not None:
                reins.take(limit)
            result = await Continuation(coro, waits_for)
            arrived = True
    finally:
        if reins is not None:
            reins.drop()
        if not arrived and limit.expired():
            error = sys.exception()
            if isinstance(error, Exception):
                if reins is not None and reins.code:
                    raise CutOff(reins.code) from error
                raise TimedOut(timeout_s) from error
    return result
