"""Two processes and one file: one owner, any number of visitors, and what remains when the owner dies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proof.owners import challenged, killed_owners
from proof.unknown import INCARNATION, admission
from quarterdeck.core.commit import (
    Applied,
    Ask,
    Claim,
    Claimed,
    Commit,
    DecideApproval,
    Deliver,
    Erase,
    Key,
    NewRun,
    Op,
    Record,
    Refused,
    SetAccount,
    SetFact,
)
from quarterdeck.core.contract import Limits
from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.store.sqlite.visitor import visit
from quarterdeck.testing.storeload import START_US

FAR_US = START_US + 10**12

VISIT = """
import sys, msgspec
from pathlib import Path
from quarterdeck.core.commit import Op
from quarterdeck.store.sqlite.visitor import visit
op = msgspec.msgpack.decode(bytes.fromhex(sys.argv[2]), type=Op)
print(visit(Path(sys.argv[1]), op))
"""


async def visited(path: Path, op: Op) -> str:
    """The answer that a visitor in a process of its own gets."""
    import msgspec

    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VISIT, str(path), msgspec.msgpack.encode(op).hex(), stdout=subprocess.PIPE, env=env
    )
    said, _ = await child.communicate()
    assert child.returncode == 0
    return said.decode().strip()


def test_a_second_owner_is_refused_until_the_first_and_its_writer_have_ended() -> None:
    assert challenged() == []


def test_a_writer_without_the_lock_is_found() -> None:
    assert challenged(share_lock=False) != []


def test_what_killed_owners_were_told_is_there() -> None:
    acknowledged, findings = killed_owners(3, 2)
    assert findings == []
    assert acknowledged > 0


def test_a_store_that_commits_seldom_is_found() -> None:
    assert killed_owners(2, 2, "seldom")[1] != []


async def test_a_second_owner_in_the_same_process_is_refused_at_once(tmp_path: Path) -> None:
    store = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    with pytest.raises(Unavailable) as caught:
        await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    assert (caught.value.code, caught.value.detail["holder"]) == ("store.owned", os.getpid())
    assert await store.submit(admission("r")) == Applied(1)
    await store.close()
    again = await SqliteJournal.open(tmp_path / "store.db", INCARNATION)
    await again.close()


async def test_visitors_reach_a_running_owner_and_it_notices(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteJournal.open(path, INCARNATION)
    noticed = asyncio.Event()
    store.hints(noticed.set)
    ask = Ask("a1", "t1.0", "refund", "d1", "alice", FAR_US, b"{}")
    assert await store.submit(admission("r1")) == Applied(1)
    claimed = await store.submit(Claim("w", 1, START_US, "c1"))
    assert isinstance(claimed, Claimed)
    epoch = claimed.runs[0].epoch
    assert await store.submit(Commit("r1", 1, epoch, INCARNATION, (Record(b"{}"),), START_US, asks=(ask,))) == Applied(2)

    ops: list[tuple[Op, str]] = [
        (Deliver("r1", "signal", b"hello", START_US, "token"), "Applied(number=1)"),
        (Deliver("r1", "signal", b"hello", START_US, "token"), "Applied(number=1)"),
        (DecideApproval("a1", "d1", "approved", "bob", "", START_US), "Applied(number=2)"),
        (SetFact("switches", "stop:refund", START_US), "Applied(number=1)"),
        (admission("r2"), "Applied(number=1)"),
    ]
    for op, expected in ops:
        noticed.clear()
        assert await visited(path, op) == expected
        if expected != "Applied(number=1)" or not isinstance(op, Deliver):
            async with asyncio.timeout(30):
                await noticed.wait()

    reader = SqliteInsights(path)
    control, inbox, _ = reader.inbox("r1")
    assert (control, [(row.kind, row.row) for row in inbox]) == (2, [("signal", 1), ("approval", 2)])
    assert [(fact.name, fact.version) for fact in reader.facts()] == [("switches", 1)]
    reader.close()

    # What the visitors did binds the owner: its commit was judged before them, and is refused.
    stale = Commit("r1", 2, epoch, INCARNATION, (Record(b"{}"),), START_US, control=0, facts={})
    assert await store.submit(stale) == Refused("control", "2")
    judged = Commit("r1", 2, epoch, INCARNATION, (Record(b"{}"),), START_US, control=2, facts={"switches": 0})
    assert await store.submit(judged) == Refused("facts", "switches")
    good = Commit("r1", 2, epoch, INCARNATION, (Record(b"{}"),), START_US, control=2, facts={"switches": 1}, inbox=(1, 2))
    assert await store.submit(good) == Applied(3)
    claimed = await store.submit(Claim("w", 5, START_US, "c2"))
    assert isinstance(claimed, Claimed)
    assert [run.run_id for run in claimed.runs] == ["r2"]
    await store.close()


async def test_visits_and_the_owner_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteJournal.open(path, INCARNATION)
    assert await store.submit(admission("r1")) == Applied(1)
    loop = asyncio.get_running_loop()
    visits = [
        loop.run_in_executor(None, visit, path, Deliver("r1", "signal", b"x", START_US, f"v{number}")) for number in range(20)
    ]
    own = [store.submit(Deliver("r1", "signal", b"x", START_US, f"o{number}")) for number in range(200)]
    outcomes = [*await asyncio.gather(*visits), *await asyncio.gather(*own)]
    assert sorted(outcome.number for outcome in outcomes if isinstance(outcome, Applied)) == list(range(1, 221))
    await store.close()
    reader = SqliteInsights(path)
    control, inbox, _ = reader.inbox("r1")
    reader.close()
    assert (control, len(inbox)) == (220, 220)


@pytest.mark.parametrize("op", [
    Claim("w", 1, START_US), Commit("r1", 1, 1, INCARNATION, (Record(b"{}"),), START_US),
])  # fmt: skip
async def test_visitors_never_append_or_claim(tmp_path: Path, op: Op) -> None:
    path = tmp_path / "store.db"
    store = await SqliteJournal.open(path, INCARNATION)
    await store.close()
    with pytest.raises(UsageError) as caught:
        visit(path, op)
    assert caught.value.code == "store.visitor"


def test_visitors_do_not_make_stores(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        visit(tmp_path / "store.db", SetFact("f", "v", 1))
    assert caught.value.code == "store.missing"
    assert list(tmp_path.iterdir()) == []


async def test_every_operation_can_be_sent_again(tmp_path: Path) -> None:
    """What an owner does after a writer's death, operation by operation: the second answer is the first."""
    path = tmp_path / "store.db"
    store = await SqliteJournal.open(path, INCARNATION)
    key = Key("t", "k", "digest", FAR_US)
    admit = Commit(
        "r1", 0, 0, INCARNATION, (Record(b"{}", b"p"),), START_US, new=NewRun("t", "r", "a", "u", 1, bytes(16)), key=key
    )
    claim = Claim("w", 1, START_US, "c1")
    ask = Ask("a1", "t1.0", "refund", "d1", "alice", FAR_US, b"{}")
    ops: list[Op] = [
        admit,
        claim,
        Commit("r1", 1, 1, INCARNATION, (Record(b"{}"),), START_US, asks=(ask,), control=0),
        Deliver("r1", "signal", b"x", START_US, "token"),
        DecideApproval("a1", "d1", "approved", "bob", "", START_US),
        SetFact("f", "v", START_US),
        SetAccount("all", Limits(tokens=5)),
        Erase("r1", START_US),
    ]
    for op in ops:
        first = await store.submit(op)
        assert await store.submit(op) == first, op
        if not isinstance(op, Erase):
            assert not isinstance(first, Refused), first
    await store.close()
    reader = SqliteInsights(path)
    assert [event.seq for event in reader.events("r1")] == [1, 2]
    assert reader.inbox("r1")[0] == 2
    reader.close()
