"""The outbox and shared accounts over HTTP: listed per tenant, decided by who may, recorded, harmless to repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quarterdeck import Budget, Context, Quarterdeck
from quarterdeck.ports.outbox import DeliveryFailed, Message
from quarterdeck.testing import ScriptedModel
from tests.server.stage import PATIENCE_S, House, until
from tests.server.test_routes import opened


@dataclass
class Desk:
    """A deck that publishes, whose receiver is broken until the test mends it; and one route that rests at its tenant's limit."""

    broken: bool = True
    limited: bool = False
    arrived: list[str] = field(default_factory=list)

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("desk")

        @deck.outbox("orders")
        async def receive(message: Message) -> None:
            if self.broken:
                raise DeliveryFailed("receiver.gone", "no", transient=False)
            self.arrived.append(message.body.decode())

        @deck.workflow("order")
        async def order(ctx: Context, name: object) -> object:
            await ctx.publish("orders", "placed plum", key=str(name))
            await ctx.publish("orders", "paid plum", key=str(name))
            return "done"

        @deck.tool(effect="read")
        async def look() -> str:
            """Look."""
            return "seen"

        deck.agent("looker", model=ScriptedModel([[("look", {})], "done"]), tools=[look])
        deck.route("patient", "looker", on_budget="pause")
        if self.limited:
            deck.budget("tenant:acme", Budget(tools=0, usd="5"))
        return deck


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def house(tmp_path: Path, desk: Desk) -> AsyncIterator[House]:
    async with opened(tmp_path, desk.deck()) as found:
        yield found


async def dead(house: House, tenant: str, key: str = "") -> str:
    """The dead message of a new order; another one waits behind it."""
    run = await house.runtime.submit("order", key or tenant, tenant=tenant)
    await until(lambda: len(house.runtime.insights.posts(run_id=run.id)) == 2)
    await until(lambda: len(house.runtime.insights.posts(run_id=run.id, status="dead")) == 1)
    return house.runtime.insights.posts(run_id=run.id, status="dead")[0].message


async def test_a_dead_message_is_listed_shown_and_delivered_once_it_is_requeued(house: House, desk: Desk) -> None:
    name = await dead(house, "acme")
    async with house.client("ann") as ann, house.client("opa") as opa, house.client("vic") as vic:
        [row] = (await vic.get("/v1/outbox?status=dead")).json()["messages"]
        assert (row["message"], row["code"], row["topic"], row["key"], "body" in row) == (
            *(name, "receiver.gone", "orders", "acme", False),
        )
        path = f"/v1/outbox/{name}"
        assert '"placed plum"' in (await ann.get(path)).json()["body"]
        assert (await ann.get(f"{path}?content=false")).json()["body"] is None
        hidden = await vic.get(path)
        assert (hidden.status_code, hidden.json()["body"], "plum" in hidden.text) == (200, None, False)
        assert (await vic.get(f"{path}?content=true")).json()["code"] == "auth.forbidden"
        assert (await vic.post(f"{path}:requeue")).status_code == 403
        [waiting] = (await ann.get("/v1/outbox", params={"status": "queued"})).json()["messages"]
        early = await ann.post(f"/v1/outbox/{waiting['message']}:drop")
        assert (early.status_code, early.json()["code"]) == (409, "outbox.not_dead")
        desk.broken = False
        again = await opa.post(f"{path}:requeue", json={"reason": "mended"})
        assert (again.status_code, again.json()["decided_by"], again.json()["reason"]) == (200, "opa", "mended")
        await until(lambda: len(desk.arrived) == 2)
        assert desk.arrived == ['"placed plum"', '"paid plum"'], "what stood behind it followed"
        await until(lambda: len(house.runtime.insights.posts(status="delivered")) == 2)
        [told] = (await opa.get("/v1/audit?action=outbox.")).json()["rows"]
        assert (told["action"], told["by"], told["target"], told["tenant"]) == ("outbox.requeue", "opa", name, "acme")


