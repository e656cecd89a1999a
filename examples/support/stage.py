"""Where the demo is played: a folder, the service in a process that can be killed, and a client that follows it over HTTP."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from examples.support import telling
from examples.support.journals import store_of, stored, under_way
from examples.support.people import key_for
from examples.support.sending import send
from examples.support.shop import Shop
from examples.support.telling import say
from examples.support.watching import Watch, clock, rests
from quarterdeck import Unavailable
from quarterdeck.client import AsyncClient, Retry
from quarterdeck.store.sqlite.opening import OwnerLock

LOOK_S = 0.03
"""How often is looked for what has come."""
PATIENCE_S = 900.0
"""Longer than this no part of the demo may take, even on a busy machine."""
LEAVE_S = 8.0
"""How long the service may take to leave when it is asked to; after that it is killed, which loses nothing."""
NEWCOMERS_S = 1.0
"""How often is looked for runs that somebody else has asked for, while the demo stays up."""
ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
MAIL_DESK = "mail-desk"

REAL = "SmolLM2-135M-Instruct, on this machine"
STAND_IN = "a scripted stand-in, no local model"


class _Ready(msgspec.Struct, frozen=True):
    """The line that ``quarterdeck serve --json`` prints once it takes requests."""

    url: str


class Stage:
    """One folder with a fresh shop and a fresh journal, at most one service, and a client of it."""

    def __init__(self, shop: Shop, store: Path, port: int, *, stand_in: bool) -> None:
        self.shop = shop
        self.store = store
        self.port = port
        self.model = STAND_IN if stand_in else REAL
        self.app = "examples.support.rehearsal:deck" if stand_in else "examples.support.deck:deck"
        self.url = ""
        self._server: Process | None = None
        self._clients: list[AsyncClient] = []
        self._watch: Watch | None = None

    @classmethod
    def prepared(cls, folder: Path, port: int, *, stand_in: bool) -> Stage:
        """Make everything anew. Raises ``Unavailable`` if the port is taken, or a service is at work in this folder."""
        _check_port(port)
        folder.mkdir(parents=True, exist_ok=True)
        shop = Shop(folder / "shop.db")
        store = store_of(shop)
        OwnerLock(store, wait_s=0.0).release()
        for path in (*folder.glob("shop.db*"), *folder.glob("quarterdeck.db*")):
            path.unlink(missing_ok=True)
        shop.create()
        return cls(shop, store, port, stand_in=stand_in)

    @property
    def client(self) -> AsyncClient:
        """The mail desk's client; only after the first start."""
        if not self._clients:
            raise Unavailable("demo.service", "the service was never started")
        return self._clients[0]

    @property
    def watch(self) -> Watch:
        """The watcher; only after the first start."""
        if self._watch is None:
            self._watch = Watch(self.client)
        return self._watch

    async def performed(self, play: Callable[[], Awaitable[int]]) -> int:
        """Play, and leave no service behind, whatever happens; SIGTERM and the end of the terminal are like Ctrl-C."""
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGHUP) if task is not None else ():
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await play()
        finally:
            await self.stop()

    async def start(self) -> None:
        """Start the service. The first time, a key is made for the mail desk, with which the client works from then on."""
        command = [
            sys.executable,
            "-m",
            "quarterdeck.cli",
            "serve",
            self.app,
            "--store",
            str(self.store),
            "--port",
            str(self.port),
        ]
        environment = {**os.environ, "SUPPORT_FOLDER": str(self.shop.path.parent), "QUARTERDECK_LOG_LEVEL": "warning"}
        self._server = await asyncio.create_subprocess_exec(
            *command, "--json", "--with-parent", cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE
        )
        line = await self._server.stdout.readline() if self._server.stdout is not None else b""
        if not line:
            raise _gone()
        self.url = msgspec.json.decode(line, type=_Ready).url
        self.port = int(self.url.rpartition(":")[2])
        say(f"  [process {self._server.pid} starts: quarterdeck serve {self.app}, on {self.url}]")
        if not self._clients:
            await self.person(MAIL_DESK, "delegate")

    async def person(self, subject: str, *roles: str) -> AsyncClient:
        """Make a key for somebody, and a client that works with it, and outlasts any time in which nobody answers."""
        key = await key_for(self.store, subject, *roles)
        client = AsyncClient(self.url, key, retry=Retry(for_s=PATIENCE_S, base_s=0.1, cap_s=0.5))
        self._clients.append(client)
        return client

    async def send(self, files: Sequence[Path], *, scripted_cases: bool = False) -> None:
        """Send tickets and scripted cases to the service, and follow each of their runs."""
        made = known = 0
        async for run in send(self.client, files, scripted_cases=scripted_cases):
            made, known = made + (not run.existing), known + run.existing
            self.watch.follow(run)
        again = f"; {known} were sent again under the same idempotency keys, and are the runs that they were" if known else ""
        say(f"  [POST /v1/runs: {made} new runs{again}]")

    async def kill(self) -> None:
        """SIGKILL, now. Shows what was under way, from the file: nobody is there to ask."""
        server = self._present()
        server.kill()
        await server.wait()
        self._server = None
        self.tell()
        say(
            f"  [process {server.pid} is killed with SIGKILL: no chance to tidy up, and {self.watch.streams} event streams break]"
        )
        say("  [begun and without an end, as the journals' file has it:]")
        telling.in_flight(under_way(stored(self.store)), self.booked())

    async def stop(self) -> None:
        """Let go of the service, ask it to leave, and wait until it has."""
        if self._watch is not None:
            await self._watch.close()
        for client in self._clients:
            await client.close()
        if self._server is None:
            return
        server, self._server = self._server, None
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(server.wait(), LEAVE_S)
        except TimeoutError:
            server.kill()
            await server.wait()
        say(f"  [process {server.pid} was asked to stop, and has left]")

    def tell(self) -> None:
        """Say what has come over the streams."""
        for seen in self.watch.news():
            told = telling.line(seen)
            if told is not None:
                say(told)

    async def until(self, reached: Callable[[], bool], what: str) -> None:
        """Tell what happens until ``reached``."""
        await self._until(reached)
        say(f"  [{what}]")

    async def until_rest(self, runs: int) -> None:
        """Tell what happens until every run has ended or waits for somebody."""
        await self._until(lambda: self.watch.at_rest(runs))

    async def until_moved(self, run_id: str, sequence: int) -> None:
        """Tell what happens until this run has gone on from ``sequence`` and is at rest again."""
        await self._until(lambda: self.sequence(run_id) > sequence and rests(self.watch.journal(run_id)))

    @staticmethod
    def interrupted() -> asyncio.Event:
        """Set by the next Ctrl-C, which from now on ends nothing by itself."""
        told = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        return told

    async def until_told(self, told: asyncio.Event) -> None:
        """Tell what happens, also to runs that others ask for, until ``told``, or until the service ends by itself."""
        looking = asyncio.create_task(self._look_for_newcomers())
        try:
            while not told.is_set() and self._present().returncode is None:
                if looking.done():
                    looking.result()
                self.tell()
                await clock.sleep(10 * LOOK_S)
        finally:
            looking.cancel()

    async def _look_for_newcomers(self) -> None:
        while True:
            await self.watch.follow_newest()
            await clock.sleep(NEWCOMERS_S)

    def booked(self) -> set[str]:
        """The idempotency keys of every refund in the shop's ledger, and of every letter that its gateway has taken."""
        return {line.key for line in self.shop.refunds()} | {letter.key for letter in self.shop.letters()}

    def sequence(self, run_id: str) -> int:
        """How long a run's journal is, as far as it has come."""
        return self.watch.journal(run_id).state.seq

    def _present(self) -> Process:
        if self._server is None:
            raise Unavailable("demo.service", "the service is not there; start the demo again")
        return self._server

    async def _until(self, reached: Callable[[], bool]) -> None:
        deadline_s = clock.monotonic_s() + PATIENCE_S
        while True:
            self.tell()
            if reached():
                return
            if self._present().returncode is not None:
                raise _gone()
            if clock.monotonic_s() > deadline_s:
                raise Unavailable("demo.slow", "this takes far too long on this machine; free some of its cores and start again")
            await clock.sleep(LOOK_S)


def _gone() -> Unavailable:
    return Unavailable("demo.service", "the service has ended by itself; it has said why above")


def _check_port(port: int) -> None:
    """Raise ``Unavailable`` (``demo.port``) if somebody else has this port; 0 is any free one."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise Unavailable(
                "demo.port", f"nothing can listen on {HOST}:{port} ({error.strerror}); try: make demo PORT=8322"
            ) from None
        said = f"port {port} is taken: another program, perhaps another demo, listens there. Nothing was started or changed."
        raise Unavailable("demo.port", f"{said} End that program, or take another port: make demo PORT={port + 1}") from None
