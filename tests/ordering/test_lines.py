"""Ordering keys and exclusive keys through whole runs: crashes, two workers, waits, children, and what is refused."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app import wiring
from quarterdeck.dispatch import embedded
from quarterdeck.engine.workflows.context import Context
from quarterdeck.engine.workflows.errors import Denied
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.workflows.stage import cached_policy, opening


class Ledger:
    """What happened, in the order of its happening: (key, run, what)."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.lines: list[tuple[str, str, str]] = []
        self.working: dict[str, int] = defaultdict(int)
        self.most = 0

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("lines")

        @deck.tool(effect="write", idempotent=True)
        async def work(of: str, pause: float, ctx: ToolContext) -> str:
            """Work, for a while."""
            self.lines.append((of, ctx.run_id, "begin"))
            await self.clock.sleep(pause)
            self.lines.append((of, ctx.run_id, "end"))
            return "done"

        @deck.tool(effect="write", idempotent=True, exclusive="thing:{thing}")
        async def alone(thing: str, pause: float, ctx: ToolContext) -> str:
            """Work on a shared thing."""
            self.working[thing] += 1
            self.most = max(self.most, self.working[thing])
            await self.clock.sleep(pause)
            self.working[thing] -= 1
            return "done"

        @deck.workflow("ordered")
        async def ordered(ctx: Context, payload: dict[str, object]) -> object:
            await ctx.tool(work, of=payload["key"], pause=payload["pause"])
            await ctx.sleep(float(str(payload["rest"])))
            await ctx.tool(work, of=payload["key"], pause=payload["pause"])
            return payload["key"]

        @deck.workflow("sharing")
        async def sharing(ctx: Context, payload: object) -> object:
            await ctx.gather(*[ctx.tool(alone, thing="seven", pause=2.0) for _ in range(2)])
            return "done"

        @deck.workflow("parent")
        async def parent(ctx: Context, payload: dict[str, str]) -> object:
            try:
                return await ctx.workflow("parent", {"key": ""}, ordering_key=payload["key"]) if payload["key"] else "child"
            except Denied as denied:
                return denied.code

        @deck.workflow("above")
        async def above(ctx: Context, payload: object) -> object:
            return await ctx.workflow("parent", {"key": "k1"})

        return deck


def require_order(ledger: Ledger, admitted: dict[str, list[str]]) -> None:
    """Of each key: no run begins before the one admitted before it has ended its last."""
    for key, names in admitted.items():
        seen = list(dict.fromkeys(name for of, name, _ in ledger.lines if of == key))
        assert seen == names, f"{key}: {seen} instead of {names}"
        place = 0
        for of, name, _ in ledger.lines:
            if of == key:
                assert names.index(name) >= place, f"{name} went on after a later run of {key} had begun"
                place = names.index(name)


Runs = st.lists(
    st.tuples(st.sampled_from(["x", "y", ""]), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([0.0, 40.0])),
    min_size=2,
    max_size=8,
)


@settings(max_examples=25)
@given(Runs, st.lists(st.sampled_from([0.2, 1.0, 5.0, 30.0]), max_size=3), st.booleans())
def test_runs_of_one_key_take_effect_in_the_order_of_admission(
    runs: list[tuple[str, float, float]], deaths_s: list[float], shared: bool
) -> None:
    """Whatever keys, pauses and deaths of workers: of each key one run at a time, in the order of admission."""
    clock = VirtualClock()
    ledger = Ledger(clock)
    admitted: dict[str, list[str]] = defaultdict(list)

    async def scene() -> None:
        store = MemoryStore("w0", quiesced=not shared)
        other = store.connect("other") if shared else None
        async with asyncio.TaskGroup() as group:
            if other is not None:
                group.create_task(second(other))
            names: list[str] = []
            for number, death_s in enumerate([*deaths_s, None]):
                async with opening(ledger.deck(), store, clock, number) as rt:
                    if not names:
                        for key, pause, rest in runs:
                            said = {"key": key, "pause": pause, "rest": rest}
                            names.append((await rt.submit("ordered", said, ordering_key=key or None)).id)
                            if key:
                                admitted[key].append(names[-1])
                    if death_s is None:
                        for name in names:
                            result = await rt.handle(name).result(5_000.0)
                            assert result.status == "succeeded", result
                        over.set()
                        continue
                    await clock.sleep(death_s)
                    store.crash()
                    store = dead_then(store, number)

    def dead_then(store: MemoryStore, number: int) -> MemoryStore:
        if shared:
            store.declare_dead(store.worker)
        return store.connect(f"w{number + 1}")

    over = asyncio.Event()

    async def second(store: MemoryStore) -> None:
        async with opening(ledger.deck(), store, clock, 99):
            await over.wait()

    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 2.0):
        run(scene(), clock=clock, max_ticks=400_000)
    require_order(ledger, admitted)


def _alone(scene: object, clock: VirtualClock) -> None:
    with patched(wiring, "policy_of", cached_policy), patched(embedded, "POLL_S", 2.0):
        run(scene, clock=clock, max_ticks=200_000)  # type: ignore[arg-type]


def test_an_exclusive_key_lets_one_call_work_at_a_time() -> None:
    clock = VirtualClock()
    ledger = Ledger(clock)

    async def scene() -> None:
        store = MemoryStore("w1", quiesced=False)
        other = store.connect("w2")
        async with opening(ledger.deck(), store, clock) as rt, opening(ledger.deck(), other, clock, 1):
            handles = [await rt.submit("sharing") for _ in range(4)]
            for handle in handles:
                assert (await handle.result(600.0)).status == "succeeded"
            assert rt.insights.due(clock.now_us()) is False
        assert store.tables.exclusive == {}, "every key was given back"

    _alone(scene(), clock)
    assert ledger.most == 1


def test_a_run_is_not_let_wait_for_itself() -> None:
    """A child on the key that its parent, or the parent's parent, holds could never begin: it is denied, with a code."""
    clock = VirtualClock()
    ledger = Ledger(clock)

    async def scene() -> None:
        async with opening(ledger.deck(), MemoryStore("w1"), clock) as rt:
            own = await rt.submit("parent", {"key": "k1"}, ordering_key="k1")
            assert (await own.result(60.0)).text == "ordering.deadlock"
            fine = await rt.submit("parent", {"key": "k2"}, ordering_key="k1")
            assert (await fine.result(60.0)).text == "child"
            far = await rt.submit("above", ordering_key="k1")
            assert (await far.result(60.0)).text == "child", "another route is another line"

    _alone(scene(), clock)


def test_a_childs_end_wakes_its_parent_at_once() -> None:
    """The parent is told in the transaction of the child's end, so it does not wait until it looks by itself."""
    clock = VirtualClock()
    ledger = Ledger(clock)

    async def scene() -> float:
        async with opening(ledger.deck(), MemoryStore("w1"), clock) as rt:
            began_us = clock.now_us()
            handle = await rt.submit("above")
            assert (await handle.result(5_000.0)).text == "child"
            return (clock.now_us() - began_us) / 1e6

    times: list[float] = []

    async def timed() -> None:
        times.append(await scene())

    _alone(timed(), clock)
    assert times[0] < 30.0, "only the polls of the dispatcher pass"
