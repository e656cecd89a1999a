"""A TCP proxy that loses what it is told to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Rule = Callable[[bytes], int | None]
"""From the first bytes of a request to how many bytes of its answer come through before the connection is cut; ``None``: all."""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Weather:
    """Between a client and a server. ``cuts`` counts the connections that it has cut, ``seen`` are all requests."""

    def __init__(self, place: tuple[str, int], rule: Rule) -> None:
        self.cuts = 0
        self.seen: list[bytes] = []
        self.url = ""
        self._place = place
        self._rule = rule
        self._abort = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down, up = await asyncio.open_connection(*self._place)
        left: list[int | None] = [None]

        async def upward() -> None:
            while piece := await reader.read(65_536):
                if piece.startswith((b"GET ", b"POST ")):
                    self.seen.append(piece)
                    left[0] = self._rule(piece)
                else:
                    self.seen[-1] += piece
                up.write(piece)
            up.close()

        async def downward() -> None:
            while piece := await down.read(65_536):
                if left[0] is not None:
                    if len(piece) > left[0]:
                        writer.write(piece[: left[0]])
                        self._cut(writer)
                        return
                    left[0] -= len(piece)
                writer.write(piece)
            writer.close()

        tasks = [asyncio.ensure_future(upward()), asyncio.ensure_future(downward())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            up.transport.abort()
            writer.close()

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        """Alternately as if somebody had hung up, and as if the other machine had gone."""
        self.cuts += 1
        self._abort = not self._abort
        if self._abort:
            writer.transport.abort()
        else:
            writer.close()


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[str]:
    """A server on a free port whose connections do not outlive it; its URL."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def weather(place: tuple[str, int], rule: Rule) -> AsyncIterator[Weather]:
    """A proxy in front of a server."""
    made = Weather(place, rule)
    async with served(made.serve) as made.url:
        yield made
