"""Timers, messages, people, children, pauses: a workflow waits as rows, and is woken by what it waits for."""

from __future__ import annotations

import pytest

from quarterdeck import Answer, Budget, Context, Quarterdeck, StepFailed, ToolFailure
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.events import StepProposed, decode
from quarterdeck.testing import ScriptedModel
from tests.workflows.stage import World, add, desk, staged


def office(world: World) -> Quarterdeck:
    deck = desk(world)
    deck.agent("poet", model=ScriptedModel(["a rhyme"]))
    deck.model("oracle", ScriptedModel(["forty-two"]))
    deck.agent("buyer", model=ScriptedModel([[("book", {"what": "by the agent"})], "done"]), tools=["book"])

    @deck.workflow("sign")
    async def sign(ctx: Context, on_timeout: str = "deny") -> object:
        answer: Answer = await ctx.approve("contract", {"amount": 5}, timeout=60, on_timeout=on_timeout)
        return [answer.outcome, answer.by, answer.escalated, bool(answer)]

    @deck.workflow("listen")
    async def listen(ctx: Context) -> object:
        first = await ctx.signal("news", timeout=600)
        await ctx.sleep(10)
        second = await ctx.signal("news")
        try:
            await ctx.signal("news", timeout=60)
        except StepFailed as late:
            return [first, second, late.code]
        return None

    @deck.workflow("ask")
    async def ask(ctx: Context) -> object:
        return [await ctx.model("oracle", "what?"), await ctx.agent("poet", "roses"), await ctx.workflow(double, {"n": 4})]

    @deck.workflow("double")
    async def double(ctx: Context, n: int) -> object:
        return await ctx.step(add, n, n)

    @deck.workflow("careful", autonomy="executes_after_approval")
    async def careful(ctx: Context) -> object:
        return await ctx.tool("book", what="a table")

    deck.route("careful", careful, approval_timeout="1h")

    @deck.workflow("parent")
    async def parent(ctx: Context) -> object:
        return await ctx.gather(ctx.workflow("sleeper"), ctx.agent("buyer", "x"), return_exceptions=False)

    @deck.workflow("sleeper")
    async def sleeper(ctx: Context) -> object:
        async with ctx.saga():
            await ctx.tool("book", what="a bed")
            await ctx.sleep(5_000)

    @deck.workflow("deep")
    async def deep(ctx: Context, level: int = 0) -> object:
        return await ctx.workflow("deep", {"level": level + 1})

    return deck


async def crowd(runtime: Runtime, run_id: str) -> None:
    """Somebody who says yes to everything, as another person than who asked."""
    while True:
        await runtime.parts.clock.sleep(5)
        for row in runtime.approvals():
            await runtime.approve(row.approval, by="bo")


def test_a_person_says_yes() -> None:
    result, _, store = staged(office, "sign", scene=crowd)
    assert result.text == '["approved","bo",false,true]'
    assert {row.status for row in store.approvals(status=None)} == {"approved"}


def test_nobody_answers() -> None:
    assert staged(office, "sign")[0].text == '["expired","clock",false,false]'


def test_nobody_answers_and_another_is_asked() -> None:
    async def late(runtime: Runtime, run_id: str) -> None:
        while True:
            await runtime.parts.clock.sleep(5)
            for row in runtime.approvals():
                if row.approval.endswith(".escalated"):
                    await runtime.approve(row.approval, by="cy")

    assert staged(office, "sign", {"on_timeout": "escalate"}, scene=late)[0].text == '["approved","cy",true,true]'
    assert staged(office, "sign", {"on_timeout": "escalate"})[0].text == '["expired","clock",true,false]'


def test_messages_are_taken_once_in_order() -> None:
    async def messenger(runtime: Runtime, run_id: str) -> None:
        await runtime.signal(run_id, "news", {"n": 1}, token="one")
        await runtime.signal(run_id, "news", {"n": 2}, token="two")
        await runtime.signal(run_id, "other", {"n": 3}, token="three")

    points = staged(office, "listen", scene=messenger)[1].points
    for point in range(points + 1):
        result, _, _ = staged(office, "listen", scene=messenger, crashes={point})
        assert result.text == '[{"n":1},{"n":2},"signal.timeout"]', f"crash at {point}"


