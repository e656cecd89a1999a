"""A commit that was slow only because it waited for its turn: its guards are as new as those of a quick one, and nothing is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from quarterdeck import Budget, Quarterdeck
from quarterdeck.app.clock import SystemClock
from quarterdeck.core.commit import Commit, Deliver, InboxRow, Op, Outcome
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Submitted
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.inline import InlineJournal

QUICK_S, SLOW_S = 0.0, 5.0


class Skipping(SystemClock):
    """A clock that can be put forward."""

    ahead_s = 0.0

    def boottime_s(self) -> float:
        return super().boottime_s() + self.ahead_s

    def now_us(self) -> int:
        return super().now_us() + int(self.ahead_s * 1e6)


class Waiting(InlineJournal):
    """A store whose answers to intents take ``took_s``, of which they have waited ``waited_s`` to be sent; meanwhile somebody cancels."""

    def __init__(self, path: Path, clock: Skipping, took_s: float, waited_s: float) -> None:
        super().__init__(path)
        self.took_s, self.waited_s, self.clock = took_s, waited_s, clock
        self.cancels = False

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        answer = super().submit(op)
        if not isinstance(op, Commit) or not any(b'"kind":"tool.opened"' in item.body for item in op.records):
            return answer
        later = Submitted()
        later.waited_s = self.waited_s

        def answered(done: asyncio.Future[Outcome]) -> None:
            if self.cancels:
                self.applier.apply([Deliver(op.run_id, "cancel", b'{"by":"ada"}', op.at_us, "c1")])
            self.clock.ahead_s += self.took_s
            later.set_result(done.result())

        answer.add_done_callback(answered)
        return later


class Counting(SqliteInsights):
    """Counts how often an inbox is read."""

    reads = 0

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        self.reads += 1
        return super().inbox(run_id)


async def reads(
    folder: Path, took_s: float, waited_s: float, *, cancels: bool = False, limits: Budget | None = None
) -> tuple[int, int]:
    """How often the inbox of a run with one call was read, and how often its tool was called."""
    deck, clock = Quarterdeck("waiting"), Skipping()
    called: list[int] = []

    @deck.tool(effect="write", idempotent=True)
    async def put(row: int) -> str:
        called.append(row)
        return "put"

    deck.model("scripted", ScriptedModel([[("put", {"row": 1})], "done"]))
    deck.agent(
        "writer",
        model="scripted",
        instructions="Write.",
        tools=[put],
        autonomy="bounded_autonomous",
        budget=limits or Budget(turns=5),
    )
    deck.policy("permit(principal, action, resource);")
    opened: list[Counting] = []

    async def open_store(entropy: Entropy) -> tuple[Waiting, Counting]:
        journal = Waiting(folder / "s.db", clock, took_s, waited_s)
        journal.cancels = cancels
        opened.append(Counting(folder / "s.db"))
        return journal, opened[0]

    async with deck.start(open_store=open_store, clock=clock) as rt:
        await (await rt.submit("writer", "go")).rest(30.0)
    return opened[0].reads, len(called)


@pytest.mark.parametrize(
    ("took_s", "waited_s", "again"), [(QUICK_S, 0.0, 0), (SLOW_S, SLOW_S, 0), (SLOW_S, 0.0, 1), (SLOW_S, 3.0, 1)]
)
async def test_the_inbox_is_read_again_only_if_the_guards_are_old(
    tmp_path: Path, took_s: float, waited_s: float, again: int
) -> None:
    for name in ("usual", "this"):
        (tmp_path / name).mkdir()
    usual, _ = await reads(tmp_path / "usual", QUICK_S, 0.0)
    found, called = await reads(tmp_path / "this", took_s, waited_s)
    assert (found - usual, called) == (again, 1)


async def test_a_cancel_that_came_while_a_commit_was_applied_slowly_stops_the_call(tmp_path: Path) -> None:
    assert (await reads(tmp_path, SLOW_S, 0.0, cancels=True))[1] == 0


async def test_a_deadline_that_passed_while_a_commit_waited_stops_the_call(tmp_path: Path) -> None:
    assert (await reads(tmp_path, SLOW_S, SLOW_S, limits=Budget(turns=5, deadline="4s")))[1] == 0
