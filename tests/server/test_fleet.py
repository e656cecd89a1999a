"""Workers, policies and real dead letters over HTTP: seen by who may, requeued or dropped once, with a reason, recorded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from quarterdeck import Quarterdeck
from quarterdeck.server import Settings, create_app, serve
from quarterdeck.testing import ScriptedModel
from tests.fleet.test_poison import Mill, dead_letter
from tests.server.stage import PATIENCE_S, ByName, House, Shop, until
from tests.server.test_routes import opened

FORBID = '@reason("greet.never")\nforbid(principal, action in Action::"tool", resource);'


@asynccontextmanager
async def mill_house(mill: Mill) -> AsyncIterator[House]:
    """A door before one more owner of the mill's store."""
    async with mill.owner() as runtime:
        door = create_app(runtime, ByName(), Settings(port=0))
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(door, ready=ready.set_result))
        try:
            yield House(await asyncio.wait_for(ready, PATIENCE_S), runtime, door, Shop(), serving)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


@pytest.fixture
async def letter() -> AsyncIterator[tuple[House, Mill, str]]:
    """A door, and a run of tenant acme behind it that has killed three owners."""
    mill = Mill()
    run_id = await dead_letter(mill)
    async with mill_house(mill) as house:
        await house.runtime.handle(run_id).result(PATIENCE_S)
        yield house, mill, run_id


async def test_a_dead_letter_is_listed_to_its_tenant_and_shown_with_its_cause(letter: tuple[House, Mill, str]) -> None:
    house, _, run_id = letter
    async with house.client("vic") as vic, house.client("zoe") as zoe, house.client("none") as nobody:
        [row] = (await vic.get("/v1/dead-letters")).json()["runs"]
        assert (row["run_id"], row["status"], row["reason"], row["code"]) == (run_id, "failed", "blocked", "run.poison")
        assert (await vic.get("/v1/dead-letters?route=mill&limit=1")).json()["runs"] == [row]
        assert (await vic.get("/v1/dead-letters?route=other")).json()["runs"] == []
        assert (await zoe.get("/v1/dead-letters")).json()["runs"] == [], "another tenant's do not exist"
        assert (await vic.get("/v1/dead-letters?tenant=globex")).json()["runs"] == []
        assert (await nobody.get("/v1/dead-letters")).status_code == 403
        shown = (await vic.get(f"/v1/runs/{run_id}")).json()
        assert shown["effects"]["unknown"] == 1 and shown["unknown_effects"] == ["t0.0"]


async def test_requeueing_makes_one_new_run_however_often_it_is_asked_for(letter: tuple[House, Mill, str]) -> None:
    house, mill, run_id = letter
    mill.free.set()
    async with house.client("vic") as vic, house.client("opa") as opa, house.client("zoe") as zoe, house.client("root") as root:
        assert (await vic.post(f"/v1/runs/{run_id}:requeue")).status_code == 403
        assert (await zoe.post(f"/v1/runs/{run_id}:requeue")).status_code in (403, 404)
        path, why = f"/v1/runs/{run_id}:requeue", {"reason": "the mill is mended"}
        first, second = await asyncio.gather(opa.post(path, json=why), opa.post(path, json=why))
        assert {first.status_code, second.status_code} == {202}
        assert first.json()["run_id"] == second.json()["run_id"] == f"{run_id}-again1"
        assert sorted("idempotency-replayed" in answer.headers for answer in (first, second)) == [False, True]
        assert first.headers["location"] == f"/v1/runs/{run_id}-again1"
        again = await house.runtime.handle(f"{run_id}-again1").result(PATIENCE_S)
        assert again.ok
        assert (await vic.get("/v1/dead-letters")).json()["runs"] == []
        ended = await opa.post(f"/v1/runs/{again.run_id}:requeue")
        assert (ended.status_code, ended.json()["code"]) == (409, "requeue.not_failed")
        rows = (await root.get("/v1/audit")).json()["rows"]
        told = {(row["action"], row["target"], row["by"], row["reason"]) for row in rows}
        assert ("letter.requeued", run_id, "opa", "the mill is mended") in told


async def test_dropping_is_final_and_says_why(letter: tuple[House, Mill, str]) -> None:
    house, _, run_id = letter
    path = f"/v1/dead-letters/{run_id}:drop"
    async with house.client("vic") as vic, house.client("opa") as opa, house.client("zoe") as zoe:
        assert (await vic.post(path, json={"reason": "x"})).status_code == 403
        assert (await zoe.post(path, json={"reason": "x"})).status_code in (403, 404)
        for wrong in ({}, {"reason": " "}, {"reason": "x", "by": "somebody"}):
            assert (await opa.post(path, json=wrong)).status_code == 422
        assert len((await opa.get("/v1/dead-letters")).json()["runs"]) == 1, "what was refused has changed nothing"
        for _ in range(2):
            assert (await opa.post(path, json={"reason": "the customer has gone"})).status_code == 200
        assert (await opa.get("/v1/dead-letters")).json()["runs"] == []
        late = await opa.post(f"/v1/runs/{run_id}:requeue")
        assert (late.status_code, late.json()["code"]) == (409, "requeue.dropped")
        assert (await opa.post("/v1/dead-letters/nothing:drop", json={"reason": "x"})).status_code == 404


async def test_workers_are_shown_to_who_may_read_everywhere_with_what_they_hold(house: House) -> None:
    async with house.client("ann") as ann, house.client("root") as root, house.client("opa") as opa:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).open_effects != ())
        [worker] = (await root.get("/v1/workers")).json()["workers"]
        assert (worker["status"], worker["held"], worker["pid"]) == ("ready", 1, os.getpid())
        assert (await opa.get("/v1/workers")).json() == {"workers": []}, "they belong to no tenant"
        async with house.client("none") as nobody:
            assert (await nobody.get("/v1/workers")).status_code == 403
        house.shop.gate.set()


async def test_the_policy_set_in_force_is_shown_with_the_version_that_decisions_name(tmp_path: Path) -> None:
    deck = Quarterdeck("d")

    @deck.tool(effect="read")
    async def look() -> str:
        """Look."""
        return "seen"

    deck.agent("looker", model=ScriptedModel([[("look", {})], "done"]), tools=[look])
    deck.policy({"all.cedar": "permit(principal, action, resource);", "never.cedar": FORBID})
    async with opened(tmp_path, deck) as house, house.client("opa") as opa, house.client("ann") as ann:
        found = (await opa.get("/v1/policies")).json()
        assert sorted(found["policies"]) == ["all.cedar", "never.cedar"] and FORBID in found["policies"].values()
        run = (await ann.post("/v1/runs", json={"intent": "looker"}, headers={"prefer": "wait=20"})).json()
        assert found["version"].startswith(run["versions"]["policy"]) and len(run["versions"]["policy"]) == 16
        denied = [event for event in house.runtime.handle(run["run_id"]).events() if event.body.get("ruling") == "deny"]
        assert denied[0].body["reasons"] == ["greet.never"]
        async with house.client("vic") as vic, house.client("none") as nobody:
            assert (await nobody.get("/v1/policies")).status_code == 403
            assert (await vic.post("/v1/policies", json={})).status_code == 405, "they are declared in code or files"
