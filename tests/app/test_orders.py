"""Orders: one form for a runtime and for a visitor, what they may not hold, and what they say about runs that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck.app.clock import SystemClock
from quarterdeck.app.orders import MAX_REASON, MAX_SWITCHES, Orders
from quarterdeck.app.runtime import Runtime
from quarterdeck.cli import orders as visitor
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.storefile import reading
from quarterdeck.core.canonical import MAX_BYTES
from quarterdeck.core.commit import Applied, Deliver, Op, Refused
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.engine.sequencer import LateReceipt
from tests.app.desk import desk


class Door:
    """A store with a runtime, and orders given to it: by the runtime, or by a visitor beside it."""

    def __init__(self, runtime: Runtime, path: Path, orders: Orders, told: list[Op]) -> None:
        self.runtime = runtime
        self.path = path
        self.orders = orders
        self.told = told

    async def waiting(self, route: str) -> tuple[str, str]:
        """A run that waits for a person, and what it waits for."""
        run = await self.runtime.submit(route, "please", user="ada")
        return run.id, (await run.rest()).waiting_on[0].partition(":")[2]


@pytest.fixture(params=["runtime", "visitor"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    path = tmp_path / "store.db"
    async with desk().start(path) as runtime:
        with reading(path) as insights:
            apply = runtime._orders._apply if request.param == "runtime" else visiting(path)
            told: list[Op] = []

            async def noted(op: Op) -> Applied | Refused:
                told.append(op)
                return await apply(op)

            yield Door(runtime, path, Orders(noted, insights, SystemClock()), told)


async def code_of(order) -> str:
    with pytest.raises(QuarterdeckError) as caught:
        await order
    return caught.value.code


async def test_a_run_that_has_ended_says_so_to_everybody_but_a_cancel(door: Door) -> None:
    orders = door.orders
    approving, approval = await door.waiting("refunds")
    doubtful, call = await door.waiting("parcels")
    for run_id in (approving, doubtful):
        await orders.cancel(run_id, by="eve")
        door.runtime._dispatcher.hint()
        assert (await door.runtime.handle(run_id).result()).status == "cancelled"
        await orders.cancel(run_id, by="eve", reason="again")
    assert await code_of(orders.decide(approval, approve=True, by="bob")) == "run.ended"
    assert await code_of(orders.decide(approval, approve=False, by="bob")) == "run.ended"
    for named in (call, "t9.9"):
        assert await code_of(orders.resolve(doubtful, named, done=True, by="bob")) == "run.ended"


async def test_an_ended_run_whose_approval_nobody_has_closed_says_so_too() -> None:
    async def ended(op: Op) -> Applied | Refused:
        return Refused("terminal", "failed")

    class Rows:
        def approval(self, approval: str):
            return type("Row", (), {"digest": "d", "run_id": "r", "tool": "t", "requested_by": "ada"})()

        def events(self, run_id: str, after: int, limit: int):
            return ()

        def run(self, run_id: str):
            return None

    orders = Orders(ended, Rows(), SystemClock())  # type: ignore[arg-type]
    assert await code_of(orders.decide("a", approve=True, by="bob")) == "run.ended"
    await orders.cancel("r", by="bob")


async def test_nothing_that_a_person_says_is_too_large_for_a_row(door: Door) -> None:
    orders = door.orders
    approving, approval = await door.waiting("refunds")
    doubtful, call = await door.waiting("parcels")
    door.told.clear()
    long, wide = "x" * (MAX_REASON + 1), "x" * MAX_BYTES
    assert await code_of(orders.cancel(approving, by="bob", reason=long)) == "reason.too_long"
    assert await code_of(orders.cancel(approving, by="bob", reason="\ud800")) == "json.encoding"
    assert await code_of(orders.cancel(approving, by="b" * 300)) == "key.invalid"
    assert await code_of(orders.decide(approval, approve=True, by="bob", reason=long)) == "reason.too_long"
    assert await code_of(orders.decide(approval, approve=True, by="")) == "key.invalid"
    assert await code_of(orders.resolve(doubtful, call, done=True, by="bob", result=wide)) == "json.too_large"
    assert await code_of(orders.resolve(doubtful, call, done=True, by="bob", result={1, object()})) == "json.unrepresentable"
    assert await code_of(orders.resolve(doubtful, call, done=True, by="b\n")) == "key.invalid"
    assert await code_of(orders.switch("disable_tool:" + "x" * 200)) == "name.invalid"
    assert door.told == []

    reason, result = "é" * MAX_REASON, "é" * 60_000
    await orders.decide(approval, approve=True, by="bob", reason=reason)
    await orders.resolve(doubtful, call, done=True, by="bob", result=result)
    await orders.cancel(doubtful, by="bob", reason=reason)
    bodies = [len(op.body) for op in door.told if isinstance(op, Deliver)]
    assert len(bodies) == 2
    assert max(bodies) < MAX_BYTES
    door.runtime._dispatcher.hint()
    assert (await door.runtime.handle(approving).result()).ok


async def test_switches_are_counted(door: Door) -> None:
    door.runtime._dispatcher._stopping = True  # nobody has to judge under a thousand switches
    for number in range(MAX_SWITCHES):
        await door.orders.switch(f"disable_tool:t{number}")
    assert await code_of(door.orders.switch("freeze")) == "switch.too_many"
    await door.orders.switch("disable_tool:t0", on=False)
    assert (await door.orders.switch("freeze")).version == MAX_SWITCHES + 2


async def test_a_digest_that_is_empty_is_not_the_stored_one(door: Door) -> None:
    _, approval = await door.waiting("refunds")
    assert await code_of(door.orders.decide(approval, approve=True, by="bob", digest="")) == "approval.digest_differs"
    assert await code_of(door.orders.decide(approval, approve=True, by="ada")) == "approval.self"
    row = await door.orders.decide(approval, approve=True, by="bob")
    again = await door.orders.decide(approval, approve=True, by="bob", digest=row.digest)
    assert (again.status, again.decided_by) == ("approved", "bob"), "the same answer again is harmless"
    assert await code_of(door.orders.decide(approval, approve=False, by="bob", reason="no")) == "approval.decided"
    assert await code_of(door.orders.decide(approval, approve=True, by="eve")) == "approval.decided"


async def test_an_unknown_effect_has_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with desk().start(path) as runtime:
        run = await runtime.submit("parcels", "please")
        call = (await run.rest()).waiting_on[0].partition(":")[2]
    with reading(path) as insights:  # nobody runs: what is answered stays in the inbox
        orders = Orders(visiting(path), insights, SystemClock())
        assert await code_of(orders.resolve(run.id, "t9.9", done=True, by="bob")) == "effect.not_unknown"
        await orders.resolve(run.id, call, done=True, by="bob", result="on its way")
        await orders.resolve(run.id, call, done=True, by="bob", result="on its way")
        assert await code_of(orders.resolve(run.id, call, done=False, by="bob")) == "effect.resolved"
        assert await code_of(orders.resolve(run.id, call, done=True, by="eve", result="on its way")) == "effect.resolved"
        assert len(insights.inbox(run.id)[1]) == 1

        first = insights.inbox(run.id)[1]
        late = Orders(visiting(path), _Behind(insights), SystemClock())  # type: ignore[arg-type]
        assert await code_of(late.resolve(run.id, call, done=False, by="eve")) == "effect.resolved"
        assert insights.inbox(run.id)[1] == first
    async with desk().start(path) as runtime:
        assert (await runtime.handle(run.id).result()).effects["unknown"] == 0


class _Behind:
    """Reads in which the first answer arrives only after it was looked for."""

    def __init__(self, insights) -> None:
        self._insights = insights
        self._looked = False

    def __getattr__(self, name: str):
        return getattr(self._insights, name)

    def inbox(self, run_id: str):
        if self._looked:
            return self._insights.inbox(run_id)
        self._looked = True
        return 0, [], 0


async def test_a_late_receipt_of_a_former_owner_is_no_answer_of_a_person(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with desk().start(path) as runtime:
        run = await runtime.submit("parcels", "please")
        call = (await run.rest()).waiting_on[0].partition(":")[2]
    with reading(path) as insights:
        apply = visiting(path)
        late = LateReceipt(call, "unknown", "w1", epoch=1)  # type: ignore[arg-type]
        await apply(Deliver(run.id, "receipt", msgspec.json.encode(late), SystemClock().now_us(), "late"))
        await Orders(apply, insights, SystemClock()).resolve(run.id, call, done=True, by="bob")
    async with desk().start(path) as runtime:
        assert (await runtime.handle(run.id).result()).effects["unknown"] == 0


async def test_both_doors_write_the_same_rows(tmp_path: Path) -> None:
    written: list[list[object]] = []
    for place in ("runtime", "visitor"):
        path = tmp_path / f"{place}.db"
        async with desk().start(path) as runtime:
            run = await runtime.submit("parcels", "please")
            call = (await run.rest()).waiting_on[0].partition(":")[2]
            told: list[Op] = []
            if place == "runtime":
                submit = runtime._journal.submit

                def noted(op: Op, submit=submit, told=told) -> asyncio.Future:
                    told.append(op)
                    return submit(op)

                runtime._journal.submit = noted  # type: ignore[method-assign]
                await runtime.resolve(run.id, call, done=True, by="bob", result=[1])
                await runtime.cancel(run.id, by="eve", reason="no")
            else:

                def seen(at: Path, op: Op, told=told, ask=visitor.ask_store) -> Applied | Refused:
                    told.append(op)
                    return ask(at, op)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(visitor, "ask_store", seen)
                    await asyncio.to_thread(visitor.resolve, path, run.id, call, done=True, by="bob", result=[1])
                    await asyncio.to_thread(visitor.cancel, path, run.id, by="eve", reason="no")
        written.append([(op.kind, op.body, op.token) for op in told if isinstance(op, Deliver)])
    assert written[0] == written[1]
    assert [kind for kind, _, _ in written[0]] == ["receipt", "cancel"]
