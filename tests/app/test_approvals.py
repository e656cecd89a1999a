"""What a person can answer to an approval, who may, how often, until when; and that no attack on its binding succeeds. (T05)"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from quarterdeck import Quarterdeck
from quarterdeck.app.runtime import RunHandle, Runtime
from quarterdeck.app.starting import Starting
from quarterdeck.app.views import is_at_rest
from quarterdeck.core.commit import Commit, Consume, DecideApproval, Refused
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.ports.outbox import Message
from quarterdeck.testing import ScriptedModel
from tests.app.test_switches import Pushed, code_of


class Shop:
    """What was really paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.clock = Pushed()
        self.notices: dict[str, dict[str, object]] = {}

    def deck(self, **route: object) -> Quarterdeck:
        deck = Quarterdeck("shop")

        @deck.tool(effect="irreversible")
        async def refund(cents: int) -> str:
            """Pay money back."""
            self.paid.append(cents)
            return "paid"

        model = ScriptedModel([[("refund", {"cents": 500})], "over"])
        agent = deck.agent("a", model=model, tools=[refund], autonomy="executes_after_approval")
        deck.route("refunds", agent, owner="ann", **route)  # type: ignore[arg-type]
        deck.notify("desk", self.hear)
        return deck

    def hear(self, message: Message) -> None:
        self.notices[message.message] = msgspec.json.decode(
            message.body
        )  # a clock that jumps ends leases, too: it may come twice

    def starting(self, folder: Path, **route: object) -> Starting:
        return Starting(self.deck(**route), folder / "s.db", clock=self.clock)

    async def asked(self, runtime: Runtime, user: str = "ada") -> tuple[RunHandle, str]:
        run = await runtime.submit("refunds", user=user)
        return run, await self.waits(run)

    async def waits(self, run: RunHandle) -> str:
        rests = await run.rest(timeout_s=10)
        assert rests.code == "approval.needed", rests
        return rests.waiting_on[0].partition(":")[2]

    async def waits_anew(self, runtime: Runtime, run_id: str, before: str) -> str:
        """The approval that a run waits for after this one."""
        async with asyncio.timeout(10):
            row = await runtime.until(run_id, lambda row: is_at_rest(row) and row.waiting_on != (f"approval:{before}",))
        assert row.code == "approval.needed", row
        return row.waiting_on[0].partition(":")[2]


