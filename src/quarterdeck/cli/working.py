"""``quarterdeck worker``: drive runs, without a door, in this process or in several that are kept alive.

It starts in order: configuration, store (with its migrations), models, policies; each must succeed, and only then is it ready. SIGTERM or
SIGINT: nothing is claimed any more, what is being performed is finished, every run goes to the other workers at once, exit 0 within the
grace. A second signal does not wait for what is being performed; a third ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from quarterdeck.cli.logs import log_settings, start_logging
from quarterdeck.cli.loops import loop_factory
from quarterdeck.cli.options import AsJson, Store
from quarterdeck.cli.outcome import report
from quarterdeck.cli.printing import emit
from quarterdeck.cli.probing import Probes
from quarterdeck.cli.serving import App
from quarterdeck.cli.settings import Settings, settings
from quarterdeck.cli.storefile import shown
from quarterdeck.core.errors import OUTCOMES, QuarterdeckError, Unavailable, UsageError
from quarterdeck.core.supervision import Intensity
from quarterdeck.dispatch.lifeline import Lifeline
from quarterdeck.dispatch.supervisor import HUNG_S, Supervisor

GRACE_S = 30.0
"""How long a worker that stops lets what is being performed come to its end."""

LAST_S = 8.0
"""How long a stop may take beyond the grace, whatever does not answer; then the process ends as it is."""

Processes = Annotated[
    int | None, typer.Option("--processes", min=1, max=256, metavar="N", help="So many processes, kept alive by this one.")
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, max=100_000, metavar="N", help="At most so many runs at once in each process.")
]
Grace = Annotated[
    float,
    typer.Option("--grace", min=0.0, max=86_400.0, metavar="S", help="Seconds that a stop waits for what is being performed."),
]
AnyCode = Annotated[bool, typer.Option("--any-code", help="Take runs that other versions of this code have begun, too.")]
Health = Annotated[
    int | None, typer.Option("--health-port", min=0, max=65_535, metavar="N", help="Answer /healthz/… there, on loopback.")
]
Restarts = Annotated[
    int,
    typer.Option(
        "--max-restarts", min=0, max=10_000, metavar="N", help="More deaths of processes within a minute end everything."
    ),
]
Hung = Annotated[
    float,
    typer.Option("--hung-after", min=3.0, max=86_400.0, metavar="S", help="A process whose loop is silent so long is killed."),
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """How one process works."""

    concurrency: int
    grace_s: float
    any_code: bool
    health_port: int | None
    as_json: bool


def worker(
    app: App = None,
    store: Store = None,
    processes: Processes = None,
    concurrency: Concurrency = 1_024,
    grace: Grace = GRACE_S,
    any_code: AnyCode = False,
    health_port: Health = None,
    max_restarts: Restarts = 10,
    hung_after: Hung = HUNG_S,
    as_json: AsJson = False,
) -> int:
    """Drive the runs of a store, and serve nobody: any number of workers on one PostgreSQL, or the one owner of a file.

    Logs are JSON lines on stderr. With --json, stdout has one line once the worker is ready.
    """
    chosen = settings(app, store)
    start_logging(log_settings({"format": "json", **chosen.file.log}, os.environ))
    if processes is not None:
        if processes > 1 and not isinstance(chosen.store, str):
            raise UsageError("worker.file", "a file has one owner; name a PostgreSQL database with --store for several processes")
        command = [sys.executable, "-m", "quarterdeck.cli", "worker", *([app] if app is not None else [])]
        command += [] if store is None else ["--store", store]
        command += ["--concurrency", str(concurrency), "--grace", str(grace), *(["--any-code"] if any_code else [])]
        command += ["--json"] if as_json else []
        rules = Intensity(max_restarts)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_supervise(command, processes, grace, rules, hung_after))
        return 0
    work = Work(concurrency, grace, any_code, health_port, as_json)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_guarded(chosen, work))
        _leave(code)  # at once: threads of tools that were let go would keep the process
    return code


async def _supervise(command: list[str], count: int, grace_s: float, rules: Intensity, hung_s: float) -> None:
    supervisor = Supervisor(command, count, grace_s, rules, hung_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    await supervisor.run()
    _log.info("every worker has stopped in order")


async def _guarded(chosen: Settings, work: Work) -> int:
    """The exit status of one process; what went wrong is on stderr, as with every command."""
    try:
        return await _work(chosen, work)
    except QuarterdeckError as error:
        report(error.code, error.message, error.detail, as_json=work.as_json)
        return OUTCOMES[type(error)].exit_code


class Signals:
    """What SIGTERM and SIGINT mean: the first asks to stop, the second to hurry, the third ends the process.

    A stop that is not over ``LAST_S`` after its grace ends the process too, from a thread of its own.
    """

    def __init__(self, hurry: Callable[[], None], grace_s: float) -> None:
        self.asked = asyncio.Event()
        self._grace_s = grace_s
        self._hurry = hurry
        self._hurried = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.heard)

    def heard(self) -> None:
        """One more signal."""
        if not self.asked.is_set():
            _log.info("stopping: nothing is claimed any more; once more does not wait for what is being performed")
            self.asked.set()
            self._expect(self._grace_s + LAST_S)
        elif not self._hurried:
            _log.warning("stopping at once; effects under way are looked after by whoever takes their runs over")
            self._hurried = True
            self._hurry()
            self._expect(LAST_S)
        else:
            _leave(130)

    def _expect(self, within_s: float) -> None:
        last = threading.Timer(within_s, _end, (within_s,))
        last.daemon = True
        last.start()


def _end(after_s: float) -> None:
    _log.error(
        "stopping has not come to its end in %.0f s: the process ends as it is; its runs go on when their lease is over", after_s
    )
    _leave(OUTCOMES[Unavailable].exit_code)


async def _work(chosen: Settings, work: Work) -> int:
    probes = Probes()

    def hurry() -> None:
        if probes.runtime is not None:
            probes.runtime.hurry()

    signals = Signals(hurry, work.grace_s)
    lifeline = Lifeline.of(os.environ, signals.asked.set)
    port = None if work.health_port is None else await probes.open(work.health_port)
    try:
        deck = chosen.deck()
        starting = deck.start(
            chosen.store,
            max_active=work.concurrency,
            drain_s=work.grace_s,
            any_code=work.any_code,
            prepared=lambda part: _log.info("start: %s: well", part),
        )
        async with starting as runtime:
            probes.runtime = runtime
            lifeline.ready()
            told = {"worker": runtime.about.worker, "store": shown(chosen.store), "health_port": port}
            _log.info("ready: %s on %s", told["worker"], told["store"])
            if work.as_json:
                emit(told)
            failed = runtime.resting("worker")
            asked = asyncio.ensure_future(signals.asked.wait())
            await asyncio.wait((failed, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if failed.done():
                failed.result()
            failed.cancel()
        _log.info("stopped in order")
        return 0
    finally:
        lifeline.close()
        await probes.close()


def _leave(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
