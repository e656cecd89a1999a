"""R27: a worker that was declared dead acts all the same, and its receipt comes late.

Two owners of one store, neither of which can prove that the other has stopped. The first acts, slowly; its run is given to the second,
which waits until the first can no longer act. What the first then delivers is evidence: it closes the effect, or resolves it where the
second had to call it unknown. It never leads to a second effect, and never to two receipts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from proof.answers import Case
from proof.stage import (
    PATIENCE_S,
    QUICK,
    Provider,
    PushedClock,
    Remembering,
    ended,
    events_of,
    expect,
    on_stage,
    receipts,
    rested,
    sound,
    until,
)
from quarterdeck import Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.commit import Claim, Claimed, Commit, Deliver, Op, Outcome
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.engine.sequencer import LateReceipt
from quarterdeck.testing.memory import MemoryStore

WAIT_S = 61.0
"""Longer than an intent may be acted upon."""


class Retired(MemoryStore):
    """An owner's store through which, from some moment on, nothing is claimed any more: its owner still acts, and takes no work."""

    claims = True

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        if self.claims or not isinstance(op, Claim):
            return super().submit(op)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        answer.set_result(Claimed(()))
        return answer


class Paused(Retired):
    """An owner's store that answers the commit of a tool's intent only when it is let: its owner sleeps before it acts."""

    def __init__(self, worker: str) -> None:
        super().__init__(worker, quiesced=False)
        self.committed = asyncio.Event()
        self.wakes = asyncio.Event()

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        answer = super().submit(op)
        opens = isinstance(op, Commit) and any(isinstance(ev.decode(item.body), ev.ToolOpened) for item in op.records)
        return asyncio.ensure_future(self._later(answer)) if opens else answer

    async def _later(self, answer: asyncio.Future[Outcome]) -> Outcome:
        outcome = await answer
        self.claims = False
        self.committed.set()
        await self.wakes.wait()
        return outcome


@dataclass
class Scene:
    """Two owners, one slow tool. ``gates`` hold each owner's act until it is let go."""

    kind: str
    clock: PushedClock = field(default_factory=PushedClock)
    provider: Provider = field(default_factory=Provider)
    began: list[str] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    fails: Callable[[str], Exception | None] = lambda _: None
    after: bool = False
    """Whether the act happens before the gate (its answer is slow) or after it."""
    models: dict[str, Remembering] = field(default_factory=dict)

    def deck(self, owner: str) -> Quarterdeck:
        """The same deck for every owner; the tool knows in which it is."""
        deck = Quarterdeck("late")
        gate = self.gates.setdefault(owner, asyncio.Event())

        def asked(ctx: ToolContext) -> object:
            return "found" if ctx.idempotency_key in self.provider.done else None

        declared = {
            "idempotent": {"effect": "write", "idempotent": True},
            "reconcilable": {"effect": "irreversible", "reconcile": asked},
            "read": {"effect": "read"},
        }

        @deck.tool(**declared.get(self.kind, {"effect": "external"}), dependency=QUICK, timeout=300.0)
        async def act(ctx: ToolContext) -> str:
            self.began.append(owner)
            perform = self.provider.once if self.kind == "idempotent" else self.provider.blindly
            if not self.after:
                perform(ctx.idempotency_key)
            await gate.wait()
            if self.after:
                perform(ctx.idempotency_key)
            if (failure := self.fails(owner)) is not None:
                raise failure
            return f"done by {owner}"

        self.models[owner] = Remembering([[("act", {})], "reported"])
        deck.model("m", self.models[owner])
        deck.agent("a", model="m", tools=[act])
        return deck


@asynccontextmanager
async def taken_over(scene: Scene) -> AsyncIterator[tuple[MemoryStore, Runtime, RunHandle]]:
    """The first owner is acting, the second has the run and waits; the second's runtime and handle."""
    store = Retired("first", quiesced=False)
    async with on_stage(scene.deck("first"), store, scene.clock, "first") as first:
        handle = await first.submit("a")
        assert await until(lambda: scene.began == ["first"]), "the first owner never acted"
        store.claims = False
        second = store.connect("second")
        async with on_stage(scene.deck("second"), second, scene.clock, "second") as runtime:
            second.declare_dead("first")
            waits = await until(lambda: _row(runtime, handle).code == "effect.open")
            assert waits, f"the second owner does not wait for the first: {_row(runtime, handle)}"
            yield store, runtime, runtime.handle(handle.id)


def _row(runtime: Runtime, handle: RunHandle) -> object:
    return runtime.insights.run(handle.id)


