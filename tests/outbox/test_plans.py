"""In the file, too, no statement about lines, lanes and retention reads a table from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.store.sqlite.opening import connect, prepare
from quarterdeck.store.sqlite.statements import load

STATEMENTS = (
    *("insert_run_in_line", "first_in_line", "pick_ready", "due_lanes", "first_post", "hold_lane", "free_lane", "withdraw_posts"),
    *("erase_posts", "lanes_of", "take_key", "key_holder", "free_key", "old_runs", "open_posts", "purge_approvals", "purge_key"),
)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_table_is_read_whole(name: str, tmp_path: Path) -> None:
    prepare(tmp_path / "store.db", 1)
    db = connect(tmp_path / "store.db")
    sql = load("write")[name]
    values = (None,) * _places(sql)
    found = db.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    db.close()
    scans = [line for *_, line in found if line.startswith("SCAN") and line != "SCAN CONSTANT ROW"]
    if name == "pick_ready":
        oldest, *named = scans
        assert oldest == "SCAN ready USING COVERING INDEX ready_by_time", "the oldest rows of the queue, up to a limit"
        assert [line.split(" VIRTUAL")[0] for line in named] == ["SCAN json_each"], "the code that there is here"
    else:
        assert scans == []


def _places(sql: str) -> int:
    numbered = [int(part[0]) for part in sql.split("?")[1:] if part[:1].isdigit()]
    return max(numbered, default=sql.count("?"))
