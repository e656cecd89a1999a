"""One simulation: the whole runtime on virtual time, under faults drawn from a seed, judged from outside.

Two phases. In the first, faults strike; in the second, everything heals, people answer, and every run has to end. The same seed gives
the same history, to the last byte; a failure is repeated with::

    python -m quarterdeck.testing.simulator SEED

>>> report = simulate(1)
>>> report.violations, report.trace_hash == simulate(1).trace_hash
((), True)
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from quarterdeck.app import wiring
from quarterdeck.app.deck import Quarterdeck
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dispatch import embedded
from quarterdeck.ports.policy import PolicyEngine
from quarterdeck.testing.clock import VirtualClock
from quarterdeck.testing.oracle import Oracle
from quarterdeck.testing.owners import Owners
from quarterdeck.testing.patching import Plant, patched
from quarterdeck.testing.people import People
from quarterdeck.testing.processes import SimulatedLoop, current, world
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.scenario import Scenario, draw
from quarterdeck.testing.sealed import sealed
from quarterdeck.testing.tables import Tables
from quarterdeck.testing.verdict import Report, judge_end
from quarterdeck.testing.watchedstore import WatchedStore
from quarterdeck.testing.watchedventures import replays
from quarterdeck.testing.world import World

HEAL_S = 5_000.0
"""Virtual time within which every run must have ended once the faults have stopped; a wait that began while a clock was an hour fast ends
an hour late."""


def simulate(seed: int, mutants: Sequence[Plant] = ()) -> Report:
    """Run the simulation of one seed, with these bugs planted, and say what became of it."""
    scenario = draw(seed)
    with ExitStack() as stack:
        for planted in mutants:
            stack.enter_context(planted())
        stack.enter_context(patched(embedded, "POLL_S", scenario.poll_s))
        stack.enter_context(patched(wiring, "policy_of", _policy_of))
        return Simulation(scenario).run()


def _policy_of(deck: Quarterdeck) -> PolicyEngine:
    """The compiled policies of a deck; compiled once for all simulations, because an engine never changes."""
    key = (tuple(deck.policies.items()), tuple(deck.agents), tuple(deck.tools))
    if key not in _engines:
        _engines[key] = _compile(deck)
    return _engines[key]


_compile = wiring.policy_of
_engines: dict[object, PolicyEngine] = {}


class Simulation:
    """One scenario being played."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = VirtualClock()
        self.reached = Reached()
        self._wrong_s = 0.0
        self.loop = SimulatedLoop(self.clock, scenario.seed, shuffle=scenario.shuffle)
        tables = Tables(incarnation=7)
        self.oracle = Oracle(scenario, tables, self.clock, self.reached)
        self.world = World(scenario, self.clock, self.reached, world())
        self.world.watcher = self.oracle
        self.oracle.providers = self.world.ledger
        shared = WatchedStore(tables, self.oracle)
        self.owners = Owners(scenario, self.world, self.oracle, shared, self.clock, self.loop)
        self.people = People(scenario, self.world, self.oracle, self.owners, self.clock)
        self.world.meddle = self.people.meddle

    def run(self) -> Report:
        """Play it to its end."""
        with sealed(), _heard(self.oracle), asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            self.loop.set_exception_handler(self._unhandled)
            try:
                runner.run(self._play())
            except RuntimeError as error:  # a deadlock, or a loop that spins
                self.oracle.violated("liveness", f"{type(error).__name__}: {error}")
            except QuarterdeckError as error:
                self.oracle.violated("runtime", f"{type(error).__name__}: {error}")
            finally:
                for owner in self.owners.all:
                    self.loop.thaw(owner.process)
                self.oracle.closing = True
        return self._report()

    async def _play(self) -> None:
        scenario = self.scenario
        for place in range(scenario.owners):
            self.owners.launch(place)
        errands = [asyncio.ensure_future(self.people.client(order)) for order in scenario.orders]
        background = [asyncio.ensure_future(self.people.operator(plan)) for plan in scenario.switches]
        background += [asyncio.ensure_future(self.people.approver()), asyncio.ensure_future(self._misfortunes())]
        await self._watch(scenario.span_s, errands)
        self.world.faulty = False
        self.people.healing = True
        self.owners.heal()
        self.clock.step_wall(-self._wrong_s)  # a clock that stays an hour slow delays every timer by that hour
        background.append(asyncio.ensure_future(self.people.clear_switches()))
        await self._watch(HEAL_S, errands)
        for task in (*errands, *background):
            if task.done():
                task.result()
            task.cancel()
        serving = [owner.runtime for owner in self.owners.serving() if owner.runtime is not None]
        if self.scenario.ventures and serving:
            replays(self.oracle.violated, self.oracle.runs, serving[0].replay)
        await self.owners.stop()
        self.people.leave()
        self.owners.letterbox.judge(self.oracle.runs, healthy=not self.oracle.violations)
        judge_end(self.oracle, self.world, self.people.acknowledged)

    async def _watch(self, seconds: float, errands: Sequence[asyncio.Future[None]]) -> None:
        """Let time pass, until everything is over or something is wrong."""
        until_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < until_s:
            await self.clock.sleep(1.0)
            self.owners.supervise()
            if self.oracle.violations or (all(task.done() for task in errands) and self.oracle.finished and self._quiet):
                return

    @property
    def _quiet(self) -> bool:
        return self.world.quiet and self.owners.letterbox.quiet

    async def _misfortunes(self) -> None:
        """What befalls the machine: processes stand still, clocks are set, the machine sleeps."""
        rates = self.scenario.rates
        while True:
            await self.clock.sleep(self.world.between(0.0, self.scenario.span_s / 4))
            serving = self.owners.serving()
            if serving and self.world.roll(2 * rates.pause):
                seconds = self.world.chance.choice((0.5, 10.0, 40.0, 80.0))
                self.owners.pause(self.world.chance.choice(serving), seconds)
            if self.world.roll(2 * rates.step_clock):
                step_s = self.world.between(-3_600.0, 3_600.0)
                self.clock.step_wall(step_s)
                self._wrong_s += step_s
                self.reached.sometimes("clock.stepped")
            if self.world.roll(2 * rates.sleep_machine):
                self.clock.suspend(self.world.between(1.0, 200.0))
                self.reached.sometimes("machine.slept")

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not self.oracle.closing:
            self.oracle.violated("runtime", f"{context.get('message')}: {context.get('exception')!r}")

    def _report(self) -> Report:
        oracle = self.oracle
        statuses = Counter(str(watched.state.status) for watched in oracle.runs.values())
        oracle.trace(sorted(statuses.items()), [account.effects for account in self.world.ledger.values()])
        effects = sum([len(account.effects) for account in self.world.ledger.values()])
        return Report(
            self.scenario.seed,
            tuple(oracle.violations),
            oracle.trace_hash,
            dict(self.reached.counts),
            self.clock.boottime_s(),
            len(oracle.runs),
            oracle.commits,
            effects,
            dict(sorted(statuses.items())),
            replay(self.scenario.seed) if oracle.violations else "",
        )


