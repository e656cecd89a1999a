"""Orders to runs, and keys, over HTTP: idempotent, recorded under the authenticated name, bounded by tenant and right."""

from __future__ import annotations

import asyncio
from pathlib import Path

from quarterdeck import Context, Quarterdeck
from quarterdeck.core.identity import Grant, Principal, Role
from quarterdeck.server import Settings, create_app
from quarterdeck.server.identity import KeyAuthenticator, KeyCache
from quarterdeck.testing import ScriptedModel
from tests.server.stage import PATIENCE_S, PEOPLE, House, open_house, until
from tests.server.test_routes import opened


def waiting_deck() -> Quarterdeck:
    deck = Quarterdeck("desk")

    @deck.workflow("collect")
    async def collect(ctx: Context) -> list[object]:
        return [await ctx.signal("part"), await ctx.signal("part")]

    return deck


def kinds(house: House, run_id: str, kind: str) -> list[dict[str, object]]:
    return [event.body for event in house.runtime.handle(run_id).events() if event.kind == kind]


async def test_a_signal_under_one_key_is_one_message_and_says_who_sent_it(tmp_path: Path) -> None:
    async with opened(tmp_path, waiting_deck()) as house, house.client("ann") as ann, house.client("opa") as opa:
        run = (await ann.post("/v1/runs", json={"intent": "collect"})).json()["run_id"]
        for number, key in ((1, "first"), (1, "first"), (2, "second")):
            said = {"name": "part", "payload": number}
            sent = await opa.post(f"/v1/runs/{run}:signal", json=said, headers={"idempotency-key": key})
            assert (sent.status_code, sent.json()["run_id"]) == (202, run)
        result = await house.runtime.handle(run).result(PATIENCE_S)
        assert (result.status, result.text) == ("succeeded", "[1,2]")
        assert [body["by"] for body in kinds(house, run, "signal.received")] == ["opa", "opa"]
        late = await opa.post(f"/v1/runs/{run}:signal", json={"name": "part"})
        assert (late.status_code, late.json()["code"]) == (409, "run.ended")
        wrong = await opa.post(f"/v1/runs/{run}:signal", json={"name": "no name"})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "name.invalid")


async def test_a_paused_run_begins_nothing_until_it_is_resumed(house: House) -> None:
    async with house.client("ann") as ann:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        await until(lambda: bool(kinds(house, run, "tool.opened")))
        for _ in range(2):
            paused = await ann.post(f"/v1/runs/{run}:pause", json={"reason": "a storm"}, headers={"idempotency-key": "p1"})
            assert paused.status_code == 202
        house.shop.gate.set()
        await until(lambda: house.runtime.show(run).row.code == "run.paused")
        assert [(body["by"], body["reason"]) for body in kinds(house, run, "run.paused")] == [("ann", "a storm")]
        assert (await ann.get(f"/v1/runs/{run}")).json()["waiting_on"] == ["operator"]
        assert (await ann.post(f"/v1/runs/{run}:resume")).status_code == 202
        assert (await house.runtime.handle(run).result(PATIENCE_S)).text == "done waiting"
        assert [body["by"] for body in kinds(house, run, "run.resumed")] == ["ann"]


async def test_orders_need_the_right_in_the_runs_own_tenant(house: House) -> None:
    async with house.client("ann") as ann, house.client("zoe") as zoe, house.client("vic") as vic:
        run = (await ann.post("/v1/runs", json={"intent": "slow"})).json()["run_id"]
        for order, body in (("signal", {"name": "part"}), ("pause", {}), ("resume", {})):
            assert (await zoe.post(f"/v1/runs/{run}:{order}", json=body)).status_code == 404
            assert (await vic.post(f"/v1/runs/{run}:{order}", json=body)).status_code == 403
        assert kinds(house, run, "run.paused") == []


