"""Whoever waits for a run learns how it ended, whichever process has driven it, and nobody pays for that who does not wait."""

from __future__ import annotations

import asyncio

import pytest

from quarterdeck.app import lookout
from quarterdeck.dispatch.embedded import LOOK_S, POLL_S
from quarterdeck.engine.stream import Entry
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from tests.app.desk import Counted, desk, starting

SOON_S = LOOK_S + 2 * POLL_S


def test_a_run_that_another_process_ends_is_noticed() -> None:
    clock = VirtualClock()

    async def main() -> None:
        driving = MemoryStore("w1", quiesced=False)
        async with (
            starting(desk(), driving.connect("w2"), clock, max_active=0) as watching,
            starting(desk(latency_s=7.0), driving, clock) as other,
        ):
            run = await watching.submit("slow", "please")
            at_s: list[float] = []
            there = asyncio.ensure_future(other.handle(run.id).result())
            there.add_done_callback(lambda _: at_s.append(clock.monotonic_s()))
            result = await run.result(timeout_s=60.0)
            assert str(result) == "found"
            assert str(await there) == "found"
            assert 13.9 < at_s[0] <= clock.monotonic_s() <= at_s[0] + SOON_S

            waiting = await watching.submit("refunds", "please", user="ada")
            rested = await waiting.rest(timeout_s=60.0)
            assert rested.code == "approval.needed"
            ending = asyncio.ensure_future(waiting.result(timeout_s=60.0))
            await clock.sleep(20.0)
            assert not ending.done()
            await watching.approve(rested.waiting_on[0].partition(":")[2], by="bob")
            started_s = clock.monotonic_s()
            assert (await ending).ok
            assert clock.monotonic_s() <= started_s + SOON_S

    run(main(), clock=clock)


def test_a_run_with_an_answer_that_it_has_not_read_is_not_at_rest() -> None:
    clock = VirtualClock()

    async def main() -> None:
        driving = MemoryStore("w1", quiesced=False)
        async with starting(desk(), driving.connect("w2"), clock, max_active=0) as door:
            async with starting(desk(), driving.connect("w3"), clock):
                run = await door.submit("refunds", "please", user="ada")
                rested = await run.rest(timeout_s=60.0)
            await door.approve(rested.waiting_on[0].partition(":")[2], by="bob")
            rests = asyncio.ensure_future(run.rest(timeout_s=60.0))
            await clock.sleep(20.0)
            assert not rests.done(), "nobody drives it, so nothing has come of the answer"
            async with starting(desk(), driving, clock):
                assert (await rests).ok

    run(main(), clock=clock)


def test_events_of_a_run_that_another_process_drives_are_followed_without_gap_or_repetition() -> None:
    clock = VirtualClock()

    async def main() -> None:
        driving = MemoryStore("w1", quiesced=False)
        async with (
            starting(desk(), driving.connect("w2"), clock, max_active=0) as watching,
            starting(desk(latency_s=4.0), driving, clock),
        ):
            run = await watching.submit("slow", "please")
            seen: list[tuple[int, float]] = []
            async with asyncio.timeout(60.0):
                async for entry in run.follow():
                    seen.append((entry.seq, clock.monotonic_s()))
            stored = driving.tables.runs[run.id].events
            assert [seq for seq, _ in seen] == list(range(1, len(stored) + 1))
            assert len({at_s for _, at_s in seen}) > 2, "events are shown as they come, not when all is over"
            assert seen[-1][1] <= 8.0 + SOON_S

    run(main(), clock=clock)


def test_thousands_that_wait_cost_one_read_of_many_rows_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "PAGE", 500)
    clock = VirtualClock()

    async def main() -> None:
        driving = MemoryStore("w1", quiesced=False)
        store = Counted("w2", driving)
        async with starting(desk(), store, clock, max_active=0) as watching:
            runs = [await watching.submit("greets", number) for number in range(1_200)]
            results = [asyncio.ensure_future(run.result()) for run in runs]
            following = asyncio.ensure_future(_followed(runs[0]))
            await clock.sleep(3 * LOOK_S)
            store.reads.clear()
            await clock.sleep(10 * LOOK_S)
            looks = store.reads.pop("positions")
            assert store.reads.pop("positions of runs") == 1_200 * looks // 3
            assert looks % 3 == 0
            assert 8 * 3 <= looks <= 10 * 3
            assert store.reads == {}
            async with starting(desk(), driving, clock):
                found = await asyncio.wait_for(asyncio.gather(*results), 60.0)
            assert all(result.ok for result in found)
            assert await following == len(driving.tables.runs[runs[0].id].events)
            store.reads.clear()
            await clock.sleep(5 * LOOK_S)
            assert store.reads == {}, "nobody waits any more"

    run(main(), clock=clock)


async def _followed(handle) -> int:
    return len([entry async for entry in handle.follow() if entry.seq])


def test_what_this_process_drives_is_not_looked_for() -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = Counted("w1")
        async with starting(desk(latency_s=10.0), store, clock) as runtime:
            run = await runtime.submit("slow", "please")
            result = asyncio.ensure_future(run.result())
            await clock.sleep(15.0)
            assert store.reads["positions"] == 0
            assert (await result).ok

    run(main(), clock=clock)


def test_a_delta_costs_no_read() -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = Counted("w1")
        async with starting(desk(), store, clock) as runtime:
            run = await runtime.submit("refunds", "please", user="ada")
            await run.rest()
            seen: list[Entry] = []

            async def follow() -> None:
                async for entry in run.follow():
                    seen.append(entry)

            following = asyncio.ensure_future(follow())
            await clock.sleep(0.0)
            length = len(seen)
            store.reads.clear()
            for number in range(100):
                runtime.parts.hub.delta(run.id, f"d{number}")
            while len(seen) < length + 100:
                await clock.sleep(0.0)
            assert [entry.delta for entry in seen[length:]] == [f"d{number}" for number in range(100)]
            assert store.reads == {}

            await runtime.cancel(run.id)
            await following
            assert [entry.seq for entry in seen if entry.seq] == list(range(1, len(store.tables.runs[run.id].events) + 1))

    run(main(), clock=clock)


def test_a_follower_that_was_cut_off_goes_on_from_the_journal() -> None:
    clock = VirtualClock()

    async def main() -> None:
        store = MemoryStore("w1")
        async with starting(desk(), store, clock) as runtime:
            run = await runtime.submit("refunds", "please", user="ada")
            rested = await run.rest()
            following = run.follow()
            shown = [(await anext(following)).seq for _ in range(len(store.tables.runs[run.id].events))]
            # It has not asked for more since; the queue is full of deltas when the run goes on, so that an event finds no room.
            more = asyncio.ensure_future(anext(following))
            await clock.sleep(0.0)
            for number in range(3_000):
                runtime.parts.hub.delta(run.id, f"d{number}")
            await runtime.approve(rested.waiting_on[0].partition(":")[2], by="bob")
            await run.result()
            entries = [await more, *[entry async for entry in following]]
            shown += [entry.seq for entry in entries if entry.seq]
            assert shown == list(range(1, len(store.tables.runs[run.id].events) + 1))
            assert clock.monotonic_s() < LOOK_S, "it reads the journal because it was cut off, not because of the next look"

    run(main(), clock=clock)
