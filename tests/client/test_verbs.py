"""Every verb of both clients against a real server."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.client import AsyncClient, AsyncRun, Budget, Client, ClientError, Run, RunResult, Unreachable, shapes
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.server import bodies, outbox
from tests.client.hands import Hands
from tests.server.stage import House, until
from tests.server.test_outbox import Desk, dead
from tests.server.test_routes import opened


async def stands(house: House, run_id: str, status: str) -> None:
    await until(lambda: (row := house.runtime.insights.run(run_id)) is not None and row.status == status)


async def test_a_run_is_asked_for_and_its_result_awaited(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "greet", "you", wait_s=20)
        assert (run.existing, run.last.status, run.last.result.text) == (False, "succeeded", "hello you")
        result = await hands.do(run.result)
        assert result == RunResult.of(run.last) and str(result) == "hello you" and result.ok
        other = await hands.do(client.submit, "greet", {"a": ["é", None, 1.5]})
        assert other.id != run.id and not other.last.done
        assert (await hands.do(other.result, 20)).ok


async def test_the_result_of_a_workflow_is_a_value_or_says_why_there_is_none(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        good = await hands.do((await hands.do(client.submit, "price", 3)).result, 20)
        bad = await hands.do((await hands.do(client.submit, "price", -3)).result, 20)
    assert (good.value, good.message) == ({"pence": 300}, "")
    assert (bad.value, bad.code, bad.message) == (None, "workflow.failed", "ValueError: -3 is no price")


async def test_a_result_is_awaited_while_the_run_goes_on(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        with pytest.raises(TimeoutError):
            await hands.do(run.result, 0.05)
        waiting = asyncio.ensure_future(hands.do(run.result, 20))
        await until(lambda: house.door.stage.streams.open == 1)
        house.shop.gate.set()
        assert (await waiting).text == "done waiting"
        assert await hands.do(client.run(run.id).result) == await hands.do(run.result)


async def test_a_sync_run_waits_without_being_told(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "greet", "you", mode="sync")
        assert run.last.done and run.last.mode == "sync"


async def test_the_envelope_carries_what_was_said(house: House, hands: Hands) -> None:
    async with hands.client(house.url, "deb") as client:
        budget = Budget(turns=3, tools=2, tokens=9_000, context=2_000, deadline="90s", usd="0.25")
        options = {"tenant": "acme", "user": "max", "budget": budget, "correlation_id": "c-1", "thread_id": "t-1"}
        run = await hands.do(client.submit, "greet", idempotency_key="once ✓", priority="batch", wait_s=20, **options)
        shown = await hands.do(run.show)
        assert (shown.tenant, shown.user, shown.correlation_id, shown.thread_id) == ("acme", "max", "c-1", "t-1")
        wanted = {"turns": 3, "tool_calls": 2, "tokens": 9_000, "context": 2_000, "deadline_ms": 90_000, "cost_microusd": 250_000}
        assert {name: shown.limits[name] for name in wanted} == wanted and shown.priority == "batch"
        first = await hands.do(client.submit, "greet", ordering_key="k", labels={"integrity": "untrusted"}, wait_s=20)
        contract = house.runtime.show(first.id).contract
        assert contract["ordering_key"] == "k"
        assert contract["labels"] == {"integrity": "untrusted", "confidentiality": "public"}
        with pytest.raises(ClientError) as wrong:
            await hands.do(client.submit, "greet", labels={"integrity": "holy"})
        assert wrong.value.status == 422
        again = await hands.do(client.submit, "greet", idempotency_key="once ✓", priority="batch", **options)
        assert (again.id, again.existing) == (run.id, True)
        with pytest.raises(ClientError) as caught:
            await hands.do(client.submit, "greet", "else", idempotency_key="once ✓", **options)
        assert (caught.value.code, caught.value.status) == ("idempotency.body_differs", 422)


async def test_runs_are_listed_over_all_pages(house: House, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.client.calls.PAGE", 2)
    async with hands.client(house.url) as client:
        made = [(await hands.do(client.submit, "greet", number, correlation_id="many", wait_s=20)).id for number in range(5)]
        slow = await hands.do(client.submit, "slow")
        assert [row.run_id for row in await hands.all(client.runs, route="greet")] == made[::-1]
        assert [row.run_id for row in await hands.all(client.runs, correlation_id="many", limit=3)] == made[:1:-1]
        assert [row.run_id for row in await hands.all(client.runs, status="succeeded", tenant="acme")] == made[::-1]
        assert slow.id in [row.run_id for row in await hands.all(client.runs)]
        with pytest.raises(ClientError) as caught:
            await hands.all(client.runs, status="nonsense")
        assert caught.value.code == "http.query_invalid"
        house.shop.gate.set()


async def test_events_are_the_journal(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "busy", wait_s=20)
        for content in (False, True):
            journal = house.runtime.handle(run.id).events(content=content)
            events = await hands.do(run.events, content=content)
            assert [msgspec.to_builtins(event) for event in events] == [msgspec.to_builtins(view) for view in journal]
        assert all(event.durable for event in events)


async def test_following_gives_events_and_deltas_and_ends_with_the_run(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        events: list[Any] = []
        following = asyncio.ensure_future(hands.all(run.follow, into=events))
        await until(lambda: any(event.kind == "run.progress" for event in events))  # from here on it is live
        house.shop.gate.set()
        await following
        assert [event.seq for event in events if event.durable] == list(range(1, house.runtime.show(run.id).row.seq + 1))
        assert [event.text for event in events if event.kind == "model.delta" and event.text][-1] == "done waiting"
        after = await hands.all(run.follow, 3, content=False)
        assert after[0].seq == 4 and {event.content for event in after} == {None}
        [gap, *rest] = await hands.all(run.follow, 999)
        assert (gap.kind, gap.body, gap.durable) == ("stream.gap", {"asked": "999", "resumes_after": 0}, False)
        assert [event.seq for event in rest] == [event.seq for event in events if event.durable]


async def test_whoever_stops_reading_lets_go_of_the_connection(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        found = run.follow()
        if inspect.isasyncgen(found):
            assert (await anext(found)).seq == 1
            await found.aclose()
        else:
            assert (await asyncio.to_thread(next, found)).seq == 1
            await asyncio.to_thread(found.close)
        await until(lambda: house.door.stage.streams.open == 0)
        house.shop.gate.set()


async def test_a_run_is_cancelled_more_than_once(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        await hands.do(run.cancel, "asked by mistake")
        await hands.do(client.cancel, run.id, "again")
        house.shop.gate.set()  # a tool call that had begun is finished
        result = await hands.do(run.result, 20)
        assert (result.status, result.reason) == ("cancelled", "cancelled")


async def test_an_action_is_approved_as_it_was_read(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as asker, hands.client(house.url, "bob") as client:
        run = await hands.do(asker.submit, "support")
        await stands(house, run.id, "waiting")
        [waiting] = await hands.all(client.approvals)
        shown = await hands.do(client.approval, waiting.approval)
        assert (waiting.run_id, shown.digest, shown.shown["arguments"]["order_id"]) == (run.id, waiting.digest, "o1")
        with pytest.raises(ClientError) as caught:
            await hands.do(client.approve, waiting.approval, digest="0" * 64)
        assert (caught.value.code, caught.value.status) == ("approval.digest_differs", 412)
        with pytest.raises(ClientError) as other:
            await hands.do(client.approve, msgspec.structs.replace(waiting, digest="1" * 64))
        assert other.value.code == "approval.digest_differs"
        answered = await hands.do(client.approve, waiting.approval, reason="known customer")
        assert (answered.status, answered.decided_by, answered.reason) == ("approved", "bob", "known customer")
        assert (await hands.do(run.result, 20)).text == "paid" and len(house.shop.paid) == 1
        with pytest.raises(ClientError) as late:
            await hands.do(client.reject, waiting, reason="too late")
        assert late.value.status == 409
        [row] = await hands.all(client.approvals, status="all", tenant="acme")
        assert (row.status, row.consumed) == ("approved", True)


async def test_an_action_is_rejected_with_a_reason(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as asker, hands.client(house.url, "bob") as client:
        run = await hands.do(asker.submit, "support")
        await stands(house, run.id, "waiting")
        [waiting] = await hands.all(client.approvals)
        assert (await hands.do(client.reject, waiting, reason="unknown customer")).status == "rejected"
        await hands.do(run.result, 20)
        assert house.shop.paid == []


async def test_an_effect_in_doubt_is_resolved(house: House, hands: Hands) -> None:
    async with hands.client(house.url, "root") as client:
        run = await hands.do(client.submit, "parcel", tenant="acme")
        await stands(house, run.id, "waiting")
        shown = await hands.do(run.show)
        [call] = shown.unknown_effects
        await hands.do(run.resolve, call, done=True, result={"parcel": "P-1"})
        assert (await hands.do(run.result, 20)).status in TERMINAL
        with pytest.raises(ClientError) as caught:
            await hands.do(client.resolve, run.id, call, done=False)
        assert (caught.value.status, caught.value.maybe_done) == (409, False)


async def test_a_run_is_paused_resumed_and_told(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "slow")
        await until(lambda: any(event.kind == "tool.opened" for event in house.runtime.handle(run.id).events()))
        await hands.do(run.pause, "a storm")
        await hands.do(client.signal, run.id, "news", {"a": 1}, idempotency_key="n1")
        await hands.do(run.signal, "news", {"a": 1}, idempotency_key="n1")
        house.shop.gate.set()
        await until(lambda: house.runtime.show(run.id).row.code == "run.paused")
        await hands.do(run.resume, "it is over")
        assert (await hands.do(run.result, 20)).text == "done waiting"
        told = [event.kind for event in house.runtime.handle(run.id).events()]
        assert (told.count("signal.received"), told.count("run.paused"), told.count("run.resumed")) == (1, 1, 1)


async def test_keys_are_made_listed_and_ended(house: House, hands: Hands) -> None:
    async with hands.client(house.url, "root") as client:
        made = await hands.do(client.make_key, "ci", [("viewer", "acme")], lifetime_s=60)
        assert made.key.startswith("qd_") and made.key not in repr(made)
        assert [key.prefix for key in await hands.do(client.keys)] == [made.prefix]
        for _ in range(2):
            assert (await hands.do(client.revoke_key, made.prefix, "leaked")).status == "revoked"


async def test_what_the_deck_is_made_of(house: House, hands: Hands) -> None:
    async with hands.client(house.url, "root") as client:
        await hands.do(client.submit, "greet", tenant="acme", wait_s=20)
        assert "refund" in [tool.name for tool in await hands.do(client.tools)]
        assert "greet" in [route.intent for route in await hands.do(client.routes)]
        assert "tenant:acme" in [account.account for account in await hands.do(client.budgets)]
        assert (await hands.do(client.policies)).version
        assert await hands.do(client.dependencies)
        before = await hands.do(client.switches)
        after = await hands.do(client.switch, "disable_tool:refund", reason="incident 12")
        assert after.switches == ("disable_tool:refund",) and after.version > before.version
        assert (await hands.do(client.switch, "disable_tool:refund", on=False, reason="over")).switches == ()
        assert await hands.do(client.health) == shapes.Health(status="ok", tasks_in_flight=0)


async def test_refusals_are_the_servers_own(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        for verb, arguments, code, status in (
            (client.submit, ("nowhere",), "route.unknown", 422),
            (client.run("run_none").show, (), "run.unknown", 404),
            (client.run("a/b:cancel?c#d").show, (), "run.unknown", 404),
            (client.run("run_none").result, (), "run.unknown", 404),
            (client.tools, (), "auth.forbidden", 403),
            (client.approval, ("none",), "auth.forbidden", 403),
        ):
            with pytest.raises(ClientError) as caught:
                await hands.do(verb, *arguments)
            assert (caught.value.code, caught.value.status) == (code, status) and caught.value.detail
    async with hands.client(house.url, "stranger") as client:
        with pytest.raises(ClientError) as caught:
            await hands.do(client.submit, "greet")
        assert (caught.value.code, caught.value.status) == ("auth.unknown", 401)


async def test_nobody_is_there(hands: Hands, unused_tcp_port: int) -> None:
    async with hands.client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(Unreachable) as caught:
            await hands.do(client.health)
        assert (caught.value.code, caught.value.status, caught.value.maybe_done) == ("client.unreachable", 0, False)


async def test_a_closed_client_says_so(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        run = await hands.do(client.submit, "greet")
    for verb in (client.health, run.show, run.events):
        with pytest.raises(ClientError) as caught:
            await hands.do(verb)
        assert caught.value.code == "client.closed"


async def test_dead_messages_are_listed_and_decided(tmp_path: Path, hands: Hands) -> None:
    desk = Desk()
    async with opened(tmp_path, desk.deck()) as house, hands.client(house.url, "opa") as client:
        first, second = await dead(house, "acme", "A1"), await dead(house, "acme", "A2")
        rows = await hands.all(client.messages, status="dead", topic="orders", tenant="acme")
        assert [row.message for row in rows] == [second, first]
        assert len(await hands.all(client.messages, run=rows[1].run_id)) == 2
        assert len(await hands.all(client.messages, limit=3)) == 3
        assert (await hands.do(client.message, first)).body is None, "an operator reads no contents"
        with pytest.raises(ClientError) as caught:
            await hands.do(client.message, first, content=True)
        assert caught.value.code == "auth.forbidden"
        desk.broken = False
        for _ in range(2):
            assert (await hands.do(client.drop_message, first, "told by telephone")).status == "dropped"
        await hands.do(client.requeue_message, second, "mended")
        await until(lambda: len(house.runtime.insights.posts(status="delivered")) == 3)
        with pytest.raises(ClientError) as late:
            await hands.do(client.requeue_message, second)
        assert (late.value.code, late.value.status) == ("outbox.not_dead", 409)


async def test_a_shared_account_is_raised(tmp_path: Path, hands: Hands) -> None:
    async with opened(tmp_path, Desk(limited=True).deck()) as house, hands.client(house.url, "root") as client:
        run = await hands.do(client.submit, "patient", tenant="acme")
        await stands(house, run.id, "waiting")
        raised = await hands.do(client.raise_account, "tenant:acme", Budget(tools=9, usd="7.5"), model_calls=50, reason="busy")
        limits = {row.dimension: row.limit for row in raised.budgets}
        assert (limits["tool_calls"], limits["cost_microusd"], limits["model_calls"]) == (9, 7_500_000, 50)
        assert raised.woken == 1 and (await hands.do(run.result, 20)).ok
        with pytest.raises(ClientError) as caught:
            await hands.do(client.raise_account, "tenant:acme", Budget(turns=9))
        assert caught.value.code == "http.body_invalid"


async def test_what_operators_did_and_what_nobody_knows(house: House, hands: Hands) -> None:
    async with hands.client(house.url, "opa") as client:
        run = await house.runtime.submit("parcel", tenant="acme")
        await stands(house, run.id, "waiting")
        [doubt] = (await hands.do(client.effects)).effects
        assert (doubt.run_id, doubt.tool, doubt.tenant) == (run.id, "ship", "acme")
        await hands.do(client.mark, run.id, doubt.call, reason="not our customer")
        assert (await hands.do(client.oversight)).false_allows == 1
        await hands.do(client.mark, run.id, doubt.call, reason="it was", wrong=False)
        assert (await hands.do(client.oversight)).false_allows == 0
        with pytest.raises(ClientError) as caught:
            await hands.do(client.mark, run.id, "t9.9", reason="x")
        assert caught.value.code == "decision.unknown"
        page = await hands.do(client.audit, 0, 1, action="decision.")
        rest = await hands.do(client.audit, page.next, 10, action="decision.", target=run.id)
        assert [(row.action, row.by, row.target) for row in (*page.rows, *rest.rows)] == [("decision.marked", "opa", run.id)] * 2
        assert (len(page.rows), rest.next) == (1, None)


async def test_an_action_is_edited_or_answered(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as asker, hands.client(house.url, "bob") as client:
        first = await hands.do(asker.submit, "support")
        await stands(house, first.id, "waiting")
        [waiting] = await hands.all(client.approvals)
        edited = await hands.do(client.edit, waiting, {"order_id": "o2"}, reason="the other order")
        assert (edited.status, edited.decided_by) == ("edited", "bob")
        await until(lambda: len(house.runtime.approvals()) == 1)
        [anew] = await hands.all(client.approvals)
        assert anew.digest != waiting.digest
        with pytest.raises(ClientError) as caught:
            await hands.do(client.approve, anew)
        assert caught.value.code == "approval.self", "whoever wants other arguments asks for them"
        await hands.do(asker.cancel, first.id)
        second = await hands.do(asker.submit, "support")
        await stands(house, second.id, "waiting")
        [other] = [row for row in await hands.all(client.approvals) if row.run_id == second.id]
        assert (await hands.do(client.respond, other, "the customer has the money")).status == "answered"
        await hands.do(second.result, 20)
        assert house.shop.paid == []


async def test_dead_letters_are_listed(house: House, hands: Hands) -> None:
    async with hands.client(house.url) as client:
        assert await hands.all(client.dead_letters, route="parcel", tenant="acme", limit=5) == []


# ------------------------------------------------------------------------------------------------------------------- drift


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Run, AsyncRun)])
def test_the_clients_are_twins(one: type, other: type) -> None:
    def verbs(kind: type) -> dict[str, Any]:
        return {name: item for name, item in vars(kind).items() if not name.startswith("_") and callable(item)}

    def told(kind: type, name: str) -> str:
        return (verbs(kind)[name].__doc__ or "").partition("lets go of")[0].replace("AsyncClient", "Client")

    assert verbs(one).keys() == verbs(other).keys()
    for name in verbs(one):
        mine, theirs = inspect.signature(verbs(one)[name]), inspect.signature(verbs(other)[name])
        assert mine.parameters == theirs.parameters, name
        assert told(one, name) == told(other, name), name
    made = [{name: each.default for name, each in inspect.signature(kind).parameters.items()} for kind in (one, other)]
    assert made[0] == made[1]


SHAPES = {
    shapes.RunSummary: bodies.Run,
    shapes.RunDetail: bodies.RunDetail,
    shapes.Output: bodies.Output,
    shapes.Approval: bodies.Approval,
    shapes.ApprovalDetail: bodies.ApprovalDetail,
    shapes.Tool: bodies.ToolBody,
    shapes.Route: bodies.RouteBody,
    shapes.Account: bodies.BudgetBody,
    shapes.Policies: bodies.Policies,
    shapes.Switches: bodies.Switches,
    shapes.Dependency: bodies.DependencyBody,
    shapes.Health: bodies.Health,
    shapes.KeyInfo: bodies.KeyBody,
    shapes.Post: outbox.PostBody,
    shapes.PostDetail: outbox.PostDetail,
    shapes.PostPage: outbox.Posts,
    shapes.RaisedAccount: bodies.RaisedAccount,
    shapes.AuditRow: bodies.AuditBody,
    shapes.AuditPage: bodies.AuditRows,
    shapes.Doubts: bodies.Effects,
    shapes.Escalated: bodies.Escalated,
    shapes.Replay: bodies.ReplayBody,
    shapes.Difference: bodies.DifferenceBody,
    shapes.Worker: bodies.Worker,
    shapes.WorkerList: bodies.Workers,
    shapes.SwitchDetail: bodies.SwitchBody,
    shapes.SwitchProof: bodies.SwitchProof,
    shapes.MadeKey: bodies.MadeKey,
    shapes.KeyList: bodies.Keys,
    shapes.RunPage: bodies.Runs,
    shapes.ApprovalPage: bodies.Approvals,
    shapes.ToolList: bodies.Tools,
    shapes.RouteList: bodies.Routes,
    shapes.AccountList: bodies.Budgets,
    shapes.DependencyList: bodies.DependencyList,
}


@pytest.mark.parametrize(("mine", "theirs"), SHAPES.items(), ids=lambda kind: kind.__name__)
def test_shapes_are_those_of_the_server(mine: type, theirs: type) -> None:
    assert mine.__struct_fields__ == theirs.__struct_fields__  # type: ignore[attr-defined]


def test_the_words_for_an_end_are_those_of_the_core() -> None:
    assert {status.value for status in TERMINAL} == shapes.TERMINAL


async def test_threads_share_a_client(house: House) -> None:
    with Client(house.url, "ann") as client:
        made = await asyncio.gather(*[asyncio.to_thread(client.submit, "greet", number, wait_s=20) for number in range(16)])
        texts = await asyncio.gather(*[asyncio.to_thread(run.result) for run in made])
    assert sorted(int(result.text.removeprefix("hello ")) for result in texts) == list(range(16))
