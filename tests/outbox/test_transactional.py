"""Tools that write the author's own tables: exactly once, with the receipt, or not at all; never the store's own tables."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import psycopg
import pytest

from quarterdeck import Quarterdeck, ToolContext, UsageError
from quarterdeck.app.starting import Starting
from quarterdeck.core.commit import Statement
from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.composing import Unwritable, composed
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from tests.outbox.till import TABLES, till
from tests.workflows.stage import opening

Query = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture(params=["sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Starting], Query]:
    """A store with the author's tables beside its own, and a look into them."""
    if request.param == "postgres":
        dsn = request.getfixturevalue("database")

        def ask(sql: str) -> list[tuple[object, ...]]:
            with psycopg.connect(dsn, autocommit=True) as db:
                cursor = db.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []

        def start() -> Starting:
            return till().start(open_store=open_store(dsn))

    else:
        path = tmp_path / "store.db"

        def ask(sql: str) -> list[tuple[object, ...]]:
            db = apsw.Connection(str(path))
            db.set_busy_timeout(5_000)
            try:
                return db.execute(sql).fetchall()
            finally:
                db.close()

        def start() -> Starting:
            return till().start(path)

    async with start():
        pass
    for statement in TABLES:
        ask(statement)
    return start, ask


async def test_statements_message_and_receipt_are_one(place: tuple[Callable[[], Starting], Query]) -> None:
    start, ask = place
    async with start() as rt:
        result = await (await rt.submit("buy", {"cents": 300})).result(20.0)
        assert (result.status, result.text) == ("succeeded", "paid")
        refused = await (await rt.submit("buy", {"cents": 701})).result(20.0)
        assert (refused.status, refused.code) == ("failed", "tool.statement"), "the author's own constraint refuses it"
        stale = await (await rt.submit("buy", {"cents": 1, "version": 1})).result(20.0)
        assert (stale.status, stale.code) == ("failed", "tool.statement"), "another has changed it since"
        current = await (await rt.submit("buy", {"cents": 1, "version": 2})).result(20.0)
        assert current.status == "succeeded"
        assert len(rt.insights.posts()) == 2, "what was refused publishes nothing"
        assert rt.insights.posts()[0].body == b'{"cents":1,"said":"it\'s $1"}'
    assert ask("SELECT cents, version FROM accounts_of_ours") == [(699, 3)]
    assert sorted(ask("SELECT cents FROM payments")) == [(1,), (300,)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE runs SET seq = 0",
        "UPDATE quarterdeck.runs SET seq = 0",
        "DELETE FROM events",
        "INSERT INTO nowhere VALUES (1)",
        "this is no statement",
        "COMMIT",
        "SELECT $1",
    ],
)
async def test_the_tables_of_the_store_are_not_an_authors(place: tuple[Callable[[], Starting], Query], sql: str) -> None:
    start, _ = place
    async with start() as rt:
        result = await (await rt.submit("try", sql)).result(20.0)
        assert (result.status, result.code) == ("failed", "tool.statement")
        after = await (await rt.submit("buy", {"cents": 5})).result(20.0)
        assert after.status == "succeeded", "and the store goes on"


async def test_a_process_killed_before_its_receipt_has_done_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with till().start(path):
        pass
    db = apsw.Connection(str(path))
    for statement in TABLES:
        db.execute(statement)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in (*sys.path, os.getcwd()) if entry)}
    ended = []
    for how in ("dies", "lives"):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.outbox.till", str(path), how, env=env, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        ended.append((child.returncode, said))
        if not ended[1:]:
            assert db.execute("SELECT count(*) FROM payments").fetchall() == [(0,)], "nothing is done before its receipt"
    assert ended == [(-9, b""), (0, b"succeeded\n")]
    assert db.execute("SELECT cents FROM accounts_of_ours").fetchall() == [(700,)]
    assert db.execute("SELECT count(*), sum(cents) FROM payments").fetchall() == [(1, 300)]
    db.close()


def test_a_store_without_tables_says_so() -> None:
    async def scene() -> str:
        clock = VirtualClock()
        async with opening(till(), MemoryStore("w1"), clock) as rt:
            return (await (await rt.submit("buy", {"cents": 1})).result(20.0)).code

    assert run(scene(), clock=VirtualClock()) == "tool.statement"


def test_what_a_transactional_tool_cannot_be() -> None:
    deck = Quarterdeck("d")
    with pytest.raises(UsageError, match=r"tool\.transactional"):

        @deck.tool(effect="write", transactional=True)
        def blind(what: str) -> None: ...

    with pytest.raises(UsageError, match=r"tool\.not_transactional"):
        ToolContext("r", "c", "t", "a", "k").publish("orders", {})
    with pytest.raises(UsageError, match=r"tool\.exclusive"):

        @deck.tool(effect="write", exclusive="invoice:{number}")
        def pay(invoice: str) -> None: ...


@pytest.mark.parametrize(
    "sql", ["SELECT E'a\\' $1'", "SELECT $$ $1 $$", "SELECT $tag$ x $tag$", "SELECT U&'d'", "SELECT 'a\\'", "SELECT $2"]
)
def test_spellings_in_which_a_value_could_escape_are_refused(sql: str) -> None:
    with pytest.raises(Unwritable):
        composed(Statement(sql, ("x",)))


def test_values_are_quoted_by_the_driver_and_texts_left_alone() -> None:
    said = composed(Statement("SELECT '$1', \"$1\", $1 /* $1 */, $2::int -- $2", ("'; DROP TABLE x; --", -5)))
    assert said == "SELECT '$1', \"$1\",  '''; DROP TABLE x; --' /* $1 */,   -5::int -- $2"
