"""The HTTP/1.1 protocol, with the deadlines that uvicorn's own does not have.

uvicorn parses with h11, which is strict and, being pure Python, safe against the memory faults of C parsers. What it lacks is patience
with an end: a head or body may trickle in for ever, an answer that nobody reads is kept for ever. Middleware comes too late for
the first and never sees the second, so both are bounded here:

* a *head* must arrive within ``head_deadline_s`` of the connection or of its own first byte, a *body* within ``body_deadline_s`` of its
  head; then 408 and the connection closes. Progress does not extend a deadline: trickling is progress.
* bytes of an answer that stay unsent for ``write_deadline_s`` abort the connection. A stream's reader resumes from the journal.
* beyond ``max_connections`` a connection is told 503 and closed.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.server.problems import encoded, headers_of, problem_of
from quarterdeck.server.settings import Settings

LINGER_S = 1.0
"""How long a refused connection may take to read why, before it is cut."""


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol under deadlines."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings = settings
        self._receipt: asyncio.TimerHandle | None = None
        self._awaited: tuple[RequestResponseCycle | None, str] | None = None
        self._unsent: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse one connection too many."""
        super().connection_made(transport)
        # Head and body of an answer are two writes; without this the second waits for the reader's delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self._settings.max_connections:
            self._refuse(Unavailable("http.busy", "too many connections; try again", 5.0))
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and see what is still awaited. What comes after a refusal is dropped unread."""
        if self._refused:
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        for timer in (self._receipt, self._unsent):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """The next request may be here in part; what was said last may not have left yet."""
        super().on_response_complete()
        self._watch()
        if self.transport.is_closing():
            self._must_leave()

    def pause_writing(self) -> None:
        """The reader does not keep up: its time runs from now."""
        super().pause_writing()
        self._must_leave()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._unsent is not None and not self._refused:
            self._unsent.cancel()
            self._unsent = None

    def shutdown(self) -> None:
        """Close what is idle, let what is under way end. What has been refused is closing already."""
        if self._refused:
            self.transport.abort()
        elif not self.transport.is_closing() and self.conn.our_state is not h11.ERROR:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection ends, whether or not what it was told last was ever read."""
        super().timeout_keep_alive_handler()
        self._must_leave()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets a problem, or, where an answer has begun, a cut."""
        if len(self.conn.trailing_data[0]) > self._settings.max_head_bytes:
            self._refuse(UsageError("http.head_too_large", f"the head is longer than {self._settings.max_head_bytes} bytes"))
        else:
            self._refuse(UsageError("http.malformed", "this is not a well-formed HTTP/1.1 request"))

    def _should_upgrade(self) -> bool:
        return False

    def _watch(self) -> None:
        """Set the deadline of what is awaited now, unless it is running already."""
        awaited = None
        if not (self._refused or self.transport.is_closing()):
            state = self.conn.their_state
            if state is h11.SEND_BODY:
                awaited = (self.cycle, "body")
            elif state is h11.IDLE and (self._request() is None or self.conn.trailing_data[0]):
                awaited = (self.cycle, "head")
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._receipt is not None:
            self._receipt.cancel()
            self._receipt = None
        if awaited is not None:
            limit_s = self._settings.head_deadline_s if awaited[1] == "head" else self._settings.body_deadline_s
            self._receipt = self.loop.call_later(limit_s, self._late)

    def _request(self) -> RequestResponseCycle | None:
        """The newest request of this connection, if there was one."""
        return self.cycle

    def _late(self) -> None:
        self._refuse(UsageError("http.timeout", "the request did not arrive in time; send it at once"))

    def _refuse(self, error: QuarterdeckError) -> None:
        """Say why, and close; whatever handler is at work learns that its caller is gone."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        cycle, begun = self._request(), False
        if cycle is not None and not cycle.response_complete:
            begun = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
        if begun or self.conn.our_state is h11.ERROR:
            self.transport.abort()
            return
        # Closing at once would reset the connection of a peer that is still sending, before it has read why.
        self.transport.write(_written(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._unset_keepalive_if_required()
        self._watch()
        self._unsent = self.loop.call_later(LINGER_S, self.transport.abort)

    def _must_leave(self) -> None:
        if self._unsent is None and self.transport.get_write_buffer_size():
            self._unsent = self.loop.call_later(self._settings.write_deadline_s, self.transport.abort)


def _written(error: QuarterdeckError) -> bytes:
    """A problem as the bytes of a whole response after which the connection closes; the parser's state no longer matters."""
    problem = problem_of(error)
    body = encoded(problem)
    headers = {**headers_of(problem, error), "content-length": str(len(body)), "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {problem.status} {problem.title}\r\n{head}\r\n".encode() + body


def guarded(settings: Settings) -> Any:
    """The protocol class of a server with these settings, as uvicorn calls it."""
    return functools.partial(GuardedProtocol, settings)
