"""The route table over HTTP: every field, and runs that are refused, wait, or go elsewhere, always with a code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import msgspec
import pytest

from quarterdeck import Budget, Quarterdeck, UsageError
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.specs import RouteSpec
from quarterdeck.core.windows import STANDINGS
from quarterdeck.server import Settings, bodies, create_app, serve
from quarterdeck.testing import ScriptedModel
from tests.server.stage import PATIENCE_S, ByName, House, Shop, until


def desk() -> Quarterdeck:
    deck = Quarterdeck("desk")
    deck.agent("greet", model=ScriptedModel(lambda messages: f"hello {messages[-1].content}"))
    deck.agent("plain", model=ScriptedModel(lambda messages: "a plain answer"))
    deck.route(
        "ask",
        "greet",
        owner="desk-lead@shop.example",
        paging="pager:desk",
        task_class="simple",
        risk="high",
        autonomy="advisory",
        tenants=["acme"],
        priority="interactive",
        refusal="write to desk@shop.example",
        fallback="plain",
        on_budget="reroute",
        budget=Budget(turns=3),
        approval_timeout="8h",
        latency="2s",
        source="untrusted",
        escalation=["boss@shop.example", "ceo@shop.example"],
        at_limit="pause",
        retention="30d",
        escalate_after="1h",
        on_denial="refuse",
        on_expiry="refuse",
        quorum=2,
    )
    deck.route("person", "greet", fallback="ask_a_human")
    deck.route("alone", "greet", owner="nobody@shop.example", refusal="call 555")
    deck.budget("route:ask", Budget(tokens=10_000))
    return deck


@asynccontextmanager
async def opened(folder: Path, deck: Quarterdeck, max_active: int = 64) -> AsyncIterator[House]:
    async with deck.start(folder / "store.db", drain_s=0.0, max_active=max_active) as runtime:
        door = create_app(runtime, ByName(), Settings(port=0))
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(door, ready=ready.set_result))
        try:
            yield House(await asyncio.wait_for(ready, PATIENCE_S), runtime, door, Shop(), serving)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def test_every_field_of_a_route_is_in_the_body() -> None:
    assert set(RouteSpec.__struct_fields__) - set(bodies.RouteBody.__struct_fields__) == set()


async def test_the_table_shows_every_field_that_was_said(tmp_path: Path) -> None:
    async with opened(tmp_path, desk()) as house, house.client("root") as client:
        rows = {row["intent"]: row for row in (await client.get("/v1/routes")).json()["routes"]}
    assert rows["ask"] == {
        "intent": "ask",
        "agent": "greet",
        "model": "greet",
        "owner": "desk-lead@shop.example",
        "paging": "pager:desk",
        "task_class": "simple",
        "risk": "high",
        "autonomy": "advisory",
        "modes": ["async_job", "sync", "human_gated"],
        "tenants": ["acme"],
        "tools": [],
        "limits": {"turns": 3, "tool_calls": 5, "context": 6_000, "depth": 5, "hops": 10, "repeats": 3},
        "priority": "interactive",
        "approval_timeout_s": 28_800,
        "refusal": "write to desk@shop.example",
        "fallback": "plain",
        "on_budget": "reroute",
        "latency_ms": 2_000,
        "payload": {"integrity": "untrusted", "confidentiality": "public"},
        "escalation": ["boss@shop.example", "ceo@shop.example"],
        "at_limit": "pause",
        "retention_s": 2_592_000,
        "escalate_after_s": 3_600,
        "on_denial": "refuse",
        "on_expiry": "refuse",
        "quorum": 2,
        "terms": [],
    }
    assert rows["ask_a_human"]["agent"] == "ask_a_human"


async def test_a_caller_sees_the_table_as_it_is_in_effect_for_its_tenant(tmp_path: Path) -> None:
    deck = desk()
    deck.tenant("acme", "plain", autonomy="advisory", budget=Budget(turns=2))
    deck.tenant("globex", risk="high")

    async def seen(client: httpx2.AsyncClient, **query: str) -> list[object]:
        rows = {row["intent"]: row for row in (await client.get("/v1/routes", params=query)).json()["routes"]}
        found = [rows[name] for name in rows if name == "plain"]
        return [value for row in found for value in (row["autonomy"], row["risk"], row["terms"], row["limits"]["turns"])]

    usual = ["bounded_autonomous", "low", ["acme", "globex"], 10]
    async with (
        opened(tmp_path, deck) as house,
        house.client("root") as root,
        house.client("opa") as opa,
    ):
        assert await seen(root) == usual
        assert await seen(root, tenant="new") == [*usual[:2], [], 10]
        assert await seen(root, tenant="acme") == await seen(opa) == ["advisory", "low", ["acme"], 2]
        assert await seen(root, tenant="globex") == ["bounded_autonomous", "high", ["globex"], 10]
        assert await seen(opa, tenant="globex") == []
        assert "ask" not in {row["intent"] for row in (await root.get("/v1/routes?tenant=globex")).json()["routes"]}


async def test_a_stopped_route_sends_its_runs_elsewhere_and_the_journal_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path, desk()) as house, house.client() as ann:
        asked = {"intent": "ask", "payload": "you", "idempotency_key": "k1"}
        first = (await ann.post("/v1/runs", json=asked, headers={"prefer": "wait=20"})).json()
        assert (first["route"], first["requested_route"], first["admission"], first["admission_code"]) == (
            *("ask", "ask"),
            *("start", "admission.start"),
        )
        for route in ("ask", "alone", "person"):
            await house.runtime.switch(f"stop_route:{route}")
        again = (await ann.post("/v1/runs", json=asked)).json()
        assert (again["run_id"], again["status"]) == (first["run_id"], "succeeded"), "what is there already is not refused"
        moved = (await ann.post("/v1/runs", json={**asked, "idempotency_key": "k2"}, headers={"prefer": "wait=20"})).json()
        assert (moved["route"], moved["agent"], moved["requested_route"]) == ("plain", "plain", "ask")
        assert (moved["admission"], moved["admission_code"]) == ("elsewhere", "switch.route_stopped")
        assert moved["result"]["text"] == "a plain answer"
        twice = (await ann.post("/v1/runs", json={**asked, "idempotency_key": "k2"})).json()
        assert twice["run_id"] == moved["run_id"]
        contract = house.runtime.show(moved["run_id"]).contract
        assert (contract["requested"], contract["answer"], contract["admission"]) == ("ask", "elsewhere", "switch.route_stopped")

        refused = await ann.post("/v1/runs", json={"intent": "alone"})
        assert (refused.status_code, refused.json()["code"]) == (403, "switch.route_stopped")
        assert refused.json()["info"] == {"route": "alone", "owner": "nobody@shop.example", "refusal": "call 555"}
        assert "call 555" in refused.json()["detail"]


async def test_a_person_takes_over_from_a_stopped_route(tmp_path: Path) -> None:
    async with opened(tmp_path, desk()) as house, house.client() as ann, house.client("bob") as bob:
        await house.runtime.switch("stop_route:person")
        run = (await ann.post("/v1/runs", json={"intent": "person", "payload": {"order": "A1"}})).json()
        assert (run["route"], run["admission_code"]) == ("ask_a_human", "switch.route_stopped")
        await until(lambda: house.runtime.show(run["run_id"]).row.status == "waiting")
        [row] = (await bob.get("/v1/approvals")).json()["approvals"]
        shown = await bob.get(f"/v1/approvals/{row['approval']}")
        assert "A1" in shown.json()["shown_text"]
        said = {"decision": "approve", "reason": "I have called them"}
        decided = await bob.post(
            f"/v1/approvals/{row['approval']}:decide", json=said, headers={"if-match": shown.headers["etag"]}
        )
        assert decided.status_code == 200
        result = await house.runtime.handle(run["run_id"]).result(PATIENCE_S)
        assert (result.status, result.text) == ("succeeded", "I have called them")


async def test_a_spent_account_sends_runs_elsewhere_where_the_route_says_so(tmp_path: Path) -> None:
    deck = desk()
    deck.budget("route:alone", Budget(turns=1, model_calls=1))
    async with opened(tmp_path, deck) as house, house.client() as ann:
        await _spend(house.runtime, "ask")
        moved = (await ann.post("/v1/runs", json={"intent": "ask"}, headers={"prefer": "wait=20"})).json()
        assert (moved["route"], moved["admission"], moved["admission_code"]) == ("plain", "elsewhere", "admission.budget")


async def _spend(runtime: Runtime, route: str) -> None:
    """Bring the account of a route to its end, as runs would have: its limit becomes what they have spent."""
    from quarterdeck.core.commit import SetAccount
    from quarterdeck.core.contract import Limits

    await (await runtime.submit(route, "you", tenant="acme")).result(PATIENCE_S)
    spent = next(row for row in runtime.budgets() if (row.account, row.dimension) == (f"route:{route}", "tokens"))
    assert spent.committed > 0
    await runtime.apply(SetAccount(f"route:{route}", Limits(tokens=spent.committed)))


async def test_a_run_that_finds_no_room_waits_and_is_told(tmp_path: Path) -> None:
    deck = Quarterdeck("slow")
    let_go = asyncio.Event()

    @deck.tool(effect="read")
    async def wait_for_it() -> str:
        """Come back when the test says so."""
        await let_go.wait()
        return "now"

    deck.agent("slow", model=ScriptedModel([[("wait_for_it", {})], "done"]), tools=[wait_for_it])
    async with opened(tmp_path, deck, max_active=1) as house, house.client() as ann:
        first = (await ann.post("/v1/runs", json={"intent": "slow"})).json()
        await until(lambda: house.runtime.active == 1)
        second = (await ann.post("/v1/runs", json={"intent": "slow"})).json()
        assert (first["admission"], second["admission"], second["admission_code"]) == ("start", "wait", "admission.capacity")
        let_go.set()
        await house.runtime.handle(second["run_id"]).result(PATIENCE_S)


def test_a_deck_whose_fallbacks_lead_nowhere_does_not_start(tmp_path: Path) -> None:
    from quarterdeck.app.wiring import check_deck

    for wrong in ("nothing", "round"):
        deck = desk()
        deck.route("round", "greet", fallback="round" if wrong == "round" else None)
        deck.route("wrong", "greet", fallback=wrong)
        with pytest.raises(UsageError, match=r"go round|does not exist"):
            check_deck(deck)


def test_contracts_of_before_say_that_they_started() -> None:
    from quarterdeck.core.contract import RunContract

    fields = {field.name for field in msgspec.structs.fields(RunContract) if field.required}
    assert not fields & {"requested", "answer", "admission"}


async def test_accounts_say_how_they_stand(tmp_path: Path) -> None:
    """Over HTTP, and in numbers for who watches: without the names of tenants."""
    deck = desk()
    deck.budget("all", Budget(tokens=10**6), per="month")
    deck.budget("tenant:*", Budget(tokens=10**9))
    deck.budget("route:plain", Budget(turns=1, tools=0))
    async with opened(tmp_path, deck) as house, house.client("root") as client:
        await (await house.runtime.submit("greet", "ann", tenant="secretive")).result()
        for row in (await client.get("/v1/budgets")).json()["budgets"]:
            assert row["standing"] in STANDINGS and "exhausted_in_s" in row, row
        text = (await client.get("/metrics")).text
    assert 'quarterdeck_accounts{standing="open"}' in text and "secretive" not in text
    assert 'quarterdeck_account_used_ratio{account="all@month",dimension="tokens"}' in text


async def test_what_the_authority_does_is_in_numbers_and_names_nobody(tmp_path: Path) -> None:
    deck = Shop().deck()
    async with opened(tmp_path, deck) as house, house.client("root") as client:
        runtime = house.runtime
        await runtime.switch("force_approval:ship", reason="secretive")
        await runtime.switch("disable_tool:find_order", tenant="secretive", reason="x")
        run = await runtime.submit("support", user="secretive", tenant="secretive")
        await run.rest()
        body = {"intent": "greet", "payload": "a", "idempotency_key": "secretive"}
        assert (await client.post("/v1/runs", json=body)).status_code == 202
        assert (await client.post("/v1/runs", json=body | {"payload": "b"})).status_code == 422
        text = (await client.get("/metrics")).text
    for line in (
        'quarterdeck_switches{kind="force_approval"} 1.0',
        'quarterdeck_switches{kind="disable_tool"} 1.0',
        'quarterdeck_switches{kind="freeze"} 0.0',
        'quarterdeck_approvals{standing="waiting"} 1.0',
        'quarterdeck_gate_refusals_total{code="autonomy.executes_after_approval",ruling="ask"} 1.0',
        'quarterdeck_gate_refusals_total{code="switch.tool_disabled",ruling="deny"} 1.0',
        'quarterdeck_http_problems_total{code="idempotency.body_differs"} 1.0',
    ):
        assert line in text, [each for each in text.splitlines() if "approv" in each or "refusal" in each or "problem" in each]
    assert "secretive" not in text
