"""A real HTTP endpoint on loopback for the tests: it records what it is asked and answers with exactly the bytes it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Connection"], Awaitable[None]]


@dataclass
class Asked:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: Any


class Connection:
    """One request's way back."""

    def __init__(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self._reader = reader
        self._writer = writer

    async def head(self, status: str = "200 OK", **headers: str) -> None:
        named = {"content-type": "text/event-stream", "connection": "close"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items())]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def event(self, value: object) -> None:
        await self.send(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    async def gone(self) -> None:
        """Return when the client has hung up."""
        while await self._reader.read(1024):
            pass


@dataclass
class Endpoint:
    """Where it listens and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[Endpoint]:
    """Listen on a free loopback port and answer every request with ``answer``."""
    here = Endpoint("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            here.asked.append(Asked(line, headers, json.loads(body)))
            here.arrived.set()
            await answer(Connection(here.asked[-1], reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            here.hung_up.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield here


def chunk(delta: dict[str, object] | None = None, finish: str | None = None, **more: object) -> dict[str, object]:
    """One chunk of a stream."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "served-1", "choices": choices} | more


def usage(read: int, written: int, total: int | None = None) -> dict[str, object]:
    """The last chunk, with the counts."""
    counts = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": total or read + written}
    return chunk() | {"choices": [], "usage": counts}


def call(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, object]:
    """A delta with a piece of one call."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    piece = {"index": index, "function": function} | ({"id": call_id, "type": "function"} if call_id else {})
    return {"tool_calls": [piece]}


def stream(*events: object) -> Answer:
    """Answer with these events and ``[DONE]``."""

    async def answer(connection: Connection) -> None:
        await connection.head()
        for event in events:
            await connection.event(event)
        await connection.event(b"[DONE]")

    return answer


def refusal(status: str, body: object, **headers: str) -> Answer:
    """Answer with an error."""

    async def answer(connection: Connection) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await connection.head(status, **({"content_type": "application/json", "content_length": str(len(data))} | headers))
        await connection.send(data)

    return answer
