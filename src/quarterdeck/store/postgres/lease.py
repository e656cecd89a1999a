"""Being alive, and hearing of others: one connection and one thread that renew a runtime's lease and listen for notifications.

The thread shares nothing with the event loop but a counter that the loop moves: a loop that is busy for a while cannot starve it, and
once the loop has not turned for ``STALL_S`` the lease is left to expire, so that others take the runs over.

Before each renewal it looks whether the database is still the one that it has renewed its lease in. One that was put back from a copy
cannot know that it was; but the newest renewal that was acknowledged is missing in it, and whoever misses his says so to all.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from collections.abc import Callable

import psycopg

from quarterdeck.core.errors import QuarterdeckError, UsageError
from quarterdeck.store.postgres.opening import Connection, Mark, connect, cut, meta_of, renew, standing
from quarterdeck.store.postgres.statements import load

STALL_S = 30.0
"""How long the event loop may stand still before its lease is no longer renewed."""
TURN_S = 0.5
"""How often the loop shows that it turns."""
END_S = 1.0
"""How long the thread may take to end."""
RETRY_S = 0.5
"""The pause before the next attempt where the database does not answer."""


class Lease:
    """Renews one owner's lease until it is stopped.

    ``hear`` is called on the loop when another session has notified, ``reborn`` when the store has another incarnation than ``mark`` says,
    ``outgrown`` when that is one that this code cannot use any more: then nothing is renewed. ``renewed`` gives a new incarnation, for the
    first to notice that the database was put back.
    """

    def __init__(
        self,
        dsn: str,
        mark: Mark,
        lease_s: float,
        hear: Callable[[], None],
        reborn: Callable[[int], None],
        outgrown: Callable[[UsageError], None],
        renewed: Callable[[], int],
    ) -> None:
        self.owner = mark.owner
        self.mark = mark
        self._dsn = dsn
        self._lease_s = lease_s
        self._beat_s = lease_s / 4
        self._hear = hear
        self._reborn = reborn
        self._outgrown = outgrown
        self._renewed = renewed
        self._loop = asyncio.get_running_loop()
        self._turned_s = time.monotonic()
        self._stopped = threading.Event()
        self._writer_pid = 0
        self._about = "{}"
        self._due = False
        self._programs: list[str] | None = None
        self._db: Connection | None = None
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
        """Wait until the thread has ended; one that waits for the database is told that there is none, then left alone."""
        await self._loop.run_in_executor(None, self._thread.join, END_S)
        if self._thread.is_alive() and self._db is not None:
            cut(self._db)
            await self._loop.run_in_executor(None, self._thread.join, END_S)
        if not self._thread.is_alive():
            os.close(self._wake)
            os.close(self._woken)

    def _turn(self) -> None:
        self._turned_s = time.monotonic()
        self._timer = self._loop.call_later(TURN_S, self._turn)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._db = db = connect(self._dsn)
                try:
                    self._serve(db)
                finally:
                    db.close()
            except (psycopg.Error, QuarterdeckError) as error:
                if isinstance(error, UsageError) and error.code == "store.newer":
                    self._call(self._outgrown, error)
                    return
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
                    self._compare(db)
                    self._renew(db)
            heard, _, _ = select.select([db.fileno(), self._woken], [], [], max(0.0, due_s - time.monotonic()))
            if self._woken in heard and not self._stopped.is_set():
                os.read(self._woken, 64)
            if any(notice.pid != self._writer_pid for notice in db.notifies(timeout=0)):
                self._told()

    def _compare(self, db: Connection) -> None:
        """Take over the store's incarnation, which is a new one if what we know of it is not true any more."""
        incarnation, went_back = standing(db, self.mark)
        if went_back:
            incarnation = renew(self._dsn, self._renewed(), self.mark.incarnation)
        if incarnation != self.mark.incarnation:
            meta_of(db)
            self.mark = Mark(incarnation, self.owner)
            self._call(self._reborn, incarnation)

    def _renew(self, db: Connection) -> None:
        """A lease that expired and was buried begins anew; the runs under it are others' now, which their epochs say."""
        sql = load("write")
        said = (self._lease_s, self._about, self._programs, self.owner)
        beat = db.execute(sql["renew"], said).fetchone()
        if beat is None:
            db.execute(sql["enter_again"], (self.owner, self._lease_s))
            beat = db.execute(sql["renew"], said).fetchone()
        if beat is not None:
            self.mark = self.mark._replace(beat_at=str(beat[0]), lsn=str(beat[1]))

    def _told(self) -> None:
        """Several notifications at once are one."""
        self._call(self._hear)

    def _call(self, what: Callable[..., None], *arguments: object) -> None:
        if not self._stopped.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)
