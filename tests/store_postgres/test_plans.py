"""The statements of the hot path find their rows through indexes, however many there are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from quarterdeck.core.commit import (
    Charge,
    Claim,
    Commit,
    DecidePost,
    Deliver,
    Free,
    Head,
    Op,
    Purge,
    Record,
    SettlePost,
    Take,
    TakePosts,
)
from quarterdeck.core.events import Move
from quarterdeck.core.outbox import Post
from quarterdeck.store.postgres.opening import Connection, prepare
from quarterdeck.store.postgres.statements import load
from quarterdeck.store.postgres.visitor import applied
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import T0_US, admission

ROWS = 100_000
SMALL = {"facts", "owners", "meta"}
"""Tables of a few rows, which are read whole."""
FILL = f"""
INSERT INTO runs (run_id, status, seq, epoch, worker, owner, head, wake_at_us, updated_at_us)
SELECT 'n' || n, CASE WHEN n % 10 = 0 THEN 'queued' WHEN n % 10 < 3 THEN 'running' WHEN n % 10 < 5 THEN 'waiting' ELSE 'succeeded' END, 2,
    1, CASE WHEN n % 10 IN (1, 2) THEN 'w' END, CASE WHEN n % 10 IN (1, 2) THEN n % 7 + 10 END, sha256(n::text::bytea),
    CASE WHEN n % 10 = 3 THEN {T0_US} + n END, {T0_US} FROM generate_series(1, {ROWS}) AS n;
INSERT INTO contracts SELECT id, 'tenant' || id % 50, 'route' || id % 5, 'a', 'ada', {T0_US}, 'c' || id, NULL, NULL, 'standard', ''
FROM runs;
INSERT INTO events SELECT id, s, 'body', NULL, head FROM runs, generate_series(1, 2) AS s;
INSERT INTO payloads SELECT id, 1, 'payload' FROM runs;
INSERT INTO ready SELECT id, {T0_US} + id FROM runs WHERE status = 'queued';
INSERT INTO inbox (run, kind, body, at_us, token, consumed) SELECT id, 'signal', '', {T0_US}, 't', id % 100 <> 0 FROM runs;
INSERT INTO approvals SELECT 'a' || id, id, 'c', 't', 'd', 'ada', {T0_US} + id, '',
    CASE WHEN id % 100 = 0 THEN 'pending' ELSE 'approved' END FROM runs;
INSERT INTO accounts SELECT 'x' || n, 'tokens', NULL, 0, 0 FROM generate_series(1, 20000) AS n;
UPDATE runs SET line = 'line' || id % 500, behind = id >= 500 WHERE status <> 'succeeded';
INSERT INTO outbox (run, message, lane, topic, key, body, headers, at_us, status)
SELECT id, 'm' || id, 'lane' || id % 9000, 't', 'k', '', '[]', {T0_US}, CASE WHEN id % 3 = 0 THEN 'delivered' ELSE 'queued' END FROM runs;
INSERT INTO lanes SELECT 'lane' || n, {T0_US} + n FROM generate_series(0, 8999) AS n;
INSERT INTO exclusive SELECT 'x' || id, id, 'c' FROM runs WHERE id % 5 = 0;
INSERT INTO idempotency SELECT 'acme', 'k' || id, id, 'd', {T0_US} FROM runs;
"""  # noqa: S608 - numbers of our own


@pytest.fixture(scope="module")
def crowd(postgres: Server) -> Iterator[Connection]:
    """A session like a runtime's on a database with very many rows, which tells its plans."""
    with postgres.fresh() as dsn:
        prepare(dsn, 1)
        target = make_conninfo(postgres.dsn, dbname=conninfo_to_dict(dsn)["dbname"])
        with psycopg.connect(target, autocommit=True) as db:
            db.execute("SET search_path = quarterdeck, pg_temp")
            db.execute(FILL.encode())
            db.execute("VACUUM ANALYZE")
            for setting in ("log_min_duration = 0", "log_nested_statements = on"):
                db.execute(f"LOAD 'auto_explain'; SET auto_explain.{setting}".encode())
            db.execute("SET client_min_messages = log")
            db.execute(load("open")["session"])
            db.execute(f"SET ROLE {postgres.role}".encode())
            yield db


