"""The people and clients around a simulated runtime: they ask, ask again when nobody answers, cancel, approve, switch and look."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from quarterdeck.app.budgets import Budget
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.core.errors import QuarterdeckError, Refused, Unavailable
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import Status
from quarterdeck.ports.clock import Clock
from quarterdeck.testing.oracle import Oracle
from quarterdeck.testing.owners import Owner, Owners
from quarterdeck.testing.scenario import Order, Scenario, SwitchPlan
from quarterdeck.testing.ventures import NEWS
from quarterdeck.testing.watched import Watched
from quarterdeck.testing.world import World

T = TypeVar("T")

PATIENCE_S = 15.0
"""How long a client waits for an answer before it asks again."""
TRIES = 30
"""How often a person lets a run try to undo something before undoing it by hand."""
MAX_URGED = 60
"""How often a run may have to be resumed, once nothing fails any more, until it has undone what it can."""


class People:
    """Everybody outside. ``acknowledged`` are the runs that were promised, by the label of their order."""

    def __init__(self, scenario: Scenario, world: World, oracle: Oracle, owners: Owners, clock: Clock) -> None:
        self.scenario = scenario
        self.world = world
        self.oracle = oracle
        self.owners = owners
        self.clock = clock
        self.acknowledged: dict[str, str] = {}
        self.healing = False
        self._urged: Counter[str] = Counter()
        self._followers: list[asyncio.Task[None]] = []

    async def ask(self, what: str, call: Callable[[Runtime], Coroutine[Any, Any, T]]) -> T:
        """Ask some owner, again and again until one answers. What it answers with, also a refusal, is the answer."""
        while True:
            serving = self.owners.serving()
            if serving:
                owner = self.world.chance.choice(serving)
                task = owner.process.spawn(call(self._runtime(owner)), what)
                task.add_done_callback(_unheard)
                done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
                if done:
                    try:
                        return task.result()
                    except Unavailable:
                        pass
            await self.clock.sleep(1.0)

    def _runtime(self, owner: Owner) -> Runtime:
        if owner.runtime is None:
            raise AssertionError("nobody serves before it has started")
        return owner.runtime

    async def client(self, order: Order) -> None:
        """Ask for one run, perhaps twice, perhaps cancel it, perhaps watch it."""
        await self.clock.sleep(order.at_s)
        handle = await self._admitted(order)
        self.acknowledged[order.label] = handle.id
        if order.followed:
            owner = next((owner for owner in self.owners.serving() if owner.runtime is handle._runtime), None)
            if owner is not None:
                name = f"follow {order.label}"
                self._followers.append(owner.process.spawn(self._follow(self._runtime(owner), handle.id), name))
        if order.twice:  # what stands against new runs does not stand against this one
            again = await self.ask(order.label, lambda runtime: _submit(runtime, order))
            self.oracle.check(again.id == handle.id, "I1", f"{order.label} became {handle.id} and {again.id}")
        errands = [self._news(order, handle.id, number, after_s) for number, after_s in enumerate(order.news_s)]
        if order.cancel_after_s is not None:
            errands.append(self._cancel(order, handle.id, order.cancel_after_s))
        await asyncio.gather(*errands)

    async def _cancel(self, order: Order, run_id: str, after_s: float) -> None:
        await self.clock.sleep(after_s)
        await self.ask(f"cancel {order.label}", lambda runtime: runtime.cancel(run_id, mode=order.cancel_mode))

    async def _news(self, order: Order, run_id: str, number: int, after_s: float) -> None:
        """Send a message, perhaps twice; a run that has ended takes none."""
        await self.clock.sleep(after_s)
        said, token = {"n": number}, f"{order.label}-{number}"
        for _ in range(2 if order.twice else 1):
            await self._tolerant(token, lambda runtime: runtime.signal(run_id, NEWS, said, token=token))

    async def _admitted(self, order: Order) -> RunHandle:
        """The run that is asked for; while a switch stands against it, it is asked for again and again."""
        while True:
            try:
                return await self.ask(order.label, lambda runtime: _submit(runtime, order))
            except Refused as stopped:
                self.oracle.check(stopped.code.startswith("switch."), "I1", f"{order.label} was refused: {stopped}")
                self.world.reached.sometimes("admission.refused")
                await self.clock.sleep(self.world.between(0.5, 2.0))

    async def _follow(self, runtime: Runtime, run_id: str) -> None:
        """What is shown live is durable, whole and in order."""
        last = 0
        try:
            async for entry in runtime.follow(run_id):
                if entry.seq:
                    stored = self.oracle.tables.runs[run_id].events
                    durable = entry.seq <= len(stored) and stored[entry.seq - 1].body == entry.body
                    self.oracle.check(durable, "contract 5", f"{run_id}: event {entry.seq} was shown, and is not in the journal")
                    self.oracle.check(entry.seq == last + 1, "I7", f"{run_id}: event {entry.seq} was shown after {last}")
                    last = entry.seq
                    self.world.reached.sometimes("follower.saw")
        except Unavailable:
            self.oracle.trace("not followed any more", run_id)  # this runtime has stopped; another one goes on with the run

    async def operator(self, plan: SwitchPlan) -> None:
        """Set a switch, and clear it later."""
        await self.clock.sleep(plan.on_s)
        await self.ask(plan.name, lambda runtime: runtime.switch(plan.name))
        await self.clock.sleep(plan.off_s - plan.on_s)
        await self.ask(plan.name, lambda runtime: runtime.switch(plan.name, on=False))

    def meddle(self, run_id: str, tool: str) -> None:
        """Somebody cancels, or sets a switch, while this very call is under way."""
        asyncio.get_running_loop().create_task(self._meddle(run_id, tool), name="meddle", context=self.world.outside)

    async def _meddle(self, run_id: str, tool: str) -> None:
        await self.clock.sleep(self.world.between(0.0, 0.5))
        chance = self.world.chance.random()
        if chance < 0.2:
            await self.ask("meddle", lambda runtime: runtime.cancel(run_id))
            return
        name = f"disable_tool:{tool}" if chance < 0.7 else f"force_approval:{tool}"
        await self.operator(SwitchPlan(name, 0.0, self.world.between(0.5, 15.0)))

    async def clear_switches(self) -> None:
        """Take every switch back, however often that needs."""
        while self.oracle.switches:
            for name in list(self.oracle.switches):
                await self.ask(name, lambda runtime, name=name: runtime.switch(name, on=False))  # type: ignore[misc]

    async def approver(self) -> None:
        """Answer what waits for a person, now and then; once everything heals, always."""
        while True:
            await self.clock.sleep(self.scenario.answer_every_s * self.world.between(0.5, 1.5))
            for row in list(self.oracle.tables.approvals.values()):
                if row.status == "pending":
                    chance = random.Random(f"{self.scenario.seed}/{row.approval}")
                    await self._answer(row.approval, row.requested_by, chance)
            for watched in list(self.oracle.runs.values()):
                await self._resolve(watched)
            for letter in list(self.oracle.tables.outbox.rows.values()):
                if letter.status == "dead":
                    await self._see_to(letter.message)

    async def _answer(self, approval: str, requested_by: str, chance: random.Random) -> None:
        if not self.healing and chance.random() < self.world.rates.ignore:
            return
        approves = chance.random() >= self.world.rates.reject
        if chance.random() < 0.1:
            await self._refused(f"self {approval}", lambda runtime: runtime.approve(approval, by=requested_by))
        if chance.random() < 0.1:
            await self._refused(f"other {approval}", lambda runtime: runtime.approve(approval, by="boss", digest="0" * 64))
        await self._tolerant(approval, lambda runtime: runtime.decide(approval, approve=approves, by="boss"))

    async def _resolve(self, watched: Watched) -> None:
        """Say how an unknown effect ended, when nothing of it can be on its way any more."""
        state = watched.state
        if state.status is not Status.WAITING:
            return
        if any(mark.kind is StepKind.STUCK for mark in state.calls.values()):
            hopeless = state.resumes >= TRIES and _lacks_budget(watched)
            by_hand = hopeless or (not self.healing and self.world.chance.random() < 0.1)
            by_hand = by_hand and self._is_quiet(watched)
            self.world.reached.sometimes("venture.stuck")
            self._urged[watched.run_id] += self.healing
            if self._urged[watched.run_id] > MAX_URGED and not hopeless:
                self.oracle.violated("I10", f"{watched.run_id} does not undo what it could, however often it is resumed")
            await self._tolerant("resume", lambda runtime: runtime.resume(watched.run_id, by="person", done=by_hand))
        for call in sorted(state.unknown):
            opened = watched.effects.get(call)
            account = self.world.ledger.get(opened.key) if opened is not None else None
            if account is not None and account.in_flight:
                continue
            done = account is not None and bool(account.effects)
            await self._tolerant(
                f"resolve {call}",
                lambda runtime, call=call, done=done: runtime.resolve(watched.run_id, call, done=done, by="person"),  # type: ignore[misc]
            )

    async def _see_to(self, message: str) -> None:
        """A message is dead: it is tried again, or given up."""
        self.world.reached.sometimes("letter.dead")
        action = "drop" if not self.healing and self.world.chance.random() < 0.2 else "requeue"
        await self._tolerant(
            f"{action} {message}", lambda runtime: runtime.decide_post(message, action, by="person", reason="looked at it")
        )

    def _is_quiet(self, watched: Watched) -> bool:
        """Whether nothing of a run is on its way to a provider."""
        return not any(account.in_flight for key, account in self.world.ledger.items() if key.startswith(watched.run_id))

    async def _tolerant(self, what: str, call: Callable[[Runtime], Coroutine[Any, Any, None]]) -> None:
        """Ask, and take a refusal for an answer: somebody else, or time, was quicker."""
        try:
            await self.ask(what, call)
        except QuarterdeckError:
            self.oracle.trace("refused", what)

    async def _refused(self, what: str, call: Callable[[Runtime], Coroutine[Any, Any, None]]) -> None:
        """Ask for what must be refused."""
        try:
            await self.ask(what, call)
        except QuarterdeckError:
            return
        self.oracle.violated("I5", f"{what} was not refused")

    def leave(self) -> None:
        """Nobody watches any more."""
        for task in self._followers:
            task.cancel()


def _lacks_budget(watched: Watched) -> bool:
    """Whether something cannot be undone because a shared account has nothing left; nobody raises those here."""
    stuck = [call for call, mark in watched.state.calls.items() if mark.kind is StepKind.STUCK]
    known = watched.venture.steps if watched.venture is not None else {}
    return any(b'"code":"budget.' in known[call][1] for call in stuck if call in known)


def _submit(runtime: Runtime, order: Order) -> Coroutine[Any, Any, RunHandle]:
    budget = Budget(
        turns=order.turns,
        tokens=order.tokens,
        deadline=order.deadline_s,
        usd=None if order.cost is None else f"{order.cost / 1e6:.6f}",
    )
    return runtime.submit(
        order.route,
        {"label": order.label} | ({} if order.venture is None else {"program": order.venture}),
        tenant=order.tenant,
        user=f"user of {order.label}",
        budget=budget,
        idempotency_key=f"order {order.label}",
        mode=order.mode,
    )


def _unheard(task: asyncio.Task[Any]) -> None:
    """Nobody waits for this answer any more; look at it, so that it is not reported as forgotten."""
    if not task.cancelled():
        task.exception()
