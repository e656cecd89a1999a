"""Waiting for a slot: drives :class:`quarterdeck.core.limits.Bulkhead` with futures of the running loop.

The promise that is easily broken: *a slot is never lost*. A waiter may be cancelled, or its patience may end, in the
very tick in which it was given a slot; then the slot goes on to the next one.
"""

from __future__ import annotations

import asyncio
import enum

from quarterdeck.core.limits import Bulkhead, BulkheadPolicy


class Entry(enum.StrEnum):
    """How waiting ended."""

    ENTERED = "entered"
    QUEUE_FULL = "queue_full"
    TOO_LONG = "too_long"
    SENT_AWAY = "sent_away"


class Slots:
    """The slots of one dependency, for the tasks of one event loop."""

    __slots__ = ("_bulkhead", "_given", "_waiters", "try_enter")

    def __init__(self, policy: BulkheadPolicy) -> None:
        self._bulkhead = Bulkhead(policy)
        self._waiters: dict[int, asyncio.Future[Entry]] = {}
        self._given: set[int] = set()  # tickets that were given a slot, until their waiter has noticed
        self.try_enter = self._bulkhead.enter

    @property
    def in_flight(self) -> int:
        """Slots that are taken."""
        return self._bulkhead.in_flight

    @property
    def queued(self) -> int:
        """Attempts that wait for one."""
        return self._bulkhead.queued

    async def enter(self, max_wait_s: float) -> Entry:
        """Take a slot, waiting at most so long. Only after ``ENTERED`` is one held; after a cancellation none."""
        if self._bulkhead.enter():
            return Entry.ENTERED
        ticket = self._bulkhead.enqueue() if max_wait_s > 0.0 else None
        if ticket is None:
            return Entry.QUEUE_FULL
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiters[ticket] = future
        entered = False
        try:
            async with asyncio.timeout(max_wait_s):
                entry = await future
            entered = entry is Entry.ENTERED
        except TimeoutError:
            return Entry.TOO_LONG
        finally:
            del self._waiters[ticket]
            given = ticket in self._given
            self._given.discard(ticket)
            if given and not entered:
                self.leave()
            elif not given:
                self._bulkhead.abandon(ticket)
        return entry

    def leave(self) -> None:
        """Give a slot back; the oldest waiter has it from now on."""
        ticket = self._bulkhead.leave()
        if ticket is not None:
            self._given.add(ticket)
            self._tell(ticket, Entry.ENTERED)

    def resize(self, policy: BulkheadPolicy) -> None:
        """Another policy from now on; who waits for a slot that there is now has it."""
        for ticket in self._bulkhead.resize(policy):
            self._given.add(ticket)
            self._tell(ticket, Entry.ENTERED)

    def send_away(self) -> None:
        """End all waiting, as when the breaker opens: standing in line for what is closed helps nobody."""
        for ticket in list(self._waiters):
            if self._bulkhead.abandon(ticket):
                self._tell(ticket, Entry.SENT_AWAY)

    def _tell(self, ticket: int, entry: Entry) -> None:
        future = self._waiters[ticket]
        if not future.done():
            future.set_result(entry)
