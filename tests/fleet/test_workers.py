"""Workers as processes: they start in order, are seen, stop in order at any moment, and give their runs to the others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx2
import pytest
from psycopg.conninfo import conninfo_to_dict

from quarterdeck.store.postgres import open_store
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.testing.postgres import Server
from tests.fleet.yard import Yard
from tests.store_postgres.sessions import session, until


@pytest.fixture
def yard(tmp_path: Path, database: str) -> Yard:
    return Yard(tmp_path, database)


async def test_workers_are_seen_and_what_they_did_is_there(yard: Yard) -> None:
    async with asyncio.timeout(60):
        one, two = await asyncio.gather(yard.worker("--health-port", "0"), yard.worker())
        workers = (await yard.said("workers"))["workers"]
        assert isinstance(workers, list)
        assert [row["status"] for row in workers] == ["ready", "ready"]
        assert {row["pid"] for row in workers} == {one.pid, two.pid}
        assert all("loading/loading" in row["programs"] for row in workers)
        result = await yard.said("run", "loading")
        assert result["status"] == "succeeded"
        assert len(set(yard.lines("load"))) == 4
        checks = {check["name"]: check for check in (await yard.said("doctor"))["checks"]}  # type: ignore[attr-defined]
        assert checks["workers"]["found"] == "2 up, 0 lost"
        for process in (one, two):
            process.terminate()
        assert [await one.wait(), await two.wait()] == [0, 0]
        assert (await yard.said("workers"))["workers"] == []


MOMENTS = ("starting", "idle", "between steps", "in an effect", "in an effect of a workflow")


@pytest.mark.parametrize("moment", MOMENTS)
async def test_sigterm_ends_in_order_and_others_go_on(moment: str, yard: Yard, database: str) -> None:
    async with asyncio.timeout(60):
        if moment == "starting":
            process = await yard.start("worker", "--json")
            await until(lambda: b"start: configuration" in (yard.folder / "log").read_bytes(), "it has begun to start")
        else:
            process = await yard.worker()
        run = {"between steps": "loading", "in an effect": "hoisting", "in an effect of a workflow": "lifting"}.get(moment)
        asked = None
        if run is not None:
            asked = await yard.start("run", run, "--json")
            word = "load" if run == "loading" else "hoist"
            await until(lambda: bool(yard.lines(word)), "it has begun")
        process.send_signal(signal.SIGTERM)
        if "in an effect" in moment:
            await until(lambda: "stopping" in yard.log(), "it was told")
            (yard.folder / "lowered").touch()
        assert await process.wait() == 0, yard.log()
        insights = PostgresInsights(database)
        try:
            assert [row.worker for row in insights.runs()] in ([], [None]), "every lease is given back"
            assert insights.workers() == []
        finally:
            insights.close()
        if asked is not None:
            other = await yard.worker()
            out, _ = await asked.communicate()
            assert json.loads(out)["status"] == "succeeded"
            assert len(yard.lines("hoisted")) == ("in an effect" in moment), "what was under way was finished, once"
            assert len(yard.lines("hoist")) == len(yard.lines("hoisted"))
            other.terminate()
            assert await other.wait() == 0


async def test_sigterm_while_a_run_waits_leaves_the_run_to_whoever_comes(yard: Yard) -> None:
    async with asyncio.timeout(60):
        process = await yard.worker()
        asked = await yard.start("run", "asking", "--json")
        await asked.communicate()
        process.terminate()
        assert await process.wait() == 0, yard.log()
        [approval] = (await yard.said("approvals", "ls"))["approvals"]  # type: ignore[misc, attr-defined]
        await yard.said("approvals", "approve", approval["approval"], "--by", "bob")
        assert yard.lines("load") == [], "nobody is there who could"
        other = await yard.worker()
        await until(lambda: len(yard.lines("load")) == 1, "it was loaded")
        other.terminate()
        assert await other.wait() == 0, yard.log()


async def test_sigterm_while_a_message_is_delivered_lets_it_arrive_once(yard: Yard, postgres: Server, database: str) -> None:
    async with asyncio.timeout(60):
        process = await yard.worker()
        await yard.said("run", "telling")
        await until(lambda: bool(yard.lines("hear")), "it is being delivered")
        process.terminate()
        await until(lambda: "stopping" in yard.log(), "it was told")
        (yard.folder / "lowered").touch()
        assert await process.wait() == 0, yard.log()
        other = await yard.worker()
        delivered = "SELECT count(*) FROM quarterdeck.outbox WHERE status = 'delivered'"
        await until(lambda: postgres.execute(delivered, database) == [(1,)], "it has arrived")
        assert (len(yard.lines("hear")), len(yard.lines("heard"))) == (1, 1)
        other.terminate()
        assert await other.wait() == 0, yard.log()


async def test_sigterm_while_the_database_is_away_ends_the_worker_all_the_same(
    yard: Yard, postgres: Server, database: str
) -> None:
    async with asyncio.timeout(90):
        process = await yard.worker("--grace", "2")
        asked = await yard.start("run", "sitting", "--json")
        await until(lambda: bool(yard.lines("sit")), "it sits")
        asked.kill()
        await asked.communicate()
        name = conninfo_to_dict(database)["dbname"]
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
        process.terminate()
        await process.wait()
        assert process.returncode in (0, 3), yard.log()
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        epoch = "SELECT epoch FROM quarterdeck.runs"
        assert postgres.execute(epoch, database) == [(1,)]
        other = await yard.worker("--grace", "0")
        await until(lambda: postgres.execute(epoch, database) != [(1,)], "what was held is taken over", 40.0)
        other.terminate()
        assert await other.wait() == 0, yard.log()


async def test_a_second_signal_does_not_wait(yard: Yard) -> None:
    async with asyncio.timeout(60):
        process = await yard.worker("--grace", "600")
        asked = await yard.start("run", "sitting", "--json")
        await until(lambda: bool(yard.lines("sit")), "it sits")
        process.send_signal(signal.SIGTERM)
        await until(lambda: "stopping: nothing" in yard.log(), "it was told once")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert "stopping at once" in yard.log()
        asked.kill()
        await asked.communicate()


async def test_the_grace_ends(yard: Yard) -> None:
    async with asyncio.timeout(60):
        process = await yard.worker("--grace", "0.5")
        asked = await yard.start("run", "sitting", "--json")
        await until(lambda: bool(yard.lines("sit")), "it sits")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        asked.kill()
        await asked.communicate()


async def test_a_killed_child_is_replaced_and_its_runs_go_on(yard: Yard) -> None:
    async with asyncio.timeout(90):
        fleet = await yard.worker("--processes", "1")
        workers = (await yard.said("workers"))["workers"]
        assert isinstance(workers, list)
        os.kill(workers[0]["pid"], signal.SIGKILL)
        await until(lambda: yard.log().count('"ready: ') == 2, "another is ready")
        assert (await yard.said("run", "loading"))["status"] == "succeeded"
        fleet.terminate()
        assert await fleet.wait() == 0, yard.log()


async def test_a_worker_without_its_supervisor_stops(yard: Yard, database: str) -> None:
    async with asyncio.timeout(60):
        fleet = await yard.worker("--processes", "1")
        fleet.kill()
        await fleet.wait()
        insights = PostgresInsights(database)
        try:
            await until(lambda: insights.workers() == [], "its worker has left in order")
        finally:
            insights.close()


async def test_a_door_apart_from_the_workers(yard: Yard) -> None:
    async with asyncio.timeout(60):
        door = await yard.start("serve", "--port", "0", "--no-work", "--insecure-loopback", "--json")
        assert door.stdout is not None
        url = json.loads(await door.stdout.readline())["url"]

        def ask(path: str, body: object = None) -> dict[str, object]:
            found: dict[str, object] = httpx2.request("GET" if body is None else "POST", f"{url}{path}", json=body).json()
            return found

        assert (await asyncio.to_thread(ask, "/healthz/ready"))["status"] == "ok"
        run = await asyncio.to_thread(ask, "/v1/runs", {"intent": "loading"})
        assert run["status"] == "queued"
        assert run["waiting_on"] == ["worker:loading/loading"], "nobody is there who could drive it"
        worker = await yard.worker()
        await until(lambda: ask(f"/v1/runs/{run['run_id']}")["status"] == "succeeded", "the worker has driven it")
        names = [row["status"] for row in (await asyncio.to_thread(ask, "/v1/workers"))["workers"]]  # type: ignore[attr-defined]
        assert names == ["ready", "ready"]
        worker.terminate()
        door.terminate()
        assert [await worker.wait(), await door.wait()] == [0, 0]


async def test_what_is_wrong_is_said(yard: Yard, database: str) -> None:
    async def code(store: str, *words: str) -> tuple[int | None, str]:
        process = await yard.start(*words, "--store", store)
        await process.communicate()
        return process.returncode, yard.log().rstrip().rsplit("\n", 1)[-1]

    status, said = await code("postgresql://nobody@127.0.0.1:1/x", "runs", "ls")
    assert status == 4 and "store.unreachable" in said
    status, said = await code(yard.store, "runs", "ls")
    assert status == 2 and "store.missing" in said
    journal, _ = await open_store(database)(Lucky())
    await journal.close()
    with session(database) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name IN ('schema', 'compatible')")
    status, said = await code(yard.store, "worker")
    assert status == 2 and "store.newer" in said
    status, said = await code("sqlite:///x.db", "worker", "--processes", "2")
    assert status == 2 and "worker.file" in said


class Lucky:
    """The same number every time."""

    def token(self, size: int) -> bytes:
        return b"\1" * size

    def uniform(self) -> float:
        return 0.5
