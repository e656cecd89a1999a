"""The simulated processes that run Quarterdeck, and what befalls them: death, pause, a lost answer, a busy store, a new deployment.

Each is the real runtime, whole, on a handle of the shared rows. It dies at a port call or at any moment: its handle is cut first, so
that nothing of it gets in afterwards, and none of its code runs again. A supervisor starts another in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from quarterdeck.app.deck import Quarterdeck
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.starting import Starting
from quarterdeck.core.breaker import BreakerPolicy
from quarterdeck.core.commit import Claim, Commit, Op, Outcome
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.limits import BulkheadPolicy
from quarterdeck.core.specs import AgentSpec, Degrade, RouteSpec
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.model import Price
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing.clock import SeededEntropy, VirtualClock
from quarterdeck.testing.letters import RETRY, TIMEOUT_S, Letterbox
from quarterdeck.testing.memory import MemoryStore, Moment, lost_answer
from quarterdeck.testing.minds import SimulatedModel
from quarterdeck.testing.oracle import Oracle
from quarterdeck.testing.processes import Process, SimulatedLoop
from quarterdeck.testing.scenario import POLICIES, TOPIC, Scenario
from quarterdeck.testing.ventures import declare
from quarterdeck.testing.watchedstore import WatchedStore
from quarterdeck.testing.world import SimulatedTool, World, tool_specs

Delay = asyncio.Future[None] | None
"""What a fault hook answers: how long the store waits."""

TTL_S = 15.0
"""After so long without a heartbeat, other owners take a worker for dead."""


class Handle(MemoryStore):
    """An owner's handle; the oracle sees what is submitted when it is, however long the store keeps it waiting."""

    def __init__(
        self, oracle: Oracle, worker: str, *, quiesced: bool, faults: Callable[[Moment, Op], Delay], shared: WatchedStore
    ) -> None:
        super().__init__(worker, quiesced=quiesced, faults=faults, shared=shared)
        self._oracle = oracle

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation."""
        self._oracle.submitted(op)
        return super().submit(op)


@dataclass(slots=True)
class Owner:
    """One process at one place; ``version`` is the deck's that it was deployed with."""

    place: int
    process: Process
    version: int
    store: MemoryStore
    starting: Starting
    runtime: Runtime | None = None
    leaving: bool = False

    @property
    def serves(self) -> bool:
        """Whether a client could reach it: it runs, or seems to."""
        return self.runtime is not None and not self.process.dead and not self.leaving