async def in_time(kind: str) -> list[str]:
    """The receipt arrives while the second owner is still waiting: it is taken as it is."""
    found: list[str] = []
    scene = Scene(kind)
    async with taken_over(scene) as (_, runtime, handle):
        scene.gates["first"].set()
        scene.gates["second"].set()
        result = await ended(handle)
        expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
        expect(found, "the effects", {name: n for name, n in result.effects.items() if n}, {"succeeded": 1})
        expect(found, "who acted", scene.began, ["first"])
        if "done by first" not in scene.models["second"].answers.get("c0-0", ""):
            found.append(f"the model is not shown what the first owner got: {scene.models['second'].answers}")
        found += sound(runtime, handle.id)
    return found


async def never_begun(kind: str) -> list[str]:
    """The first owner sleeps between its intent and the act, and wakes when the run is not its own any more: it does not act, and what
    may be repeated is performed by the second owner, as if nothing had been said. Of anything else it is known that it did not happen."""
    found: list[str] = []
    scene, store = Scene(kind), Paused("first")
    async with on_stage(scene.deck("first"), store, scene.clock, "first") as first:
        handle = await first.submit("a")
        await asyncio.wait_for(store.committed.wait(), PATIENCE_S)
        second = store.connect("second")
        async with on_stage(scene.deck("second"), second, scene.clock, "second") as runtime:
            second.declare_dead("first")
            if not await until(lambda: _row(runtime, handle).code == "effect.open"):
                return [f"the second owner does not wait for the first: {_row(runtime, handle)}"]
            scene.clock.push(WAIT_S / 2)
            store.wakes.set()
            if not await until(lambda: first.active == 0):
                return ["the first owner does not let go"]
            scene.gates["second"].set()
            scene.clock.push(WAIT_S)
            result = await ended(runtime.handle(handle.id))
            repeated = kind != "other"
            expect(found, "the status", result.status, "succeeded")
            wanted = {"succeeded" if repeated else "failed": 1}
            expect(found, "the effects", {name: n for name, n in result.effects.items() if n}, wanted)
            expect(found, "who acted", scene.began, ["second"] if repeated else [])
            found += sound(runtime, handle.id)
    return found


async def too_late(done: bool) -> list[str]:
    """The wait is over and the effect is unknown; then the receipt arrives and resolves it, either way."""
    found: list[str] = []
    scene = Scene("other", fails=lambda _: None if done else ToolFailure("tool.declined", "not possible"), after=True)
    if not done:
        scene.provider.blindly = lambda key: None  # type: ignore[method-assign]
    async with taken_over(scene) as (_, runtime, handle):
        scene.clock.push(WAIT_S)
        unknown = await until(lambda: runtime.insights.run(handle.id).code == "effect.unknown")  # type: ignore[union-attr]
        if not unknown:
            return [f"the second owner does not call it unknown: {_row(runtime, handle)}"]
        scene.gates["first"].set()
        result = await ended(handle)
        expect(found, "the status", result.status, "succeeded")
        wanted = {"succeeded" if done else "failed": 1}
        expect(found, "the effects", {name: n for name, n in result.effects.items() if n}, wanted)
        expect(found, "who acted", scene.began, ["first"])
        resolved = [(event.by, event.status) for event in events_of(runtime, handle.id) if isinstance(event, ev.EffectResolved)]
        expect(found, "who resolved it", resolved, [("first", ReceiptStatus.SUCCEEDED if done else ReceiptStatus.FAILED)])
        found += sound(runtime, handle.id)
    return found


async def during_the_repetition(own: bool, earlier: ReceiptStatus) -> list[str]:
    """The second owner is repeating an idempotent act when the first one's receipt arrives, and the inbox is read between two of its
    attempts. There is one receipt in the end, and an effect that was done is never said to have failed. ``own``: whether the second
    owner succeeds."""
    found: list[str] = []
    tries: list[str] = []
    scene = Scene("idempotent")

    def fails(owner: str) -> Exception | None:
        tries.append(owner)
        if owner == "first" and earlier is ReceiptStatus.FAILED:
            return ToolFailure("tool.declined", "not possible")
        if owner == "second" and (tries.count("second") == 1 or not own):
            return ConnectionResetError("cut")
        return None

    scene.fails = fails
    async with taken_over(scene) as (_, runtime, handle):
        scene.clock.push(WAIT_S)
        if not await until(lambda: "second" in scene.began):
            return [f"the second owner does not repeat: {_row(runtime, handle)}"]
        scene.gates["first"].set()
        if not await until(lambda: bool(runtime.insights.inbox(handle.id)[1])):
            return ["the first owner leaves no evidence"]
        scene.gates["second"].set()
        result = await rested(handle)
        if own or earlier is ReceiptStatus.SUCCEEDED:
            expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
            expect(found, "the effects", {name: n for name, n in result.effects.items() if n}, {"succeeded": 1})
        expect(found, "done", len(scene.provider.done), 1)
        expect(found, "the receipts", len(receipts(runtime, handle.id)), 1)
        found += sound(runtime, handle.id)
    return found


