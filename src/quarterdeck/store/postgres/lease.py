"""Being alive, and hearing of others: one connection and one thread that renew a runtime's lease and listen for notifications.

The thread shares nothing with the event loop but a counter that the loop moves: a loop that is busy for a while cannot starve it, and
once the loop has not turned for ``STALL_S`` the lease is left to expire, so that others take the runs over.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg

from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.store.postgres.opening import Connection, connect
from quarterdeck.store.postgres.statements import load

STALL_S = 30.0
"""How long the event loop may stand still before its lease is no longer renewed."""
TURN_S = 0.5
"""How often the loop shows that it turns."""
RETRY_S = 0.5
"""The pause before the next attempt where the database does not answer."""


class Lease:
    """Renews one owner's lease until it is stopped. ``hear`` is called on the loop when another session has notified."""

    def __init__(self, dsn: str, owner: int, lease_s: float, hear: Callable[[], None]) -> None:
        self.owner = owner
        self._dsn = dsn
        self._lease_s = lease_s
        self._beat_s = lease_s / 4
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._turned_s = time.monotonic()
        self._stopped = threading.Event()
        self._writer_pid = 0
        self._about = "{}"
        self._due = False
        self._programs: list[str] | None = None
        self._woken, self._wake = os.pipe()
        self._timer = self._loop.call_later(TURN_S, self._turn)
        self._thread = threading.Thread(target=self._run, name="quarterdeck-lease", daemon=True)
        self._thread.start()

    def ignore(self, pid: int) -> None:
        """Do not hear the notifications of this server session: it is our own."""
        self._writer_pid = pid

    def introduce(self, about: str, programs: list[str] | None) -> None:
        """What the owner's row says from the next beat on, which is at once."""
        changed = programs != self._programs or self._about == "{}"
        self._about, self._programs = about, programs
        if changed:
            self._due = True
            os.write(self._wake, b"b")

    def stop(self) -> None:
        """Renew no more; the thread ends."""
        self._stopped.set()
        self._timer.cancel()
        os.write(self._wake, b"x")

    async def ended(self) -> None:
        """Wait until the thread has ended."""
        await self._loop.run_in_executor(None, self._thread.join)
        os.close(self._wake)
        os.close(self._woken)

    def _turn(self) -> None:
        self._turned_s = time.monotonic()
        self._timer = self._loop.call_later(TURN_S, self._turn)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                db = connect(self._dsn)
                try:
                    self._serve(db)
                finally:
                    db.close()
            except (psycopg.Error, QuarterdeckError):
                self._stopped.wait(RETRY_S)

    def _serve(self, db: Connection) -> None:
        sql = load("write")
        db.execute(sql["listen"])
        self._told()
        due_s = time.monotonic()
        while not self._stopped.is_set():
            now_s = time.monotonic()
            if now_s >= due_s or self._due:
                self._due = False
                due_s = now_s + self._beat_s
                if now_s - self._turned_s < STALL_S:
                    self._renew(db)
            heard, _, _ = select.select([db.fileno(), self._woken], [], [], max(0.0, due_s - time.monotonic()))
            if self._woken in heard and not self._stopped.is_set():
                os.read(self._woken, 64)
            if any(notice.pid != self._writer_pid for notice in db.notifies(timeout=0)):
                self._told()

    def _renew(self, db: Connection) -> None:
        """A lease that expired and was buried begins anew; the runs under it are others' now, which their epochs say."""
        sql = load("write")
        said = (self._lease_s, self._about, self._programs, self.owner)
        if db.execute(sql["renew"], said).rowcount == 0:
            db.execute(sql["enter_again"], (self.owner, self._lease_s))
            db.execute(sql["renew"], said)

    def _told(self) -> None:
        """Several notifications at once are one."""
        if not self._stopped.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear)
