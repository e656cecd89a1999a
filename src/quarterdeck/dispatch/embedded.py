"""The dispatcher of one process: claims ready and due runs, at most so many at once, and drives each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Sequence

from quarterdeck.core.commit import Claim, Claimed, ClaimedRun, GiveBack, Outcome
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Insights, Journal

MAX_ACTIVE = 1_024
"""Runs that are driven at once; the others stay rows."""
CLAIM = 256
"""Runs claimed in one operation."""
UNREACHABLE_S = 1.0
"""How long a run rests before its journal is read again, when a shared store could not be reached."""
POLL_S = 0.2
"""How often due timers and hints that were lost are looked for."""
LOOK_S = 1.0
"""How often it is looked for what other processes did to runs that somebody here watches."""
STUBBORN_S = 2.0
"""How long a run that was let go may take to notice."""
RESEND_CAP_S = 5.0
"""The longest pause before a claim whose answer was lost is sent again."""

_log = logging.getLogger(__name__)


class EmbeddedDispatcher:
    """Claims and drives until it is stopped. If the store stops underneath it, ``failed`` says why and ``on_failure`` is told.

    ``drive`` says whether the run has come to rest; one that has not, because this process stops, is given back. ``programs`` is the code
    that there is here (``None``: claim whatever is ready); ``give_way``, where it is given, tells those who drive that this stops.
    Nothing is claimed while ``may_claim``, where it is given, says no; ``expect`` is told what was claimed, before any of it is driven.

    Every ``LOOK_S`` it calls ``look`` with the ids of the runs that it drives. It must be told through :meth:`hint` that something
    may be ready. A run's id names one run in the whole store, whoever's it is (the store refuses a second one), so ids are enough
    to tell runs apart here.
    """

    def __init__(
        self,
        worker: str,
        journal: Journal,
        insights: Insights,
        clock: Clock,
        drive: Callable[[ClaimedRun], Awaitable[bool]],
        on_failure: Callable[[QuarterdeckError], None],
        look: Callable[[Container[str]], None],
        max_active: int = MAX_ACTIVE,
        programs: tuple[str, ...] | None = None,
        give_way: Callable[[], None] | None = None,
        may_claim: Callable[[], bool] | None = None,
        expect: Callable[[Sequence[ClaimedRun]], None] | None = None,
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._insights = insights
        self._clock = clock
        self._drive = drive
        self._max_active = max_active
        self._programs = programs
        self._give_way = give_way
        self._may_claim = may_claim or _always
        self._expect = expect
        self._active: dict[str, asyncio.Task[None]] = {}
        self._wanted = asyncio.Event()
        self._stopping = False
        self._hurried = asyncio.Event()
        self._cut_off = False
        self._claims = 0
        self._loop_task: asyncio.Task[None] | None = None
        self._on_failure = on_failure
        self._look = look
        self._look_at_s = 0.0
        self.failed: QuarterdeckError | None = None

    def start(self) -> None:
        """Begin to claim."""
        self._wanted.set()
        self._loop_task = asyncio.get_running_loop().create_task(self._claim_for_ever())

    def hint(self) -> None:
        """Something may be ready; sloppy, cheap, harmless when wrong."""
        self._wanted.set()

    @property
    def stopping(self) -> bool:
        """Whether nothing is claimed any more, because this stops."""
        return self._stopping

    @property
    def cut_off(self) -> bool:
        """Whether a shared store could not be read when this last tried."""
        return self._cut_off

    @property
    def active(self) -> int:
        """Runs that are being driven now."""
        return len(self._active)

    @property
    def max_active(self) -> int:
        """The most runs that are driven at once."""
        return self._max_active

    def halt(self) -> None:
        """Claim nothing any more; who drives is told."""
        self._stopping = True
        self._wanted.set()
        if self._give_way is not None:
            self._give_way()

    async def stop(self, drain_s: float) -> None:
        """Stop claiming, give active runs ``drain_s`` to come to rest, then let go of them: their journals hold where they are."""
        self.halt()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        if self._active and drain_s > 0:
            await self._rested(drain_s)
        for task in self._active.values():
            task.cancel()
        if self._active:
            await asyncio.wait(self._active.values(), timeout=STUBBORN_S)

    def hurry(self) -> None:
        """Do not wait any longer for active runs, if this is stopping."""
        self._hurried.set()

    async def _rested(self, drain_s: float) -> None:
        rested = asyncio.ensure_future(asyncio.wait(self._active.values()))
        hurried = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait((rested, hurried), timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rested.cancel()
            hurried.cancel()
            await asyncio.wait((rested, hurried))

    async def _claim_for_ever(self) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            try:
                if self._wanted.is_set() or self._insights.due(self._clock.now_us(), self._programs):
                    self._wanted.clear()
                    if self._may_claim():
                        await self._claim()
                self._look_around()
                self._cut_off = False
            except QuarterdeckError as error:
                if error.code != "store.unreachable":
                    self._fail(error)
                    return
                if not self._cut_off:
                    _log.warning("nothing is claimed for now: %s", error)
                self._cut_off = True  # a shared store may come back; what is under way resolves by itself then
            except Exception as error:  # the one broad except of the claim loop
                _log.exception("the store cannot be read")
                self._fail(
                    Unavailable(
                        "store.unreadable", f"the store cannot be read ({type(error).__name__}); run `quarterdeck doctor`"
                    )
                )
                return

    def _look_around(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._look(self._active)

    async def _claim(self) -> None:
        while (room := min(CLAIM, self._max_active - len(self._active))) and self._may_claim():
            claimed = await self._ask_for(room)
            if not isinstance(claimed, Claimed) or not claimed.runs:
                return
            if self._expect is not None:
                self._expect(claimed.runs)
            for run in claimed.runs:
                task = asyncio.get_running_loop().create_task(self._run(run), name=run.run_id)
                self._active[run.run_id] = task

    async def _ask_for(self, room: int) -> Outcome:
        """Claim, and send the very same claim again for as long as its answer is lost: what it took must reach us."""
        self._claims += 1
        claim = Claim(self._worker, room, self._clock.now_us(), str(self._claims), self._programs)
        delay_s = 0.0
        while True:
            try:
                return await self._journal.submit(claim)
            except Unavailable as error:
                if error.code != "store.unknown":
                    raise
            await self._clock.sleep(delay_s)
            delay_s = min(RESEND_CAP_S, 2.0 * delay_s + 0.05)

    async def _run(self, run: ClaimedRun) -> None:
        full = len(self._active) >= self._max_active
        try:
            while (error := await self._driven(run)) is not None and not self._stopping:
                _log.warning("run %s goes on when the store can be read again: %s", run.run_id, error)
                await self._clock.sleep(UNREACHABLE_S)
        except Exception:  # the one broad except of the dispatcher
            _log.exception("run %s stopped on a fault of the runtime; it stays as it is until the next start", run.run_id)
        finally:
            if self._active.get(run.run_id) is asyncio.current_task():
                del self._active[run.run_id]
            if full or not self._active:
                self._wanted.set()

    async def _driven(self, run: ClaimedRun) -> Unavailable | None:
        """Drive a run to rest; the error if a shared store could not be reached, which may pass. Any other ends this dispatcher."""
        try:
            if not await self._drive(run):
                await self._give_back(run)
        except Unavailable as error:
            if error.code == "store.unreachable":
                return error
            self._fail(error)
        return None

    async def _give_back(self, run: ClaimedRun) -> None:
        """Let others go on with a run at once; one that cannot be given back now is with everything else at the end."""
        try:
            await self._journal.submit(GiveBack(run.run_id, run.epoch, self._clock.now_us()))
        except Unavailable as error:
            _log.warning("run %s is given back later: %s", run.run_id, error)

    def _fail(self, error: QuarterdeckError) -> None:
        _log.error("the dispatcher stops: %s", error)
        if self.failed is None:
            self.failed = error
            self._on_failure(error)


def _always() -> bool:
    return True
