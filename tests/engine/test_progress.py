"""Progress: what long calls and workflows say of how far they are reaches the journal, bounded, and changes nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import Budget, Context, Quarterdeck, ToolContext, UsageError
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold, fold_all, start
from quarterdeck.core.progress import EVERY_S, MAX_COUNT, MAX_NOTE, SLOWEST_S, Report, pause_s, report
from quarterdeck.engine import runner
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.clock import sleep
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.workflows.stage import World, desk, staged


def told(store: MemoryStore, run_id: str | None = None) -> list[tuple[str, int, int | None, str]]:
    """Every report of a run, as it is stored."""
    found = []
    for stored in store.events(run_id or store.runs()[-1].run_id, limit=5_000):
        event = ev.decode(stored.body)
        if isinstance(event, ev.RunProgressed):
            note = "" if stored.payload is None else msgspec.json.decode(stored.payload, type=str)
            found.append((event.call, event.done, event.total, note))
    return found


def kinds(store: MemoryStore) -> list[str]:
    return [ev.kind_of(ev.decode(one.body)) for one in store.events(store.runs()[-1].run_id, limit=5_000)]


def press(pages: int, pause: float) -> Callable[[World], Quarterdeck]:
    """A deck with one long tool, on virtual time."""

    def make(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.tool(effect="write", idempotent=True, timeout="48h")
        async def print_pages(ctx: ToolContext) -> int:
            world.log.append("begun")
            for page in range(pages + 1):
                ctx.progress(page, pages, f"page {page}")
                await sleep(pause)
            return pages

        deck.agent("printer", model=ScriptedModel([[("print_pages", {})], "printed"]), tools=[print_pages])
        return deck

    return make


def test_the_reports_of_a_long_call_are_in_the_journal_before_its_receipt() -> None:
    result, _, store = staged(press(4, 2.0), "printer", "go")
    assert result.status == "succeeded"
    assert told(store) == [("t0.0", page, 4, f"page {page}") for page in range(5)]
    shown = kinds(store)
    assert shown.index("run.progress") > shown.index("tool.opened")
    assert len(shown) - 1 - shown[::-1].index("run.progress") < shown.index("tool.closed")


def test_only_the_newest_report_of_a_pause_is_written_and_the_last_one_always() -> None:
    _, _, store = staged(press(1_000, 0.01), "printer", "go")
    written = [done for _, done, _, _ in told(store)]
    assert written[0] == 0 and written[-1] == 1_000
    assert len(written) <= 12, "ten seconds, one report a second"
    assert written == sorted(set(written))


def test_a_day_of_reports_writes_some_hundred_events() -> None:
    written, at_s = 0, 0.0
    while at_s < 86_400:
        written, at_s = written + 1, at_s + pause_s(written)
    assert 300 < written < 800


def test_a_thousand_reports_at_once_are_one_event() -> None:
    def make(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.tool(effect="read")
        async def burst(ctx: ToolContext) -> str:
            for number in range(1_000):
                ctx.progress(number)
            return "done"

        deck.agent("burst", model=ScriptedModel([[("burst", {})], "done"]), tools=[burst])
        return deck

    _, _, store = staged(make, "burst", "go")
    assert told(store) == [("t0.0", 999, None, "")]


def crawler(world: World) -> Quarterdeck:
    deck = desk(world)

    @deck.workflow("crawl")
    async def crawl(ctx: Context, pages: int) -> int:
        for page in range(pages):
            await ctx.tool("book", what=f"page {page}")
            await ctx.sleep(5)
            ctx.progress(page + 1, pages, "crawling")
        return pages

    return deck


def test_a_workflow_tells_how_far_it_is_and_does_not_say_it_again_when_it_is_executed_again() -> None:
    result, _, store = staged(crawler, "crawl", {"pages": 4})
    assert (result.status, result.text) == ("succeeded", "4")
    assert told(store) == [("", page, 4, "crawling") for page in (1, 2, 3, 4)]
    assert kinds(store).count("run.started") > 1, "each sleep ended one execution"


@pytest.mark.parametrize("point", range(6, 60, 6))
def test_progress_survives_crashes_without_being_told_backwards(point: int) -> None:
    result, world, store = staged(crawler, "crawl", {"pages": 4}, crashes={point, point + 9})
    assert (result.status, result.text) == ("succeeded", "4")
    done = [each[1] for each in told(store)]
    assert done == sorted(set(done)) and done[-1] == 4
    assert sorted(world.effects.values()) == [1, 1, 1, 1]


def test_progress_is_no_step_so_it_comes_and_goes_with_the_code() -> None:
    def make(world: World) -> Quarterdeck:
        world.done["opened"] = world.done.get("opened", "") + "x"
        deck = desk(world)

        @deck.workflow("job")
        async def job(ctx: Context) -> str:
            await ctx.tool("book", what="one")
            if len(world.done["opened"]) > 1:
                ctx.progress(1, 2)
            await ctx.tool("book", what="two")
            return "done"

        return deck

    result, _, store = staged(make, "job", crashes={14})
    assert result.status == "succeeded" and "replay.diverged" not in kinds(store)


def test_a_tool_that_kills_its_worker_is_poison_however_much_it_reports() -> None:
    def make(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.tool(effect="read", timeout="1h")
        async def mine(ctx: ToolContext) -> str:
            for number in range(3):
                ctx.progress(len(world.log) * 10 + number)
                await sleep(2.0)
            world.log.append("died")
            world.died.set()
            await asyncio.get_running_loop().create_future()
            return ""

        deck.agent("miner", model=ScriptedModel([[("mine", {})], "done"]), tools=[mine])
        return deck

    result, world, store = staged(make, "miner", "go")
    assert (result.status, result.code) == ("failed", "run.poison")
    assert len(world.log) == 3 and len(told(store)) >= 3


def test_a_fresh_history_takes_the_newest_report_along() -> None:
    def make(world: World) -> Quarterdeck:
        deck = desk(world)

        @deck.workflow("counts")
        async def counts(ctx: Context, n: int) -> int:
            if n == 0:
                ctx.progress(7, 9)
            await ctx.sleep(3)
            if n < 2:
                ctx.continue_as_new({"n": n + 1})
            return n

        return deck

    _, _, store = staged(make, "counts", {"n": 0})
    events = [ev.decode(one.body) for one in store.events(store.runs()[-1].run_id)]
    newest = max(place for place, event in enumerate(events) if isinstance(event, ev.RunContinued))
    whole = fold_all(events)
    part = start(events[newest], newest + 1)
    for event in events[newest + 1 :]:
        part = fold(part, event)
    assert whole.progress == part.progress
    assert whole.progress is not None and (whole.progress.done, whole.progress.total) == (7, 9)


def test_an_agent_that_begins_a_fresh_history_keeps_its_progress() -> None:
    with patched(runner, "GENERATION", 8):
        _, _, store = staged(press(3, 2.0), "printer", "go")
    state = fold_all(ev.decode(one.body) for one in store.events(store.runs()[-1].run_id))
    assert state.generation and state.progress is not None and state.progress.done == 3


async def test_reports_come_from_threads_and_a_call_that_has_ended_says_nothing_more(tmp_path: Path) -> None:
    kept: list[ToolContext] = []
    deck = Quarterdeck("threads")

    @deck.tool(effect="read")
    def count(ctx: ToolContext) -> str:
        """Count, in a thread."""
        kept.append(ctx)
        for number in range(50):
            ctx.progress(number, 50)
        return "counted"

    deck.agent("counter", model=ScriptedModel([[("count", {})], "done"]), tools=[count], budget=Budget(turns=3))
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.submit("counter", "go")
        await run.result(20.0)
        late = threading.Thread(target=kept[0].progress, args=(99,))
        late.start()
        await asyncio.to_thread(late.join)
        said = [event.body["done"] for event in run.events() if event.kind == "run.progress"]
    assert said and said[-1] == 49 and said == sorted(said)


async def test_a_secret_in_a_note_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESS_KEY", "hush-hush-hush")
    deck = Quarterdeck("press")
    deck.secret("press_key", env="PRESS_KEY")

    @deck.tool(effect="read", secrets=["press_key"])
    async def use(ctx: ToolContext) -> str:
        """Use a key."""
        ctx.progress(1, 2, f"with {ctx.secrets['press_key'].reveal()}")
        return "used"

    deck.agent("user", model=ScriptedModel([[("use", {})], "done"]), tools=[use])
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.submit("user", "go")
        await run.result(20.0)
        [note] = [event.content for event in run.events(content=True) if event.kind == "run.progress"]
    assert note == "with [secret press_key]"


@pytest.mark.parametrize("said", [(-1,), (1.5,), (True,), (MAX_COUNT + 1,), ("3",), (1, -2), (1, 2.0), (1, 2, 3), (1, 2, None)])
def test_what_counts_nothing_is_refused(said: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError) as refused:
        report(*said)
    assert refused.value.code == "progress.invalid"
    with pytest.raises(UsageError):
        ToolContext("r", "t0.0", "acme", "ada", "k").progress(*said)


@given(st.integers(0, MAX_COUNT), st.none() | st.integers(0, MAX_COUNT), st.text(max_size=2 * MAX_NOTE))
def test_every_report_is_short_and_can_be_stored(done: int, total: int | None, note: str) -> None:
    said = report(done, total, note)
    assert len(said.note) <= MAX_NOTE
    assert msgspec.json.decode(msgspec.json.encode(said), type=Report) == said


@given(st.integers(0, 10_000))
def test_the_pause_only_grows_and_has_an_end(written: int) -> None:
    assert EVERY_S <= pause_s(written) <= pause_s(written + 1) <= SLOWEST_S


def test_lone_surrogates_of_a_note_are_replaced() -> None:
    assert report(1, None, "a\ud800b").note == "a?b"
