"""Keeps worker processes alive: starts them, starts one again that has died, kills one that hangs, ends all in order.

The rules are :mod:`quarterdeck.core.supervision`'s; here are the processes. A worker that has died or was killed has lost nothing: its
runs are claimed by the others once its lease is over. Too many deaths in a short time are no accident: then everything is stopped and the
supervisor ends with ``supervisor.intensity``, for whatever watches over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from quarterdeck.core.errors import OUTCOMES, Unavailable, UsageError
from quarterdeck.core.supervision import Intensity, after_death, is_hung
from quarterdeck.dispatch.lifeline import READY, VARIABLE, pair

START_S = 120.0
"""How long a worker may take to be ready, between two signs of life."""
HUNG_S = 30.0
"""How long a worker that is ready may give no sign of life."""
LOOK_S = 0.25
"""How often that is looked at."""
QUICK_S = 10.0
"""A worker that dies within so many seconds has died quickly: the next pause is longer."""
FORCE_S = 10.0
"""How long after the end of the grace, or a second signal, a worker is killed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Child:
    """One worker process, and when it was last heard of (on the loop's clock)."""

    place: int
    process: asyncio.subprocess.Process
    line: socket.socket
    started_s: float
    heard_s: float
    ready: bool = False
    killed: bool = False


@dataclass(slots=True)
class Supervisor:
    """``run`` keeps ``count`` processes of ``command`` alive until :meth:`stop`; a second :meth:`stop` does not wait for them."""

    command: Sequence[str]
    count: int
    grace_s: float
    rules: Intensity = field(default_factory=Intensity)
    hung_s: float = HUNG_S
    start_s: float = START_S
    children: dict[int, Child] = field(default_factory=dict)
    failed: Unavailable | UsageError | None = None
    restarts: int = 0
    _history: tuple[float, ...] = ()
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _forced: asyncio.Event = field(default_factory=asyncio.Event)
    _codes: list[int] = field(default_factory=list)

    async def run(self) -> None:
        """Until everything has stopped. Raises ``Unavailable`` (``supervisor.intensity``) or ``UsageError`` if it gave up."""
        kept = [asyncio.ensure_future(self._keep(place)) for place in range(self.count)]
        try:
            await self._stopping.wait()
            await self._end(kept)
        finally:
            for child in list(self.children.values()):
                self._kill(child)
            await asyncio.wait(kept, timeout=FORCE_S)
            for task in kept:
                task.cancel()
            await asyncio.gather(*kept, return_exceptions=True)
        if self.failed is not None:
            raise self.failed
        for task in kept:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        if wrong := [code for code in self._codes if code]:
            raise Unavailable(
                "supervisor.stop", f"{len(wrong)} workers did not stop in order (status {wrong[0]}); their leases expire"
            )

    def stop(self) -> None:
        """Stop every worker in order; the second time at once."""
        if self._stopping.is_set():
            self._forced.set()
        self._stopping.set()

    async def _end(self, kept: Sequence[asyncio.Future[None]]) -> None:
        self._signal()
        ended = asyncio.ensure_future(asyncio.wait(kept))
        forced = asyncio.ensure_future(self._forced.wait())
        try:
            await asyncio.wait((ended, forced), timeout=self.grace_s + FORCE_S, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._signal()
                await asyncio.wait((ended,), timeout=FORCE_S)
        finally:
            forced.cancel()
            ended.cancel()

    def _signal(self) -> None:
        for child in list(self.children.values()):
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)

    async def _keep(self, place: int) -> None:
        """One place: a process in it, and another after it, until this stops or gives up."""
        loop = asyncio.get_running_loop()
        quick = 0
        while not self._stopping.is_set():
            child = await self._start(place)
            code = await self._watched(child)
            if self._stopping.is_set():
                self._codes.append(code)
                return
            lived_s = loop.time() - child.started_s
            quick = quick + 1 if lived_s < QUICK_S else 0
            if not child.ready and code == OUTCOMES[UsageError].exit_code:
                self._give_up(UsageError("supervisor.refused", "a worker cannot start as it is configured; its log says why"))
                return
            verdict = after_death(self._history, loop.time(), self.rules, quick)
            self._history = verdict.history
            if verdict.again_in_s is None:
                said = f"{len(verdict.history)} workers died within {self.rules.within_s:g} s; starting more does not help, see their logs"
                self._give_up(Unavailable("supervisor.intensity", said))
                return
            _log.warning(
                "worker %d (process %d) has ended with status %d after %.1f s; another is started",
                place,
                child.process.pid,
                code,
                lived_s,
            )
            self.restarts += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(verdict.again_in_s):
                    await self._stopping.wait()

    def _give_up(self, error: Unavailable | UsageError) -> None:
        _log.error("the supervisor gives up: %s", error)
        if self.failed is None:
            self.failed = error
        self._stopping.set()

    async def _start(self, place: int) -> Child:
        ours, theirs = pair()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env={**os.environ, VARIABLE: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to pass on, once
            )
        except OSError as error:
            ours.close()
            raise Unavailable("supervisor.start", f"a worker cannot be started ({error.strerror})") from None
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        child = self.children[place] = Child(place, process, ours, loop.time(), loop.time())
        loop.add_reader(ours, self._heard, child)
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        return child

    def _heard(self, child: Child) -> None:
        try:
            said = child.line.recv(256)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            asyncio.get_running_loop().remove_reader(child.line)
            return
        child.heard_s = asyncio.get_running_loop().time()
        if READY in said and not child.ready:
            child.ready = True
            _log.info("worker %d (process %d) is ready", child.place, child.process.pid)

    async def _watched(self, child: Child) -> int:
        """Wait until a process has ended, and end it if it hangs; its exit status."""
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(child.process.wait())
        try:
            while True:
                done, _ = await asyncio.wait((waiting,), timeout=LOOK_S)
                if done:
                    return waiting.result()
                patience_s = self.hung_s if child.ready else self.start_s
                if not child.killed and is_hung(loop.time(), child.heard_s, patience_s):
                    _log.error(
                        "worker %d (process %d) has given no sign of life for %g s; it is killed",
                        child.place,
                        child.process.pid,
                        patience_s,
                    )
                    self._kill(child)
        finally:
            waiting.cancel()
            loop.remove_reader(child.line)
            child.line.close()
            if self.children.get(child.place) is child:
                del self.children[child.place]

    def _kill(self, child: Child) -> None:
        child.killed = True
        with contextlib.suppress(ProcessLookupError):
            child.process.kill()
