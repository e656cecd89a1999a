"""Every way by which a tool can be reached leads through a decision that allows exactly that. (T06)

Two looks. The code: only the performing stage calls a tool, its reconciliation or its compensation, and nothing outside the engine gets at
it. The machine: a tool that nobody allows is asked for through every door, and is never performed; every effect of a run that used all
ways has a decision with its digest before it.
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import quarterdeck
from quarterdeck import Context, Quarterdeck
from quarterdeck.app.oversight import proof_of, prove
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.testing import ScriptedModel

ROOT = Path(quarterdeck.__file__).parent
CALLERS = {"engine/performing.py", "tools/compensating.py", "tools/function.py", "tools/secrets.py"}
"""Where a tool's code may be called: the stage that performs what was committed, and the tools room itself."""


def test_only_the_performing_stage_calls_a_tool() -> None:
    found = set()
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).as_posix()
        if room.startswith("testing/"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on = ast.unparse(node.func.value).rpartition(".")[2]
                if node.func.attr in ("invoke", "perform", "reconcile", "compensate") and on in ("tool", "_tool"):
                    found.add(room)
    assert found and found <= CALLERS, f"a tool is called in {sorted(found - CALLERS)}"


def test_doors_and_orders_do_not_reach_into_tools() -> None:
    """The catalogue lists specs; what can be called is in the deck, and doors only read a tool's spec."""
    for room in ("server", "cli", "client"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "tools" and "deck" in ast.unparse(node.value):
                    line = path.read_text("utf-8").splitlines()[node.lineno - 1]
                    assert "spec" in line or "found" in line or "len(" in line or "sorted" in line, (
                        f"{path}:{node.lineno}: {line}"
                    )


class Vault:
    """What was opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("vault")

        @deck.tool(effect="irreversible")
        async def open_vault(way: str) -> str:
            """Open."""
            self.opened.append(way)
            return "open"

        async def close_again(way: str) -> str:
            self.opened.append(f"undo {way}")
            return "shut"

        @deck.tool(effect="write", idempotent=True, compensate=close_again)
        async def touch(way: str) -> str:
            """Touch."""
            self.opened.append(way)
            return "touched"

        tools = ["open_vault", "touch"]
        deck.agent("agent", model=ScriptedModel([[("open_vault", {"way": "agent"})], "over"]), tools=tools)
        deck.agent(
            "smuggler", model=ScriptedModel([[("open_vault__undo", {}), ("touch", {"way": "smuggler"})], "over"]), tools=tools
        )
        deck.agent("outsider", model=ScriptedModel([[("open_vault", {"way": "outsider"})], "over"]))
        deck.agent("task", model=ScriptedModel([[("open_vault", {"way": "task"})], "over"]), tools=tools)

        @deck.workflow("direct", tools=tools)
        async def direct(ctx: Context, order: str) -> str:
            return str(await ctx.tool("open_vault", way="workflow"))

        @deck.workflow("child", tools=tools)
        async def child(ctx: Context, order: str) -> str:
            return str(await ctx.agent("agent", "go"))

        @deck.workflow("undoing", tools=tools)
        async def undoing(ctx: Context, order: str) -> str:
            async with ctx.saga():
                await ctx.tool("touch", way="saga")
                raise ValueError("undo it")

        deck.policy("forbid (principal, action, resource);", "nothing")
        deck.policy('permit (principal, action, resource) unless { resource has effect && resource.effect != "read" };', "models")
        return deck


Way = Callable[[Runtime], Awaitable[None]]


def by_route(intent: str) -> Way:
    async def way(runtime: Runtime) -> None:
        await (await runtime.submit(intent, "go")).rest(timeout_s=10)

    return way


async def by_approval(runtime: Runtime) -> None:
    await runtime.switch("force_approval:open_vault")
    run = await runtime.submit("agent", "go")
    await run.rest(timeout_s=10)
    for row in runtime.approvals():
        await runtime.approve(row.approval, by="bob")
        await runtime.edit(row.approval, {"way": "edit"}, by="bob")
    await run.result(timeout_s=10)


async def by_resolving(runtime: Runtime) -> None:
    run = await runtime.submit("agent", "go")
    await run.rest(timeout_s=10)
    with pytest.raises(QuarterdeckError):
        await runtime.resolve(run.id, "t0.0", done=False, by="bob", retry=True)


WAYS: dict[str, Way] = {
    **{f"route {name}": by_route(name) for name in ("agent", "smuggler", "outsider", "task", "direct", "child", "undoing")},
    "an approval and an edit": by_approval,
    "an operator's retry": by_resolving,
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_leads_around_the_gate(way: str, tmp_path: Path) -> None:
    vault = Vault()
    async with vault.deck().start(tmp_path / "s.db") as runtime:
        await WAYS[way](runtime)
        for row in runtime.runs():
            shown = prove(proof_of(runtime.insights, row.run_id))
            assert (shown.effects, shown.findings) == (0, ())
    assert vault.opened == []


async def test_without_the_policy_the_same_ways_lead_there_and_each_effect_was_decided(tmp_path: Path) -> None:
    """The control: the doors do work, and what came of them is proven by the journal."""
    vault = Vault()
    deck = vault.deck()
    deck.policies.clear()
    async with deck.start(tmp_path / "s.db") as runtime:
        for intent in ("agent", "task", "direct", "child", "undoing"):
            await (await runtime.submit(intent, "go")).rest(timeout_s=10)
        effects = 0
        for row in runtime.runs():
            shown = prove(proof_of(runtime.insights, row.run_id))
            assert shown.findings == ()
            effects += shown.effects
    assert sorted(vault.opened) == ["agent", "agent", "saga", "task", "undo saga", "workflow"]
    assert effects == len(vault.opened)