def test_models_agents_and_workflows() -> None:
    points = staged(office, "ask")[1].points
    for point in range(points + 1):
        result, _, store = staged(office, "ask", crashes={point})
        assert (result.status, result.text) == ("succeeded", '["forty-two","a rhyme",8]'), f"crash at {point}"
        family = store.runs()
        assert len(family) == 3
        assert {row.correlation_id for row in family} == {family[-1].run_id}
        assert result.spent["delegations"] == 2
        assert result.spent["model_calls"] >= 2


def test_a_tool_asks_as_an_agent_would() -> None:
    result, world, _ = staged(office, "careful", scene=crowd)
    assert (result.text, world.log) == ("a table", ["a table"])
    result, world, _ = staged(office, "careful")
    assert (result.status, result.code, world.log) == ("refused", "approval.expired", [])


def test_a_cancel_reaches_the_children() -> None:
    async def cancel(runtime: Runtime, run_id: str) -> None:
        await runtime.parts.clock.sleep(30)
        await runtime.cancel(run_id)

    result, world, store = staged(office, "parent", scene=cancel)
    assert result.status == "cancelled"
    assert {row.route: row.status for row in store.runs()} == {
        "parent": "cancelled", "sleeper": "cancelled", "buyer": "succeeded",
    }  # fmt: skip
    assert world.log == ["a bed", "by the agent", "undo a bed"] or world.log == ["by the agent", "a bed", "undo a bed"]


def test_delegation_has_a_depth() -> None:
    result, _, store = staged(office, "deep")
    assert (result.status, result.code) == ("failed", "child.failed")
    assert len(store.runs()) == 6
    assert store.runs()[0].code == "delegation.depth"


def test_an_operator_pauses_and_resumes() -> None:
    seen = []

    async def operator(runtime: Runtime, run_id: str) -> None:
        await runtime.signal(run_id, "news", 1, token="one")
        await runtime.pause(run_id, by="bo")
        await runtime.parts.clock.sleep(100)
        seen.append(runtime.show(run_id).row.code)
        await runtime.signal(run_id, "news", 2, token="two")
        await runtime.resume(run_id, by="bo")

    result, _, _ = staged(office, "listen", scene=operator)
    assert (result.text, seen) == ('[1,2,"signal.timeout"]', ["run.paused"])


@pytest.mark.parametrize("tools", [1, 3])
def test_children_share_the_budget(tools: int) -> None:
    def frugal(world: World) -> Quarterdeck:
        deck = office(world)

        @deck.workflow("frugal", budget=Budget(tools=tools))
        async def frugal(ctx: Context) -> object:
            await ctx.agent("buyer", "x", budget=Budget(tools=1))
            return await ctx.tool("book", what="the rest")

        return deck

    result, world, _ = staged(frugal, "frugal")
    assert result.code == ("completed" if tools == 3 else "budget.tools")
    assert world.log == ["by the agent", "the rest"][: 1 + (tools == 3)]
    assert result.spent["tool_calls"] == len(world.log)


def test_an_effect_that_nobody_knows_the_end_of_waits_for_a_person() -> None:
    def doubtful(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.tool(effect="external")
        async def mail(what: str) -> str:
            raise ToolFailure("provider.silent", "no answer", done=None)

        @deck.workflow("letter")
        async def letter(ctx: Context) -> object:
            return await ctx.gather(ctx.tool("mail", what="x"), ctx.tool("book", what="y"))

        return deck

    async def person(runtime: Runtime, run_id: str) -> None:
        row = await runtime.until(run_id, lambda row: row.code == "effect.unknown" and row.worker is None)
        assert row.waiting_on == ("effect:1.0/1",)
        await runtime.resolve(run_id, "1.0/1", done=True, by="bo", result="it arrived")

    result, world, _ = staged(doubtful, "letter", scene=person)
    assert (result.status, result.text, world.log) == ("succeeded", '["it arrived","y"]', ["y"])


def test_what_a_run_emits_is_recorded_once() -> None:
    def telling(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.workflow("tells")
        async def tells(ctx: Context) -> object:
            ctx.emit("begun", {"at": ctx.now()})
            await ctx.sleep(60)
            ctx.emit("done")
            return ctx.now()

        return deck

    for point in range(staged(telling, "tells")[1].points + 1):
        result, _, store = staged(telling, "tells", crashes={point})
        events = [decode(stored.body) for stored in store.events(result.run_id)]
        told = [event.name for event in events if isinstance(event, StepProposed) and event.step == "emit"]
        assert told == ["begun", "done"]
