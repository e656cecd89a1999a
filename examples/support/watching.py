"""Following every run over HTTP, as any other program could: one event stream per run.

The client hides broken connections. When the service is killed, every stream breaks; the client connects again until somebody
answers, says which event it has seen last, and is given the next one. Nothing here knows about the kills.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing

import msgspec

from examples.support.journals import AT_REST, Journal, Seen, in_order
from quarterdeck.app.clock import SystemClock
from quarterdeck.client import AsyncClient, AsyncRun, Event
from quarterdeck.core import events as ev
from quarterdeck.core.vocabulary import Status

SOON_US = 15_000_000
"""A run that wakes by itself within this time is not at rest."""
NEWEST = 20
"""How many of the newest runs are looked at for such as nobody here has asked for."""

clock = SystemClock()


class Watch:
    """Follows runs. What it knows is what their streams have said so far."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._journals: dict[str, Journal] = {}
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._news: deque[Seen] = deque()

    async def close(self) -> None:
        """Let go of every stream."""
        for stream in self._streams.values():
            stream.cancel()
        await asyncio.gather(*self._streams.values(), return_exceptions=True)

    def follow(self, run: AsyncRun) -> None:
        """Follow a run until it has ended; a second time changes nothing."""
        if run.id not in self._streams:
            self._streams[run.id] = asyncio.create_task(self._follow(run))

    async def follow_newest(self) -> None:
        """Follow what somebody else has asked for in the meantime."""
        async for row in self._client.runs(limit=NEWEST):
            self.follow(self._client.run(row.run_id))

    @property
    def journals(self) -> list[Journal]:
        """Every run of which something is known, the oldest first."""
        return in_order(self._journals.values())

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(not stream.done() for stream in self._streams.values())

    def journal(self, run_id: str) -> Journal:
        """What is known of one run."""
        return self._journals[run_id]

    def opened(self, tool: str) -> int:
        """How many calls of a tool were started."""
        return sum(journal.opened[tool] for journal in self._journals.values())

    def news(self) -> Iterator[Seen]:
        """What has come since the last call. Raises what ended a stream, if it was not the end of its run."""
        for stream in self._streams.values():
            if stream.done():
                stream.result()
        while self._news:
            yield self._news.popleft()

    def at_rest(self, count: int) -> bool:
        """Whether at least ``count`` runs are known, and each has ended or waits for something outside."""
        return len(self._journals) >= count and all(rests(journal) for journal in self._journals.values())

    async def _follow(self, run: AsyncRun) -> None:
        async with aclosing(run.follow()) as events:
            async for event in events:
                if event.durable:
                    self._news.append(self._taken(run.id, event))

    def _taken(self, run_id: str, said: Event) -> Seen:
        event = msgspec.convert({"kind": said.kind, "at_us": said.at_us, **said.body}, ev.Event)
        journal = self._journals.get(run_id)
        if journal is None:
            journal = self._journals[run_id] = Journal.begun(run_id, event)
        else:
            journal.take(event)
        return journal.seen(event, said.content)


def rests(journal: Journal) -> bool:
    """Whether a run has ended, or waits for something that does not come by itself in a moment."""
    wake_at_us = journal.state.wake_at_us
    soon = journal.state.status is Status.WAITING and wake_at_us is not None and wake_at_us < clock.now_us() + SOON_US
    return journal.state.status in AT_REST and not soon
