"""What counts as done, as not done and as unknown, when tools fail in the ways that real ones do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from quarterdeck import Budget, Context, Quarterdeck, StepFailed, ToolContext
from quarterdeck.app.views import RunResult
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.testing import ScriptedModel

POLICY = "permit(principal, action, resource);"


class Answered(Exception):
    """As the usual HTTP clients raise it: the error carries the provider's answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.response = type("Response", (), {"status_code": status})()


async def paid(folder: Path, pay: Callable[..., object], **manifest: object) -> RunResult:
    """How a run ends, or comes to rest, whose only act is one call of ``pay``."""
    deck = Quarterdeck("effects")
    deck.tool(effect="irreversible", name="pay", timeout="200ms", **manifest)(pay)
    deck.model("scripted", ScriptedModel([[("pay", {"amount": 5})], "done"]))
    deck.agent("payer", model="scripted", instructions="Pay.", tools=list(deck.tools), autonomy="bounded_autonomous")
    deck.policy(POLICY)
    async with deck.start(folder / "effects.db") as rt:
        return await (await rt.submit("payer", "pay 5")).rest(30.0)


@pytest.mark.parametrize("error", [RuntimeError("the socket library gave up"), Answered(502)])
async def test_whoever_can_be_asked_is_asked_after_an_error_that_says_nothing(tmp_path: Path, error: Exception) -> None:
    ledger: list[int] = []

    async def pay(amount: int) -> str:
        ledger.append(amount)
        raise error

    def find(amount: int) -> dict[str, int] | None:
        return {"paid": amount} if ledger else None

    result = await paid(tmp_path, pay, reconcile=find)
    assert (result.status, result.effects["succeeded"], result.effects["failed"]) == ("succeeded", 1, 0)
    assert ledger == [5]


@pytest.mark.parametrize(("status", "unknown"), [(500, 1), (503, 1), (400, 0), (404, 0)])
async def test_an_answer_of_the_provider_tells_whether_it_may_be_done(tmp_path: Path, status: int, unknown: int) -> None:
    async def pay(amount: int) -> str:
        raise Answered(status)

    result = await paid(tmp_path, pay)
    assert result.effects["unknown"] == unknown
    assert result.effects["failed"] == 1 - unknown


async def test_a_thread_that_outlives_its_time_out_is_waited_for_before_anybody_is_asked(tmp_path: Path) -> None:
    ledger: list[str] = []
    late = threading.Event()

    def pay(amount: int, ctx: ToolContext) -> str:
        late.wait(20.0)
        ledger.append(ctx.idempotency_key)
        return "paid"

    def find(ctx: ToolContext) -> str | None:
        return "paid" if ctx.idempotency_key in ledger else None

    threading.Timer(0.3, late.set).start()
    result = await paid(tmp_path, pay, reconcile=find)
    assert len(ledger) == 1
    assert (result.effects["succeeded"], result.effects["failed"]) == (1, 0)


async def test_a_hanging_tool_takes_no_thread_of_another(tmp_path: Path) -> None:
    release = threading.Event()
    deck = Quarterdeck("threads")

    @deck.tool(effect="read", timeout="20s")
    def hang(number: int) -> int:
        release.wait(20.0)
        return number

    @deck.tool(effect="read", timeout="20s")
    def free() -> str:
        release.set()
        return "free"

    calls = [("hang", {"number": number}) for number in range(12)]
    deck.model("scripted", ScriptedModel([[*calls, ("free", {})], "done"]))
    deck.agent("reader", model="scripted", instructions="Read.", tools=[hang, free], budget=Budget(tools=13))
    deck.policy(POLICY)
    async with deck.start(tmp_path / "threads.db") as rt:
        result = await (await rt.submit("reader", "go")).result(30.0)
    assert result.effects["succeeded"] == 13


async def test_what_others_have_only_reserved_is_waited_for(tmp_path: Path) -> None:
    """Four attempts at most are reserved: both runs fit into the account one after the other, not side by side. Neither is refused."""
    inside, leave = threading.Event(), threading.Event()
    deck = Quarterdeck("crowded")

    @deck.tool(effect="write", idempotent=True, cost="0.50", timeout="20s")
    def spend(first: bool) -> str:
        if first:
            inside.set()
            leave.wait(20.0)
        return "spent"

    first = ScriptedModel([[("spend", {"first": True})], "done"])
    second = ScriptedModel([[("spend", {"first": False})], "done"])
    for name, model in (("first", first), ("second", second)):
        deck.model(name, model)
        deck.agent(name, model=name, instructions="Spend.", tools=[spend], budget=Budget(usd="5"))
    deck.policy(POLICY)
    deck.budget("all", Budget(usd="3"))
    async with deck.start(tmp_path / "crowded.db") as rt:
        one = await rt.submit("first", "go")
        for _ in range(1_000):
            if inside.is_set():
                break
            await rt.parts.clock.sleep(0.01)
        two = await rt.submit("second", "go")
        rested = await two.rest(30.0)
        leave.set()
        ended = [await one.result(30.0), await two.result(30.0)]
    assert (rested.status, rested.code) == ("waiting", "budget.all")
    assert [(result.status, result.code) for result in ended] == [("succeeded", "completed")] * 2


