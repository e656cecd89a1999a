"""Both clients behind one awaitable face: the blocking one works in threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from quarterdeck.client import AsyncClient, Client, Retry

KINDS = ("blocking", "awaiting")
QUICK = Retry(for_s=20.0, base_s=0.0, cap_s=0.0)
"""Asks again at once: tests wait for events, not for time."""


@dataclass(frozen=True)
class Hands:
    """Makes a client of one kind, and calls it."""

    kind: str

    @asynccontextmanager
    async def client(self, url: str, key: Any = "ann", **options: Any) -> AsyncIterator[Any]:
        options = {"retry": QUICK, **options}
        if self.kind == "awaiting":
            async with AsyncClient(url, key, **options) as client:
                yield client
        else:
            client = await asyncio.to_thread(Client, url, key, **options)
            try:
                yield client
            finally:
                await asyncio.to_thread(client.close)

    async def do(self, verb: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if inspect.iscoroutinefunction(verb):
            return await verb(*args, **options)
        return await asyncio.to_thread(verb, *args, **options)

    async def all(self, verb: Callable[..., Any], *args: Any, into: list[Any] | None = None, **options: Any) -> list[Any]:
        """Everything that an iterating verb gives, at its end; ``into`` has each item as soon as it comes."""
        items: list[Any] = [] if into is None else into
        if inspect.isasyncgen(found := verb(*args, **options)):
            async for item in found:
                items.append(item)
        else:
            await asyncio.to_thread(items.extend, found)
        return items
