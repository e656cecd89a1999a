"""A wire between a runtime and the server that can be cut, before a message arrives or before its answer does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Wire:
    """Forwards between a Unix socket of its own and the server's. ``dsn`` leads through it."""

    def __init__(self, dsn: str, folder: Path) -> None:
        given = conninfo_to_dict(dsn)
        self._target = f"{given['host']}/.s.PGSQL.{given['port']}"
        self.path = folder / f".s.PGSQL.{given['port']}"
        self.dsn = make_conninfo(dsn, host=str(folder))
        self.deaf: bytes | None = None
        self.mute: bytes | None = None
        self.cuts = 0
        self._serving: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One more connection."""
        task = asyncio.ensure_future(self.connected(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def ended(self) -> None:
        """Wait until every connection has ended, at whoever's end."""
        await asyncio.gather(*self._serving)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        silent = asyncio.Event()
        forth = asyncio.ensure_future(self._forward(reader, back, silent))
        answers = asyncio.ensure_future(self._answer(there, writer, silent))
        await asyncio.wait([forth, answers], return_when=asyncio.FIRST_COMPLETED)
        for task in (forth, answers):
            task.cancel()
        await asyncio.gather(forth, answers, return_exceptions=True)
        for end in (writer, back):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if self.deaf is not None and self.deaf in data:
                self.deaf = None
                self.cuts += 1
                return
            if self.mute is not None and self.mute in data:
                self.mute = None
                silent.set()
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silent: asyncio.Event) -> None:
        while data := await reader.read(1 << 16):
            if silent.is_set():
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def wire(dsn: str, folder: Path) -> AsyncIterator[Wire]:
    """A wire for as long as this lasts."""
    made = Wire(dsn, folder)
    server = await asyncio.start_unix_server(made.accept, made.path)
    try:
        yield made
    finally:
        server.close()
        await made.ended()
