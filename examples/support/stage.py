"""Where the demo is played: a folder, a worker process that can be killed, and somebody who watches the journals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from examples.support import telling
from examples.support.shop import Shop
from examples.support.telling import say
from examples.support.watching import AT_REST, Watch, clock
from examples.support.worker import store_of
from quarterdeck import Unavailable
from quarterdeck.store.sqlite.opening import OwnerLock

LOOK_S = 0.03
"""How often the journals are looked at."""
PATIENCE_S = 900.0
"""Longer than this no part of the demo may take, even on a busy machine."""
ROOT = Path(__file__).parents[2]

REAL = "SmolLM2-135M-Instruct, on this machine"
STAND_IN = "a scripted stand-in, no local model"


class Stage:
    """One folder with a fresh shop and a fresh journal, and at most one worker."""

    def __init__(self, shop: Shop, store: Path, *, stand_in: bool) -> None:
        self.shop = shop
        self.store = store
        self.model = STAND_IN if stand_in else REAL
        self._stand_in = stand_in
        self._worker: Process | None = None
        self._watch: Watch | None = None

    @classmethod
    def prepared(cls, folder: Path, *, stand_in: bool) -> Stage:
        """Make everything anew. Raises ``Unavailable`` if a worker is at work in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        shop = Shop(folder / "shop.db")
        store = store_of(shop)
        OwnerLock(store, wait_s=0.0).release()
        for path in (*folder.glob("shop.db*"), *folder.glob("quarterdeck.db*")):
            path.unlink(missing_ok=True)
        shop.create()
        return cls(shop, store, stand_in=stand_in)

    @property
    def watch(self) -> Watch:
        """The watcher; only after a first worker has made the store."""
        if self._watch is None:
            self._watch = Watch(self.store)
        return self._watch

    async def performed(self, play: Callable[[], Awaitable[int]]) -> int:
        """Play, and leave no worker behind, whatever happens."""
        try:
            return await play()
        finally:
            await self.stop()
            if self._watch is not None:
                self._watch.close()

    async def start(self, files: Sequence[Path], *, scripted_cases: bool = False) -> None:
        """Start a worker on these tickets."""
        flags = ["--scripted-cases"] * scripted_cases + ["--stand-in"] * self._stand_in
        command = [sys.executable, "-m", "examples.support.worker", *map(str, files), "--until-stdin-ends", *flags]
        environment = {**os.environ, "SUPPORT_FOLDER": str(self.shop.path.parent)}
        self._worker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE)
        say(f"  [worker {self._worker.pid} starts]")
        if self._worker.stdout is None or not await self._worker.stdout.readline():
            raise self._gone()

    async def kill(self) -> None:
        """SIGKILL, now. Shows what was under way."""
        worker = self._present()
        worker.kill()
        await worker.wait()
        self._worker = None
        self.tell()
        say(
            f"  [worker {worker.pid} is killed with SIGKILL; it had no chance to tidy up. Under way in its journals, without receipt:]"
        )
        telling.in_flight(self.watch.under_way(), self.booked())

    async def stop(self) -> None:
        """Ask the worker to leave, and wait until it has."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        if worker.returncode is None:
            worker.send_signal(signal.SIGTERM)
        await worker.wait()
        say(f"  [worker {worker.pid} was asked to stop, and has left]")

    def tell(self) -> None:
        """Say what is new in the journals."""
        for seen in self.watch.news():
            told = telling.line(seen)
            if told is not None:
                say(told)

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Tell what happens until ``reached``."""
        await self._until(lambda: self._told(reached))
        say(f"  [{what}]")

    async def until_rest(self, runs: int) -> None:
        """Tell what happens until every run has ended or waits for somebody."""
        await self._until(lambda: self._told(lambda: self.watch.at_rest(runs)))

    async def until_moved(self, run_id: str, sequence: int) -> None:
        """Tell what happens until this run has gone on from ``sequence`` and is at rest again."""
        await self._until(lambda: self._told(lambda: self.sequence(run_id) > sequence and self._rests(run_id)))

    async def until_interrupted(self) -> None:
        """Tell what happens until Ctrl-C, or until the worker ends by itself."""
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        while not told.is_set() and self._present().returncode is None:
            self.tell()
            await clock.sleep(10 * LOOK_S)

    def booked(self) -> set[str]:
        """The idempotency keys of every refund in the shop's ledger, and of every letter that its gateway has taken."""
        return {line.key for line in self.shop.refunds()} | {letter.key for letter in self.shop.letters()}

    def sequence(self, run_id: str) -> int:
        """How long a run's journal is."""
        return next(row.seq for row in self.watch.runs() if row.run_id == run_id)

    def doubtful(self) -> list[tuple[str, str]]:
        """The run and call of every effect that nobody knows the end of."""
        waiting = [row.run_id for row in self.watch.runs() if row.status == "waiting" and row.code == "effect.unknown"]
        return [(run_id, call) for run_id in waiting for call in sorted(self.watch.state(run_id).unknown)]

    def _rests(self, run_id: str) -> bool:
        return any(row.run_id == run_id and row.status in AT_REST and row.worker is None for row in self.watch.runs())

    def _told(self, reached: Callable[[], bool]) -> bool:
        self.tell()
        return reached()

    def _gone(self) -> Unavailable:
        return Unavailable("demo.worker", "the worker has ended by itself; it has said why above")

    def _present(self) -> Process:
        if self._worker is None:
            raise Unavailable("demo.worker", "there is no worker; start the demo again")
        return self._worker

    async def _until(self, reached: Callable[[], bool]) -> None:
        deadline_s = clock.monotonic_s() + PATIENCE_S
        while not reached():
            if self._present().returncode is not None:
                raise self._gone()
            if clock.monotonic_s() > deadline_s:
                raise Unavailable("demo.slow", "this takes far too long on this machine; free some of its cores and start again")
            await clock.sleep(LOOK_S)
