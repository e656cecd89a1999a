"""Ready runs are begun by priority, and nothing waits for ever; on both stores alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.app.deck import Quarterdeck
from quarterdeck.core.commit import Claim, Claimed, Commit, NewRun, Record
from quarterdeck.core.fairness import AGEING_US, URGENCY, less_urgent, ready_from_us
from quarterdeck.core.vocabulary import Priority
from quarterdeck.ports.model import Message
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.memory import MemoryStore
from tests.app.desk import starting

T0_US = 10 * AGEING_US


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryStore | InlineJournal]:
    store = MemoryStore() if request.param == "memory" else InlineJournal(tmp_path / "store.db")
    yield store
    await store.close()


async def admitted(journal: MemoryStore | InlineJournal, run_id: str, priority: str, at_us: int) -> None:
    new = NewRun("t", "r", "a", "u", at_us, b"salt", priority=priority)
    await journal.submit(Commit(run_id, 0, 0, journal.incarnation, (Record(b"{}"),), at_us, new=new))


async def claimed(journal: MemoryStore | InlineJournal, limit: int = 100) -> list[str]:
    outcome = await journal.submit(Claim("w", limit, T0_US))
    assert isinstance(outcome, Claimed)
    return [run.run_id for run in outcome.runs]


async def test_the_urgent_go_first_and_among_equals_the_older(journal: MemoryStore | InlineJournal) -> None:
    for name, priority, at_us in (
        ("b1", "batch", T0_US),
        ("s1", "standard", T0_US + 1),
        ("i1", "interactive", T0_US + 2),
        ("old", "a word of an older version", T0_US + 3),
        ("b2", "batch", T0_US + 4),
        ("s2", "standard", T0_US + 5),
        ("i2", "interactive", T0_US + 6),
    ):
        await admitted(journal, name, priority, at_us)
    assert await claimed(journal, 3) == ["i1", "i2", "s1"]
    assert await claimed(journal) == ["old", "s2", "b1", "b2"]


async def test_who_has_waited_long_enough_goes_before_the_more_urgent(journal: MemoryStore | InlineJournal) -> None:
    await admitted(journal, "batch", "batch", T0_US)
    await admitted(journal, "standard", "standard", T0_US + AGEING_US + 1)
    await admitted(journal, "interactive", "interactive", T0_US + 2 * AGEING_US + 2)
    assert await claimed(journal) == ["batch", "standard", "interactive"]


@given(st.sampled_from(Priority), st.sampled_from(Priority), st.integers(0, 2**50), st.integers(0, 2**50))
def test_a_class_is_worth_a_bounded_time(one: Priority, other: Priority, one_us: int, other_us: int) -> None:
    ahead_us = (URGENCY.index(other) - URGENCY.index(one)) * AGEING_US
    assert ready_from_us(one, one_us) - ready_from_us(other, other_us) == one_us - other_us - ahead_us
    assert {less_urgent(one, other), less_urgent(other, one)} == {max(one, other, key=URGENCY.index)}


def test_a_runtime_begins_runs_by_the_priority_of_their_routes() -> None:
    clock, begun = VirtualClock(), []

    def reply(messages: tuple[Message, ...]) -> str:
        begun.append(messages[-1].content)
        return "done"

    async def main() -> None:
        deck = Quarterdeck("queue")
        deck.agent("work", model=ScriptedModel(reply, latency_s=1.0))
        for priority in ("batch", "standard", "interactive"):
            deck.route(priority, "work", priority=priority)
        async with starting(deck, MemoryStore("w1"), clock, max_active=1) as runtime:
            first = await runtime.submit("standard", "first")
            await clock.sleep(0.5)
            order = ("batch", "standard", "interactive", "batch", "interactive", "standard")
            runs = [await runtime.submit(route, f"{route} {at}") for at, route in enumerate(order)]
            low = await runtime.submit("interactive", "lowered", priority="batch")
            await asyncio.gather(*[run.result() for run in (first, *runs, low)])

    run(main(), clock=clock)
    assert begun == [
        "first", "interactive 2", "interactive 4", "standard 1", "standard 5", "batch 0", "batch 3", "lowered",
    ]  # fmt: skip
