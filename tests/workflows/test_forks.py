"""A fork goes on where another run was, and does nothing of it again; a replay does nothing at all, and says where it would differ."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quarterdeck import Context, Quarterdeck, Runtime, StepFailed, ToolContext
from quarterdeck.app.comparing import Told, compared
from quarterdeck.app.runtime import RunHandle
from quarterdeck.core import events as ev
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.ports.model import Message
from quarterdeck.testing import ScriptedModel

log: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    log.clear()


def office(price: int = 10, extra: bool = False, *, allowed: bool = True) -> Quarterdeck:
    deck = Quarterdeck("forks")

    async def unbook(what: str, ctx: ToolContext) -> str:
        log.append(f"undo {what} {ctx.idempotency_key.rpartition(':')[2]}")
        return "undone"

    @deck.tool(effect="write", idempotent=True, compensate=unbook)
    async def book(what: str, ctx: ToolContext) -> str:
        log.append(what)
        return f"booked {what}"

    async def quote(city: str) -> int:
        log.append("quote")
        return price

    @deck.workflow("trip")
    async def trip(ctx: Context, city: str) -> object:
        async with ctx.saga():
            first = await ctx.tool(book, what=f"flight {city}", key="flight")
            number = ctx.uuid()
            cost = await ctx.step(quote, city, key="quote")
            if extra:
                await ctx.tool(book, what="extra", key="extra")
            if cost > 50:
                raise StepFailed("trip.expensive", "too much")
            last = await ctx.tool(book, what=f"hotel {number}", key="hotel")
        return [first, cost, last]

    deck.agent(
        "clerk",
        model=ScriptedModel(talk),
        tools=[book],
    )
    if not allowed:
        deck.policy(
            'permit(principal,action,resource); @reason("book.closed") forbid(principal,action == Action::"tool:book",resource);'
        )
    return deck


def talk(said: tuple[Message, ...]) -> object:
    results = [message.content for message in said if message.role == "tool"]
    if len(results) < 2:
        return [("book", {"what": f"thing {len(results)}"})]
    return " and ".join(results)


async def ended(runtime: Runtime, intent: str, payload: object) -> RunHandle:
    run = await runtime.submit(intent, payload, user="ada")
    await run.result(30)
    return run


async def test_a_workflow_is_forked_from_a_step(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "trip", {"city": "Rome"})
        before = await run.result()
        log.clear()
        fork = await runtime.fork(run.id, "quote", by="ben")
        after = await fork.result(30)
        first = [event for event in fork.events() if event.kind in ("run.admitted", "run.forked", "step.inherited")]
    assert after.text == before.text, "a fork draws the same numbers as its source"
    assert log == ["quote", next(entry for entry in log if entry.startswith("hotel"))]
    assert after.effects["succeeded"] == 1, "the flight is the source's"
    assert [event.kind for event in first] == ["run.admitted", "run.forked", "step.inherited"]
    assert (first[1].body["source"], first[1].body["by"], first[2].body["call"]) == (run.id, "ben", "flight")


async def test_an_edited_result_takes_another_way_and_undoing_leaves_the_source_alone(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "trip", {"city": "Rome"})
        log.clear()
        fork = await runtime.fork(run.id, "quote", result=99)
        result = await fork.result(30)
    assert (result.status, result.code, log) == ("failed", "trip.expensive", [])
    assert result.effects["compensated"] == 0


async def test_a_fork_goes_on_with_the_code_of_now(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "trip", {"city": "Rome"})
    log.clear()
    async with office(price=20, extra=True).start(tmp_path / "a.db") as runtime:
        fork = await runtime.fork(run.id, "quote")
        result = await fork.result(30)
    assert result.ok
    assert log[:2] == ["quote", "extra"]


async def test_a_fork_of_a_fork_inherits_from_both(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "trip", {"city": "Rome"})
        once = await runtime.fork(run.id, "quote", result=11)
        await once.result(30)
        log.clear()
        twice = await runtime.fork(once.id, "hotel")
        result = await twice.result(30)
        inherited = {e.body["call"]: e.body["source"] for e in twice.events() if e.kind == "step.inherited"}
    assert msgspec.json.decode(result.text)[1] == 11
    assert inherited == {"flight": run.id, "quote": run.id}
    assert len(log) == 1


async def test_an_agent_is_forked_from_a_model_call_and_with_another_result(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "clerk", "go")
        log.clear()
        again = await (await runtime.fork(run.id, "m1")).result(30)
        assert (again.text, log) == ('"booked thing 0" and "booked thing 1"', ["thing 1"])
        log.clear()
        edited = await (await runtime.fork(run.id, "t0.0", result="nothing")).result(30)
        assert (edited.text, log) == ('"nothing" and "booked thing 1"', ["thing 1"])
        assert edited.effects["succeeded"] == 1


@pytest.mark.parametrize(("step", "edited"), [("nowhere", {}), ("t0.0", {}), ("m0", {"result": 1})])
async def test_what_cannot_be_forked_is_refused(tmp_path: Path, step: str, edited: dict[str, object]) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "clerk", "go")
        with pytest.raises(QuarterdeckError, match=r"fork\.step"):
            await runtime.fork(run.id, step, **edited)


async def test_a_replay_does_nothing_and_says_where_it_differs(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        trip = await ended(runtime, "trip", {"city": "Rome"})
        clerk = await ended(runtime, "clerk", "go")
        log.clear()
        for run, steps in ((trip, 3), (clerk, 0)):
            told = runtime.replay(run.id)
            assert (told.same, told.steps, told.decisions > 0) == (True, steps, True)
    async with office(extra=True, allowed=False).start(tmp_path / "a.db") as runtime:
        told = runtime.replay(trip.id)
        assert [(each.kind, each.call) for each in told.differences] == [
            ("step", "hotel"),
            ("ruling", "flight"),
            ("ruling", "hotel"),
        ]
        assert "extra" in told.differences[0].now
        told = runtime.replay(clerk.id)
        assert [(each.kind, each.now) for each in told.differences] == [("ruling", "deny book.closed")] * 2
        assert len(list(runtime.insights.events(trip.id))) == runtime.show(trip.id).row.seq
    assert log == []


async def test_the_difference_of_two_runs(tmp_path: Path) -> None:
    async with office().start(tmp_path / "a.db") as runtime:
        run = await ended(runtime, "trip", {"city": "Rome"})
        fork = await runtime.fork(run.id, "quote", result=12)
        await fork.result(30)

        def told(handle: RunHandle) -> list[Told]:
            return [Told(one.seq, one.kind, one.body, one.content) for one in handle.events(content=True)]

        assert compared(told(run), told(run)).first is None
        comparison = compared(told(run), told(fork))
    assert comparison.first is not None
    first = comparison.pairs[comparison.first]
    assert first.left is not None
    assert (first.left.call, [pair.left and pair.left.call for pair in comparison.pairs]) == (
        "quote",
        ["flight", "quote", "hotel", "result", "end"],
    )


def test_a_journal_with_all_of_it_is_read_back() -> None:
    event = ev.StepInherited(1, "a", "run_1", 3, ev.encode(ev.StepClosed(1, "a", "succeeded")).decode())  # type: ignore[arg-type]
    assert ev.decode(ev.encode(event)) == event
