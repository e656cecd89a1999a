"""Conditions over history, and accounts of periods, agents and threads: what they count, and that no two pass at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import Budget, Context, Denied, Quarterdeck, ToolFailure, Unavailable, UsageError
from quarterdeck.app.auditing import actions
from quarterdeck.app.starting import Starting
from quarterdeck.core.contract import Caller, Envelope
from quarterdeck.core.windows import WINDOWS, WindowLimit, counted, seconds_of, window_of
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.ledger import differences
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.patching import patched
from tests.app.test_switches import Pushed

DAY_US = 86_400_000_000


def shop(turns: Callable[..., object] | list[object], *, fails: bool = False, **limit: object) -> tuple[Quarterdeck, list[str]]:
    deck = Quarterdeck("shop")
    paid: list[str] = []

    @deck.tool(effect="irreversible")
    async def refund(customer: str, dollars: int = 1) -> str:
        """Pay back."""
        if fails:
            raise ToolFailure("bank.closed", "not today")
        paid.append(customer)
        return "paid"

    deck.agent("clerk", model=ScriptedModel(turns), tools=[refund], budget=Budget(turns=99, tools=99))  # type: ignore[arg-type]
    deck.limit("refunds", tools=refund, per="customer", **limit)  # type: ignore[arg-type]
    return deck, paid


def refund(customer: str, **more: object) -> list[object]:
    return [("refund", {"customer": customer, **more})]


async def played(deck: Quarterdeck, tmp_path: Path, runs: int = 1) -> list[list[str]]:
    """The reasons of the denials of each run; the ledger has to be the fold of all journals afterwards."""
    async with deck.start(tmp_path / "s.db") as rt:
        found = await asyncio.gather(*[rt.submit("clerk", n) for n in range(runs)])
        await asyncio.gather(*[run.result() for run in found])
        assert differences(rt.insights) == []
        decided = [[event.body for event in run.events() if event.kind == "gate.decided"] for run in found]
    return [[body["reasons"][0] for body in run if body["ruling"] == "deny"] for run in decided]  # type: ignore[index]


async def test_at_most_so_many_per_customer(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann"), refund("ann"), refund("bob"), refund("ann"), "done"], uses=2)
    assert await played(deck, tmp_path) == [["limit.refunds"]]
    assert paid == ["ann", "ann", "bob"]


async def test_another_spelling_is_no_other_customer(tmp_path: Path) -> None:
    deck, _ = shop([refund("ann"), refund(" Ann"), refund("\uff41nn"), "done"], uses=1)
    assert await played(deck, tmp_path) == [["limit.refunds", "limit.refunds"]]


async def test_a_sum_of_an_argument(tmp_path: Path) -> None:
    turns = [refund("ann", dollars=60), refund("ann", dollars=50), refund("ann", dollars=40), refund("ann", dollars=-5), "done"]
    deck, paid = shop(turns, sums={"dollars": 100}, code="refund.too_much")
    assert await played(deck, tmp_path) == [["refund.too_much", "limit.uncountable"]]
    assert len(paid) == 2


async def test_calls_of_one_turn_count_one_by_one(tmp_path: Path) -> None:
    deck, paid = shop([[*refund("ann"), *refund("ann"), *refund("ann")], "done"], uses=2)
    assert await played(deck, tmp_path) == [["limit.refunds"]]
    assert len(paid) == 2


async def test_what_was_not_done_is_given_back(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann"), "done"], uses=1, fails=True)
    assert await played(deck, tmp_path) == [[]]
    deck, paid = shop([refund("ann"), "done"], uses=1)
    assert await played(deck, tmp_path) == [[]]
    assert paid == ["ann"]
    deck, paid = shop([refund("ann"), "done"], uses=1)
    assert await played(deck, tmp_path) == [["limit.refunds"]]


async def test_sixty_four_claimants_at_once(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann", dollars=30), "done"], uses=10, sums={"dollars": 100})
    denied = await played(deck, tmp_path, runs=64)
    assert len(paid) == 3 and sum(len(each) for each in denied) == 61


async def test_the_race_is_seen_if_the_store_does_not_compare() -> None:
    deck, paid = shop([refund("ann"), "done"], uses=3)
    store = MemoryStore("w1")

    async def open_store(entropy: Entropy) -> tuple[Journal, Insights]:
        return store, store

    with patched(type(store._shared.tables), "_fits", lambda *_: True):
        async with Starting(deck, open_store=open_store, worker="w1") as rt:
            runs = await asyncio.gather(*[rt.submit("clerk", n) for n in range(8)])
            await asyncio.gather(*[run.result() for run in runs])
            assert differences(rt.insights) != []
    assert len(paid) == 8


async def test_a_run_works_so_long_and_waiting_for_people_is_no_work(tmp_path: Path) -> None:
    clock = Pushed()
    deck = Quarterdeck("work")

    @deck.tool(effect="write", idempotent=True)
    async def dig(n: int) -> str:
        """Dig."""
        clock.ahead_us += 20_000_000
        return "dug"

    turns = [[("dig", {"n": n})] for n in range(5)]
    limits = Budget(turns=9, tools=9, working="50s")
    deck.agent("digger", model=ScriptedModel([*turns, "done"]), tools=[dig], autonomy="executes_after_approval", budget=limits)
    async with deck.start(tmp_path / "s.db", clock=clock) as rt:
        run = await rt.submit("digger", "go")
        while not (rest := await run.rest(10)).done:
            for row in rt.approvals():
                clock.ahead_us += 3_600_000_000  # an hour until somebody looks
                await rt.approve(row.approval, by="bob")
        assert (rest.reason, rest.code, rest.spent["tool_calls"]) == ("partial", "budget.work", 3)
        assert 60_000 <= rest.spent["work_ms"] < 62_000


async def test_a_run_asks_for_so_many_runs_and_they_nest_so_deeply(tmp_path: Path) -> None:
    deck = Quarterdeck("tree")
    said: list[str] = []

    @deck.workflow("node", budget=Budget(delegations=2, depth=1))
    async def node(ctx: Context, order: str) -> str:
        for _ in range(3):
            try:
                await ctx.workflow("node", "go")
            except Denied as denied:
                said.append(denied.code)
        return "done"

    async with deck.start(tmp_path / "s.db") as rt:
        await (await rt.submit("node", "go")).result(10)
        assert len(rt.runs()) == 3
    assert sorted(set(said)) == ["budget.delegations", "delegation.depth"]
    with pytest.raises(UsageError, match="a caller cannot limit delegations"):
        Budget(delegations=1).envelope()


@given(st.sampled_from(WINDOWS), st.integers(0, 4_000_000_000_000_000))
def test_a_window_holds_its_own_time_and_ends(window: str, now_us: int) -> None:
    passed_s, whole_s = seconds_of(window, now_us)
    assert 0 <= passed_s < whole_s
    if window != "ever":
        ends_us = now_us + round((whole_s - passed_s) * 1e6)
        assert window_of(window, ends_us - 1) == window_of(window, now_us) != window_of(window, ends_us)


def test_each_tenant_counts_for_itself() -> None:
    limit = WindowLimit("x", ("t",), ("customer", "user"), "day", 1)
    first = counted(limit, {"customer": 1}, "acme", {"user": "ann"}, 0)
    assert first != counted(limit, {"customer": 1}, "other", {"user": "ann"}, 0)
    assert first != counted(limit, {"customer": 1}, "acme", {"user": "bob"}, 0)
    assert first != counted(limit, {"customer": 1}, "acme", {"user": "ann"}, DAY_US)
    assert first == counted(limit, {"customer": 1.0}, "acme", {"user": "ann"}, DAY_US - 1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"tools": "refund", "window": "fortnight", "uses": 1}, "window.unknown"),
        ({"tools": "refund"}, "limit.invalid"),
        ({"tools": "refund", "uses": -1}, "limit.invalid"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(arguments: dict[str, object], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        Quarterdeck("x").limit("x", **arguments)  # type: ignore[arg-type]
    assert caught.value.code == code


async def test_a_limit_on_what_does_not_exist_stops_the_start(tmp_path: Path) -> None:
    deck, _ = shop(["done"], uses=1)
    deck.limit("other", tools=["refund", "nothing"], per="nobody", uses=1)
    with pytest.raises(UsageError) as caught:
        await deck.start(tmp_path / "s.db").__aenter__()
    assert "'nothing'" in caught.value.message and "'nobody'" in caught.value.message


async def test_accounts_of_agents_threads_and_periods(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann"), refund("bob"), refund("cid"), refund("dan"), "done"], uses=99)
    deck.budget("thread:*", Budget(tools=3))
    deck.budget("agent:clerk", Budget(tools=5), per="month")
    codes = []
    async with deck.start(tmp_path / "s.db") as rt:
        for thread in ("one", "one", "two"):
            run = await rt.admit(Envelope("clerk", None, caller=Caller("acme", "ann"), thread_id=thread))
            codes.append((await run.result()).code)
        assert differences(rt.insights) == []
        rows = {(row.account.partition("@")[0], row.dimension): row for row in rt.budgets()}
    assert codes == ["budget.thread", "budget.thread", "budget.agent"]
    assert len(paid) == 5
    assert rows["thread:acme/one", "tool_calls"].committed == 3 and rows["agent:clerk", "tool_calls"].limit == 5


async def test_a_child_spends_what_its_thread_may_and_is_no_run_of_its_own_pace(tmp_path: Path) -> None:
    """Delegation is no way around the limit of a thread; and a pace is of those who ask, not of what their runs ask for."""
    deck, paid = shop([refund("ann"), refund("bob"), "done"], uses=99)

    @deck.workflow("boss", tools=["refund"], budget=Budget(tools=50))
    async def boss(ctx: Context, order: str) -> int:
        for _ in range(3):
            await ctx.agent("clerk", "go", budget=Budget(tools=9))
        return len(paid)

    deck.budget("thread:*", Budget(tools=3))
    deck.budget("tenant:*", Budget(runs=1), per="month")
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.admit(Envelope("boss", "go", caller=Caller("acme", "ann"), thread_id="one"))
        assert (await run.result(10)).status in ("succeeded", "failed")
        assert len(paid) == 3 and differences(rt.insights) == []
        with pytest.raises(Unavailable, match=r"budget\.pace"):
            await rt.admit(Envelope("boss", "go", caller=Caller("acme", "ann")))


async def test_no_name_makes_a_tenant_or_thread_spend_from_anothers_account(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann"), "done"], uses=99)
    deck.budget("thread:*", Budget(tools=1))
    deck.budget("thread:*", Budget(tools=5), per="month")
    async with deck.start(tmp_path / "s.db") as rt:
        this_month = window_of("month", rt.parts.clock.now_us())
        for tenant, thread in (("a/b", "c"), ("a", "b/c"), ("a", "x"), ("a", f"x@{this_month}")):
            run = await rt.admit(Envelope("clerk", None, caller=Caller(tenant, "ann"), thread_id=thread))
            assert (await run.result()).code == "completed", (tenant, thread)
        assert len({row.account for row in rt.budgets() if row.account.startswith("thread:")}) == 8
        with pytest.raises(UsageError, match=r"name\.invalid"):
            await rt.submit("clerk", tenant=f"acme@{this_month}")
    assert len(paid) == 4


async def test_a_run_may_ask_people_only_so_often(tmp_path: Path) -> None:
    deck = Quarterdeck("asks")

    @deck.tool(effect="write")
    async def save(n: int) -> str:
        """Save."""
        return "saved"

    model = ScriptedModel([[("save", {"n": n}) for n in range(3)], "done"])
    deck.agent("clerk", model=model, tools=[save], autonomy="executes_after_approval", budget=Budget(approvals=2))
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.submit("clerk", "go")
        while not (await run.rest()).done:
            for row in rt.approvals():
                await rt.approve(row.approval, by="ada")
        denied = [event.body for event in run.events() if event.kind == "gate.decided" and event.body["ruling"] == "deny"]
    assert [body["reasons"] for body in denied] == [["budget.approvals"]]


async def test_a_run_rests_at_a_shared_limit_until_it_is_raised(tmp_path: Path) -> None:
    deck, paid = shop([refund("ann"), refund("bob"), "done"], uses=99)
    deck.budget("tenant:default", Budget(tools=1))
    deck.route("patient", "clerk", on_budget="pause")
    async with deck.start(tmp_path / "s.db") as rt:
        run = await rt.submit("patient", "go")
        waiting = await run.rest()
        assert (waiting.code, waiting.waiting_on) == ("budget.tenant", ("account:tenant:default",))
        assert await rt.raise_account("tenant:default", Budget(tools=2)) == 1
        assert (await run.result()).status == "succeeded"
    assert paid == ["ann", "bob"]


async def test_runs_are_begun_at_most_at_a_pace(tmp_path: Path) -> None:
    deck, _ = shop(["done"], uses=9)
    deck.budget("tenant:*", Budget(runs=2), per="month")
    begun = []
    async with deck.start(tmp_path / "s.db") as rt:
        for tenant, key in (("a", "1"), ("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")):
            try:
                run = await rt.submit("clerk", 1, tenant=tenant, idempotency_key=key)
                await run.result()
                begun.append((tenant, run.existing))
            except Unavailable as refused:
                assert refused.code == "budget.pace"
        assert differences(rt.insights) == []
    assert begun == [("a", False), ("a", True), ("a", False), ("b", False)]


def test_a_pace_needs_a_window() -> None:
    with pytest.raises(UsageError):
        Quarterdeck("x").budget("all", Budget(runs=1))


def asking(**route: object) -> tuple[Quarterdeck, list[str]]:
    """Each run asks its owner once."""
    deck = Quarterdeck("attention")
    paid: list[str] = []

    @deck.tool(effect="irreversible")
    async def refund(customer: str) -> str:
        """Pay back."""
        paid.append(customer)
        return "paid"

    deck.agent("clerk", model=ScriptedModel([refund_of("ann"), "done"]), tools=[refund], autonomy="executes_after_approval")
    deck.route("ask", "clerk", owner="ann", **route)  # type: ignore[arg-type]
    deck.route("ask_bob", "clerk", owner="bob")
    return deck, paid


refund_of = refund


async def test_an_owner_is_asked_so_often_in_an_hour_and_no_more_whatever_runs_at_once(tmp_path: Path) -> None:
    deck, _ = asking()
    deck.budget("approver:*", Budget(approvals=3), per="hour")
    deck.budget("approver:bob", Budget(approvals=1), per="hour")
    clock = Pushed()
    async with deck.start(tmp_path / "s.db", clock=clock) as rt:
        runs = await asyncio.gather(*[rt.submit("ask", n) for n in range(8)], *[rt.submit("ask_bob", n) for n in range(3)])
        rests = [await run.rest(timeout_s=10) for run in runs]
        asked = [rest for rest in rests if rest.code == "approval.needed"]
        assert len(asked) == 4 and len(rt.approvals()) == 4
        denied = [event.body["reasons"] for run in runs for event in run.events() if event.body.get("ruling") == "deny"]
        assert denied == [["budget.approver"]] * 7 and all(rest.status == "succeeded" for rest in rests if rest not in asked)
        assert differences(rt.insights) == []
        clock.ahead_us = 3_600_000_000
        again = await rt.submit("ask", "later")
        assert (await again.rest(timeout_s=10)).code == "approval.needed", "the next hour is another one"


async def test_what_nobody_has_attention_for_rests_where_the_route_says_so(tmp_path: Path) -> None:
    deck, paid = asking(on_budget="pause")
    deck.budget("approver:ann", Budget(approvals=1), per="hour")
    clock = Pushed()
    async with deck.start(tmp_path / "s.db", clock=clock) as rt:
        first = await rt.submit("ask", 1)
        assert (await first.rest(timeout_s=10)).code == "approval.needed"
        second = await rt.submit("ask", 2)
        rest = await second.rest(timeout_s=10)
        assert (rest.status, rest.code) == ("waiting", "budget.approver") and rest.waiting_on[0].startswith(
            "account:approver:ann@"
        )
        clock.ahead_us = 3_600_000_000
        rt._dispatcher.hint()
        async with asyncio.timeout(10):
            await rt.until(second.id, lambda row: row.code == "approval.needed" and row.worker is None)
        assert differences(rt.insights) == []
    assert paid == []


@pytest.mark.parametrize(
    ("account", "budget", "per"),
    [
        ("approver:", Budget(approvals=1), "hour"),
        ("approver:ann", Budget(approvals=1), None),
        ("approver:ann", Budget(tokens=1), "hour"),
        ("approver:ann", Budget(approvals=1, tokens=1), "hour"),
        ("approver:ann", Budget(approvals=-1), "hour"),
        ("approver:ann", Budget(approvals=1), "fortnight"),
    ],
)
def test_attention_is_limited_in_asks_per_window(account: str, budget: Budget, per: str | None) -> None:
    with pytest.raises(UsageError, match=r"budget\.invalid|window\.unknown"):
        Quarterdeck("d").budget(account, budget, per=per)


async def test_that_an_account_comes_near_its_limit_is_told_once(tmp_path: Path) -> None:
    """Also across a restart, and anew when the limit is another one."""
    deck, _ = shop([refund("ann"), refund("bob"), refund("cyd"), refund("dan"), "done"], uses=100)
    deck.budget("all", Budget(tools=5))
    for most, told in ((5, 1), (5, 1), (4, 2)):
        deck.accounts["all"] = Budget(tools=most).limits()
        async with deck.start(tmp_path / "s.db") as rt:
            if not rt.runs():
                assert await rt._beside.nearing.look() == 0
                await (await rt.submit("clerk")).result()
            await rt._beside.nearing.look()
            assert await rt._beside.nearing.look() == 0
            rows = [said for _, said in actions(rt.insights, action="account.near")]
            assert [said.target for said in rows] == ["all"] * told
    assert [json.loads(said.detail)["standing"] for said in rows] == ["near", "exhausted"]
