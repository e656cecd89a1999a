"""Switches through a running deck: where they hold, until when, what they reach, and what two operators at once can do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quarterdeck import Quarterdeck
from quarterdeck.app import switching
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import Orders, through
from quarterdeck.app.starting import Starting
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.storefile import reading
from quarterdeck.core.controls import parsed
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.testing import ScriptedModel


class Pushed(SystemClock):
    """The system's clock, which a test can push forward."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


def deck() -> Quarterdeck:
    made = Quarterdeck("d")

    @made.tool(effect="external")
    async def mail(to: str) -> str:
        """Send."""
        return "sent"

    made.model("large", ScriptedModel([[("mail", {"to": "a"})], "said by large"]))
    made.model("small", ScriptedModel([[("mail", {"to": "a"})], "said by small"]))
    agent = made.agent("a", model="large", tools=[mail])
    made.route("b", agent)
    return made


async def code_of(order) -> str:
    with pytest.raises(QuarterdeckError) as caught:
        await order
    return caught.value.code


def starting(path: Path, clock: Pushed) -> Starting:
    return Starting(deck(), path / "s.db", clock=clock)


async def test_a_bounded_switch_stops_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        await runtime.switch("freeze", route="b", tenant="acme")
        assert await code_of(runtime.submit("b", tenant="acme")) == "switch.frozen"
        for route, tenant in (("a", "acme"), ("b", "globex")):
            assert (await (await runtime.submit(route, tenant=tenant)).result()).code == "completed"


async def test_a_switch_expires_by_the_time_of_the_decision(tmp_path: Path) -> None:
    clock = Pushed()
    async with starting(tmp_path, clock) as runtime:
        done = await runtime.switch("stop_route:b", expires_at_us=clock.now_us() + 60_000_000)
        assert await code_of(runtime.submit("b")) == "switch.route_stopped"
        clock.ahead_us = 60_000_001
        assert (await (await runtime.submit("b")).result()).code == "completed"
        version, _ = switching.stored(runtime.insights)
        assert version == done.version, "nothing had to be written for it"
        await runtime.switch("freeze", route="x")
        assert [one.key for one in switching.stored(runtime.insights)[1]] == ["freeze@route=x"], "it is put away with a change"
        assert await code_of(runtime.switch("freeze", expires_at_us=1)) == "switch.expiry"


async def test_a_pinned_model_is_the_one_that_is_called(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        await runtime.switch("pin_model:small", route="b")
        assert (await (await runtime.submit("b")).result()).text == "said by small"
        assert (await (await runtime.submit("a")).result()).text == "said by large"
        assert await code_of(runtime.switch("pin_model:none")) == "switch.model_unknown"


async def test_a_forced_approval_is_asked_where_it_is_forced(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        await runtime.switch("force_approval:mail", route="b")
        assert (await (await runtime.submit("b")).rest()).code == "approval.needed"
        assert (await (await runtime.submit("a")).result()).code == "completed"


async def test_a_drained_route_admits_and_begins_nothing_until_it_is_cleared(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        await runtime.switch("force_approval:mail")
        begun = await runtime.submit("b")
        approval = (await begun.rest()).waiting_on[0].partition(":")[2]
        await runtime.switch("drain", route="b")
        kept = await runtime.submit("b")
        rests = await kept.rest()
        assert (rests.status, rests.code, rests.waiting_on) == ("waiting", "switch.draining", ("switch:drain@route=b",))
        assert not any(event.kind.startswith(("model.", "gate.")) for event in kept.events())
        await runtime.approve(approval, by="bob")
        assert (await begun.result()).code == "completed", "what had begun goes on"
        await runtime.switch("force_approval:mail", on=False)
        await runtime.switch("drain", route="b", on=False)
        assert (await kept.result(timeout_s=10)).code == "completed", "and is woken when the drain is over"


async def test_a_drain_that_expires_wakes_its_runs_by_itself(tmp_path: Path) -> None:
    clock = Pushed()
    async with starting(tmp_path, clock) as runtime:
        expires_at_us = clock.now_us() + 40_000_000
        await runtime.switch("drain", expires_at_us=expires_at_us)
        kept = await runtime.submit("a")
        await kept.rest()
        row = runtime.insights.run(kept.id)
        assert row is not None and row.wake_at_us == expires_at_us
        await runtime.cancel(kept.id)
        assert (await kept.result(timeout_s=10)).status == "cancelled", "a drained run can be cancelled"


async def test_of_two_operators_with_one_version_one_is_told(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        with reading(tmp_path / "s.db") as insights:
            visitor = Orders(visiting(tmp_path / "s.db"), insights, SystemClock())
            first = await runtime.switch("freeze", expected=0)
            assert await code_of(visitor.switch("drain", expected=0)) == "switch.conflict"
            await visitor.switch("drain", expected=first.version)
            assert [one.key for one in switching.stored(insights)[1]] == ["drain", "freeze"]


async def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    """Without a version each change starts from the one before it, whoever makes it; without compare-and-set some would be lost."""
    async with starting(tmp_path, Pushed()) as runtime:
        orders = [Orders(through(runtime._journal), runtime.insights, SystemClock()) for _ in range(5)]
        await asyncio.gather(*[one.switch(f"disable_tool:t{number}") for number, one in enumerate(orders)])
        kept = {one.name for one in switching.stored(runtime.insights)[1]}
        assert kept == {f"t{number}" for number in range(5)}


async def test_the_proof_says_what_is_reached_and_the_journals_agree(tmp_path: Path) -> None:
    async with starting(tmp_path, Pushed()) as runtime:
        await runtime.switch("force_approval:mail", route="b")
        waiting = [await runtime.submit("b") for _ in range(3)]
        approvals = [(await one.rest()).waiting_on[0].partition(":")[2] for one in waiting]
        before = runtime.reach("disable_tool:mail", route="b")
        assert (before.runs, before.routes, before.tools) == (3, ("b",), ("mail",))
        done = await runtime.switch("disable_tool:mail", route="b", by="eve", reason="incident 7")
        assert (done.reach.runs, done.on, done.switch) == (3, True, "disable_tool:mail@route=b")
        for one, approval in zip(waiting, approvals, strict=True):
            await runtime.approve(approval, by="bob")
            assert (await one.result()).effects["succeeded"] == 0
        ends = {one.id: 1 for one in waiting}
        after, refused = switching.proven(runtime.insights, parsed("disable_tool:mail", route="b"), ends)
        assert (after, refused) == (0, 6), "three were asked for, then refused"
        told = [one for one in waiting if switching.proven(runtime.insights, parsed("freeze"), {one.id: 1})[0]]
        assert len(told) == 3, "a model was called behind it: the check can fail"
