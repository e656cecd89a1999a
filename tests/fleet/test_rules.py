"""Policies, budgets and prices change while workers run: nobody judges by what was replaced, and no run is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from quarterdeck import Budget, Context, Quarterdeck
from quarterdeck.app.activating import put_in_force
from quarterdeck.app.auditing import read, rows_of
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.events import RunStarted, ToolOpened
from quarterdeck.core.rules import Rules, against, declared, replaced, stored, written
from quarterdeck.ports.model import Price
from quarterdeck.ports.store import Insights
from quarterdeck.store.chain import verify_run
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel, ledger
from tests.fleet.yard import Yard
from tests.store_postgres.sessions import until

STRICT = 'permit(principal, action, resource);\nforbid(principal, action in Action::"tool", resource == Tool::"blast");'
RUNS = 6


def deck(policy: str = "", *, price: int = 0, more: bool = False, slow: asyncio.Event | None = None) -> Quarterdeck:
    """A quarry: an agent of three effects and a workflow of two; the first effect of each waits for ``slow``."""
    made = Quarterdeck("quarry")
    if policy:
        made.policy(policy)

    @made.tool(effect="write", idempotent=True)
    async def dig(step: int) -> int:
        """Dig."""
        if slow is not None and step == 0:
            await slow.wait()
        return step

    @made.tool(effect="write", idempotent=True)
    async def blast() -> str:
        """Blast."""
        return "bang"

    turns = [[("dig", {"step": 0})], [("blast", {})], [("dig", {"step": 1})], "dug"]
    model = ScriptedModel(turns, price=Price(price, price, "2026-01-01") if price else None)
    made.agent("digger", model=model, tools=[dig, blast])
    if more:
        made.agent("other", model=ScriptedModel(["hello"]))

    @made.workflow("shaft", tools=[dig])
    async def shaft(ctx: Context, depth: int) -> list[int]:
        return [await ctx.tool(dig, step=step) for step in range(depth)]

    return made


def opened_by(insights: Insights, run_id: str) -> list[str]:
    """Who opened each effect of a run."""
    found, holder = [], ""
    for event in ledger.journal(insights, run_id):
        if isinstance(event, RunStarted):
            holder = event.worker
        elif isinstance(event, ToolOpened):
            found.append(holder)
    return found


async def begun(rt: Runtime, count: int) -> None:
    await until(lambda: sum(len(opened_by(rt.insights, row.run_id)) for row in rt.insights.runs()) >= count, "it has begun")


async def test_a_worker_with_replaced_policies_hands_its_runs_on_and_claims_nothing(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, slow = open_store(database), asyncio.Event()
    async with asyncio.timeout(60), AsyncExitStack() as fleet:
        old = await fleet.enter_async_context(deck(slow=slow).start(open_store=store, worker="old"))
        runs = [(await old.submit("digger", {"number": number})).id for number in range(RUNS)]
        runs += [(await old.submit("shaft", {"depth": 3})).id for _ in range(2)]
        await begun(old, len(runs))
        new = await fleet.enter_async_context(deck(STRICT).start(open_store=store, worker="new"))
        assert new.superseded == ()
        slow.set()
        results = [await new.handle(name).result() for name in runs]
        assert [one.status for one in results] == ["succeeded"] * len(runs)
        for name in runs[:RUNS]:
            assert opened_by(new.insights, name) == ["old", "new"], (
                "the blast is forbidden, and the rest was judged by the new ones"
            )
        for name in runs[RUNS:]:
            assert opened_by(new.insights, name) == ["old", "new", "new"]
        assert all(verify_run(new.insights, name) for name in runs)
        assert old.superseded == ("policies",)
        assert "worker.superseded: newer policies are in force" in caplog.text
        await until(lambda: sorted(row.status for row in new.workers()) == ["ready", "superseded"], "the list says so")
        later = await old.submit("digger")
        assert (await later.result()).status == "succeeded"
        assert set(opened_by(new.insights, later.id)) == {"new"}, "it can be asked for anywhere, and is done where it may be"


async def test_a_replaced_set_comes_back_by_order_and_not_by_a_restart(database: str) -> None:
    store = open_store(database)
    async with asyncio.timeout(60), AsyncExitStack() as fleet:
        async with deck().start(open_store=store):
            pass
        new = await fleet.enter_async_context(deck(STRICT).start(open_store=store, worker="new"))
        old = await fleet.enter_async_context(deck().start(open_store=store, worker="old"))
        assert (old.superseded, new.superseded) == (("policies",), ())
        run = await old.submit("digger")
        await run.result()
        assert opened_by(new.insights, run.id) == ["new", "new"]
        await put_in_force(deck(), old.apply, old.insights, old.parts.clock.now_us(), "ada")
        await until(lambda: (old.superseded, new.superseded) == ((), ("policies",)), "both have noticed")
        run = await new.submit("digger")
        await run.result()
        assert opened_by(new.insights, run.id) == ["old", "old", "old"], "and the blast is permitted again"
        told = [read(row) for row in rows_of(old.insights)]
        assert [one.by for one in told if one.action == "policy.activated"] == ["deck:quarry", "deck:quarry", "ada"]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (lambda: deck(), lambda: deck(more=True), ()),
        (lambda: deck(more=True), lambda: deck(), ()),
        (lambda: deck(price=1), lambda: deck(price=2), ("price:digger",)),
        (lambda: deck(), lambda: limited(deck()), ("budgets",)),
    ],
    ids=["something more", "something less", "prices", "budgets"],
)
async def test_only_what_is_other_supersedes(
    first: Callable[[], Quarterdeck], second: Callable[[], Quarterdeck], names: tuple[str, ...], database: str
) -> None:
    store = open_store(database)
    async with first().start(open_store=store) as one, second().start(open_store=store) as two:
        one.parts.refresh()
        assert (one.superseded, two.superseded) == (names, ())


def limited(made: Quarterdeck) -> Quarterdeck:
    made.budget("all", Budget(turns=5_000))
    return made


async def test_whoever_only_asks_declares_nothing(database: str) -> None:
    store = open_store(database)
    async with deck().start(open_store=store) as worker, deck(STRICT).start(open_store=store, work=False) as door:
        worker.parts.refresh()
        assert (worker.superseded, door.superseded) == ((), ())
        run = await door.submit("digger")
        await run.result()
        assert len(opened_by(worker.insights, run.id)) == 3, "the worker's policies permit the blast"


async def test_the_owner_of_a_file_is_alone_with_its_rules(tmp_path: Path) -> None:
    for each in (deck(), deck(STRICT), deck()):
        async with each.start(tmp_path / "store.db") as rt:
            assert rt.superseded == ()
            assert (await (await rt.submit("digger")).result()).ok


async def statuses(yard: Yard) -> dict[int, str]:
    rows = (await yard.said("workers"))["workers"]
    assert isinstance(rows, list)
    return {row["pid"]: row["status"] for row in rows}


async def test_processes_say_that_they_are_superseded(tmp_path: Path, database: str) -> None:
    yard = Yard(tmp_path, database)
    async with asyncio.timeout(60):
        old = await yard.worker()
        source = (yard.folder / "yard.py").read_text()
        (yard.folder / "strict.py").write_text(source + f"\ndeck.policy({STRICT.replace('blast', 'sit')!r})\n")
        new = await yard.worker("strict:deck")
        await until(lambda: "worker.superseded: newer policies" in yard.log(), "the old worker has noticed")
        assert (await yard.said("run", "loading"))["status"] == "succeeded"
        while await statuses(yard) != {old.pid: "superseded", new.pid: "ready"}:
            pass  # its row says so with its next heartbeat
        await yard.said("policy", "declare", "--by", "ada")
        await until(lambda: yard.log().count("worker.superseded: newer policies") == 2, "now the other one has")
        for process in (old, new):
            process.terminate()
        assert [await old.wait(), await new.wait()] == [0, 0]


def test_what_is_replaced_is_remembered_until_it_is_declared_again() -> None:
    first = declared(Rules(), {"policies": "a", "price:x": "1"})
    second = declared(first, {"policies": "b", "price:y": "2"})
    assert second.in_force == {"policies": "b", "price:x": "1", "price:y": "2"}
    assert (against(second, {"policies": "a"}), replaced(second, {"policies": "a"})) == (("policies",), True)
    assert not replaced(second, {"policies": "c"}), "what was never in force is new"
    third = declared(second, {"policies": "a"})
    assert (replaced(third, {"policies": "a"}), replaced(third, {"policies": "b"})) == (False, True)
    assert stored(written(third)) == third
