"""A function of the author's own as the target of a topic."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable

from quarterdeck.ports.outbox import Message


class FunctionDeliverer:
    """Calls a function, plain or ``async``, with each message; that it returns means that the message has arrived.

    It may be called twice with one message, so it has to tell by ``message.message``, or not to mind.
    """

    def __init__(self, function: Callable[[Message], object]) -> None:
        self._function = function

    async def deliver(self, message: Message) -> None:
        """Call it; a plain one in a worker thread."""
        if inspect.iscoroutinefunction(self._function):
            await self._function(message)
            return
        found = await asyncio.to_thread(self._function, message)
        if inspect.isawaitable(found):
            await found
