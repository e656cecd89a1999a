"""A shared store that cannot be reached for a while stops nothing for good; a store that is broken does."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.postgres import open_store
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.reader import SqliteInsights
from tests.app.desk import desk


class Away(SqliteInsights):
    """Reads that fail so many times first, one method at a time."""

    left: dict[str, int]
    code = "store.unreachable"

    def _gone(self, name: str) -> None:
        if self.left.get(name, 0) > 0:
            self.left[name] -= 1
            raise Unavailable(self.code, "the server does not answer")

    def due(self, now_us: int, programs: tuple[str, ...] | None = None) -> bool:
        self._gone("due")
        return super().due(now_us, programs)

    def salt(self, run_id: str) -> bytes | None:
        self._gone("salt")
        return super().salt(run_id)


def opened(path: Path, insights: list[Away], code: str):
    async def open_both(entropy: Entropy) -> tuple[Journal, Insights]:
        journal = await SqliteJournal.open(path, 1)
        insights.append(Away(path))
        insights[0].left, insights[0].code = {}, code
        return journal, insights[0]

    return open_both


async def test_claiming_and_driving_go_on_when_the_store_is_there_again(tmp_path: Path) -> None:
    made: list[Away] = []
    async with desk().start(open_store=opened(tmp_path / "s.db", made, "store.unreachable")) as runtime:
        made[0].left = {"due": 2, "salt": 1}
        result = await (await runtime.submit("greets", "please")).result(30)
        assert result.ok
        assert made[0].left["salt"] == 0, "a run's journal could not be read at first"
        assert runtime.failed is None


async def test_any_other_fault_of_the_store_stops_the_runtime(tmp_path: Path) -> None:
    made: list[Away] = []
    async with desk().start(open_store=opened(tmp_path / "s.db", made, "store.storage")) as runtime:
        made[0].left = {"salt": 1}
        with pytest.raises(QuarterdeckError) as caught:
            await (await runtime.submit("greets", "please")).result(30)
        assert caught.value.code == "store.storage"


async def test_a_connection_string_is_a_store(database: str) -> None:
    given = conninfo_to_dict(database)
    url = f"postgresql://{given['user']}@/{given['dbname']}?host={given['host']}&port={given['port']}"
    async with desk().start(url) as runtime:
        assert (await (await runtime.submit("greets", "please")).result(30)).ok
    async with desk().start(open_store=open_store(database)) as runtime:
        assert [row.status for row in runtime.runs()] == ["succeeded"]
