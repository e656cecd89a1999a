"""What the golden histories are of. ``python -m tests.histories.played`` records those that are not there yet.

Never record an old one again: a change that needs that would lose or park the runs of everybody who upgrades.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from quarterdeck import Budget, Compaction, Context, Quarterdeck, StepFailed, ToolContext, ToolFailure
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.commit import Deliver
from quarterdeck.core.events import decode
from quarterdeck.core.fold import fold, start
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import CancelMode, ReceiptStatus
from quarterdeck.engine.sequencer import LateReceipt
from quarterdeck.ports.model import Message
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.clock import VirtualClock, run, sleep
from quarterdeck.testing.memory import MemoryStore
from tests.workflows import test_generations, test_interrupts, test_sagas
from tests.workflows.stage import Scene, World, desk, opening, staged

FOLDER = Path(__file__).parent / "journals"
OLDER = Path(__file__).parents[1] / "workflows" / "histories"


class Line(msgspec.Struct):
    """One recorded event."""

    body: str
    payload: str | None = None


def lines_of(path: Path) -> list[Line]:
    """A recorded journal."""
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


def folded(lines: Sequence[Line]) -> RunState:
    """The state of a recorded journal, as it is folded today."""
    state: RunState | None = None
    for line in lines:
        event = decode(line.body.encode())
        state = start(event) if state is None else fold(state, event)
    if state is None:
        raise ValueError("a history without events")
    return state


def outcome(state: RunState) -> dict[str, object]:
    """What anybody outside can see of a state."""
    return {
        "status": state.status, "reason": state.reason, "code": state.code, "seq": state.seq, "epoch": state.epoch,
        "turn": state.turn, "effects": state.effects.counts(), "spent": dict(sorted(state.spent.items())),
        "reserved": {name: amount for name, amount in sorted(state.reserved.items()) if amount},
        "slices": sorted([[*key, amount] for key, amount in state.slices.items()]),
        "approvals": sorted([[name, mark.outcome, mark.by, mark.owner] for name, mark in state.approvals.items()]),
        "labels": [str(state.labels.integrity), str(state.labels.confidentiality)], "unknown": sorted(state.unknown),
        "open": sorted(state.open), "cancelled_by": state.cancelled_by, "generation": state.generation, "owner": state.owner,
        "inherited": dict(sorted(state.inherited.items())), "summarised": state.summarised, "resumes": state.resumes,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ what is played


async def _asked(runtime: Runtime, run_id: str, code: str) -> str:
    row = await runtime.until(run_id, lambda row: row.code == code and row.worker is None)
    return row.waiting_on[0].partition(":")[2]


def overseen(world: World) -> Quarterdeck:
    """An agent whose payments people approve; the first one ends nobody knows how."""
    deck = Quarterdeck("office")

    @deck.tool(effect="irreversible")
    async def pay(to: str) -> str:
        raise ToolFailure("provider.silent", "no answer", done=None)

    def model(said: tuple[Message, ...]) -> object:
        if any(message.role == "tool" and "pay" not in message.content for message in said[-1:]):
            return "it is settled"
        return [("pay", {"to": "bob"})]

    clerk = deck.agent("clerk", model=ScriptedModel(model), tools=[pay], autonomy="executes_after_approval")
    chain = {"escalation": ("lead", "head"), "escalate_after": 600.0, "approval_timeout": 3_600.0}
    deck.route("payments", clerk, owner="ann", quorum=2, **chain)  # type: ignore[arg-type]
    for account in ("all", "tenant:*"):
        deck.budget(account, Budget(tools=1_000, tokens=10**9))
    return deck


async def oversee(runtime: Runtime, run_id: str) -> None:
    """People do all that can be done to a run."""
    await _asked(runtime, run_id, "approval.needed")
    await runtime.parts.clock.sleep(700)  # its first owner does not answer
    await runtime.interrupt(run_id, "is it urgent?", token="one")
    seq = runtime.show(run_id).row.seq
    await runtime.until(run_id, lambda row: row.seq > seq and row.code == "approval.needed" and row.worker is None)
    await runtime.escalate(run_id, reason="it is late")
    await runtime.raise_budget(run_id, Budget(turns=30), reason="it takes longer", token="more")
    approval = await _asked(runtime, run_id, "approval.needed")
    await runtime.approve(approval, by="bob")
    row = await runtime.until(
        run_id, lambda row: row.code == "approval.needed" and row.worker is None and row.waiting_on != (f"approval:{approval}",)
    )
    await runtime.approve(row.waiting_on[0].partition(":")[2], by="eve")
    call = await _asked(runtime, run_id, "effect.unknown")
    await runtime.pause(run_id, reason="the bank is asked", token="hold")
    await runtime.resolve(run_id, call, done=False, by="bob", reason="the bank knows nothing of it")
    late = LateReceipt(call, ReceiptStatus.SUCCEEDED, "w-old", msgspec.Raw(b'"sent"'), 1)
    await runtime.apply(Deliver(run_id, "receipt", msgspec.json.encode(late), 1, "late"))
    await runtime.resume(run_id)
    await runtime.cancel(run_id, reason="enough")


def compacted(world: World) -> Quarterdeck:
    """An agent whose older turns are told by a summary."""
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look(n: int) -> str:
        return f"{n}: {'x' * 400}"

    def model(said: tuple[Message, ...]) -> object:
        if said[0].content.startswith("Summarise"):
            return "it has looked"
        seen = [message.content for message in said if message.role == "tool"]
        newest = int(seen[-1].strip('"').partition(":")[0]) if seen else 0
        return "looked" if newest >= 9 else [("look", {"n": newest + 1})]

    summary = Compaction(at=0.7, keep=2, max_output_tokens=100)
    limits = Budget(turns=40, tools=40, context=1_200)
    deck.agent(
        "clerk", model=ScriptedModel(model), instructions="Look.", tools=[look], budget=limits, max_output_tokens=200,
        compaction=summary,
    )  # fmt: skip
    return deck


def forked(world: World) -> Quarterdeck:
    """A workflow whose result depends on one step."""
    deck = desk(world)

    async def quote(city: str) -> int:
        return 10

    @deck.workflow("trip")
    async def trip(ctx: Context, city: str) -> object:
        async with ctx.saga():
            await ctx.tool("book", what=f"flight to {city}", key="flight")
            price = await ctx.step(quote, city, key="quote")
            await ctx.tool("book", what="hotel", key="hotel")
            if price > 50:
                raise StepFailed("trip.expensive", "too much")
        return [price, ctx.uuid()]

    return deck


async def fork(runtime: Runtime, run_id: str) -> None:
    """Somebody wants to know what would have been, had it cost more."""
    other = await runtime.fork(run_id, "quote", by="ben", result=99, idempotency_key="one")
    await other.result(100)


def diverged(world: World) -> Quarterdeck:
    """A workflow whose code is another one after the first process has died."""
    deck = desk(world)
    world.done["opened"] = world.done.get("opened", "") + "x"
    before = len(world.done["opened"]) == 1

    @deck.workflow("trip")
    async def trip(ctx: Context) -> object:
        await ctx.tool("book", what="flight" if before else "train")
        return await ctx.signal("go")

    return deck


async def undo_by_hand(runtime: Runtime, run_id: str) -> None:
    """A person tries once more what could not be undone, then does it by hand."""
    for done in (False, True):
        seq = runtime.show(run_id).row.seq
        await runtime.until(
            run_id, lambda row, seq=seq: row.seq > seq and row.code == "compensation.stuck" and row.worker is None
        )  # type: ignore[misc]
        await runtime.resume(run_id, by="bo", done=done)


async def give_up(runtime: Runtime, run_id: str) -> None:
    """A person sees the divergence and stops the run."""
    await runtime.until(run_id, lambda row: row.code == "replay.divergence" and row.worker is None)
    await runtime.cancel(run_id, by="bo", mode=CancelMode.STOP)


def reporting(world: World) -> Quarterdeck:
    """A workflow, and a tool of it, that say how far they are."""
    deck = desk(world)

    @deck.tool(effect="write", idempotent=True)
    async def copy(pages: int, ctx: ToolContext) -> int:
        for page in range(pages):
            ctx.progress(page + 1, pages, f"page {page + 1}")
            await sleep(2.0)
        return pages

    @deck.workflow("archive")
    async def archive(ctx: Context, n: int) -> object:
        await ctx.tool("copy", pages=2)
        ctx.progress(n + 1, note="a shelf")
        await ctx.sleep(3)
        if n < 2:
            ctx.continue_as_new({"n": n + 1})
        return n

    return deck


@dataclass(frozen=True, slots=True)
class Played:
    """One history: a deck, a route, a payload, what people do, where it crashes."""

    make: Callable[[World], Quarterdeck]
    intent: str
    payload: object = None
    scene: Scene | None = None
    crashes: frozenset[int] = field(default_factory=frozenset)
    fork: bool = False


PLAYED = {
    "overseen": Played(overseen, "payments", "pay bob", oversee),
    "compacted": Played(compacted, "clerk", "the task"),
    "generations": Played(test_generations.office, "counts", {"n": 0, "seen": []}, test_generations.news),
    "stuck": Played(test_sagas.stubborn, "knot", None, undo_by_hand),
    "interrupted": Played(test_interrupts.office, "raises", {"on": "signal"}, test_interrupts.interrupt),
    "jobs": Played(test_interrupts.office, "jobs", {"how": "waits"}, test_interrupts.cancel),
    "forked": Played(forked, "trip", {"city": "Rome"}, fork=True),
    "reporting": Played(reporting, "archive", {"n": 0}),
    "diverged": Played(diverged, "trip", None, give_up, frozenset({11})),
}


def record(name: str) -> None:
    """Play it, and keep the journal of the run that was submitted, or of its fork."""
    one = PLAYED[name]
    _, world, store = staged(one.make, one.intent, one.payload, crashes=set(one.crashes), scene=one.scene)
    if one.fork:

        async def main() -> None:
            async with opening(one.make(world), store.connect("w1"), clock, 1) as runtime:
                await fork(runtime, store.runs()[-1].run_id)

        clock = VirtualClock()
        run(main(), clock=clock)
    keep(name, store, store.runs()[0 if one.fork else -1].run_id)


def keep(name: str, store: MemoryStore, run_id: str) -> None:
    """Write one journal down."""
    stored = store.events(run_id)
    lines = [Line(one.body.decode(), one.payload.decode() if one.payload is not None else None) for one in stored]
    (FOLDER / f"{name}.jsonl").write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n")


def main() -> None:
    """Record what is new, and what every history folds to where that was never said."""
    for name in PLAYED:
        if not (FOLDER / f"{name}.jsonl").exists():
            record(name)
    for path in (*sorted(FOLDER.glob("*.jsonl")), *sorted(OLDER.glob("*.jsonl"))):
        said = FOLDER / f"{path.stem}.json"
        if not said.exists():
            said.write_bytes(msgspec.json.format(msgspec.json.encode(outcome(folded(lines_of(path)))), indent=1) + b"\n")


if __name__ == "__main__":
    main()
