"""The writer's process: reads groups of operations from its owner, applies each as one transaction, answers.

``python -m quarterdeck.store.sqlite.writer PATH SOCKET LOCK`` is started by the owner only. It ends when the owner's end of the socket
closes, after the group in hand is committed; so a killed owner leaves nothing half done, and holds the lock until then. On any error
of the storage it reports the fault and ends: an error while syncing must never be retried on the same descriptors.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import apsw

from quarterdeck.core.commit import Outcome, Refused
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.frames import FAULT, Reply, Request, frame, read, split
from quarterdeck.store.sqlite.opening import connect, require_durable

GROUP = 512
"""The most operations of one transaction, so that the owner's next ones overlap with this one's sync."""


def serve(applier: Applier, sock: socket.socket) -> None:
    """Apply until the owner closes its end. Several waiting requests are committed as one group."""
    buffer = bytearray()
    while data := sock.recv(1 << 20):
        buffer += data
        pending = [read(body) for body in split(buffer)]
        while pending:
            group = [pending.pop(0)]
            size = len(group[0][0].ops)
            while pending and size + len(pending[0][0].ops) <= GROUP:
                size += len(pending[0][0].ops)
                group.append(pending.pop(0))
            sock.sendall(_applied(applier, group))
            applier.checkpoint()


def _applied(applier: Applier, group: list[tuple[Request, dict[int, Refused]]]) -> bytes:
    outcomes: list[Outcome] = applier.apply([op for request, _ in group for op in request.ops])
    answers = bytearray()
    start = 0
    for request, poison in group:
        end = start + len(request.ops)
        answered = outcomes[start:end]
        for place, refused in poison.items():
            answered.insert(place, refused)
        answers += frame(Reply(request.number, answered))
        start = end
    return bytes(answers)


def main(arguments: list[str]) -> int:
    """Run until the owner goes away; exit 0, or :data:`FAULT` after a storage fault that the owner was told."""
    path, descriptor = Path(arguments[0]), int(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sock = socket.socket(fileno=descriptor)
    try:
        db = connect(path)
        require_durable(db)
        serve(Applier(db), sock)
        db.close()
    except (apsw.Error, QuarterdeckError) as error:
        with contextlib.suppress(OSError):
            sock.sendall(frame(Reply(0, [], f"{type(error).__name__}: {error}")))
        # At once: closing the connection in good order would write and sync the file again, on descriptors that have failed.
        os._exit(FAULT)
    except (BrokenPipeError, ConnectionResetError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
