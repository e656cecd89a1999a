"""Runs that are claimed together are read together, and what was read stands only for who claimed them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quarterdeck import Quarterdeck
from quarterdeck.app.clock import SystemEntropy
from quarterdeck.core.commit import ClaimedRun, InboxRow
from quarterdeck.engine.openings import SHORT, TOGETHER, Openings
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Opening
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.memory import MemoryStore


class Shelf(MemoryStore):
    """A store of which only openings are read; each run's epoch is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        self.asked.append(list(run_ids))
        return [Opening(run_id, 1, 7, b"salt", []) for run_id in run_ids if run_id != "told"]


def runs(*names: str, seq: int = 1, epoch: int = 1) -> list[ClaimedRun]:
    return [ClaimedRun(name, seq, epoch) for name in names]


def test_each_is_read_once_with_those_behind_it() -> None:
    shelf, openings = Shelf(), Openings()
    claimed = runs(*[f"r{number}" for number in range(TOGETHER + 2)])
    openings.expect(claimed)
    found = [openings.take(shelf, run) for run in claimed]
    assert [one.run_id for one in found if one is not None] == [run.run_id for run in claimed]
    assert [len(asked) for asked in shelf.asked] == [TOGETHER, 2]
    assert openings.take(shelf, claimed[0]) is None, "a run that is driven again is read again, by itself"


def test_what_belongs_to_others_is_not_given() -> None:
    shelf, openings = Shelf(), Openings()
    openings.expect([*runs("later", epoch=2), *runs("told", "first"), *runs("long", seq=SHORT + 1)])
    assert openings.take(shelf, *runs("later", epoch=2)) is None, "somebody has it under another epoch"
    assert openings.take(shelf, *runs("told")) is None, "somebody has written to it"
    assert openings.take(shelf, *runs("long", seq=SHORT + 1)) is None
    assert shelf.asked == [["later", "told", "first"]]
    openings.expect(runs("next"))
    assert openings.take(shelf, *runs("first")) is None, "what was read for an earlier claim is forgotten"


class Counting(SqliteInsights):
    """Notes how many openings are read at once, and whose inboxes are read by themselves."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened: list[int] = []
        self.alone: list[str] = []
        self.within = False

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        self.opened.append(len(run_ids))
        self.within = True
        try:
            return super().openings(run_ids)
        finally:
            self.within = False

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        if not self.within:
            self.alone.append(run_id)
        return super().inbox(run_id)


async def test_a_cancelled_run_is_read_by_itself_and_the_others_are_not(tmp_path: Path) -> None:
    deck = Quarterdeck("together")
    deck.model("scripted", ScriptedModel(["done"]))
    deck.agent("writer", model="scripted", instructions="Write.")
    deck.policy("permit(principal, action, resource);")
    opened: list[Counting] = []

    async def open_store(entropy: Entropy) -> tuple[InlineJournal, Counting]:
        opened.append(Counting(tmp_path / "t.db"))
        return InlineJournal(tmp_path / "t.db"), opened[-1]

    InlineJournal(tmp_path / "t.db")
    async with deck.start(open_store=open_store, entropy=SystemEntropy(), work=False) as rt:
        waiting = [(await rt.submit("writer", number)).id for number in range(3)]
        await rt.cancel(waiting[1], by="ada")
    async with deck.start(open_store=open_store, entropy=SystemEntropy()) as rt:
        results = [await rt.handle(run_id).result() for run_id in waiting]
    assert [result.status for result in results] == ["succeeded", "cancelled", "succeeded"]
    assert opened[-1].opened == [3]
    assert set(opened[-1].alone) == {waiting[1]}
