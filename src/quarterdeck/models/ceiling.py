"""A ceiling on what a provider may send, whatever its answer is: a stream without end must not fill the memory.

It sits below the client library, at the response's bytes, because neither the library nor an event stream has a limit on a line,
an event or a whole answer. Loaded with the first call only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024
"""A chunk of a stream is about 300 bytes for each token: room for fifty thousand tokens."""


class TooMuch(Exception):
    """The answer is larger than anything honest, or packed, so that its size cannot be told."""


async def put_ceiling(response: httpx2.Response) -> None:
    """A response hook: count the bytes of this response as they are read, and raise :class:`TooMuch` past the ceiling."""
    packed = response.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        raise TooMuch(f"the endpoint packed its answer ({packed}) although it was asked not to")
    stream = response.stream
    if isinstance(stream, httpx2.AsyncByteStream):
        response.stream = _Counted(stream)


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for part in self._stream:
            total += len(part)
            if total > RESPONSE_LIMIT_BYTES:
                raise TooMuch(f"the endpoint sent more than {RESPONSE_LIMIT_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
