"""The line between a supervisor and a worker process: signs of life one way, and the end of it the other way.

The worker's event loop writes one byte a second. A loop that stands still writes none, so a silent worker is a hung one, whatever its
other threads do. When the supervisor is gone, however it went, the line ends, and the worker stops in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping

VARIABLE = "QUARTERDECK_LIFELINE"
"""The environment variable that names a worker's end of the line, a file descriptor."""
BEAT_S = 1.0
"""How often a worker gives a sign of life."""
BEAT, READY = b".", b"r"


class Lifeline:
    """A worker's end. Without a supervisor it does nothing."""

    def __init__(self, line: socket.socket | None, on_end: Callable[[], None]) -> None:
        self._line = line
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if line is not None:
            line.setblocking(False)
            self._loop.add_reader(line, self._heard)
            self._beat()

    @classmethod
    def of(cls, environment: Mapping[str, str], on_end: Callable[[], None]) -> Lifeline:
        """The line that a supervisor has left in the environment, if one has."""
        named = environment.get(VARIABLE, "")
        return cls(socket.socket(fileno=int(named)) if named.isdigit() else None, on_end)

    def ready(self) -> None:
        """Tell the supervisor that this worker takes work."""
        self._say(READY)

    def close(self) -> None:
        """Say nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._line is not None:
            self._loop.remove_reader(self._line)
            self._line.close()
            self._line = None

    def _beat(self) -> None:
        self._say(BEAT)
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _say(self, word: bytes) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):  # a full line says enough, a broken one ends by itself
                self._line.send(word)

    def _heard(self) -> None:
        if self._line is None:
            return
        try:
            gone = self._line.recv(64) == b""
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self.close()
            self._on_end()


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a line: the supervisor's, and the one that a worker inherits."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    os.set_inheritable(theirs.fileno(), True)
    return ours, theirs
