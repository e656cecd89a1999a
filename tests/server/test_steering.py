"""Interrupt, escalate, fork and replay over a real socket: what they do, and who may."""

from __future__ import annotations

from tests.server.stage import House, until


async def test_a_run_is_interrupted_by_who_controls_it_and_trusted_by_role(house: House) -> None:
    async with house.client("ann") as ann, house.client("opa") as opa:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        body = {"payload": {"say": "hurry"}, "token": "t1"}
        assert (await ann.post(f"/v1/runs/{run}:interrupt", json=body)).status_code == 202
        assert (await ann.post(f"/v1/runs/{run}:interrupt", json=body)).status_code == 202
        assert (await opa.post(f"/v1/runs/{run}:interrupt", json={"payload": "now", "token": "t2"})).status_code == 202
        house.shop.gate.set()
        await house.runtime.handle(run).result(20)
        told = [event.body for event in house.runtime.handle(run).events() if event.kind == "run.interrupted"]
        assert [(one["by"], "labels" in one) for one in told] == [("ann", True), ("opa", False)]
        ended = await ann.post(f"/v1/runs/{run}:interrupt", json=body | {"token": "t3"})
        assert (ended.status_code, ended.json()["code"]) == (409, "run.ended")


async def test_a_run_is_forked_once_per_key_by_who_may_ask_for_it(house: House) -> None:
    async with house.client("ann") as ann, house.client("opa") as opa, house.client("zoe") as zoe:
        run = (await ann.post("/v1/runs", json={"intent": "greet", "payload": "you"}, headers={"prefer": "wait=20"})).json()[
            "run_id"
        ]
        first = await ann.post(f"/v1/runs/{run}:fork", json={"step": "m0"}, headers={"idempotency-key": "k"})
        again = await ann.post(f"/v1/runs/{run}:fork", json={"step": "m0"}, headers={"idempotency-key": "k"})
        assert (first.status_code, again.headers.get("idempotency-replayed")) == (202, "true")
        assert first.json()["run_id"] == again.json()["run_id"] != run
        assert first.headers["location"].endswith(first.json()["run_id"])
        other = await ann.post(f"/v1/runs/{run}:fork", json={"step": "m1"}, headers={"idempotency-key": "k"})
        assert other.json()["code"] == "fork.step"
        assert (await house.runtime.handle(first.json()["run_id"]).result(20)).text == "hello you"
        assert (await opa.post(f"/v1/runs/{run}:fork", json={"step": "m0"})).status_code == 403
        assert (await zoe.post(f"/v1/runs/{run}:fork", json={"step": "m0"})).json()["code"] == "run.unknown"


async def test_a_replay_is_for_who_may_read_contents(house: House) -> None:
    async with house.client("ann") as ann, house.client("vic") as vic:
        run = (await ann.post("/v1/runs", json={"intent": "greet", "payload": "you"}, headers={"prefer": "wait=20"})).json()[
            "run_id"
        ]
        found = await ann.post(f"/v1/runs/{run}:replay")
        assert (found.status_code, found.json()["same"], found.json()["decisions"]) == (200, True, 1)
        assert (await vic.post(f"/v1/runs/{run}:replay")).json()["code"] == "auth.forbidden"


async def test_escalation_ends_with_the_last_owner(house: House) -> None:
    async with house.client("ann") as ann:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        refused = await ann.post(f"/v1/runs/{run}:escalate", json={"reason": "late"})
        assert (refused.status_code, refused.json()["code"]) == (409, "run.no_owner")
        await ann.post(f"/v1/runs/{run}:cancel", json={"mode": "stop"})
        await until(lambda: house.runtime.show(run).row.status == "cancelled")


async def test_an_operator_raises_a_limit_and_changes_a_dependency(house: House) -> None:
    async with house.client("ann") as ann, house.client("opa") as opa, house.client("root") as root:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        body = {"budget": {"max_steps": 50}, "reason": "worth it", "token": "one"}
        assert (await ann.post(f"/v1/runs/{run}:budget", json=body)).json()["code"] == "auth.forbidden"
        assert (await opa.post(f"/v1/runs/{run}:budget", json=body)).status_code == 202
        nothing = await opa.post(f"/v1/runs/{run}:budget", json={"budget": {}})
        assert (nothing.status_code, nothing.json()["code"]) == (422, "budget.nothing")
        house.shop.gate.set()
        await house.runtime.handle(run).result(20)
        assert house.runtime.show(run).contract["limits"]["turns"] == 50  # type: ignore[index]
        change = {"name": "tool:refund", "change": {"slots": 3}, "for_s": 60, "reason": "slow"}
        assert (await opa.post("/v1/dependencies", json=change)).json()["code"] == "auth.forbidden", "it concerns every tenant"
        found = (await root.post("/v1/dependencies", json=change)).json()["dependencies"]
        [refund] = [one for one in found if one["name"] == "tool:refund"]
        assert (refund["slots"], refund["changed_by"]) == (3, "root")
        ended = (await root.post("/v1/dependencies", json={"name": "tool:refund", "end": True})).json()["dependencies"]
        assert [one["changed_until_us"] for one in ended if one["name"] == "tool:refund"] == [None]
        wrong = await root.post("/v1/dependencies", json=change | {"name": "tool:none"})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "dependency.unknown")
