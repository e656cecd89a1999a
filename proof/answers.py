"""R14: the tool did it, and its answer is lost on the way.

An idempotent effect is tried again under the same key, one that can be asked about is asked, any other is unknown and waits for a
person, who can say either; and nothing is ever called failed that may have been done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proof.stage import QUICK, Provider, Remembering, ended, events_of, expect, on_stage, receipts, rested, sound
from quarterdeck import Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.runtime import Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.commit import Applied, Commit, Op, Outcome
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.testing.memory import MemoryStore

Loss = Callable[[], Exception]


class ReadTimeout(Exception):
    """What an HTTP client raises: no kin of the built-in time-out, which is only its cause."""


def _wrapped() -> Exception:
    error = ReadTimeout("no answer")
    error.__cause__ = TimeoutError("read")
    return error


LOSSES: dict[str, Loss] = {
    "connection": lambda: ConnectionResetError("cut"),
    "timeout": lambda: TimeoutError("late"),
    "client library": _wrapped,
    "declared": lambda: ToolFailure("tool.gateway", "no answer", transient=True, done=None),
}
"""How an answer can be lost."""


def deck_of(kind: str, perform: Callable[[str], Awaitable[object]], find: Callable[[str], object] | None = None) -> Quarterdeck:
    """An agent that calls one tool of this kind once, and then reports."""
    deck = Quarterdeck("answers")

    def asked(ctx: ToolContext) -> object:
        return find(ctx.idempotency_key) if find is not None else None

    declared = {
        "idempotent": {"effect": "write", "idempotent": True},
        "reconcilable": {"effect": "irreversible", "reconcile": asked},
    }

    @deck.tool(**declared.get(kind, {"effect": "external"}), name="act", timeout=5.0, cost="0.01", dependency=QUICK)
    async def act(ctx: ToolContext) -> object:
        return await perform(ctx.idempotency_key)

    deck.model("m", Remembering([[("act", {})], "reported"]))
    deck.agent("a", model="m", tools=["act"])
    return deck


def _shown(deck: Quarterdeck) -> str:
    model = deck.models["m"]
    return model.answers.get("c0-0", "(nothing)") if isinstance(model, Remembering) else ""


async def idempotent(loss: Loss) -> list[str]:
    """Tried again under the same key; the provider does it once."""
    found: list[str] = []
    provider = Provider()

    async def perform(key: str) -> str:
        provider.once(key)
        if len(provider.asked) < 3:
            raise loss()
        return "done"

    deck = deck_of("idempotent", perform)
    async with on_stage(deck) as runtime:
        handle = await runtime.submit("a")
        result = await rested(handle)
        expect(found, "the run", (result.status, result.code), ("succeeded", "completed"))
        expect(found, "the keys used", len(set(provider.asked)), 1)
        expect(found, "asked", len(provider.asked), 3)
        expect(found, "done", len(provider.done), 1)
        expect(found, "the receipt", [one.status for one in receipts(runtime, handle.id)], [ReceiptStatus.SUCCEEDED])
        found += sound(runtime, handle.id)
    return found


async def never_answered(loss: Loss) -> list[str]:
    """All attempts lost: it may have been done, so nobody says that it failed."""
    provider = Provider()

    async def perform(key: str) -> str:
        provider.once(key)
        raise loss()

    return await _unknown("idempotent", perform, provider, attempts=4)


async def lost_then_refused(loss: Loss) -> list[str]:
    """The first answer is lost, the next attempt is turned away: what the first one did is still not known."""
    provider = Provider()

    async def perform(key: str) -> str:
        provider.once(key)
        if len(provider.asked) == 1:
            raise loss()
        raise ConnectionRefusedError("closed for the day")

    return await _unknown("idempotent", perform, provider, attempts=4)


async def lost_then_declined(loss: Loss) -> list[str]:
    """The first answer is lost, the next attempt is declined by the tool itself."""
    provider = Provider()

    async def perform(key: str) -> str:
        provider.once(key)
        if len(provider.asked) == 1:
            raise loss()
        raise ToolFailure("tool.declined", "already booked under another reference")

    return await _unknown("idempotent", perform, provider, attempts=2)


async def other(loss: Loss) -> list[str]:
    """Neither idempotent nor able to tell: unknown after one attempt."""
    provider = Provider()

    async def perform(key: str) -> str:
        provider.blindly(key)
        raise loss()

    return await _unknown("other", perform, provider, attempts=1)


async def unreadable() -> list[str]:
    """The tool did it, and returned what nobody can read: it was done all the same."""
    provider = Provider()

    async def perform(key: str) -> object:
        provider.blindly(key)
        return "\ud800"

    return await _unknown("other", perform, provider, attempts=1)


async def too_large() -> list[str]:
    """The tool did it, and returned more than may be kept."""
    provider = Provider()

    async def perform(key: str) -> object:
        provider.blindly(key)
        return "x" * 2_000_000

    return await _unknown("other", perform, provider, attempts=1)


async def _unknown(kind: str, perform: Callable[[str], Awaitable[object]], provider: Provider, attempts: int) -> list[str]:
    found: list[str] = []
    for done in (True, False):
        provider.asked.clear()
        provider.done.clear()
        deck = deck_of(kind, perform)
        async with on_stage(deck) as runtime:
            handle = await runtime.submit("a")
            result = await rested(handle)
            expect(
                found, "the run", (result.status, result.code, result.waiting_on), ("waiting", "effect.unknown", ("effect:t0.0",))
            )
            expect(found, "asked", len(provider.asked), attempts)
            expect(found, "done", len(provider.done), 1)
            if result.status == "waiting":
                found += await _resolved(runtime, deck, handle.id, done=done)
                expect(found, "asked after a person has answered", len(provider.asked), attempts)
            found += sound(runtime, handle.id)
    return found


async def _resolved(runtime: Runtime, deck: Quarterdeck, run_id: str, *, done: bool) -> list[str]:
    found: list[str] = []
    handle = runtime.handle(run_id)
    await runtime.resolve(run_id, "t0.0", done=done, by="ada", result={"seen": "by ada"})
    result = await ended(handle)
    expect(found, "the status after a person has answered", result.status, "succeeded")
    counts = {name: count for name, count in result.effects.items() if count}
    expect(found, "the effects after a person has answered", counts, {"succeeded" if done else "failed": 1})
    if "by ada" not in _shown(deck):
        found.append(f"the model is not shown what the person found, but {_shown(deck)}")
    resolved = [event for event in events_of(runtime, run_id) if isinstance(event, ev.EffectResolved)]
    expect(found, "who resolved", [event.by for event in resolved], ["ada"])
    return found


async def reconcilable(loss: Loss, done: bool | None) -> list[str]:
    """Asked, and believed; ``None``: it cannot be asked either."""
    found: list[str] = []
    provider = Provider()

    async def perform(key: str) -> str:
        if done is not False:
            provider.blindly(key)
        raise loss()

    def find(key: str) -> object:
        if done is None:
            raise ConnectionError("closed")
        return {"found": key} if key in provider.done else None

    deck = deck_of("reconcilable", perform, find)
    wanted = {True: ReceiptStatus.SUCCEEDED, False: ReceiptStatus.FAILED, None: ReceiptStatus.UNKNOWN}[done]
    async with on_stage(deck) as runtime:
        handle = await runtime.submit("a")
        result = await rested(handle)
        expect(found, "the receipt", [one.status for one in receipts(runtime, handle.id)], [wanted])
        expect(found, "done", len(provider.done), int(done is not False))
        expect(found, "the run", result.status, "waiting" if done is None else "succeeded")
        if done and "found" not in _shown(deck):
            found.append(f"the model is not shown what was found, but {_shown(deck)}")
        found += sound(runtime, handle.id)
    return found


class Telling(MemoryStore):
    """A store that tells when the receipt of a call is durable."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[str, asyncio.Event] = {}

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        answer = super().submit(op)
        if isinstance(op, Commit):
            for event in map(ev.decode, [item.body for item in op.records]):
                if isinstance(event, ev.ToolClosed):
                    answer.add_done_callback(lambda done, call=event.call: self._tell(call, done.result()))
        return answer

    def _tell(self, call: str, outcome: Outcome) -> None:
        if isinstance(outcome, Applied):
            self.durable.setdefault(call, asyncio.Event()).set()


