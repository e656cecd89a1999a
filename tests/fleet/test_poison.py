"""A run that kills its owners becomes a dead letter; one that gets on does not. Dead letters run again, once, or are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.store.chain import verify_run
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.memory import MemoryStore


class Mill:
    """A deck whose tool stands still until it may go on, and a store that outlives its owners."""

    def __init__(self) -> None:
        self.grinding = asyncio.Event()
        self.free = asyncio.Event()
        self.keys: list[str] = []
        self.store: MemoryStore | None = None

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("mill")

        @deck.tool(effect="write", idempotent=True)
        async def grind(ctx: ToolContext) -> str:
            """Grind."""
            self.keys.append(ctx.idempotency_key)
            self.grinding.set()
            await self.free.wait()
            return "flour"

        deck.agent("mill", model=ScriptedModel([[("grind", {})], [("grind", {"again": 1})], "bread"]), tools=[grind])
        return deck

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Runtime]:
        """A runtime that dies at the end: nothing is released."""

        async def opened(entropy: Entropy) -> tuple[Journal, Insights]:
            self.store = MemoryStore("w") if self.store is None else self.store.connect("w")
            return self.store, self.store

        starting = self.deck().start(open_store=opened)
        yield await starting.__aenter__()
        if self.store is not None:
            self.store.crash()
        runtime = starting._runtime
        if runtime is not None:
            await runtime._dispatcher.stop(0.0)


async def dead_letter(mill: Mill, deaths: int = 3) -> str:
    """A run whose owners have died so often while they performed its first effect."""
    run_id = ""
    for _ in range(deaths):
        mill.grinding.clear()
        async with mill.owner() as rt:
            if not run_id:
                run_id = (await rt.submit("mill", {"grain": "rye"}, user="ada", tenant="acme")).id
            await mill.grinding.wait()
    return run_id


async def test_three_deaths_make_a_dead_letter() -> None:
    mill = Mill()
    run_id = await dead_letter(mill)
    async with mill.owner() as rt:
        result = await rt.handle(run_id).result()
        assert (result.status, result.reason, result.code) == ("failed", "blocked", "run.poison")
        assert result.effects["unknown"] == 1, "what may have been done is not hidden"
        assert [row.run_id for row in rt.dead_letters()] == [run_id]
        assert verify_run(rt.insights, run_id)
        last = rt.handle(run_id).events(content=True)[-1]
        assert "3 workers died" in str(last.content)
    assert len(mill.keys) == 3 and len(set(mill.keys)) == 1


async def test_two_deaths_do_not_and_progress_forgives() -> None:
    mill = Mill()
    run_id = await dead_letter(mill, deaths=2)
    mill.free.set()
    async with mill.owner() as rt:
        assert (await rt.handle(run_id).result()).ok
        assert not rt.dead_letters()


async def test_requeueing_twice_is_one_run_like_the_first() -> None:
    mill = Mill()
    run_id = await dead_letter(mill)
    mill.free.set()
    async with mill.owner() as rt:
        await rt.handle(run_id).result()
        first, second = await asyncio.gather(
            rt.requeue(run_id, by="ops", reason="mended"), rt.requeue(run_id, by="ops", reason="mended")
        )
        assert first.id == second.id == f"{run_id}-again1"
        assert (await first.result()).ok
        was, now = rt.show(run_id).contract, rt.show(first.id).contract
        for name in ("tenant", "actor", "route", "limits", "autonomy", "allowed_tools", "correlation_id", "submitted_by", "mode"):
            assert was.get(name) == now.get(name), name
        assert rt.handle(first.id).events(content=True)[0].content == {"grain": "rye"}
        assert not rt.dead_letters()
        letter = rt.insights.letter(run_id)
        assert letter is not None and (letter.how, letter.by, letter.why) == ("requeued", "ops", "mended")
        with pytest.raises(Refused, match=r"requeue\.not_failed"):
            await rt.requeue(first.id, by="ops")


async def test_dropping_needs_a_reason_and_is_final() -> None:
    mill = Mill()
    run_id = await dead_letter(mill)
    async with mill.owner() as rt:
        await rt.handle(run_id).result()
        with pytest.raises(UsageError, match=r"reason\.missing"):
            await rt.drop(run_id, by="ops", reason=" ")
        await rt.drop(run_id, by="ops", reason="the customer has gone")
        await rt.drop(run_id, by="ops", reason="again")
        assert not rt.dead_letters()
        with pytest.raises(Refused, match=r"requeue\.dropped"):
            await rt.requeue(run_id, by="ops")


async def test_what_was_erased_cannot_run_again() -> None:
    mill = Mill()
    run_id = await dead_letter(mill)
    async with mill.owner() as rt:
        await rt.handle(run_id).result()
        await rt.erase(run_id)
        with pytest.raises(Refused, match=r"requeue\.erased"):
            await rt.requeue(run_id, by="ops")
        assert [row.run_id for row in rt.dead_letters()] == [run_id], "it is still to be decided about"


async def test_a_stop_in_order_is_no_death(tmp_path: Path) -> None:
    """Also where the one owner of a file lets go of what it was performing."""
    for _ in range(4):
        mill = Mill()
        async with mill.deck().start(tmp_path / "mill.db", drain_s=0.0) as rt:
            if not rt.runs():
                await rt.submit("mill")
            await mill.grinding.wait()
    mill = Mill()
    mill.free.set()
    async with mill.deck().start(tmp_path / "mill.db") as rt:
        (row,) = rt.runs()
        assert (await rt.handle(row.run_id).result()).ok
