"""An interrupt goes before whatever a run was about to do; a cancel reaches what is under way, as its mode says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from quarterdeck import Finding, Quarterdeck, ReceiptStatus, Runtime, ToolContext, ToolFailure
from quarterdeck.app.orders import Orders
from quarterdeck.app.views import RunResult, read_all, state_of
from quarterdeck.core.contract import Envelope
from quarterdeck.core.labels import Integrity
from quarterdeck.core.vocabulary import CancelMode
from quarterdeck.ports.model import Message, Price
from quarterdeck.testing import ScriptedModel


def heard(messages: tuple[Message, ...]) -> bool:
    """Whether a model has seen the interrupt of these tests."""
    return any(message.role == "user" and "stop asking" in message.content for message in messages)


class Waiting(ScriptedModel):
    """Never answers, until it has heard the interrupt."""

    def __init__(self) -> None:
        super().__init__(lambda messages: "I was told", price=Price(1_000_000, 1_000_000))
        self.asked = asyncio.Event()

    async def propose(self, request, emit):  # type: ignore[no-untyped-def]
        self.asked.set()
        if not heard(request.messages):
            await asyncio.Event().wait()
        return await super().propose(request, emit)


def kinds(runtime: Runtime, run_id: str) -> list[str]:
    return [event.kind for event in runtime.handle(run_id).events()]


async def test_a_model_call_under_way_is_ended_and_its_worst_case_is_paid(tmp_path: Path) -> None:
    deck, model = Quarterdeck("desk"), Waiting()
    deck.agent("clerk", model=model)
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await model.asked.wait()
        await runtime.interrupt(run.id, "stop asking", token="one")
        await runtime.interrupt(run.id, "stop asking", token="one")
        result = await run.result(30)
        closed = [event.body for event in run.events() if event.kind == "model.closed"]
        told = [event for event in run.events(content=True) if event.kind == "run.interrupted"]
    assert result.text == "I was told"
    assert (closed[0]["status"], closed[0]["code"]) == ("failed", "run.interrupted")
    assert closed[0]["output_tokens"] == 800, "what was cut off may have been billed to its end"
    assert [event.content for event in told] == ["stop asking"]
    assert result.spent["model_calls"] == 2


async def test_a_waiting_run_hears_it_and_what_it_asked_is_withdrawn(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    paid: list[str] = []

    @deck.tool(effect="irreversible")
    async def pay(to: str) -> str:
        paid.append(to)
        return to

    deck.agent(
        "clerk",
        model=ScriptedModel(lambda said: "as you wish" if heard(said) else [("pay", {"to": "bob"})]),
        tools=[pay],
        autonomy="executes_after_approval",
    )
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "pay bob")
        assert (await run.rest(30)).code == "approval.needed"
        await runtime.interrupt(run.id, {"say": "stop asking"})
        result = await run.result(30)
        approvals = [row.status for row in runtime.approvals(status=None)]
    assert (result.text, paid, approvals) == ("as you wish", [], ["withdrawn"])


async def test_a_reply_that_has_not_heard_it_does_not_leave(tmp_path: Path) -> None:
    """The interrupt is committed while the model's last answer is on its way back."""
    deck = Quarterdeck("desk")
    runtimes: list[Runtime] = []
    runs: list[str] = []

    class Late(ScriptedModel):
        async def propose(self, request, emit):  # type: ignore[no-untyped-def]
            if not heard(request.messages):  # through the store only, as another process does it
                store = runtimes[0]
                orders = Orders(store.apply, store.insights, store.parts.clock)
                await orders.interrupt(runs[0], "stop asking", by="ada", token="one")
            return await super().propose(request, emit)

    deck.agent("clerk", model=Late(lambda said: "new" if heard(said) else "old"))
    async with deck.start(tmp_path / "a.db") as runtime:
        runtimes.append(runtime)
        runs.append("run_1")
        run = await runtime.admit(Envelope("clerk", "hello", run_id="run_1"))
        assert (await run.result(30)).text == "new"


@pytest.mark.parametrize(("trusted", "integrity"), [(False, Integrity.UNTRUSTED), (True, Integrity.TRUSTED)])
async def test_who_asks_decides_whether_it_is_trusted(tmp_path: Path, trusted: bool, integrity: Integrity) -> None:
    deck, model = Quarterdeck("desk"), Waiting()
    deck.agent("clerk", model=model)
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await model.asked.wait()
        await runtime.interrupt(run.id, "stop asking", trusted=trusted)
        await run.result(30)
        assert state_of(read_all(runtime.insights, run.id)).labels.integrity is integrity


