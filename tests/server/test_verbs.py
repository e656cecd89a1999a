"""Verbs as a stranger tries them: each does what it says, says what is wrong in the caller's own words, and is told in the audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck import Quarterdeck
from quarterdeck.testing import ScriptedModel
from tests.server.stage import PATIENCE_S, House, decided, until
from tests.server.test_routes import opened


async def refused(answer, status: int, code: str, said: str = "") -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert said in problem["detail"], problem


async def test_what_is_wrong_is_said_in_the_callers_words(house: House) -> None:
    async with house.client("ann") as ann, house.client("root") as root:

        async def asks(**body: object):
            return await ann.post("/v1/runs", json={"intent": "greet", **body})

        unknown = await asks(intent="nope")
        await refused(unknown, 422, "route.unknown", "support")
        assert "globex_only" not in unknown.text, "the routes of other tenants are not shown"
        assert "globex_only" in (await root.post("/v1/runs", json={"intent": "nope", "caller": {"tenant": "globex"}})).text
        await refused(await asks(budget={"max_steps": -1}), 422, "budget.invalid", "max_steps=-1")
        await refused(await ann.get(f"/v1/runs?limit={2**63}"), 422, "http.query_invalid")
        await refused(await root.get(f"/v1/audit?after={2**63}"), 422, "http.query_invalid", "$.after")
        low = {"budget": {"max_tokens": -1}, "reason": "x"}
        await refused(await root.post("/v1/budgets/tenant:acme:raise", json=low), 422, "budget.invalid", "max_tokens=-1")
        two = {"content-type": "application/json", "content-length": "5", "transfer-encoding": "chunked"}
        await refused(await ann.post("/v1/runs", content=b"{}", headers=two), 400, "http.malformed", "in two ways")
        await refused(await asks(mode="fast"), 422, "http.body_invalid", "use one of sync, async_job, durable_workflow")
        await refused(await ann.get("/v1/runs?status=done"), 422, "http.query_invalid", "use one of queued, running, waiting")
        await refused(await ann.post("/v1/runs"), 422, "http.body_invalid", "a body is needed here")
        assert (await asks(run_id="mine")).status_code == 202
        await refused(await asks(run_id="mine"), 409, "admission.run", "a run 'mine' exists already")
        await refused(await ann.post("/v1/runs/mine:requeue"), 409, "requeue.not_failed", "only failed runs")


async def test_a_stream_goes_on_after_one_place(house: House) -> None:
    async with house.client("ann") as ann:
        run = (await ann.post("/v1/runs", json={"intent": "greet"}, headers={"prefer": "wait=20"})).json()["run_id"]
        twice = await ann.get(f"/v1/runs/{run}/events", headers=[("last-event-id", "1"), ("last-event-id", "3")])
        await refused(twice, 400, "http.header", "last-event-id")


async def test_an_order_under_one_key_is_one_order_however_the_key_is_written(house: House) -> None:
    async with house.client("ann") as ann, house.client("opa") as opa:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        for body, headers in (
            ({"payload": "stop"}, {"idempotency-key": '"call-1"'}),
            ({"payload": "stop"}, {"idempotency-key": "call-1"}),
            ({"payload": "stop", "token": "call-1"}, {}),
        ):
            assert (await opa.post(f"/v1/runs/{run}:interrupt", json=body, headers=headers)).status_code == 202
        both = await opa.post(f"/v1/runs/{run}:interrupt", json={"token": "a"}, headers={"idempotency-key": "b"})
        await refused(both, 400, "http.header", "token")
        house.shop.gate.set()
        await house.runtime.handle(run).result(PATIENCE_S)
        kinds = [event.kind for event in house.runtime.handle(run).events()]
        assert kinds.count("run.interrupted") == 1
        forks = [
            (await ann.post(f"/v1/runs/{run}:fork", json={"step": "m0"}, headers={"idempotency-key": key})).json()["run_id"]
            for key in ('"f-1"', "f-1")
        ]
        assert forks[0] == forks[1]


async def test_a_run_that_was_there_is_given_back_when_its_route_is_gone(tmp_path: Path) -> None:
    def deck(fallback: bool) -> Quarterdeck:
        made = Quarterdeck("desk")
        made.agent("greet", model=ScriptedModel(lambda _: "hello"))
        if fallback:
            made.route("other", "greet")
        made.route("ask", "greet", fallback="other" if fallback else None)
        return made

    body = {"intent": "ask", "mode": "sync", "idempotency_key": "k"}
    async with opened(tmp_path, deck(fallback=True)) as house, house.client("ann") as ann:
        await house.runtime.switch("stop_route:ask")
        first = (await ann.post("/v1/runs", json=body)).json()
        assert first["route"] == "other"
        await house.runtime.switch("stop_route:ask", on=False)
    async with opened(tmp_path, deck(fallback=False)) as house, house.client("ann") as ann:
        again = await ann.post("/v1/runs", json=body)
        assert (again.status_code, again.json()["run_id"]) == (202, first["run_id"])


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ({"done": True, "result": {"parcel": "P1"}}, ("succeeded", "completed")),
        ({"done": False}, ("succeeded", "completed.with_failed_effects")),
    ],
)
async def test_an_effect_in_doubt_is_listed_and_resolved_once(
    house: House, said: dict[str, object], ends: tuple[str, str]
) -> None:
    async with house.client("ann") as ann, house.client("zoe") as zoe, house.client("root") as root:
        run = (await ann.post("/v1/runs", json={"intent": "parcel"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).row.code == "effect.unknown")
        [doubt] = (await ann.get("/v1/effects")).json()["effects"]
        assert (doubt["run_id"], doubt["call"], doubt["tool"], doubt["tenant"]) == (run, "t0.0", "ship", "acme")
        assert (await zoe.get("/v1/effects")).json() == {"effects": []}
        assert (await root.get("/v1/effects?tenant=globex")).json() == {"effects": []}
        await refused(
            await ann.post(f"/v1/runs/{run}:resolve", json={"call": "t9", "done": True}), 409, "effect.not_unknown", "t0.0"
        )
        both = {"call": "t0.0", "done": True, "retry": True}
        await refused(await ann.post(f"/v1/runs/{run}:resolve", json=both), 422, "effect.answer")
        assert (await ann.post(f"/v1/runs/{run}:resolve", json={"call": "t0.0", "reason": "asked", **said})).status_code == 202
        result = await house.runtime.handle(run).result(PATIENCE_S)
        assert (result.status, result.code) == ends
        assert (await ann.get("/v1/effects")).json() == {"effects": []}
        rows = (await root.get("/v1/audit?action=effect.")).json()["rows"]
        assert [(row["by"], row["target"].startswith(run), row["reason"]) for row in rows] == [("ann", True, "asked")]


async def test_an_effect_that_did_not_happen_is_tried_once_more(house: House) -> None:
    async with house.client("ann") as ann:
        run = (await ann.post("/v1/runs", json={"intent": "parcel"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).row.code == "effect.unknown")
        said = {"call": "t0.0", "done": False, "retry": True}
        assert (await ann.post(f"/v1/runs/{run}:resolve", json=said)).status_code == 202

        def opened_twice() -> bool:
            kinds = [event.kind for event in house.runtime.handle(run).events()]
            return kinds.count("tool.opened") == 2 and house.runtime.show(run).row.code == "effect.unknown"

        await until(opened_twice)


async def test_an_approval_is_edited_or_answered_instead(house: House) -> None:
    async with house.client("ann") as ann, house.client("bob") as bob, house.client("root") as root:
        run = (await ann.post("/v1/runs", json={"intent": "support"})).json()["run_id"]
        first = await decided(house, run)
        path, seen = f"/v1/approvals/{first['approval']}:decide", {"if-match": f'"{first["digest"]}"'}
        await refused(await bob.post(path, json={"decision": "edit"}, headers=seen), 422, "approval.arguments")
        await refused(await bob.post(path, json={"decision": "respond"}, headers=seen), 422, "reason.missing")
        wrong = await bob.post(path, json={"decision": "later"}, headers=seen)
        await refused(wrong, 422, "http.body_invalid", "use one of approve, edit, reject, respond")
        edit = {"decision": "edit", "arguments": {"order_id": "o2"}, "reason": "the other one"}
        assert (await bob.post(path, json=edit, headers=seen)).json()["status"] == "edited"
        await refused(await bob.post(path, json={"decision": "approve"}, headers=seen), 409, "approval.decided")
        await until(lambda: len(house.runtime.approvals()) == 1)
        anew = await decided(house, run)
        assert anew["approval"] != first["approval"] and anew["requested_by"] == "bob"
        path, seen = f"/v1/approvals/{anew['approval']}:decide", {"if-match": f'"{anew["digest"]}"'}
        await refused(await bob.post(path, json={"decision": "approve"}, headers=seen), 403, "approval.self")
        assert (await root.post(path, json={"decision": "approve"}, headers=seen)).json()["status"] == "approved"
        assert (await house.runtime.handle(run).result(PATIENCE_S)).status == "succeeded"
        assert len(house.shop.paid) == 1
        other = (await ann.post("/v1/runs", json={"intent": "support"})).json()["run_id"]
        second = await decided(house, other)
        path, seen = f"/v1/approvals/{second['approval']}:decide", {"if-match": f'"{second["digest"]}"'}
        told = await bob.post(path, json={"decision": "respond", "text": "ask them first"}, headers=seen)
        assert (told.status_code, told.json()["status"], told.json()["decided_by"]) == (200, "answered", "bob")
        assert (await house.runtime.handle(other).result(PATIENCE_S)).status == "succeeded"
        assert len(house.shop.paid) == 1, "what was answered is not performed"
        listed = (await bob.get("/v1/approvals?status=all")).json()["approvals"]
        assert {each["approval"]: each["status"] for each in listed} == {
            first["approval"]: "edited",
            anew["approval"]: "approved",
            second["approval"]: "answered",
        }


async def test_a_decision_is_marked_wrong_and_counted(house: House) -> None:
    async with house.client("ann") as ann, house.client("root") as root:
        run = (await ann.post("/v1/runs", json={"intent": "busy"}, headers={"prefer": "wait=20"})).json()["run_id"]
        await refused(await ann.post(f"/v1/runs/{run}:mark", json={"call": "t0.0", "reason": " "}), 422, "reason.missing")
        await refused(await ann.post(f"/v1/runs/{run}:mark", json={"call": "t9.9", "reason": "bad"}), 422, "decision.unknown")
        for wrong, count in ((True, 1), (True, 1), (False, 0)):
            marked = await ann.post(f"/v1/runs/{run}:mark", json={"call": "t0.0", "reason": "not ours", "wrong": wrong})
            assert (marked.status_code, marked.json()["run_id"]) == (200, run)
            seen = (await ann.get("/v1/oversight")).json()
            assert (seen["false_allows"], seen["decisions"]) == (count, 9), seen
        assert (await root.get("/v1/audit?action=decision.")).json()["rows"][-1]["by"] == "ann"


async def test_every_list_is_read_to_its_end_page_by_page(house: House) -> None:
    async with house.client("ann") as ann, house.client("bob") as bob, house.client("root") as root:
        runs = [(await ann.post("/v1/runs", json={"intent": "support"})).json()["run_id"] for _ in range(3)]
        approvals = [(await decided(house, run))["approval"] for run in runs]
        for number in range(3):
            switch = {"name": f"disable_tool:t{number}", "on": True, "reason": "a test"}
            assert (await root.post("/v1/switches", json=switch)).status_code == 200

        async def read(client, path: str, rows: str, name: str, parameter: str = "cursor") -> list[object]:
            found: list[object] = []
            following: object = None
            while True:
                query = {"limit": 1} | ({} if following is None else {parameter: following})
                page = (await client.get(path, params=query)).json()
                assert len(page[rows]) <= 1
                found += [row[name] for row in page[rows]]
                following = page["next"]
                if following is None:
                    return found

        assert await read(ann, "/v1/runs", "runs", "run_id") == runs[::-1]
        assert await read(bob, "/v1/approvals", "approvals", "approval") == approvals
        numbers = await read(root, "/v1/audit", "rows", "seq", "after")
        assert numbers == sorted(set(numbers)) and len(numbers) >= 3
        assert await read(root, "/v1/dead-letters", "runs", "run_id") == []
        for path in ("/v1/runs", "/v1/approvals", "/v1/dead-letters", "/v1/outbox"):
            await refused(await root.get(f"{path}?cursor=bm9ib2R5"), 422, "cursor.unknown", "start from the first page")


async def test_a_switch_is_tried_set_guarded_and_cleared(house: House) -> None:
    async with house.client("root") as root, house.client("opa") as opa, house.client("ann") as ann:
        said = {"name": "disable_tool:refund", "on": True, "reason": "incident 12"}
        tried = (await root.post("/v1/switches", json=said | {"preview": True})).json()
        assert (tried["switches"], tried["proof"]["tools"]) == ([], ["refund"])
        await refused(await root.post("/v1/switches", json=said | {"reason": " "}), 422, "reason.missing")
        await refused(await root.post("/v1/switches", json=said | {"name": "explode:x"}), 422, "switch.unknown")
        await refused(await opa.post("/v1/switches", json=said), 403, "auth.forbidden")
        version = (await root.post("/v1/switches", json=said)).json()["version"]
        await refused(
            await root.post("/v1/switches", json=said | {"on": False, "expected_version": version - 1}), 409, "switch.conflict"
        )
        assert (await opa.post("/v1/switches", json=said | {"tenant": "acme"})).status_code == 200
        assert [row["reason"] for row in (await opa.get("/v1/switches")).json()["details"]] == ["incident 12"] * 2
        assert (await ann.get("/v1/switches")).status_code == 403
        cleared = await root.post("/v1/switches", json=said | {"on": False, "reason": "over"})
        assert cleared.json()["switches"] == ["disable_tool:refund@tenant=acme"]
