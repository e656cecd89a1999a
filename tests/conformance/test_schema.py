"""A file of an earlier version is brought to this one's schema by its owner, whole or not at all, and is not touched by others before."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from quarterdeck.core.commit import AddKey, Applied, SetFact
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Grant, Role
from quarterdeck.store.chain import verify_run
from quarterdeck.store.sqlite import opening
from quarterdeck.store.sqlite.opening import APPLICATION_ID, SCHEMA, connect, prepare
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.store.sqlite.statements import schema
from quarterdeck.store.sqlite.visitor import visit
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.samples import T0_US, admission

KEY = AddKey("aaaaaaaaaa", bytes(32), "ci", "ada", (Grant("acme", Role.VIEWER),), "root", T0_US)


async def old_store(path: Path) -> None:
    """A store as the first schema has it, with a run in it."""
    journal = InlineJournal(path)
    await journal.submit(admission("r1"))
    await journal.submit(SetFact("switches", "[]", T0_US))
    await journal.close()
    db = connect(path)
    db.execute("DROP TABLE api_keys; DROP TABLE audit; DROP INDEX contracts_by_tenant; DROP INDEX contracts_by_correlation")
    for table in ("outbox", "lanes", "exclusive", "erasures"):
        db.execute(f"DROP TABLE {table}")
    for index in ("runs_in_line", "approvals_by_run", "idempotency_by_run"):
        db.execute(f"DROP INDEX {index}")
    for column in ("line", "behind"):
        db.execute(f"ALTER TABLE runs DROP COLUMN {column}")
    db.execute("DROP TABLE dead_letters; DROP INDEX runs_dead; ALTER TABLE contracts DROP COLUMN needs")
    db.execute("ALTER TABLE runs DROP COLUMN deaths; PRAGMA user_version = 1")
    db.close()


def layout(path: Path) -> list[tuple[object, ...]]:
    db = connect(path, readonly=True)
    found = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    version = db.pragma("user_version")
    db.close()
    return [("version", version), *found]


async def test_an_owner_migrates_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await old_store(path)
    insights = SqliteInsights(path)
    assert (insights.key("aaaaaaaaaa"), list(insights.keys())) == (None, [])
    journal = InlineJournal(path)
    assert isinstance(await journal.submit(KEY), Applied)
    assert insights.key("aaaaaaaaaa") is not None
    assert verify_run(insights, "r1") == 1
    assert [row.name for row in insights.facts()] == ["switches"]
    insights.close()
    await journal.close()
    InlineJournal(tmp_path / "new.db")
    assert layout(path) == layout(tmp_path / "new.db")


async def test_a_visitor_migrates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await old_store(path)
    before = layout(path)
    with pytest.raises(UsageError, match=r"store\.older"):
        visit(path, KEY)
    assert layout(path) == before
    prepare(path, 1)
    assert isinstance(visit(path, KEY), Applied)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    await old_store(path)
    before = layout(path)
    monkeypatch.setattr(opening, "schema", lambda version: schema(version) + "; CREATE TABLE runs (again)")
    with pytest.raises(apsw.SQLError):
        prepare(path, 1)
    assert layout(path) == before
    monkeypatch.undo()
    prepare(path, 1)
    assert layout(path)[0] == ("version", SCHEMA)


def test_the_first_schema_never_changes(tmp_path: Path) -> None:
    """Files out there have it; what is new belongs into the next one."""
    db = connect(tmp_path / "old.db")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(schema(1))
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    db.close()
    assert "api_keys" not in names
    assert {"runs", "events", "inbox", "approvals", "facts"} <= set(names)


@pytest.mark.parametrize(
    ("which", "index"),
    [
        ({"tenants": ["acme"]}, "contracts_by_tenant"),
        ({"correlation": "c1"}, "contracts_by_correlation"),
        ({"route": "a"}, "contracts_by_route"),
    ],
)
async def test_a_filtered_list_reads_an_index_and_sorts_nothing(tmp_path: Path, which: dict, index: str) -> None:
    """However many runs there are, a page costs what it shows."""
    path = tmp_path / "store.db"
    prepare(path, 1)
    insights, asked = SqliteInsights(path), []
    insights._db.exec_trace = lambda _, statement, values: asked.append((statement, values)) or True
    insights.runs(**which, limit=50)
    insights._db.exec_trace = None
    [(statement, values)] = asked
    plan = [str(row[3]) for row in insights._db.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    insights.close()
    assert any(index in step for step in plan), plan
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in plan), plan
