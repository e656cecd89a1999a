"""Progress on its way into the journal: the newest report of each call, at most one write per pause.

Reports come from a tool's coroutine or thread, or from a workflow. They are noted like everything that has happened, and made durable by
a flush of their own, because a long call has no other commit until its receipt. A report that cannot be written (the run is somebody
else's now, the store has stopped) is dropped: what it tells is not worth a run, and whoever drives the run meets the same refusal.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.progress import Report, pause_s
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.engine.sequencer import Sequencer
from quarterdeck.engine.services import Services

OWN = ""
"""The call under which a workflow reports of itself."""

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class Reports:
    """The reports of one run in the hands of one worker. Made on the event loop; :meth:`reporter` gives what may be called from any
    thread, also when all is over.
    """

    def __init__(self, services: Services, sequencer: Sequencer) -> None:
        self._services = services
        self._sequencer = sequencer
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._newest: dict[str, Report] = {}
        self._known: dict[str, Report] = {}
        self._writer: asyncio.Task[None] | None = None
        self._pausing = False
        self._written = 0
        self._due_s = 0.0
        self._over = False

    def reporter(self, call: str) -> Callable[[Report], None]:
        """What takes the reports of one call, for as long as it is being performed."""

        def take(said: Report) -> None:
            if threading.get_ident() == self._thread:
                self.take(call, said)
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.take, call, said)

        return take

    def take(self, call: str, said: Report) -> None:
        """Take one report in, unless its call has its receipt already, or it says nothing new."""
        if self._over or not (call == OWN or call in self._sequencer.performing) or self._is_known(call, said):
            return
        self._known[call] = self._newest[call] = said
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())

    def settle(self, call: str | None = None) -> None:
        """Note what was not noted yet, of one call or of all: nothing is reported of a call after its receipt."""
        for each in [call] if call is not None else list(self._newest):
            said = self._newest.pop(each, None)
            if said is not None and self._sequencer.state.status not in TERMINAL:
                now_us = self._services.clock.now_us()
                payload = _encoder.encode(said.note) if said.note else None
                self._sequencer.note(ev.RunProgressed(now_us, each, said.done, said.total), payload)
                self._written += 1

    async def close(self) -> None:
        """Nothing is reported any more. What is being written is waited for, unless this worker itself is told to stop."""
        self._over = True
        self._newest.clear()
        writer, task = self._writer, asyncio.current_task()
        if writer is not None:
            if self._pausing or (task is not None and task.cancelling()):
                writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _is_known(self, call: str, said: Report) -> bool:
        """Whether this was said already: a workflow says it again whenever it is executed again."""
        if (last := self._known.get(call)) is not None:
            return last == said
        mark = self._sequencer.state.progress
        return mark is not None and (mark.call, mark.done, mark.total) == (call, said.done, said.total)

    async def _write(self) -> None:
        clock = self._services.clock
        try:
            while self._newest:
                pause = self._due_s - clock.boottime_s()
                if pause > 0:
                    self._pausing = True
                    await clock.sleep(pause)
                    self._pausing = False
                self.settle()
                await self._sequencer.flush()
                self._due_s = clock.boottime_s() + pause_s(self._written)
        except QuarterdeckError as error:
            self._over = True
            _log.info("run %s: its progress is not told any more: %s", self._sequencer.run_id, error)
        finally:
            self._writer = None
