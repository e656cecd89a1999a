"""Probes of a worker, which has no door: a few lines of HTTP on loopback, for whatever watches over the process."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import UsageError

MAX_HEAD = 8_192
"""The longest head of a request, in bytes."""
PATIENCE_S = 5.0
"""How long a request may take to arrive."""


class Probes:
    """Answers ``/healthz/startup``, ``/healthz/live`` and ``/healthz/ready``. None of them touches the store."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self._server: asyncio.Server | None = None

    async def open(self, port: int) -> int:
        """Listen on loopback; the port (0 chooses one). Raises ``UsageError`` (``server.address``)."""
        try:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_HEAD)
        except OSError as error:
            raise UsageError(
                "server.address", f"cannot listen on 127.0.0.1:{port} ({error.strerror}); choose another port"
            ) from None
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def answer(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and body for a path."""
        runtime = self.runtime
        if path == "/healthz/live":
            return 200, {"status": "ok"}
        if path == "/healthz/startup":
            return (200, {"status": "ok"}) if runtime is not None else (503, {"status": "starting"})
        if path != "/healthz/ready":
            return 404, {"status": "unknown", "code": "http.not_found"}
        if runtime is None:
            return 503, {"status": "starting"}
        told: dict[str, object] = {"active": runtime.active, "max_active": runtime.max_active, "silent_s": runtime.silences()}
        if runtime.stopping:
            return 503, {"status": "stopping", "code": "server.stopping", **told}
        if runtime.failed is not None:
            return 503, {"status": "failed", "code": runtime.failed.code, **told}
        if runtime.superseded:
            return 503, {"status": "superseded", "code": "worker.superseded", "superseded": runtime.superseded, **told}
        if runtime.unreachable:
            return 503, {"status": "unreachable", "code": "store.unreachable", **told}
        if runtime.active >= runtime.max_active:
            return 503, {"status": "busy", "code": "server.busy", **told}
        return 200, {"status": "ok", **told}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                status, said = self.answer(words[1]) if len(words) == 3 and words[0] == "GET" else (405, {"status": "unknown"})
                body = msgspec.json.encode(said)
                kind = "content-type: application/json\r\ncache-control: no-store\r\nconnection: close"
                writer.write(
                    f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\n{kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
                await writer.drain()
        writer.close()