def scanned(db: Connection, ops: list[Op]) -> tuple[set[str], int]:
    """The tables that were read whole while these operations were applied, and how many plans told so."""
    plans: list[str] = []

    def told(notice: psycopg.errors.Diagnostic) -> None:
        plans.append(notice.message_primary or "")

    db.add_notice_handler(told)
    try:
        outcomes = applied(db, 1, ops, 60.0)
    finally:
        db.remove_notice_handler(told)
    refused = [outcome for outcome in outcomes if getattr(outcome, "guard", "post") != "post"]
    assert not refused, refused
    return {name for plan in plans for name in whole(plan)}, len(plans)


def whole(plan: str) -> list[str]:
    """The tables that a plan reads from end to end: by themselves, or through an index without a condition, as far as no limit ends it;
    a limit does not where a filter may drop all that is found.
    """
    found = re.findall(r"Seq Scan on (\w+)", plan)
    lines = plan.splitlines()
    for at, line in enumerate(lines):
        index = re.search(r"Index (?:Only )?Scan using \w+ on (\w+)", line)
        said = lines[at + 1] if at + 1 < len(lines) else ""
        if index and "Index Cond" not in said and ("Limit" not in plan or "Filter" in said):
            found.append(index[1])
    return found


def append(number: int, **changes: object) -> Commit:
    commit = Commit(f"n{number}", 2, 1, 1, (Record(b"{}", b"payload"),), T0_US, control=0, facts={"policy": 0})
    return commit if not changes else Commit(**{**{name: getattr(commit, name) for name in commit.__struct_fields__}, **changes})


def ended(number: int) -> Commit:
    """The end of a run that stands first in its line, with all that a commit may carry."""
    return append(
        number,
        head=Head("succeeded", "completed", "done", release=True),
        delivers=(Deliver("n14", "child", b"{}", T0_US, "told"),),
        outbox=(Post("new-message", "lane7", "t", "k", b"{}"),),
        takes=(Take("x-new", "c"),),
        frees=(Free("x5", "c"),),
    )


OPS: dict[str, list[Op]] = {
    "line": [admission("in-line", ordering_key="k"), admission("behind", ordering_key="k")],
    "end": [ended(22)],
    "take": [TakePosts(64, T0_US + 9_000, 60_000_000)],
    "settle": [SettlePost(1, "lane1", 0, "delivered", T0_US), DecidePost("m2", "drop", "ada", "", T0_US)],
    "purge": [Purge("route1", T0_US * 2, 1, 0, 100)],
    "cancel": [Deliver("n13", "cancel", b"{}", T0_US, "cancel")],
    "claim": [Claim("w1", 256, T0_US + ROWS // 2, "t")],
    "claim_own": [Claim("w3", 256, T0_US + ROWS // 2, "t", ("one", "other"))],
    "append": [append(number) for number in (1, 2, 11, 12)],
    "charge": [append(21, charges=(Charge(Move("x7", "tokens", leased=1)),), inbox=(21,))],
    "repeat": [append(31, seq=0, records=(Record(b"body", b"payload"), Record(b"body")))],
    "admit": [admission("new", key="new"), admission("newer", key="newer")],
    "deliver": [Deliver("n4", "signal", b"", T0_US, "new"), Deliver("n5", "signal", b"", T0_US, "t")],
}


@pytest.mark.parametrize("name", OPS)
def test_no_large_table_is_read_whole(name: str, crowd: Connection) -> None:
    tables, plans = scanned(crowd, OPS[name])
    assert plans > 3, "the plans were told"
    assert tables <= SMALL


@pytest.mark.parametrize("name", ["due", "events", "inbox", "keyed", "positions", "salt"])
def test_reads_of_one_run_are_as_frugal(name: str, crowd: Connection) -> None:
    values = {"due": (None, None, T0_US), "events": ("n7", 0, 100), "keyed": ("acme", "k7", 0), "positions": (["n7", "n8"],)}.get(
        name, ("n7",)
    )
    plan = "\n".join(str(row[0]) for row in crowd.execute("EXPLAIN " + load("read")[name], values))
    assert set(whole(plan)) <= ({*SMALL, "ready"} if name == "due" else SMALL), "one row of the queue is enough"


def test_it_is_noticed_without_an_index(crowd: Connection) -> None:
    crowd.execute("BEGIN")
    crowd.execute("DROP INDEX runs_to_wake")
    try:
        tables, _ = scanned(crowd, [Claim("w2", 1, T0_US, "t2")])
        assert tables - SMALL
    finally:
        crowd.execute("ROLLBACK")