class Wordless(Exception):
    """An exception that cannot even be told."""

    def __str__(self) -> str:
        raise LookupError("no words")


async def test_a_tool_whose_error_cannot_be_told_fails_as_any_other(tmp_path: Path) -> None:
    async def pay(amount: int) -> str:
        raise Wordless

    result = await paid(tmp_path, pay)
    assert (result.status, result.effects["failed"], result.effects["unknown"]) == ("succeeded", 1, 0)


class Own(BaseException):
    """An exception that no caller expects."""


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Own()])
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_tool_that_would_end_the_process_fails_alone(tmp_path: Path, error: BaseException, threaded: bool) -> None:
    async def pay(amount: int) -> str:
        raise error

    def pay_in_a_thread(amount: int) -> str:
        raise error

    result = await paid(tmp_path, pay_in_a_thread if threaded else pay)
    assert (result.status, result.effects["failed"], result.effects["unknown"]) == ("succeeded", 1, 0)


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_tool_that_was_cancelled_by_nobody_leaves_doubt(tmp_path: Path, threaded: bool) -> None:
    async def pay(amount: int) -> str:
        raise asyncio.CancelledError

    def pay_in_a_thread(amount: int) -> str:
        raise asyncio.CancelledError

    result = await paid(tmp_path, pay_in_a_thread if threaded else pay)
    assert (result.code, result.effects["unknown"]) == ("effect.unknown", 1)


async def test_a_thread_that_raises_what_no_future_carries_fails_at_once(tmp_path: Path) -> None:
    def pay(amount: int) -> str:
        raise StopIteration

    result = await paid(tmp_path, pay)
    assert (result.status, result.effects["failed"], result.effects["unknown"]) == ("succeeded", 1, 0)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), Own(), Wordless()])
@pytest.mark.parametrize("place", ["step", "thread", "body", "branch"])
async def test_a_workflow_that_would_end_the_process_fails_alone(tmp_path: Path, error: BaseException, place: str) -> None:
    deck = Quarterdeck("effects")

    async def step() -> None:
        raise error

    def thread() -> None:
        raise error

    async def branch() -> None:
        raise error

    @deck.workflow("raises")
    async def raises(ctx: Context, payload: object) -> None:
        if place == "branch":
            await ctx.gather(ctx.step(len, "x"), branch())
        elif place != "body":
            await ctx.step(step if place == "step" else thread, retry=RetryPolicy(max_attempts=1))
        raise error

    async with deck.start(tmp_path / "effects.db") as rt:
        result = await (await rt.submit("raises", {})).rest(30.0)
    assert (result.status, result.reason) == ("failed", "failed")


async def test_a_workflow_that_returns_more_than_can_be_stored_fails(tmp_path: Path) -> None:
    deck = Quarterdeck("effects")

    @deck.workflow("returns")
    async def returns(ctx: Context, payload: object) -> str:
        return "x" * 5_000_000

    async with deck.start(tmp_path / "effects.db") as rt:
        result = await (await rt.submit("returns", {})).result(30.0)
    assert (result.status, result.code) == ("failed", "workflow.result")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {"rows": [1.0, None, float("-inf")]}])
async def test_a_number_that_json_does_not_have_is_an_error_and_not_silently_nothing(tmp_path: Path, bad: object) -> None:
    deck = Quarterdeck("numbers")

    @deck.tool(effect="read")
    async def mean() -> object:
        """The mean of nothing."""
        return bad

    @deck.tool(effect="read")
    async def gap() -> object:
        """What may be missing."""
        return {"mean": None, "count": 0.0}

    @deck.workflow("measures")
    async def measures(ctx: Context, how: str) -> object:
        async def step() -> object:
            return bad

        try:
            if how == "tool":
                return await ctx.tool(mean)
            if how == "step":
                return await ctx.step(step)
            if how == "argument":
                return await ctx.step(step_of, bad)
        except StepFailed as failed:
            return failed.code
        return await ctx.tool(gap) if how == "gap" else bad

    async def step_of(value: object) -> object:
        return value

    found = {}
    async with deck.start(tmp_path / "numbers.db") as rt:
        for how in ("tool", "step", "argument", "result", "gap"):
            result = await (await rt.submit("measures", {"how": how})).result(30.0)
            found[how] = (result.status, result.code if result.status == "failed" else result.text)
    assert found == {
        "tool": ("succeeded", "tool.result_unreadable"),
        "step": ("succeeded", "step.result"),
        "argument": ("failed", "workflow.arguments"),
        "result": ("failed", "workflow.result"),
        "gap": ("succeeded", '{"count":0.0,"mean":null}'),
    }


async def test_a_tool_that_cancels_its_own_task_and_returns_at_once_harms_nobody(tmp_path: Path) -> None:
    deck = Quarterdeck("quits")

    @deck.tool(effect="read")
    async def quit_it() -> str:
        """Cancel whoever performs this."""
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done all the same"

    deck.agent("quitter", model=ScriptedModel([[("quit_it", {})], "said"]), tools=[quit_it])
    async with deck.start(tmp_path / "quits.db") as rt:
        for _ in range(3):
            result = await (await rt.submit("quitter", "go")).result(30.0)
            assert (result.status, result.text, result.effects["succeeded"]) == ("succeeded", "said", 1)
