"""A run may begin a fresh history: the same run outside, and replay costs what the generation is long."""

from __future__ import annotations

from pathlib import Path

from quarterdeck import Budget, Context, Quarterdeck, ToolContext
from quarterdeck.app.runtime import Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold, fold_all, start
from quarterdeck.engine import loading, runner
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, desk, staged


def office(world: World) -> Quarterdeck:
    deck = desk(world)

    @deck.workflow("counts")
    async def counts(ctx: Context, n: int, seen: list[str]) -> object:
        await ctx.tool("book", what=f"step {n}")
        seen.append(ctx.uuid())
        if n == 2:
            seen.append(str(await ctx.signal("news")))
        if n < 4:
            ctx.continue_as_new({"n": n + 1, "seen": seen})
        return [n, len(set(seen)), seen[3]]

    @deck.workflow("traps")
    async def traps(ctx: Context) -> object:
        async with ctx.saga():
            ctx.continue_as_new({})

    return deck


async def news(runtime: Runtime, run_id: str) -> None:
    await runtime.signal(run_id, "news", "early", token="one")


def journal(store, run_id=None):  # type: ignore[no-untyped-def]
    return [ev.decode(one.body) for one in store.events(run_id or store.runs()[-1].run_id)]


def test_a_fresh_history_keeps_the_run_its_effects_and_what_was_not_taken() -> None:
    result, world, store = staged(office, "counts", {"n": 0, "seen": []}, scene=news)
    assert (result.status, result.text) == ("succeeded", '[4,6,"early"]')
    assert world.log == [f"step {n}" for n in range(5)]
    assert result.effects["succeeded"] == 5
    assert result.spent["tool_calls"] == 5
    events = journal(store)
    assert [event.generation for event in events if isinstance(event, ev.RunContinued)] == [1, 2, 3, 4]
    keys = [event.key for event in events if isinstance(event, ev.ToolOpened)]
    assert len(set(keys)) == 5, "an idempotency key of one generation is never that of another"


def test_folding_may_begin_at_the_newest_generation() -> None:
    _, _, store = staged(office, "counts", {"n": 0, "seen": []}, scene=news)
    events = journal(store)
    begun = max(index for index, event in enumerate(events) if isinstance(event, ev.RunContinued))
    state = start(events[begun], begun + 1)
    for event in events[begun + 1 :]:
        fold(state, event)
    assert state == fold_all(events)


def test_it_survives_a_crash_at_every_point() -> None:
    payload = {"n": 0, "seen": []}
    plain, world, _ = staged(office, "counts", payload, scene=news)
    for point in range(1, world.points + 1):
        result, after, _ = staged(office, "counts", payload, crashes={point}, scene=news)
        assert (result.status, after.effects) == (plain.status, world.effects), f"crash at {point}"


def test_it_is_refused_inside_a_saga() -> None:
    assert staged(office, "traps")[0].code == "workflow.continue_place"


async def test_an_agents_long_run_is_taken_over_from_its_newest_generation(tmp_path: Path) -> None:
    turns = 40
    reads: list[int] = []

    def deck_of() -> Quarterdeck:
        deck = Quarterdeck("long")

        @deck.tool(effect="write", idempotent=True)
        async def note(n: int, ctx: ToolContext) -> str:
            return f"noted {n}"

        script = [[("note", {"n": n})] for n in range(turns)]
        deck.agent(
            "clerk",
            model=ScriptedModel([*script, "done"]),
            tools=[note],
            budget=Budget(turns=100, tools=100),
        )
        return deck

    with patched(runner, "GENERATION", 30), patched(loading, "PAGE", 20):
        async with deck_of().start(tmp_path / "a.db") as runtime:
            run = await runtime.submit("clerk", "hello")
            result = await run.result(30)
            stored = list(runtime.insights.events(run.id))
            events = [ev.decode(one.body) for one in stored]
            generations = [index for index, event in enumerate(events) if isinstance(event, ev.RunContinued)]
            assert (result.text, result.spent["tool_calls"], len(generations) >= 3) == ("done", turns, True)
            for upto in (len(events) - 1, generations[1] + 5, 15):
                state, transcript, _ = loading.load(_Upto(runtime, upto, reads), run.id, upto)  # type: ignore[arg-type]
                whole = fold_all(events[:upto])
                whole.turns = whole.turns[-len(state.turns) :] if state.turns else []
                assert state == whole
                assert transcript.user.content == "hello"
            assert reads[0] < 80, "the last generation alone is read"


class _Upto:
    """A run's journal as it once was, and how many events were read of it."""

    def __init__(self, runtime: Runtime, upto: int, reads: list[int]) -> None:
        self.program, self.gate = runtime.parts.services.program, runtime.parts.gate
        self.insights = self
        self._inner, self._upto, self._reads = runtime.insights, upto, reads
        reads.append(0)

    def events(self, run_id: str, after: int = 0, limit: int = 10_000):  # type: ignore[no-untyped-def]
        found = [one for one in self._inner.events(run_id, after, limit) if one.seq <= self._upto]
        self._reads[-1] += len(found)
        return found

    def salt(self, run_id: str) -> bytes | None:
        return self._inner.salt(run_id)
