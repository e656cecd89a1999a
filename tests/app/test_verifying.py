"""What journals and the audit log do not say of a row is found, in both stores; what nobody has touched is right, also after removals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import psycopg
import pytest

from proof.tampering import desk
from quarterdeck import Budget
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.verifying import check_runs, check_store
from quarterdeck.cli.storefile import Where, ask_store, reading
from quarterdeck.core.commit import Applied, Op, Purge, Purged, Refused
from quarterdeck.server.identity import ensure_first_admin
from quarterdeck.store import postgres
from quarterdeck.store.postgres import open_store
from quarterdeck.store.sqlite.visitor import visit

Change = Callable[[str], None]
"""Executes a statement on the store, past its rules."""


@asynccontextmanager
async def serving(where: Where) -> AsyncIterator[Runtime]:
    deck = desk()
    start = deck.start(where) if isinstance(where, Path) else deck.start(open_store=open_store(where))
    async with start as runtime:
        yield runtime


async def paid(runtime: Runtime, by: str) -> str:
    run = await runtime.submit("clerk", "pay", user="ada", tenant="acme")
    await run.rest(20)
    [row] = runtime.approvals()
    await runtime.approve(row.approval, by=by, reason="known")
    await run.result(20)
    return run.id


async def worked(where: Where) -> list[str]:
    """Two runs with an answer, the first of which is removed, and one that waits; orders of every kind. The two that stay."""
    async with serving(where) as runtime:
        await paid(runtime, "bob")
    op = Purge("clerk", SystemClock().now_us(), 0)
    outcome = visit(where, op) if isinstance(where, Path) else postgres.visit(where, op)
    assert isinstance(outcome, Purged) and outcome.removed == 1

    async def apply(op: Op) -> Applied | Refused:
        return ask_store(where, op)

    with reading(where) as insights:
        await ensure_first_admin(apply, insights, SystemClock(), SystemEntropy())
    async with serving(where) as runtime:
        await runtime.switch("deny_tenant:umbrella", by="eve", reason="unpaid")
        await runtime.raise_account("all", Budget(tools=60), by="eve", reason="more")
        first = await paid(runtime, "joe")
        waits = await runtime.submit("clerk", "pay", user="ada", tenant="acme")
        await waits.rest(20)
    return [first, waits.id]


def codes(where: Where) -> set[str]:
    with reading(where) as insights:
        return {wrong.code for wrong in check_store(insights, lambda _: None).findings}


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Where, Change]:
    if request.param == "sqlite":
        path = tmp_path / "s.db"

        def on_file(sql: str) -> None:
            apsw.Connection(str(path)).execute(sql)

        return path, on_file
    dsn: str = request.getfixturevalue("database")

    def on_server(sql: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute("SET search_path = quarterdeck")
            db.execute(sql.encode())

    return dsn, on_server


CHANGES = {
    "UPDATE approvals SET decided_by = 'mal' WHERE status = 'approved'": "approval.answer",
    "UPDATE approvals SET digest = 'd' WHERE status = 'pending'": "approval.row",
    "UPDATE approvals SET requested_by = 'nobody' WHERE status = 'pending'": "approval.row",
    "UPDATE approvals SET status = 'approved', decided_by = 'bob' WHERE status = 'pending'": "approval.answer",
    "DELETE FROM approvals": "approval.lost",
    "UPDATE accounts SET committed = committed - 1 WHERE account = 'all' AND dimension = 'tool_calls'": "ledger.account",
    "UPDATE accounts SET reserved = reserved + 1 WHERE account = 'route:clerk' AND dimension = 'tokens'": "ledger.account",
    "DELETE FROM accounts WHERE account = 'tenant:acme' AND dimension = 'tool_calls'": "ledger.lost",
    "UPDATE accounts SET bound = 600 WHERE account = 'all' AND dimension = 'tool_calls'": "ledger.limit",
    "UPDATE facts SET value = '[]' WHERE name = 'switches'": "fact.switches",
    "UPDATE facts SET value = replace(value, 'umbrella', 'other') WHERE name = 'switches'": "fact.switches",
    "UPDATE facts SET value = 'other' WHERE name = 'policy'": "fact.policy",
    "UPDATE contracts SET tenant = 'umbrella'": "journal.row",
    "UPDATE runs SET status = 'cancelled' WHERE status = 'succeeded'": "journal.row",
    "UPDATE api_keys SET subject = 'mal'": "key.changed",
    "DELETE FROM api_keys": "key.lost",
}


async def test_each_change_of_a_row_is_found_and_told_by_its_code(store: tuple[Where, Change]) -> None:
    where, change = store
    ids = await worked(where)
    assert codes(where) == set()
    with reading(where) as insights:
        checked = check_runs(insights, ids, lambda _: None)
        assert (checked.runs, checked.findings) == (2, ())
    for statement, code in CHANGES.items():
        change(statement)
        assert code in codes(where), statement


async def test_used_approvals_and_lost_limits_are_found(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await worked(path)
    apsw.Connection(str(path)).execute("UPDATE approvals SET consumed = 1 - consumed")
    assert codes(path) == {"approval.used"}


async def test_what_a_removal_tells_belongs_to_the_books(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await worked(path)
    db = apsw.Connection(str(path))
    db.execute("DELETE FROM audit WHERE CAST(body AS TEXT) LIKE '%run.purged%'")
    assert codes(path) == {"ledger.account"}
