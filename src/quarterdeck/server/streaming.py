"""A run's events as server-sent events.

An event's ``id`` is its sequence in the journal, so ``Last-Event-ID`` resumes without loss or repetition, on any process. What is past
comes from the journal in small pages; what comes later, from a bounded subscription. Deltas have no id: they are not durable.

A stream ends with the run, at the present (``follow=false``), or with a ``stream.closing`` event that says why. A cursor that names nothing
is answered with ``stream.gap``, after which the journal is shown from its beginning. Whoever does not read is cut off by the protocol,
which aborts a connection whose bytes stay unsent (``write_deadline_s``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quarterdeck.app.views import EventView
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.engine.stream import Entry
from quarterdeck.ports.store import RunRow
from quarterdeck.server.exchange import Stage
from quarterdeck.server.reading import single

PAGE = 100
"""Events that are read from the journal at once: all that a reader who stops reading keeps in memory, apart from its subscription."""
_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}


_Out = Callable[[bytes], Awaitable[None]]


class Cursor(msgspec.Struct, frozen=True):
    """After which sequence a stream begins; ``asked`` is what was asked for where that names nothing."""

    after: int = 0
    asked: str | None = None


def cursor_of(request: Request, after: str | None, row: RunRow) -> Cursor:
    """Where to go on: the header ``Last-Event-ID`` if it is there (a reconnecting reader repeats its first address), else ``after``."""
    asked = single(request, "last-event-id") or after
    if asked is None or asked == "":
        return Cursor()
    known = asked.isascii() and asked.isdigit() and len(asked) < 16 and int(asked) <= row.seq
    return Cursor(int(asked)) if known else Cursor(0, asked[:64])


class EventStream(Response):
    """The events of one run after a cursor."""

    def __init__(
        self,
        stage: Stage,
        caller: str,
        run_id: str,
        cursor: Cursor,
        *,
        follow: bool = True,
        content: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(headers={**_HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._stage = stage
        self._caller = caller
        self._run_id = run_id
        self._cursor = cursor
        self._follow = follow
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends or the reader is gone."""
        with self._stage.streams.opened(self._caller):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                gone = asyncio.ensure_future(_disconnected(receive))
                try:
                    await self._send_all(send, gone)
                finally:
                    await _cancelled(gone)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send, gone: asyncio.Future[None]) -> None:
        async def out(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        after = self._cursor.after
        if self._cursor.asked is not None:
            await out(_message("stream.gap", {"asked": self._cursor.asked, "resumes_after": 0}))
        while page := self._stage.runtime.insights.events(self._run_id, after, PAGE):
            after = page[-1].seq
            await out(b"".join([self._shown(Entry(stored.seq, stored.body, stored.payload)) for stored in page]))
            if gone.done():
                return
        if self._follow:
            await self._go_on(after, out, gone)

    async def _go_on(self, after: int, out: _Out, gone: asyncio.Future[None]) -> None:
        entries = self._stage.runtime.follow(self._run_id, after)
        closing = asyncio.ensure_future(self._stage.closing.wait())
        following: asyncio.Future[Entry | None] | None = None
        try:
            while not gone.done():
                if following is None:
                    following = asyncio.ensure_future(_next(entries))
                done, _ = await asyncio.wait(
                    (following, gone, closing), timeout=self._stage.settings.heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                )
                if following in done:
                    entry, following = following.result(), None
                    if entry is None:
                        return
                    await out(self._shown(entry))
                elif closing in done:
                    await out(_message("stream.closing", {"code": "server.stopping", "resume_after": "the last id"}))
                    return
                elif not done:
                    await out(b":\n\n")
        except QuarterdeckError as error:
            await out(_message("stream.closing", {"code": error.code, "detail": error.message}))
        finally:
            for waiting in (closing, following):
                if waiting is not None:
                    await _cancelled(waiting)
            await entries.aclose()  # type: ignore[attr-defined]

    def _shown(self, entry: Entry) -> bytes:
        if not entry.seq:
            return _message("model.delta", {"text": entry.delta}) if self._content and entry.delta else b""
        body = msgspec.json.decode(entry.body, type=dict[str, object])
        kind, at_us = str(body.pop("kind")), int(str(body.pop("at_us")))
        content = msgspec.json.decode(entry.payload) if self._content and entry.payload is not None else None
        return _message(kind, EventView(entry.seq, kind, at_us, body, content), entry.seq)


def ended(row: RunRow, cursor: Cursor) -> bool:
    """Whether there is nothing after this cursor and never will be."""
    return row.status in TERMINAL and cursor.asked is None and cursor.after >= row.seq


def _message(kind: str, data: object, seq: int | None = None) -> bytes:
    head = b"" if seq is None else b"id: %d\n" % seq
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), msgspec.json.encode(data))


async def _next(entries: AsyncIterator[Entry]) -> Entry | None:
    return await anext(entries, None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(waiting: asyncio.Future[Any]) -> None:
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