_RELAY = "quarterdeck.dispatch.relay"


class _Listener(logging.Handler):
    """An error that the runtime logs is a violation: it met something that it was not made for."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(logging.ERROR)
        self._oracle = oracle

    def emit(self, record: logging.LogRecord) -> None:
        """Note it, unless a dead process says it."""
        process = current()
        if record.name == _RELAY and str(record.msg).startswith("message %s"):
            return  # it is for a person to see, who does
        if not self._oracle.closing and (process is None or not process.dead):
            error = record.exc_info[1] if record.exc_info else None
            self._oracle.violated("runtime", f"{record.getMessage()} {error!r}" if error else record.getMessage())


@contextmanager
def _heard(oracle: Oracle) -> Iterator[None]:
    logger = logging.getLogger("quarterdeck")
    listener, propagates, level = _Listener(oracle), logger.propagate, logger.level
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates
        logger.setLevel(level)


def replay(seed: int) -> str:
    """The one line that repeats a simulation: the command and the commit that it belongs to."""
    found = subprocess.run(["git", "describe", "--always", "--abbrev=40", "--dirty=+"], capture_output=True, text=True)  # noqa: S607
    return f"python -m quarterdeck.testing.simulator {seed}  # commit {found.stdout.strip() or 'unknown'}"


def main(arguments: Sequence[str]) -> int:
    """Simulate the seeds that are named; exit code 1 if something was violated."""
    failed = 0
    for argument in arguments:
        report = simulate(int(argument))
        failed += not report.ok
        print(f"seed {report.seed}: {report.runs} runs {report.statuses}, {report.commits} commits, {report.effects} effects, "
              f"{report.virtual_s:.0f} virtual s, trace {report.trace_hash[:16]}")  # fmt: skip
        for violation in report.violations:
            print(f"  {violation}")
        if not report.ok:
            print(f"  replay: {report.replay}")
    return 1 if failed or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
