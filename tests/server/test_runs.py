"""Asking for runs, listing them, cancelling them, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

from quarterdeck.server.table import TABLE
from tests.server.stage import House, decided, open_house, until

GREET = {"intent": "greet", "payload": "you"}


async def test_a_run_is_answered_at_once_and_found_where_the_answer_says(house: House) -> None:
    async with house.client() as client:
        answer = await client.post("/v1/runs", json=GREET)
        assert answer.status_code == 202
        shown = await client.get(answer.headers["location"], headers={"prefer": "wait=5"})
        assert shown.json()["run_id"] == answer.json()["run_id"]
        assert (shown.json()["tenant"], shown.json()["user"]) == ("acme", "ann")


async def test_who_waits_gets_the_result(house: House) -> None:
    async with house.client() as client:
        answer = await client.post("/v1/runs", json=GREET, headers={"prefer": "respond-async, wait=20"})
    assert answer.status_code == 200
    assert answer.json()["result"] == {"text": "hello you", "partial": False, "message": "", "value": None}
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("succeeded", "wait=20")


async def test_the_result_of_a_workflow_is_a_value_and_why_it_failed_is_said_to_readers_of_contents(house: House) -> None:
    async with house.client() as client, house.client("vic") as viewer:
        good = await client.post("/v1/runs", json={"intent": "price", "payload": 3}, headers={"prefer": "wait=20"})
        assert good.json()["result"] == {"text": '{"pence":300}', "partial": False, "message": "", "value": {"pence": 300}}
        bad = await client.post("/v1/runs", json={"intent": "price", "payload": -3}, headers={"prefer": "wait=20"})
        said = {"text": "", "partial": False, "message": "ValueError: -3 is no price", "value": None}
        assert (bad.json()["code"], bad.json()["result"]) == ("workflow.failed", said)
        assert (await viewer.get(f"/v1/runs/{bad.json()['run_id']}")).json()["result"] is None


async def test_who_asks_for_sync_waits_without_saying_so(house: House) -> None:
    async with house.client() as client:
        assert (await client.post("/v1/runs", json=GREET | {"mode": "sync"})).status_code == 200
        handed_off = await client.post("/v1/runs", json=GREET | {"mode": "sync"}, headers={"prefer": "respond-async"})
        assert handed_off.status_code == 202


async def test_a_wait_that_is_over_hands_the_same_run_off(house: House) -> None:
    async with house.client() as client:
        answer = await client.post("/v1/runs", json={"intent": "slow"}, headers={"prefer": "wait=0"})
        assert (answer.status_code, answer.json()["result"]) == (202, None)
        house.shop.gate.set()
        ended = await house.runtime.handle(answer.json()["run_id"]).result(20)
    assert ended.text == "done waiting"


async def test_a_key_means_one_run_in_the_header_as_in_the_field(house: House) -> None:
    async with house.client() as client:
        first = await client.post("/v1/runs", json=GREET, headers={"idempotency-key": "k-1"})
        again = await client.post("/v1/runs", json=GREET | {"idempotency_key": "k-1"})
        quoted = await client.post("/v1/runs", json=GREET | {"idempotency_key": "k-1"}, headers={"idempotency-key": '"k-1"'})
        assert {first.json()["run_id"]} == {again.json()["run_id"], quoted.json()["run_id"]}
        assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
        differing = await client.post("/v1/runs", json=GREET | {"idempotency_key": "k-2"}, headers={"idempotency-key": "k-1"})
        assert (differing.status_code, differing.json()["code"]) == (400, "http.header")
        other = await client.post("/v1/runs", json=GREET | {"payload": "me"}, headers={"idempotency-key": "k-1"})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency.body_differs")
        assert len((await client.get("/v1/runs")).json()["runs"]) == 1


MISFITS = [
    ({"intent": "nothing"}, 422, "route.unknown"),
    ({"intent": "globex_only"}, 403, "route.tenant"),
    ({"intent": "greet", "mode": "event_triggered"}, 403, "route.mode"),
    ({"intent": "greet", "colour": "red"}, 422, "http.body_invalid"),
    ({"intent": "greet", "caller": {"tenant": "acme", "colour": "red"}}, 422, "http.body_invalid"),
    ({"intent": "greet", "budget": {"max_steps": "3"}}, 422, "http.body_invalid"),
    ({"intent": "greet", "budget": {"max_steps": -3}}, 422, "budget.invalid"),
    ({"intent": "greet", "caller": 5}, 422, "http.body_invalid"),
    ({"payload": 1}, 422, "http.body_invalid"),
    ([], 422, "http.body_invalid"),
    ("text", 422, "http.body_invalid"),
]


async def test_what_does_not_fit_is_a_problem_with_a_code(house: House) -> None:
    async with house.client() as client:
        for body, status, code in MISFITS:
            answer = await client.post("/v1/runs", json=body)
            assert (answer.status_code, answer.json()["code"]) == (status, code), body
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
        assert (await client.get("/v1/runs")).json()["runs"] == []


async def test_a_chosen_id_is_taken_once(house: House) -> None:
    async with house.client() as client:
        assert (await client.post("/v1/runs", json=GREET | {"run_id": "mine"})).status_code == 202
        again = await client.post("/v1/runs", json=GREET | {"run_id": "mine"})
        assert (again.status_code, again.json()["code"]) == (409, "admission.run")


async def test_names_with_slashes_and_colons_have_an_address(house: House) -> None:
    async with house.client() as client:
        for name in ("a/b", "a:cancel", "a/events", "x+@z"):
            answer = await client.post("/v1/runs", json=GREET | {"run_id": name})
            assert (await client.get(answer.headers["location"])).json()["run_id"] == name
            events = await client.get(answer.headers["location"] + "/events?follow=false")
            assert events.text.startswith("id: 1\nevent: run.admitted\n")


async def test_lists_go_on_by_an_opaque_cursor(house: House) -> None:
    async with house.client() as client:
        made = [
            (await client.post("/v1/runs", json=GREET | {"correlation_id": "even" if n % 2 else "odd"})).json() for n in range(5)
        ]
        wanted = [run["run_id"] for run in reversed(made)]
        first = (await client.get("/v1/runs?limit=2")).json()
        second = (await client.get("/v1/runs", params={"limit": 2, "cursor": first["next"]})).json()
        last = (await client.get("/v1/runs", params={"limit": 2, "cursor": second["next"]})).json()
        assert [run["run_id"] for page in (first, second, last) for run in page["runs"]] == wanted
        assert last["next"] is None and wanted[1] not in first["next"]
        odd = (await client.get("/v1/runs?correlation_id=odd&route=greet")).json()["runs"]
        assert [run["run_id"] for run in odd] == [wanted[0], wanted[2], wanted[4]]
        for query in (
            "cursor=zzz",
            "cursor=%25",
            "limit=0",
            "limit=many",
            "status=odd",
            "colour=red",
            "status=null",
            "route=a&route=b",
            "route=%ff",
        ):
            answer = await client.get(f"/v1/runs?{query}")
            assert answer.status_code == 422, query
            assert answer.json()["code"] in ("cursor.unknown", "http.query_invalid")


async def test_a_cancel_stops_a_run_and_is_harmless_when_repeated(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "support"})).json()["run_id"]
        await decided(house, run)
        assert (await client.post(f"/v1/runs/{run}:cancel", json={"reason": "no"})).status_code == 202
        await until(lambda: house.runtime.show(run).row.status == "cancelled")
        assert (await client.post(f"/v1/runs/{run}:cancel")).status_code == 202
        text = (await client.get(f"/v1/runs/{run}/events?follow=false")).text
    assert '"by":"ann","reason":"no"' in text
    assert house.shop.paid == []


async def test_an_unknown_effect_is_resolved_by_a_person(house: House) -> None:
    async with house.client() as client:
        run = (await client.post("/v1/runs", json={"intent": "parcel"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).row.status == "waiting")
        assert (await client.get(f"/v1/runs/{run}")).json()["unknown_effects"] == ["t0.0"]
        wrong = await client.post(f"/v1/runs/{run}:resolve", json={"call": "t9.9", "done": True})
        assert (wrong.status_code, wrong.json()["code"]) == (409, "effect.not_unknown")
        said = await client.post(f"/v1/runs/{run}:resolve", json={"call": "t0.0", "done": True, "result": "found it"})
        assert said.status_code == 202
        assert (await house.runtime.handle(run).result(20)).effects["succeeded"] == 1


async def test_a_trace_becomes_the_correlation_and_comes_back(house: House) -> None:
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    async with house.client() as client:
        answer = await client.post("/v1/runs", json=GREET, headers={"traceparent": trace})
        assert (answer.json()["correlation_id"], answer.headers["traceparent"]) == ("ab" * 16, trace)
        own = await client.post("/v1/runs", json=GREET | {"correlation_id": "mine"}, headers={"traceparent": trace})
        assert own.json()["correlation_id"] == "mine"
        bad = await client.post("/v1/runs", json=GREET, headers={"traceparent": "00-" + "0" * 32 + "-" + "cd" * 8 + "-01"})
        assert bad.json()["correlation_id"] == bad.json()["run_id"]


async def test_other_verbs_are_refused_and_head_is_get(house: House) -> None:
    async with house.client() as client:
        for row in TABLE:
            path = row.path.replace("{run_id}", "x").replace("{approval}", "x").replace("{task_id}", "x")
            answer = await client.request("PATCH", path)
            assert (answer.status_code, answer.json()["code"]) == (405, "http.method"), path
            assert row.verb in answer.headers["allow"]
        assert (await client.options("/v1/runs", headers={"origin": "https://evil.example"})).status_code == 405
        assert (await client.get("/v1/runs/x:cancel")).status_code == 405
        run = (await client.post("/v1/runs", json=GREET)).headers["location"]
        for path in ("/v1/runs", run, run + "/events", "/healthz/live"):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b""), path


async def test_the_largest_page_says_that_there_are_more_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, max_active=0) as house, house.client() as client:
        await asyncio.gather(*[house.runtime.submit("greet", tenant="acme") for _ in range(1_001)])
        page = (await client.get("/v1/runs", params={"limit": 1_000})).json()
        assert (len(page["runs"]), page["next"] is None) == (1_000, False)
        rest = (await client.get("/v1/runs", params={"limit": 1_000, "cursor": page["next"]})).json()
        assert (len(rest["runs"]), rest["next"]) == (1, None)
        assert not {run["run_id"] for run in page["runs"]} & {run["run_id"] for run in rest["runs"]}
        for limit in (1_001, 0, -1):
            answer = await client.get("/v1/runs", params={"limit": limit})
            assert (answer.status_code, answer.json()["code"]) == (422, "http.query_invalid")
