"""What a tool or model may do to its caller: answer, fail, or be ended; nothing else.

An attempt runs in the task of its run. So without a wall around it ``sys.exit()`` in a library would end the whole process, a
``CancelledError`` that nobody asked for (a task of a client library that was cancelled) would end the run's task and leave the run
held for ever, and a coroutine that swallows its cancellation could not be ended at all. Behind this wall the first two are failures
like others (:class:`Strayed`), and the last is let go of after :data:`UNWIND_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import TypeVar

T = TypeVar("T")

UNWIND_S = 5.0
"""How long an attempt that is ended may go on to clean up; then it is let go of, wherever it is."""

_log = logging.getLogger(__name__)


class Strayed(Exception):
    """An attempt ended by an exception that is not meant for its caller (``SystemExit``, ``GeneratorExit`` …), which is the cause."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"it ended by {type(error).__name__}")


class Severed(Strayed, ConnectionError):
    """An attempt was interrupted in the middle, and not by its caller: what it was doing may be done, as with a lost connection."""


class Contained(Generator[object, object, T]):
    """A coroutine behind the wall: stepped like one, in the same task and context.

    Raises :class:`Strayed` for what is not meant for the caller. A cancellation of the task passes both ways.
    """

    __slots__ = ("_coro", "_ended", "_kept", "_let_go", "_own", "_waited")

    def __init__(self, coro: Coroutine[object, object, T]) -> None:
        self._coro = coro
        self._own = 0
        self._kept: BaseException | None = None
        self._ended = self._let_go = self._waited = False

    def __await__(self) -> Generator[object, object, T]:
        return self

    def send(self, value: object) -> object:
        """Let it go on until it waits, ends or fails."""
        if self._kept is not None:
            raise self._kept
        return self._stepped(None, value)

    def __next__(self) -> object:
        return self.send(None)

    def throw(self, *error: object) -> object:
        """Raise inside it where it waits. One that goes on waiting after a cancellation has :data:`UNWIND_S` to end."""
        given = error[1] if len(error) > 1 and isinstance(error[1], BaseException) else error[0]
        raised = given() if isinstance(given, type) else given
        if not isinstance(raised, BaseException):
            raise TypeError("only exceptions can be thrown")
        if self._kept is not None:
            raise self._kept if self._is_own(raised) else raised
        if self._let_go:
            self.close()
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            raise raised
        waits_for = self._stepped(raised, None)
        if isinstance(raised, asyncio.CancelledError) and not self._waited:
            self._waited = True
            asyncio.get_running_loop().call_later(UNWIND_S, self._insist, asyncio.current_task())
        return waits_for

    def close(self) -> None:
        """End it; its ``finally`` blocks run as far as they do not wait."""
        self._ended = True
        try:
            self._coro.close()
        except BaseException as error:  # the one broad except of letting go
            _log.warning("an attempt that was let go of did not end quietly: %r", error)

    def _stepped(self, error: BaseException | None, value: object) -> object:
        task = asyncio.current_task()
        cancels = 0 if task is None else task.cancelling()
        try:
            waits_for = self._coro.send(value) if error is None else self._coro.throw(error)
        except Exception as outcome:  # StopIteration, too: how it returns
            self._ended = True
            if task is not None and self._took_back(task, cancels):
                self._kept = outcome
                return None
            raise
        except BaseException as raised:  # the one broad except of what is called
            self._ended = True
            own = task is not None and self._took_back(task, cancels)
            told = self._meant(raised, task)
            if told is None:
                raise
            told.__cause__ = raised
            if not own:
                raise told from raised
            self._kept = told
            return None
        if task is not None:
            self._own = max(0, self._own + task.cancelling() - cancels)
        return waits_for

    def _took_back(self, task: asyncio.Task[object], cancels: int) -> bool:
        """Whether it has cancelled the task that it runs in; that is taken back. The task may still have to raise it, which would hit the
        caller where it waits next: so it is made to raise here, at a pause of our own, and how it ended (``_kept``) comes after that.
        """
        own = max(0, self._own + task.cancelling() - cancels)
        self._own = 0
        for _ in range(own):
            task.uncancel()
        return own > 0

    def _is_own(self, raised: BaseException) -> bool:
        """Whether what is thrown at that pause is the cancellation that it has asked for itself."""
        task = asyncio.current_task()
        return isinstance(raised, asyncio.CancelledError) and task is not None and not task.cancelling()

    def _meant(self, raised: BaseException, task: asyncio.Task[object] | None) -> Strayed | None:
        """What the caller is told in place of this exception; ``None``: the exception is meant for it."""
        if not isinstance(raised, asyncio.CancelledError):
            return Severed(raised) if isinstance(raised, KeyboardInterrupt) else Strayed(raised)
        return None if task is not None and task.cancelling() else Severed(raised)

    def _insist(self, task: asyncio.Task[object] | None) -> None:
        if not self._ended and task is not None:
            self._let_go = True
            _log.warning("an attempt goes on although it was ended %g s ago; it is let go of", UNWIND_S)
            task.cancel()