async def test_a_sync_run_is_handed_off_when_its_latency_has_passed_or_it_would_have_to_wait(tmp_path: Path) -> None:
    let_go = asyncio.Event()
    deck = Quarterdeck("slow")

    @deck.tool(effect="read")
    async def wait_for_it() -> str:
        """Come back when the test says so."""
        await let_go.wait()
        return "now"

    deck.agent("slow", model=ScriptedModel([[("wait_for_it", {})], "done"]), tools=[wait_for_it])
    deck.route("tight", "slow", latency="1ms")
    deck.route("patient", "slow", modes=["sync"])
    async with opened(tmp_path, deck, max_active=1) as house, house.client() as ann:
        handed = await ann.post("/v1/runs", json={"intent": "tight", "mode": "sync"})
        assert (handed.status_code, handed.json()["status"] in ("queued", "running")) == (202, True)
        assert handed.headers["location"] == f"/v1/runs/{handed.json()['run_id']}"
        await until(lambda: house.runtime.active == 1)
        predicted = await ann.post("/v1/runs", json={"intent": "patient"})  # it would wait for a minute here, if it waited
        assert (predicted.status_code, predicted.json()["admission_code"]) == (202, "admission.capacity")
        deadlines = [answer.json()["deadline_at_us"] for answer in (handed, predicted)]
        assert deadlines == [None, None], "a run that is handed off goes on; nobody waits for it any more"
        let_go.set()
        for answer in (handed, predicted):
            assert (await house.runtime.handle(answer.json()["run_id"]).result(PATIENCE_S)).text == "done"


async def test_keys_are_made_listed_and_ended_and_the_text_is_shown_once(tmp_path: Path) -> None:
    cache = KeyCache()
    PEOPLE["adi"] = Principal("adi", "user", (Grant("acme", Role.ADMIN),))
    async with open_house(tmp_path) as house, house.client("adi") as adi, house.client("root") as root:
        asked = {"subject": "ci", "grants": [{"tenant": "acme", "role": "submitter"}], "label": "nightly", "lifetime_s": 3_600}
        made = await adi.post("/v1/keys", json=asked)
        assert (made.status_code, made.headers["cache-control"], made.json()["created_by"]) == (201, "no-store", "adi")
        text, prefix = made.json()["key"], made.json()["prefix"]
        beyond = await adi.post("/v1/keys", json={"subject": "x", "grants": [{"tenant": "*", "role": "viewer"}]})
        assert (beyond.status_code, beyond.json()["code"]) == (403, "auth.beyond_rights")
        everywhere = await root.post("/v1/keys", json={"subject": "x", "grants": [{"tenant": "globex", "role": "viewer"}]})
        assert everywhere.status_code == 201

        listed = await adi.get("/v1/keys")
        assert [(key["prefix"], key["status"]) for key in listed.json()["keys"]] == [(prefix, "active")]
        assert text not in listed.text and "digest" not in listed.text
        assert len((await root.get("/v1/keys")).json()["keys"]) == 2

        runtime = house.runtime
        keyed = KeyAuthenticator(runtime.insights, runtime.parts.clock, cache)
        house.door._authenticator, named = keyed, house.door._authenticator
        house.door.stage = create_app(runtime, keyed, Settings(), cache).stage
        async with house.client(text) as ci:
            assert (await ci.post("/v1/runs", json={"intent": "greet"})).json()["user"] == "ci"
            assert (await ci.get("/v1/keys")).json()["code"] == "auth.forbidden"
            house.door._authenticator = named
            for name, status in (("adi", 200), ("adi", 200), ("ann", 403)):
                async with house.client(name) as client:
                    ended = await client.post(f"/v1/keys/{prefix}:revoke", json={"reason": "leaked"})
                    assert ended.status_code == status, ended.text
            house.door._authenticator = keyed
            revoked = await ci.get("/v1/runs")  # at once, though its row was read less than a second ago
            assert (revoked.status_code, revoked.json()["code"]) == (401, "auth.revoked")
        house.door._authenticator = named
        other = await adi.post(f"/v1/keys/{everywhere.json()['prefix']}:revoke")
        unknown = await adi.post("/v1/keys/nothing:revoke")
        assert other.status_code == unknown.status_code == 404
        assert other.json()["code"] == unknown.json()["code"] == "auth.no_such_key"
        shown = (await adi.get("/v1/keys")).json()["keys"][0]
        assert (shown["status"], shown["revoked_by"], shown["reason"]) == ("revoked", "adi", "leaked")
    del PEOPLE["adi"]
