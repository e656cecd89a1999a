"""The task interface: a sentence in, a status to poll, the existing task under a known key."""

from __future__ import annotations

import asyncio
from pathlib import Path

from quarterdeck.core.vocabulary import Status
from quarterdeck.server import Settings
from quarterdeck.server.tasks import STATES
from tests.server.stage import House, open_house, until


def test_every_status_has_a_word() -> None:
    assert STATES.keys() == set(Status)


async def test_a_task_is_taken_polled_and_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(insecure_loopback=True), None) as house, house.client(None) as client:
        made = await client.post("/tasks", json={"task": "you", "user_id": "eve"})
        assert made.status_code == 202
        task = made.json()
        assert task["status"] in ("pending", "running", "complete")
        assert task.keys() == {"task_id", "status", "result", "error", "cost_usd", "duration_ms"}
        await house.runtime.handle(task["task_id"]).result(20)
        shown = (await client.get(made.headers["location"])).json()
        assert (shown["status"], shown["result"], shown["error"], shown["cost_usd"]) == ("complete", "hello you", None, 0.0)
        assert shown["duration_ms"] > 0
        assert house.runtime.show(task["task_id"]).row.actor == "eve"
        assert (await client.get("/tasks/nothing")).status_code == 404
        assert (await client.get("/health")).json() == {"status": "ok", "tasks_in_flight": 0}


async def test_a_known_key_gives_the_existing_task_whatever_the_body_says(house: House) -> None:
    async with house.client() as client:
        first = (await client.post("/tasks", json={"task": "you", "idempotency_key": "k"})).json()["task_id"]
        await house.runtime.handle(first).result(20)
        for body in ({"task": "you"}, {"task": "somebody else"}):
            again = await client.post("/tasks", json={**body, "idempotency_key": "k"})
            assert (again.status_code, again.json()["task_id"], again.json()["result"]) == (202, first, "hello you")
        at_once = await asyncio.gather(
            *[client.post("/tasks", json={"task": f"t{number}", "idempotency_key": "k2"}) for number in range(8)]
        )
        assert len({answer.json()["task_id"] for answer in at_once}) == 1
        keyless = [(await client.post("/tasks", json={"task": "you", "idempotency_key": key})).json() for key in (None, "")]
        assert len({task["task_id"] for task in keyless}) == 2


async def test_a_failed_task_says_why(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        assert (await client.get(f"/tasks/{run}")).json()["status"] in ("pending", "running")
        await client.post(f"/v1/runs/{run}:cancel")
        house.shop.gate.set()  # what is under way ends by itself; nothing begins after it
        await until(lambda: house.runtime.show(run).row.status == "cancelled")
        shown = (await client.get(f"/tasks/{run}")).json()
    assert (shown["status"], shown["error"], shown["result"]) == ("failed", "cancelled: run.cancelled", None)


async def test_what_is_no_task_is_refused(house: House) -> None:
    async with house.client() as client:
        for body in ({}, {"task": 5}, {"task": "x", "colour": "red"}, "task"):
            assert (await client.post("/tasks", json=body)).status_code == 422


async def test_tasks_lead_where_the_settings_say(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(task_route="busy")) as house, house.client() as client:
        task = (await client.post("/tasks", json={"task": "x"})).json()["task_id"]
        assert house.runtime.show(task).row.route == "busy"