async def receipts_at_once() -> list[str]:
    """The receipt of an effect that must not be repeated is durable while another call of its turn is still under way, so that a crash
    there leaves no doubt about it."""
    found: list[str] = []
    store = Telling()
    deck = Quarterdeck("answers")

    @deck.tool(effect="external")
    async def mail() -> str:
        return "sent"

    @deck.tool(effect="read")
    async def slow() -> str:
        try:
            await asyncio.wait_for(store.durable.setdefault("t0.0", asyncio.Event()).wait(), 0.3)
        except TimeoutError:
            found.append("the mail's receipt was held back until the other call had ended")
        return "done"

    deck.model("m", Remembering([[("mail", {}), ("slow", {})], "reported"]))
    deck.agent("a", model="m", tools=[mail, slow])
    async with on_stage(deck, store) as runtime:
        result = await rested(await runtime.submit("a"))
        expect(found, "the run", result.status, "succeeded")
    return found


Case = Callable[[], Awaitable[list[str]]]


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {
        "receipts at once": receipts_at_once,
        "unreadable result": unreadable,
        "too large a result": too_large,
    }
    for name, loss in LOSSES.items():
        for body in (idempotent, never_answered, lost_then_refused, lost_then_declined, other):
            if name == "client library" and body in (idempotent, never_answered, lost_then_refused, lost_then_declined):
                continue
            cases[f"{body.__name__}, {name}"] = lambda body=body, loss=loss: body(loss)
        for done in (True, False, None):
            cases[f"reconcilable, {name}, done={done}"] = lambda loss=loss, done=done: reconcilable(loss, done)
    return cases


CASES = _cases()
"""Every case by name; each returns what must not be."""
