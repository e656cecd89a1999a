"""Approvals over HTTP: what is answered is what was seen, by somebody else, once."""

from __future__ import annotations

import msgspec

from quarterdeck.core.canonical import digest
from tests.server.stage import House, decided


async def asked(house: House, caller: str = "ann") -> tuple[str, dict[str, object]]:
    """A run that waits, and its approval."""
    async with house.client(caller) as client:
        run = (await client.post("/v1/runs", json={"intent": "support"})).json()["run_id"]
    return run, await decided(house, run)


async def test_what_was_seen_is_approved_by_somebody_else_once(house: House) -> None:
    run, approval = await asked(house)
    path = f"/v1/approvals/{approval['approval']}"
    async with house.client("bob") as client:
        shown = await client.get(path)
        etag = shown.headers["etag"]
        assert etag == f'"{approval["digest"]}"'
        assert msgspec.json.decode(shown.json()["shown_text"]) == shown.json()["shown"]
        assert '"order_id":"o1"' in shown.json()["shown_text"]

        bare = await client.post(f"{path}:decide", json={"decision": "approve"})
        assert (bare.status_code, bare.json()["code"]) == (428, "http.precondition")
        for wrong in ("*", etag.strip('"'), f"W/{etag}", f"{etag}, {etag}"):
            answer = await client.post(f"{path}:decide", json={"decision": "approve"}, headers={"if-match": wrong})
            assert (answer.status_code, answer.json()["code"]) == (400, "http.header"), wrong
        stale = {"if-match": f'"{digest("x", b"y")}"'}
        changed = await client.post(f"{path}:decide", json={"decision": "approve"}, headers=stale)
        assert (changed.status_code, changed.json()["code"]) == (412, "approval.digest_differs")
        silent = await client.post(f"{path}:decide", json={"decision": "reject", "reason": " "}, headers={"if-match": etag})
        assert (silent.status_code, silent.json()["code"]) == (422, "reason.missing")
        assert house.shop.paid == []

        done = await client.post(f"{path}:decide", json={"decision": "approve", "reason": "known"}, headers={"if-match": etag})
        assert (done.status_code, done.json()["status"], done.json()["decided_by"]) == (200, "approved", "bob")
        repeated = await client.post(
            f"{path}:decide", json={"decision": "approve", "reason": "known"}, headers={"if-match": etag}
        )
        assert (repeated.status_code, repeated.json()["status"]) == (200, "approved"), (
            "an answer that was lost is asked for again"
        )
        again = await client.post(f"{path}:decide", json={"decision": "reject", "reason": "no"}, headers={"if-match": etag})
        assert (again.status_code, again.json()["code"]) == (409, "approval.decided")
    assert (await house.runtime.handle(run).result(20)).ok
    assert len(house.shop.paid) == 1


async def test_whoever_asked_cannot_approve_whatever_rights_there_are(house: House) -> None:
    _, approval = await asked(house)
    async with house.client("root") as client:
        run = (await client.post("/v1/runs", json={"intent": "support", "caller": {"tenant": "acme"}})).json()
        own = await decided(house, run["run_id"])
        path = f"/v1/approvals/{own['approval']}:decide"
        answer = await client.post(path, json={"decision": "approve"}, headers={"if-match": f'"{own["digest"]}"'})
        assert (answer.status_code, answer.json()["code"]) == (403, "approval.self")
        path = f"/v1/approvals/{approval['approval']}:decide"
        answer = await client.post(
            path, json={"decision": "reject", "reason": "no"}, headers={"if-match": f'"{approval["digest"]}"'}
        )
        assert answer.status_code == 200
    assert house.shop.paid == []


async def test_lists_go_on_and_are_filtered(house: House) -> None:
    names = [(await asked(house))[1]["approval"] for _ in range(3)]
    async with house.client("bob") as client:
        first = (await client.get("/v1/approvals?limit=2")).json()
        rest = (await client.get("/v1/approvals", params={"limit": 2, "cursor": first["next"]})).json()
        assert [each["approval"] for page in (first, rest) for each in page["approvals"]] == names
        assert rest["next"] is None
        assert (await client.get("/v1/approvals?status=approved")).json()["approvals"] == []
        assert len((await client.get("/v1/approvals?status=all")).json()["approvals"]) == 3
    async with house.client("zoe") as client:
        assert (await client.get("/v1/approvals")).json()["approvals"] == []
        assert (await client.get("/v1/approvals", params={"cursor": first["next"]})).json()["code"] == "cursor.unknown"


async def test_whoever_submitted_for_somebody_else_cannot_approve_it_either(house: House) -> None:
    async with house.client("root") as client:
        envelope = {"intent": "support", "caller": {"tenant": "acme", "user": "somebody"}}
        run = (await client.post("/v1/runs", json=envelope)).json()
        asked_for = await decided(house, run["run_id"])
        assert asked_for["requested_by"] == "somebody"
        path = f"/v1/approvals/{asked_for['approval']}:decide"
        seen = {"if-match": f'"{asked_for["digest"]}"'}
        answer = await client.post(path, json={"decision": "approve"}, headers=seen)
        assert (answer.status_code, answer.json()["code"]) == (403, "approval.self")
        assert house.shop.paid == []
    async with house.client("bob") as client:
        assert (await client.post(path, json={"decision": "approve"}, headers=seen)).status_code == 200
    assert (await house.runtime.handle(run["run_id"]).result(20)).ok