async def hastily_resolved() -> list[str]:
    """A person resolves an effect that is still being performed: the runtime's own receipt counts."""
    found: list[str] = []
    scene = Scene("idempotent")
    tries: list[int] = []

    def fails(_: str) -> Exception | None:
        tries.append(1)
        return ConnectionResetError("cut") if len(tries) == 1 else None

    scene.fails = fails
    async with on_stage(scene.deck("first"), MemoryStore("first"), scene.clock, "first") as runtime:
        handle = await runtime.submit("a")
        assert await until(lambda: bool(scene.began))
        await runtime.resolve(handle.id, "t0.0", done=False, by="ada")
        scene.gates["first"].set()
        result = await ended(handle)
        expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
        expect(found, "the receipts", [one.status for one in receipts(runtime, handle.id)], [ReceiptStatus.SUCCEEDED])
        found += sound(runtime, handle.id)
    return found


async def stray() -> list[str]:
    """A receipt for something that was never opened, or is closed already, changes nothing."""
    found: list[str] = []
    scene = Scene("other")
    async with on_stage(scene.deck("first"), MemoryStore("first"), scene.clock, "first") as runtime:
        handle = await runtime.submit("a")
        assert await until(lambda: bool(scene.began))
        for call in ("t0.7", "m0", "nonsense"):
            late = msgspec.json.encode(LateReceipt(call, ReceiptStatus.FAILED, "ghost"))
            await runtime.parts.services.journal.submit(
                Deliver(handle.id, "receipt", late, scene.clock.now_us(), f"stray:{call}")
            )
        scene.gates["first"].set()
        result = await ended(handle)
        expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
        found += sound(runtime, handle.id)
    return found


async def after_a_crash(kind: str, done: bool) -> list[str]:
    """The owner dies within the act; at the next start the provider is closed. What may have been done is not called failed."""
    found: list[str] = []
    scene = Scene(kind, after=not done)
    store = MemoryStore("first")
    first = on_stage(scene.deck("first"), store, scene.clock, "first")
    runtime = await first.__aenter__()
    handle = await runtime.submit("a")
    assert await until(lambda: bool(scene.began))
    store.crash()
    scene.fails = lambda _: ConnectionRefusedError("closed")
    scene.gates["second"] = asyncio.Event()
    scene.gates["second"].set()
    second = store.connect("second")
    acts = len(scene.provider.done)
    async with on_stage(scene.deck("second"), second, scene.clock, "second") as runtime:
        scene.provider.once = lambda key: None  # type: ignore[method-assign]
        scene.provider.blindly = lambda key: None  # type: ignore[method-assign]
        resting = runtime.handle(handle.id)
        result = await rested(resting)
        unknown = kind in ("idempotent", "other")
        expect(found, "the run", result.status, "waiting" if unknown else "succeeded")
        wanted = ReceiptStatus.UNKNOWN if unknown else ReceiptStatus.FAILED
        if kind == "reconcilable" and done:
            wanted = ReceiptStatus.SUCCEEDED
        expect(found, "the receipt", [one.status for one in receipts(runtime, handle.id)], [wanted])
        expect(found, "done", len(scene.provider.done), acts)
        found += sound(runtime, handle.id)
    await first.__aexit__(RuntimeError, None, None)
    return found


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {"hastily resolved": hastily_resolved, "stray receipts": stray}
    for kind in ("read", "idempotent", "reconcilable", "other"):
        cases[f"in time, {kind}"] = lambda kind=kind: in_time(kind)
        cases[f"never begun, {kind}"] = lambda kind=kind: never_begun(kind)
        for done in (True, False):
            cases[f"after a crash, {kind}, done={done}"] = lambda kind=kind, done=done: after_a_crash(kind, done)
    for done in (True, False):
        cases[f"too late, done={done}"] = lambda done=done: too_late(done)
    for own in (True, False):
        for earlier in (ReceiptStatus.SUCCEEDED, ReceiptStatus.FAILED):
            cases[f"during the repetition, own={own}, earlier {earlier}"] = lambda own=own, earlier=earlier: (
                during_the_repetition(own, earlier)
            )
    return cases


CASES: dict[str, Callable[[], Awaitable[list[str]]]] = _cases()
"""Every case by name; each returns what must not be."""