async def test_edited_arguments_are_a_new_proposal_that_somebody_else_approves(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, first = await shop.asked(runtime)
        old = runtime.insights.approval(first)
        await runtime.edit(first, {"cents": 300}, by="bob", reason="only the half")
        second = await shop.waits(run)
        new = runtime.insights.approval(second)
        assert old is not None and new is not None and new.digest != old.digest and new.requested_by == "bob"
        assert msgspec.json.decode(new.shown)["arguments"] == {"cents": 300}
        assert await code_of(runtime.approve(second, by="bob")) == "approval.self", "the editor is who asks now"
        assert await code_of(runtime.approve(second, by="ada")) == "approval.self", "and who asked first still is"
        await runtime.approve(second, by="eve")
        assert (await run.result()).status == "succeeded"
    assert shop.paid == [300]


async def test_edited_arguments_pass_every_check_anew(tmp_path: Path) -> None:
    shop = Shop()
    deck = shop.deck()
    deck.policy("""
        permit(principal, action, resource);
        @reason("refund.too_large") forbid(principal, action in Action::"tool", resource == Tool::"refund")
        when { context.args.cents > 1000 };
    """)
    async with deck.start(tmp_path / "store.db") as runtime:
        run, approval = await shop.asked(runtime)
        await runtime.edit(approval, {"cents": 2_000}, by="bob")
        assert (await run.result()).text == "over"
        ruled = [event.body["reasons"] for event in run.events() if event.body.get("ruling") == "deny"]
        assert ruled == [["refund.too_large"]]
    assert shop.paid == []


async def test_arguments_that_the_tool_does_not_take_are_refused_at_once(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, approval = await shop.asked(runtime)
        assert await code_of(runtime.edit(approval, {"cents": "many"}, by="bob")) == "approval.unfit"
        assert await code_of(runtime.edit(approval, [1], by="bob")) == "approval.arguments"
        await runtime.approve(approval, by="bob")
        assert (await run.result()).ok
    assert shop.paid == [500]


async def test_an_edit_survives_a_new_owner(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, approval = await shop.asked(runtime)
        await runtime.edit(approval, {"cents": 7}, by="bob")
        second = await shop.waits(run)
    async with shop.starting(tmp_path) as runtime:
        await runtime.approve(second, by="eve")
        assert (await runtime.handle(run.id).result()).status == "succeeded"
    assert shop.paid == [7]


async def test_a_text_is_told_in_place_of_the_action(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, approval = await shop.asked(runtime)
        await runtime.respond(approval, "ask for the receipt first", by="bob")
        assert (await run.result()).text == "over"
        [denied] = [event for event in run.events(content=True) if event.body.get("ruling") == "deny"]
        assert (denied.body["reasons"], denied.content) == (["approval.answered"], "ask for the receipt first")
        assert await code_of(runtime.respond(approval, " ", by="bob")) == "reason.missing"
    assert shop.paid == []


async def test_a_quorum_is_different_people(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path, quorum=2) as runtime:
        run, first = await shop.asked(runtime)
        await runtime.approve(first, by="bob")
        second = await shop.waits(run)
        await runtime.approve(second, by="bob")
        third = await shop.waits(run)
        assert shop.paid == [], "the same person twice is one"
        await runtime.approve(third, by="eve")
        assert (await run.result()).status == "succeeded"
        assert [row.consumed for row in runtime.approvals(status=None)] == [True, True, True]
    assert shop.paid == [500]


ASKS = """
permit(principal, action, resource);
@reason("large") @outcome("ask") @quorum("{}") forbid(principal, action in Action::"tool", resource);
"""


async def test_a_policy_can_want_more_people_than_the_route(tmp_path: Path) -> None:
    """Two by the policy, one by the route; the requester is nobody of them, and an edit begins to count anew."""
    shop = Shop()
    deck = shop.deck(autonomy="bounded_autonomous")
    deck.policy(ASKS.format(2))
    async with deck.start(tmp_path / "s.db", clock=shop.clock) as runtime:
        run, first = await shop.asked(runtime)
        assert await code_of(runtime.approve(first, by="ada")) == "approval.self"
        await runtime.approve(first, by="bob")
        second = await shop.waits_anew(runtime, run.id, first)
        assert shop.paid == [] and json.loads(runtime.insights.approval(second).shown)["reasons"][-1] == "approval.quorum"
        await runtime.edit(second, {"cents": 1}, by="bob")
        third = await shop.waits_anew(runtime, run.id, second)
        assert await code_of(runtime.approve(third, by="bob")) == "approval.self", "who edits asks"
        await runtime.approve(third, by="eve")
        fourth = await shop.waits_anew(runtime, run.id, third)
        assert shop.paid == [], "what was said of the former arguments does not count"
    stricter = shop.deck(autonomy="bounded_autonomous")
    stricter.policy(ASKS.format(3))
    async with stricter.start(tmp_path / "s.db", clock=shop.clock) as runtime:
        await runtime.approve(fourth, by="fay")
        fifth = await shop.waits_anew(runtime, run.id, fourth)
        assert shop.paid == [], "the policy in force now counts"
        await runtime.approve(fifth, by="gil")
        assert (await runtime.handle(run.id).result(timeout_s=10)).status == "succeeded"
    assert shop.paid == [1]


async def test_a_quorum_is_not_reached_with_an_answer_that_has_expired(tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path, quorum=2, approval_timeout=100) as runtime:
        run, first = await shop.asked(runtime)
        shop.clock.ahead_us = 60_000_000
        await runtime.approve(first, by="bob")
        second = await shop.waits(run)
        shop.clock.ahead_us = 110_000_000
        await runtime.approve(second, by="eve")
        assert (await run.result()).status == "succeeded"
        assert ["approval.expired"] in [event.body.get("reasons") for event in run.events()]
    assert shop.paid == []


@pytest.mark.parametrize(
    ("how", "status", "code"), [("tell", "succeeded", "completed"), ("refuse", "refused", "approval.rejected")]
)
async def test_a_denial_does_what_the_route_says(how: str, status: str, code: str, tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path, on_denial=how) as runtime:
        run, approval = await shop.asked(runtime)
        await runtime.reject(approval, by="bob", reason="no")
        result = await run.result()
        assert (result.status, result.code) == (status, code)
    assert shop.paid == []


async def test_what_nobody_answers_goes_up_the_chain_and_is_denied_at_its_end(tmp_path: Path) -> None:
    shop = Shop()
    chain = {"escalation": ("lead", "head"), "escalate_after": "1h", "approval_timeout": "4h", "on_expiry": "refuse"}
    async with shop.starting(tmp_path, **chain) as runtime:
        run, approval = await shop.asked(runtime)
        hour_us = 3_600_000_000
        asked_at_us = next(event.at_us for event in run.events() if event.kind == "approval.requested")
        for hours, wakes in ((1, 2), (2, 4)):
            shop.clock.ahead_us = hours * hour_us + 1_000_000
            runtime._dispatcher.hint()
            wakes_at_us = asked_at_us + wakes * hour_us
            async with asyncio.timeout(10):
                await runtime.until(run.id, lambda row, at_us=wakes_at_us: row.worker is None and row.wake_at_us == at_us)
        owners = [event.body["owner"] for event in run.events() if event.kind == "approval.handed_on"]
        assert owners == ["lead", "head"]
        row = runtime.insights.run(run.id)
        pending = runtime.insights.approval(approval)
        assert row is not None and pending is not None and row.wake_at_us == pending.expires_at_us
        shop.clock.ahead_us = 4 * hour_us + 1_000_000
        runtime._dispatcher.hint()
        result = await run.result(timeout_s=10)
        assert (result.status, result.code) == ("refused", "approval.expired")
        async with asyncio.timeout(10):
            while any(row.status == "queued" for row in runtime.insights.posts()):
                await runtime.parts.clock.sleep(0.02)
    data = [one["data"] for one in shop.notices.values()]
    told = [(one["type"], said["owner"]) for one, said in zip(shop.notices.values(), data, strict=True)]
    assert told == [
        ("approval.waits", "ann"),
        ("approval.escalated", "lead"),
        ("approval.escalated", "head"),
        ("approval.expired", "head"),
    ]
    assert {said["tool"] for said in data} == {"refund"} and {said["digest"] for said in data} == {pending.digest}
    assert shop.paid == []


Attack = Callable[[Runtime, RunHandle, str, Shop], Awaitable[None]]


async def other_digest(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    assert await code_of(runtime.approve(approval, by="bob", digest="0" * 64)) == "approval.digest_differs"


async def of_ones_own(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    assert await code_of(runtime.approve(approval, by="ada")) == "approval.self"


async def straight_at_the_store_by_the_asker(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    row = runtime.insights.approval(approval)
    assert row is not None
    op = DecideApproval(approval, row.digest, "approved", "ada", "", shop.clock.now_us())
    assert isinstance(await runtime.apply(op), Refused)


async def after_the_expiry(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    shop.clock.ahead_us = 25 * 3_600_000_000
    assert await code_of(runtime.approve(approval, by="bob")) == "approval.expired"


async def approved_then_too_late(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    await runtime.pause(run.id)
    await runtime.approve(approval, by="bob")
    shop.clock.ahead_us = 25 * 3_600_000_000
    await runtime.resume(run.id)
    await run.result(timeout_s=10)


async def rejected_then_approved(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    await runtime.reject(approval, by="bob", reason="no")
    assert await code_of(runtime.approve(approval, by="eve")) == "approval.decided"


async def consumed_by_another_run(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    row = runtime.insights.approval(approval)
    other = await runtime.submit("refunds", user="mallory")
    await other.rest()
    seen = runtime.insights.run(other.id)
    assert row is not None and seen is not None
    use = Consume(approval, row.digest, shop.clock.now_us())
    from quarterdeck.testing.conformance.stand import note

    stolen = Commit(other.id, seen.seq, seen.epoch, runtime._journal.incarnation, (note("steal"),), 1, consumes=(use,))
    assert isinstance(await runtime.apply(stolen), Refused)


async def edited_by_a_rejected_hand(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    await runtime.edit(approval, {"cents": 1_000_000}, by="bob")
    second = await shop.waits(run)
    assert await code_of(runtime.approve(approval, by="eve")) == "approval.decided"
    assert await code_of(runtime.approve(second, by="bob")) == "approval.self"


async def with_the_policy_changed(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    await runtime.switch("disable_tool:refund")
    await runtime.approve(approval, by="bob")
    await run.result(timeout_s=10)


async def of_a_cancelled_run(runtime: Runtime, run: RunHandle, approval: str, shop: Shop) -> None:
    await runtime.cancel(run.id)
    await run.result(timeout_s=10)
    with pytest.raises(QuarterdeckError):
        await runtime.approve(approval, by="bob")


ATTACKS: tuple[Attack, ...] = (
    other_digest,
    of_ones_own,
    straight_at_the_store_by_the_asker,
    after_the_expiry,
    approved_then_too_late,
    rejected_then_approved,
    consumed_by_another_run,
    edited_by_a_rejected_hand,
    with_the_policy_changed,
    of_a_cancelled_run,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_no_attack_on_the_binding_of_an_approval_succeeds(attack: Attack, tmp_path: Path) -> None:
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, approval = await shop.asked(runtime)
        await attack(runtime, run, approval, shop)
    assert shop.paid == []


async def test_the_same_stage_pays_once_for_who_may(tmp_path: Path) -> None:
    """The control: without an attack it is paid, and paid once, however often it is approved."""
    shop = Shop()
    async with shop.starting(tmp_path) as runtime:
        run, approval = await shop.asked(runtime)
        await runtime.approve(approval, by="bob")
        await runtime.approve(approval, by="bob")
        await run.result()
        await runtime.approve(approval, by="bob")
    assert shop.paid == [500]