async def test_a_dropped_message_lets_the_next_one_leave_and_dropping_again_is_harmless(house: House, desk: Desk) -> None:
    name = await dead(house, "acme")
    desk.broken = False
    async with house.client("ann") as ann:
        for _ in range(2):
            dropped = await ann.post(f"/v1/outbox/{name}:drop")
            assert (dropped.status_code, dropped.json()["status"]) == (200, "dropped"), dropped.text
        await until(lambda: bool(desk.arrived))
        assert desk.arrived == ['"paid plum"']


async def test_messages_of_another_tenant_do_not_exist(house: House) -> None:
    ours, theirs = await dead(house, "acme"), await dead(house, "globex")
    async with house.client("zoe") as zoe, house.client("root") as root, house.client("ann") as ann:
        assert {row["tenant"] for row in (await zoe.get("/v1/outbox")).json()["messages"]} == {"globex"}
        assert (await zoe.get("/v1/outbox?tenant=acme")).json() == {"messages": [], "next": None}
        for verb, suffix in (("GET", ""), ("POST", ":requeue"), ("POST", ":drop")):
            found = await zoe.request(verb, f"/v1/outbox/{ours}{suffix}")
            nothing = await zoe.request(verb, f"/v1/outbox/nothing{suffix}")
            assert (found.status_code, found.json()["code"]) == (nothing.status_code, nothing.json()["code"])
            assert (found.status_code, found.json()["code"]) == (404, "outbox.unknown")
        first = (await root.get("/v1/outbox?limit=3")).json()
        rest = (await root.get("/v1/outbox", params={"limit": 3, "cursor": first["next"]})).json()
        listed = [row["message"] for page in (first, rest) for row in page["messages"]]
        assert (len(listed), len(set(listed)), rest["next"]) == (4, 4, None)
        assert {ours, theirs} < set(listed)
        foreign = await ann.get("/v1/outbox", params={"cursor": (await root.get("/v1/outbox?limit=1")).json()["next"]})
        assert foreign.json()["code"] == "cursor.unknown"
    row = house.runtime.insights.post(ours)
    assert row is not None and row.status == "dead"


@pytest.mark.parametrize("desk", [Desk(limited=True)], ids=["limited"])
async def test_a_shared_account_is_raised_by_who_may_there_and_its_runs_go_on(house: House) -> None:
    async with house.client("ann") as ann, house.client("opa") as opa, house.client("root") as root, house.client("zoe") as zoe:
        run = (await ann.post("/v1/runs", json={"intent": "patient"})).json()["run_id"]
        await until(lambda: house.runtime.show(run).row.waiting_on == ("account:tenant:acme",))
        order = {"budget": {"max_tools": 5}, "reason": "a busy week"}
        path = "/v1/budgets/tenant:acme:raise"
        for client in (ann, zoe):
            assert (await client.post(path, json=order)).json()["code"] == "auth.forbidden"
        for other in ("all", "route:patient", "tenant:globex"):
            assert (await opa.post(f"/v1/budgets/{other}:raise", json=order)).json()["code"] == "auth.forbidden"
        raised = (await opa.post(path, json=order)).json()
        limits = {row["dimension"]: row["limit"] for row in raised["budgets"]}
        assert (raised["woken"], limits["tool_calls"], limits["cost_microusd"]) == (1, 5, 5_000_000), "what is not named stays"
        assert (await house.runtime.handle(run).result(PATIENCE_S)).ok
        [told] = [row for row in (await opa.get("/v1/audit?action=account.")).json()["rows"] if row["by"] == "opa"]
        assert (told["target"], told["tenant"], told["reason"]) == ("tenant:acme", "acme", "a busy week")
        for sent, status, code in (
            ({"budget": {}}, 422, "budget.nothing"),
            ({"budget": {"max_steps": 3}}, 422, "http.body_invalid"),
            ({"budget": {"max_tools": -1}}, 422, "budget.invalid"),
            ({"budget": {"max_cost_usd": "NaN"}}, 422, "budget.invalid"),
        ):
            wrong = await opa.post(path, json=sent)
            assert (wrong.status_code, wrong.json()["code"]) == (status, code), wrong.text
        for name in ("tenant:nobody", "everything", "limit:x:ever:acme:0"):
            unknown = await root.post(f"/v1/budgets/{name}:raise", json=order)
            assert (unknown.status_code, unknown.json()["code"]) == (404, "account.unknown")