def shipping(folder: dict[str, object]) -> Quarterdeck:
    """A tool that hangs, can be asked afterwards, and can be stopped."""
    deck = Quarterdeck("ships")
    begun = folder["begun"] = asyncio.Event()
    go = folder["go"] = asyncio.Event()
    log: list[str] = []
    folder["log"] = log

    async def stop(to: str, result: object, ctx: ToolContext) -> str:
        log.append(f"stop {to} {ctx.idempotency_key.rpartition(':')[2]} {result}")
        return "stopped"

    @deck.tool(effect="external", cancel=stop)
    async def start(to: str) -> str:
        """Start something that goes on elsewhere."""
        log.append(f"start {to}")
        return f"job-{to}"

    async def find(to: str) -> Finding:
        return Finding(ReceiptStatus.SUCCEEDED, f"found {to}")

    @deck.tool(effect="external", reconcile=find, cancel=stop)
    async def ship(to: str) -> str:
        """Ship something; takes its time."""
        log.append(f"ship {to}")
        begun.set()
        await go.wait()
        return "shipped"

    deck.agent("clerk", model=ScriptedModel([[("start", {"to": "a"})], [("ship", {"to": "b"})], "done"]), tools=[start, ship])
    return deck


async def cancelled(folder: Path, mode: CancelMode, *, release: bool) -> tuple[RunResult, list[str], list[str]]:
    stage: dict[str, object] = {}
    deck = shipping(stage)
    async with deck.start(folder / f"{mode}.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await stage["begun"].wait()  # type: ignore[attr-defined]
        await runtime.cancel(run.id, mode=mode)
        if release:
            stage["go"].set()  # type: ignore[attr-defined]
        result = await run.result(30)
        statuses = [str(event.body.get("status")) for event in run.events() if event.kind == "tool.closed"]
    return result, stage["log"], statuses  # type: ignore[return-value]


async def test_stop_ends_what_is_under_way_asks_how_it_ended_and_stops_what_was_started(tmp_path: Path) -> None:
    result, log, statuses = await cancelled(tmp_path, CancelMode.STOP, release=False)
    assert result.status == "cancelled"
    assert log == ["start a", "ship b", "stop a t0.0 job-a", "stop b t1.0 found b"]
    assert statuses == ["succeeded"] * 4
    assert result.effects["compensated"] == 2


async def test_drain_lets_everything_finish_and_stops_nothing(tmp_path: Path) -> None:
    result, log, _ = await cancelled(tmp_path, CancelMode.DRAIN, release=True)
    assert (result.status, log) == ("cancelled", ["start a", "ship b"])


async def test_compensate_finishes_attempts_and_then_stops_what_was_started(tmp_path: Path) -> None:
    result, log, _ = await cancelled(tmp_path, CancelMode.COMPENSATE, release=True)
    assert (result.status, log) == ("cancelled", ["start a", "ship b", "stop a t0.0 job-a", "stop b t1.0 shipped"])


async def test_a_cut_effect_that_nobody_can_be_asked_about_is_unknown(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    begun = asyncio.Event()

    @deck.tool(effect="irreversible")
    async def pay() -> None:
        begun.set()
        await asyncio.Event().wait()

    deck.agent("clerk", model=ScriptedModel([[("pay", {})], "done"]), tools=[pay])
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await begun.wait()
        await runtime.cancel(run.id, mode="drain")
        with pytest.raises(TimeoutError):
            await run.result(0.05)
        await runtime.cancel(run.id, mode="stop")
        result = await run.result(30)
    assert (result.status, result.effects["unknown"]) == ("cancelled", 1)


async def test_a_model_call_of_a_cancelled_run_is_not_paid_to_its_end(tmp_path: Path) -> None:
    deck, model = Quarterdeck("desk"), Waiting()
    deck.agent("clerk", model=model)
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await model.asked.wait()
        await run.cancel()
        result = await run.result(30)
    assert (result.status, result.spent["tokens"] > 800) == ("cancelled", True)


async def test_a_hook_is_no_tool_for_the_model(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    stopped: list[str] = []

    @deck.tool(effect="external", cancel=lambda: stopped.append("x"))
    async def start() -> str:
        return "job"

    asked: list[tuple[str, ...]] = []

    class Nosy(ScriptedModel):
        async def propose(self, request, emit):  # type: ignore[no-untyped-def]
            asked.append(tuple(tool.name for tool in request.tools))
            return await super().propose(request, emit)

    deck.agent("clerk", model=Nosy([[("start.cancel", {"key": "k", "arguments": {}})], "done"]), tools=[start])
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "hello")
        await run.result(30)
        reasons = [event.body.get("reasons") for event in run.events() if event.body.get("name") == "start.cancel"]
    assert (asked[0], stopped, reasons) == (("start",), [], [["tool.not_allowed"]])


async def test_a_run_moves_to_its_next_owner(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")

    @deck.tool(effect="irreversible")
    async def pay() -> None:
        raise ToolFailure("pay.never", "never")

    clerk = deck.agent("clerk", model=ScriptedModel([[("pay", {})], "done"]), tools=[pay], autonomy="executes_after_approval")
    deck.route("pay", clerk, owner="team", escalation=["lead", "director"])
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("pay", "hello")
        await run.rest(30)
        assert await runtime.escalate(run.id, reason="too old") == "lead"
        await runtime.until(run.id, lambda row: row.seq >= 9 and row.worker is None)
        assert await runtime.escalate(run.id) == "director"
        await runtime.until(run.id, lambda row: kinds(runtime, run.id).count("run.escalated") == 2)
        with pytest.raises(Exception, match=r"run\.no_owner"):
            await runtime.escalate(run.id)
        assert runtime.show(run.id).owner == "director"
