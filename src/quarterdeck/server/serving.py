"""Binding, serving and stopping: uvicorn around the door, with signals that stop it in order.

On SIGTERM or SIGINT the listener closes first, then streams end with ``stream.closing`` and waits are answered 202; requests under way
get ``drain_s`` to end. A second signal cuts every connection. Runs are not touched: they belong to the runtime, whose own stop
comes after :func:`serve` has returned. (uvicorn itself would raise the signal again at its end, which would kill the process before.)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from quarterdeck.core.errors import UsageError
from quarterdeck.server.door import Door
from quarterdeck.server.protocol import guarded
from quarterdeck.server.settings import Settings

_log = logging.getLogger(__name__)


def listen(settings: Settings) -> socket.socket:
    """A socket that is bound and listens; raises :class:`UsageError` (``server.address``) where that is not possible."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=512)
    except OSError as error:
        raise UsageError(
            "server.address", f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another port"
        ) from None


def address(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: Door,
    settings: Settings | None = None,
    *,
    listener: socket.socket | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until a signal says otherwise, or the caller is cancelled; ``ready`` is told the URL once requests are taken.

    ``settings`` are those of the app by default. The listener is closed at the end, whoever made it.
    """
    chosen = settings or app.settings
    bound = listener or listen(chosen)
    config = uvicorn.Config(
        app,
        http=guarded(chosen),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what strangers send is answered, and no reason to fill a log
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is asked for by whom is decided by credentials, never by a header that anybody can send
        h11_max_incomplete_event_size=chosen.max_head_bytes,
        timeout_keep_alive=chosen.idle_s,
        timeout_graceful_shutdown=chosen.drain_s,
        backlog=512,
    )
    server = _Server(config, app)
    if ready is not None:
        server.told = (ready, address(bound))
    try:
        await server.serve([bound])
    except asyncio.CancelledError:
        server.cut()
        raise
    finally:
        bound.close()


class _Server(uvicorn.Server):
    """uvicorn's server, stopping the door's streams with itself, and leaving the signal's meaning to the caller."""

    told: tuple[Callable[[str], None], str] | None = None

    def __init__(self, config: uvicorn.Config, app: Door) -> None:
        super().__init__(config)
        self._app = app
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.told is not None:
            tell, url = self.told
            tell(url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Runs between two instructions of anything, so it writes nothing: the very stream may be in the middle of a write.
        if self.should_exit:
            self.force_exit = True
            self._loop.call_soon_threadsafe(self.cut)
        else:
            self.should_exit = True
            self._loop.call_soon_threadsafe(_log.info, "stopping on signal %d; once more cuts what is under way", sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # The listener closes before anything else: who is turned away from here on finds another process.
        for server in self.servers:
            server.close()
        self._app.closing.set()
        await super().shutdown(sockets)
        self.cut()

    def cut(self) -> None:
        """Cut what is still connected."""
        self._app.closing.set()
        for listening in getattr(self, "servers", ()):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
