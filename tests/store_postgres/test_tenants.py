"""Tenants are kept apart by the database itself, even from a statement that forgets to ask for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from quarterdeck.core.commit import Ask, Deliver
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.conformance.stand import Hold, claim, done
from quarterdeck.testing.postgres import Server
from quarterdeck.testing.samples import DAY_US, T0_US, admission
from tests.conformance.stands import SwappingStand
from tests.store_postgres.sessions import runtime

TABLES = ("runs", "contracts", "events", "payloads", "inbox", "approvals", "idempotency", "outbox", "erasures", "dead_letters")


@pytest.fixture
async def stand(database: str) -> AsyncIterator[SwappingStand]:
    """Two tenants with a run each that has something of everything."""
    async with runtime(database) as opened:
        for tenant in ("acme", "globex"):
            await done(opened, admission(f"of-{tenant}", tenant=tenant, key="k1"))
            (run,) = await claim(opened)
            hold = Hold(opened, run.run_id, run.seq, run.epoch)
            await hold.append(hold.commit(asks=(Ask(f"ask-{tenant}", "c", "t", "d", "ada", T0_US + DAY_US, b"{}"),)))
            await done(opened, Deliver(run.run_id, "signal", b"{}", T0_US, "s1"))
        yield opened


async def test_lists_for_a_tenant_hold_its_rows_alone_whatever_they_ask(stand: SwappingStand) -> None:
    insights = stand.insights
    assert isinstance(insights, PostgresInsights)
    insights._sql["run_columns"] += " WHERE true OR r.run_id = ''  --"  # a statement that has lost its filter
    query = insights._sql["run_columns"]
    assert {row[0] for row in insights._rows(query, (), ["acme"])} == {"of-acme"}
    assert {row[0] for row in insights._rows(query, (), ["acme", "globex"])} == {"of-acme", "of-globex"}
    assert insights._rows(query, (), []) == []
    assert len(insights._rows(query)) == 2, "the engine sees all, also after it has read for somebody"


async def test_reads_bound_to_a_tenant_know_no_other(stand: SwappingStand, database: str) -> None:
    bound = PostgresInsights(database, tenants=["acme"])
    assert [row.run_id for row in bound.runs()] == ["of-acme"]
    assert bound.run("of-globex") is None
    assert bound.run("of-acme") == stand.insights.run("of-acme")
    assert list(bound.events("of-globex")) == []
    assert list(bound.events("of-acme")) == list(stand.insights.events("of-acme"))
    assert bound.inbox("of-globex") == (0, [], 0)
    assert len(bound.inbox("of-acme")[1]) == 1
    assert bound.approval("ask-globex") is None
    assert [row.approval for row in bound.approvals()] == ["ask-acme"]
    assert bound.keyed("globex", "k1", T0_US) is None
    assert bound.keyed("acme", "k1", T0_US) == "of-acme"
    assert bound.salt("of-globex") is None
    assert [row.run_id for row in bound.positions(["of-acme", "of-globex"])] == ["of-acme"]
    bound.close()


async def test_the_reader_sees_nothing_without_a_tenant_and_writes_nothing(stand: SwappingStand, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("SET ROLE quarterdeck_reader; SET search_path = quarterdeck")
        for table in TABLES:
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608 - a name of our own
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"DELETE FROM {table}")  # noqa: S608
        for table in ("api_keys", "owners", "facts", "accounts", "meta"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"SELECT count(*) FROM {table}")  # noqa: S608


async def test_it_is_noticed_without_row_security(stand: SwappingStand, postgres: Server, database: str) -> None:
    postgres.execute("ALTER TABLE quarterdeck.contracts DISABLE ROW LEVEL SECURITY", database)
    with pytest.raises(AssertionError):
        await test_reads_bound_to_a_tenant_know_no_other(stand, database)


async def test_row_security_holds_for_the_owner_too(stand: SwappingStand, postgres: Server, database: str) -> None:
    """Without the engine's policy its own role, which owns the tables, sees nothing: security is forced, not only enabled."""
    assert len(stand.insights.runs()) == 2
    found = postgres.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'quarterdeck'::regnamespace AND relrowsecurity AND relforcerowsecurity",
        database,
    )
    assert {row[0] for row in found} == set(TABLES)
    postgres.execute("DROP POLICY engine ON quarterdeck.contracts", database)
    assert len(stand.insights.runs()) == 0
