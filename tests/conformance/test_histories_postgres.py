"""Random histories against a model of the contract, on the functions in the database, planted bugs included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from quarterdeck.core.commit import Op, Outcome
from quarterdeck.ports.store import Insights
from quarterdeck.store.postgres.opening import connect, prepare
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.store.postgres.statements import load
from quarterdeck.store.postgres.visitor import applied
from quarterdeck.testing.postgres import Server
from tests.conformance.stands import EMPTY
from tests.conformance.test_histories import Histories, Subject


class Database:
    """The functions on one connection; an owner dies by its lease and the next one adopts."""

    def __init__(self, server: Server, dsn: str) -> None:
        self.server, self.dsn = server, dsn
        server.execute(EMPTY, dsn)
        self.reads = PostgresInsights(dsn)
        self.insights: Insights = self.reads
        self.connection = connect(dsn)
        self._enter()

    def _enter(self) -> None:
        (owner,) = self.connection.execute(load("write")["enter"], (60.0,)).fetchone() or (0,)
        self.owner = int(str(owner))
        self.connection.execute(load("write")["adopt"])

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        return applied(self.connection, self.owner, batch, 60.0)

    def replace_owner(self) -> None:
        self.server.execute("UPDATE quarterdeck.owners SET lease_until = '-infinity'", self.dsn)
        self._enter()

    def close(self) -> None:
        self.reads.close()
        self.connection.close()


@pytest.fixture(scope="module")
def shared(postgres: Server) -> Iterator[str]:
    with postgres.fresh() as dsn:
        prepare(dsn, 1)
        yield dsn


def test_histories_agree_with_the_model(postgres: Server, shared: str) -> None:
    class OnPostgres(Histories):
        def open(self) -> Subject:
            return Database(postgres, shared)

    run_state_machine_as_test(OnPostgres, settings=settings(max_examples=12, stateful_step_count=30))
