"""Where many runs stand, in one read: the same as each run's own row says, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.app.views import is_at_rest
from quarterdeck.core.commit import Claim, Claimed, Commit, Head, NewRun, Record
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.memory import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Journal, Insights]]:
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, memory
        await memory.close()
        return
    journal = InlineJournal(tmp_path / "store.db")
    insights = SqliteInsights(tmp_path / "store.db")
    yield journal, insights
    insights.close()
    await journal.close()


async def test_positions_are_what_the_rows_say(store: tuple[Journal, Insights]) -> None:
    journal, insights = store
    names = ["queued", "held", "waiting", "ended", 'odd "name"', "naïve"]
    heads = {"waiting": Head("waiting", release=True), "ended": Head("succeeded", release=True), "held": Head("running")}
    for at_us, name in enumerate(names[::-1]):
        new = NewRun("t", "r", "a", "u", at_us, b"salt")
        await journal.submit(Commit(name, 0, 0, journal.incarnation, (Record(b"{}"),), at_us, new=new))
    claimed = await journal.submit(Claim("w", 5, 10))
    assert isinstance(claimed, Claimed)
    for run in claimed.runs:
        head = heads.get(run.run_id)
        if head is not None:
            records = (Record(b"{}"), Record(b"{}"))
            await journal.submit(Commit(run.run_id, run.seq, run.epoch, journal.incarnation, records, 11, head=head))
    found = {position.run_id: position for position in insights.positions([*names, "nobody"])}
    assert found.keys() == set(names)
    for name in names:
        row = insights.run(name)
        assert row is not None
        assert (found[name].seq, found[name].status, found[name].worker) == (row.seq, row.status, row.worker)
    assert {name for name in names if is_at_rest(found[name])} == {"waiting", "ended"}
    assert insights.positions([]) == []