class Owners:
    """All of them, past and present."""

    def __init__(
        self, scenario: Scenario, world: World, oracle: Oracle, shared: WatchedStore, clock: VirtualClock, loop: SimulatedLoop
    ) -> None:
        self.scenario = scenario
        self.world = world
        self.oracle = oracle
        self.shared = shared
        self.clock = clock
        self.loop = loop
        self.letterbox = Letterbox(world, oracle.violated, shared.tables.outbox.rows)
        self.all: list[Owner] = []
        self._version = 1
        world.kill = self.kill

    # ------------------------------------------------------------------------------------------------------- life and death

    def launch(self, place: int) -> None:
        """Start a process at a place; a redeployment may change the deck."""
        if self.world.roll(self.world.rates.redeploy):
            self._version = 3 - self._version
        name = f"w{len(self.all) + 1}"
        process = Process(name)
        hook = self._faults(process)
        store = process.context.run(
            lambda: Handle(self.oracle, name, quiesced=self.scenario.quiesced, faults=hook, shared=self.shared)
        )

        async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
            return store, store

        starting = Starting(
            self._deck(self._version),
            open_store=open_store,
            clock=self.clock,
            entropy=SeededEntropy(self.scenario.seed * 1_000 + len(self.all)),
            worker=name,
        )
        owner = Owner(place, process, self._version, store, starting)
        self.all.append(owner)
        process.spawn(self._boot(owner), f"boot {name}")
        two = [other for other in self.all if other.serves]
        self.oracle.reached.sometimes("owners.two", bool(two))

    async def _boot(self, owner: Owner) -> None:
        if self.world.dies(self.world.rates.crash_start):
            self.world.reached.sometimes("crash.start")
            return
        try:
            owner.runtime = await owner.starting.__aenter__()
        except QuarterdeckError:
            self.kill(owner.process)  # a process that cannot start exits; the supervisor starts another

    def kill(self, process: Process) -> None:
        """A process dies, now: first its handle is cut, then nothing of it runs any more."""
        owner = self.of(process)
        if process.dead:
            return
        owner.store.crash()
        self.oracle.trace("died", process.name)
        self.oracle.died(process.name)
        process.die()
        absent_s = self.world.between(0.1, 10.0) if self.world.chance.random() < 0.8 else self.world.between(10.0, 150.0)
        self.loop.call_later(absent_s, self._replace, owner, context=self.world.outside)
        if not self.scenario.quiesced:
            self.loop.call_later(TTL_S, self.shared.bury, process.name, context=self.world.outside)

    def _replace(self, owner: Owner) -> None:
        if not any(other.place == owner.place and not other.process.dead for other in self.all):
            self.launch(owner.place)

    def pause(self, owner: Owner, seconds: float) -> None:
        """A process stands still for a while; others take it for dead when its heartbeat has been missing for long."""
        if owner.process.frozen:
            return
        self.oracle.trace("paused", owner.process.name, seconds)
        owner.process.frozen = True
        owner.process.paused += 1
        self.loop.call_later(seconds, self._resume, owner, context=self.world.outside)
        if seconds > TTL_S and not self.scenario.quiesced:
            self.loop.call_later(TTL_S, self.shared.bury, owner.process.name, context=self.world.outside)
        self.oracle.reached.sometimes("owner.paused", seconds > 60.0)

    def _resume(self, owner: Owner) -> None:
        if not owner.process.dead:
            self.loop.thaw(owner.process)

    def heal(self) -> None:
        """Let every paused process go on, and see to it that somebody runs."""
        for owner in self.all:
            self._resume(owner)

    def supervise(self) -> None:
        """Restart a process whose dispatcher has given up, as its service manager would."""
        for owner in self.serving():
            if owner.runtime is not None and not owner.process.frozen and owner.runtime._dispatcher.failed is not None:
                self.kill(owner.process)

    def serving(self) -> list[Owner]:
        """Those that a client could reach now."""
        return [owner for owner in self.all if owner.serves]

    def of(self, process: Process) -> Owner:
        """The owner that this process is."""
        return next(owner for owner in self.all if owner.process is process)

    async def stop(self) -> None:
        """Stop those that still run, gracefully."""
        for owner in self.serving():
            owner.leaving = True
            task = owner.process.spawn(owner.starting.__aexit__(None, None, None), f"stop {owner.process.name}")
            done, _ = await asyncio.wait({task}, timeout=120.0)
            self.oracle.check(bool(done), "liveness", f"{owner.process.name} does not stop")
            if done:
                task.result()
                waits = [view.figures.queue_wait_us_total for view in owner.runtime.dependencies()] if owner.runtime else []
                self.oracle.reached.sometimes("bulkhead.waited", any(waits))

    # -------------------------------------------------------------------------------------------------------------- the deck

    def _deck(self, version: int) -> Quarterdeck:
        scenario, world = self.scenario, self.world
        deck = Quarterdeck("simulation")
        for spec in tool_specs(scenario, version):
            policy = DependencyPolicy.for_tool(spec.repeatable)
            slots = BulkheadPolicy(slots=scenario.slots, max_queue=64, max_wait_s=20.0)
            breaker = BreakerPolicy(failures=scenario.breaker_failures)
            deck.add_tool(SimulatedTool(world, spec), msgspec.structs.replace(policy, concurrency=slots, breaker=breaker))
        deck.model("large", SimulatedModel(world, "large", Price(1_000_000, 2_000_000), self.oracle))
        deck.model("small", SimulatedModel(world, "small", Price(100_000, 200_000), self.oracle))
        for plan in scenario.agents:
            degrade = None if plan.degrade_at is None else Degrade("small", plan.degrade_at, 40)
            deck.agents[plan.name] = AgentSpec(
                *(plan.name, "large", f"You are {plan.name}.", plan.tools, plan.autonomy),
                limits=plan.limits, max_output_tokens=120, degrade=degrade, parallel_calls=plan.parallel,
            )  # fmt: skip
            deck.routes[plan.name] = RouteSpec(plan.name, plan.name, approval_timeout_s=plan.approval_timeout_s)
        if scenario.letters:
            deck.outbox(TOPIC, self.letterbox, retry=RETRY, timeout=TIMEOUT_S)
        if scenario.ventures:
            declare(deck, scenario, world)
        deck.accounts.update(scenario.accounts)
        if scenario.policies:
            deck.policy(POLICIES)
        return deck

    # ---------------------------------------------------------------------------------------------------------------- faults

    def _faults(self, process: Process) -> Callable[[Moment, Op], Delay]:
        world, rates, sometimes = self.world, self.world.rates, self.world.reached.sometimes

        def strike(moment: Moment, op: Op) -> Delay:
            before = moment is Moment.BEFORE
            if not world.faulty:
                return None
            if isinstance(op, Commit) and world.dies(rates.crash_commit):
                sometimes("crash.commit.before" if before else "crash.commit.after")
                return self.loop.create_future()
            if world.roll(rates.lost_before if before else rates.lost_after):
                sometimes("commit.lost", before and isinstance(op, Commit))
                sometimes("claim.answer_lost", isinstance(op, Claim))
                raise lost_answer()
            if world.roll(rates.pause / 8):
                self.pause(self.of(process), world.between(0.0, 100.0))
            if world.roll(rates.slow_store):
                return self._delay(world.between(0.0, 3.0))
            return None

        return strike

    def _delay(self, seconds: float) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_later(seconds, done.set_result, None, context=self.world.outside)
        return done
