"""T06: every way to a tool that does not lead through a decision which allows exactly that.

A vault is asked to be opened by all that can ask: agents, a model that names what it was not given, the tool that undoes another one,
workflows, children, forks, people who edit or approve, an operator who has something tried again, interrupts, signals. In each round
something forbids it: a policy, a switch, the tool's absence from the program's list, the autonomy, a budget of nothing. Nothing may
be opened. As a control nothing forbids it: then it is opened, and the journal proves a decision under the same digest for each time.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from proof.attempts import Tried, suite_of
from proof.stage import PATIENCE_S, on_stage, rested
from quarterdeck import Budget, Context, Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.oversight import proof_of, prove
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.mutants_runtime import mutant
from quarterdeck.testing.patching import Plant

WALLS = ("policy", "switch", "list", "autonomy", "budget")
"""What can forbid it; a round without one is the control."""
FORBIDS = """permit(principal, action, resource);
forbid(principal, action in Action::"tool", resource);"""


class Vault:
    """What was done to it, and in which run."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def deck(self, wall: str) -> Quarterdeck:
        deck = Quarterdeck("detours")

        async def close_again(way: str, ctx: ToolContext) -> str:
            self.done.append((ctx.run_id, f"undo {way}"))
            return "shut"

        @deck.tool(effect="irreversible")
        async def open_vault(way: str, ctx: ToolContext) -> str:
            """Open."""
            self.done.append((ctx.run_id, way))
            if way == "doubtful":
                raise ToolFailure("vault.silent", "no answer", done=None)
            return "open"

        @deck.tool(effect="write", idempotent=True, compensate=close_again)
        async def touch(way: str, ctx: ToolContext) -> str:
            """Touch."""
            self.done.append((ctx.run_id, way))
            return "touched"

        self._programs(deck, [] if wall == "list" else ["open_vault", "touch"], wall)
        if wall == "policy":
            deck.policy(FORBIDS)
        return deck

    def _programs(self, deck: Quarterdeck, tools: list[str], wall: str) -> None:
        more = {"autonomy": "advisory"} if wall == "autonomy" else {}
        if wall == "budget":
            deck.budget("all", Budget(tools=0))
        both = [("open_vault", {"way": "agent"}), ("touch", {"way": "agent"})]
        scripts = {
            "agent": [both, "over"],
            "doubtful": [[("open_vault", {"way": "doubtful"})], "over"],
            "smuggler": [
                [("touch.undo", {"way": "x"}), ("open_vault ", {"way": "x"}), ("OPEN_VAULT", {"way": "x"})],
                both,
                "over",
            ],
            "liar": [[("open_vault", '{"way": "a", "way": "b"}'), ("open_vault", {"way": "a", "approved": True})], "over"],
        }
        for name, turns in scripts.items():
            deck.agent(name, model=ScriptedModel(turns), tools=tools, **more)  # type: ignore[arg-type]

        @deck.workflow("direct", tools=tools, **more)
        async def direct(ctx: Context, order: str) -> str:
            return str(await ctx.tool("open_vault", way="workflow"))

        @deck.workflow("child", tools=tools, **more)
        async def child(ctx: Context, order: str) -> str:
            return str(await ctx.agent("agent", "go")) + str(await ctx.workflow("direct", "go"))

        @deck.workflow("undoing", tools=tools, **more)
        async def undoing(ctx: Context, order: str) -> str:
            async with ctx.saga():
                await ctx.tool("touch", way="saga")
                raise ValueError("undo it")


async def _submit(runtime: Runtime, intent: str) -> None:
    await rested(await runtime.submit(intent, "go", user="ada"))


async def _answer(runtime: Runtime, rng: random.Random) -> None:
    """A person who says yes to everything, or yes to something else."""
    for row in runtime.approvals():
        with suppress(QuarterdeckError):
            if rng.random() < 0.5:
                await runtime.edit(row.approval, {"way": "edit"}, by="bob")
            else:
                await runtime.approve(row.approval, by="bob")


async def _orders(runtime: Runtime, rng: random.Random) -> None:
    """Whatever an operator can order of a run."""
    row = rng.choice(list(runtime.runs()))
    orders: list[Callable[[], Awaitable[object]]] = [
        lambda: runtime.fork(row.run_id, rng.choice(["m0", "t0.0", "m1"]), by="eve"),
        lambda: runtime.fork(row.run_id, "t0.0", by="eve", result="open"),
        lambda: runtime.resolve(row.run_id, "t0.0", done=False, by="eve", retry=True),
        lambda: runtime.interrupt(row.run_id, {"tool": "open_vault", "way": "interrupt"}, by="eve"),
        lambda: runtime.signal(row.run_id, "approval", {"approved": True}, by="eve"),
        lambda: runtime.raise_budget(row.run_id, Budget(tools=99), by="eve"),
        lambda: runtime.resume(row.run_id, by="eve"),
    ]
    with suppress(QuarterdeckError):
        await rng.choice(orders)()


async def detoured(seed: int) -> Tried:
    """One round of drawn ways against one wall, or none."""
    rng = random.Random(seed)
    wall = (*WALLS, "")[seed % (len(WALLS) + 1)]
    vault, tried = Vault(), 0
    async with on_stage(vault.deck(wall)) as runtime:
        if wall == "switch":
            await runtime.switch("disable_tool:open_vault", by="eve")
            await runtime.switch("disable_tool:touch", by="eve")
        elif rng.random() < 0.3:
            await runtime.switch("force_approval:open_vault", by="eve")
        intents = ["agent", "smuggler", "liar", "direct", "child", "undoing", "doubtful"]
        rng.shuffle(intents)
        for intent in intents:
            await _submit(runtime, intent)
            for _ in range(2):
                await _answer(runtime, rng)
                await _orders(runtime, rng)
                tried += 1
        for row in list(runtime.runs()):
            if row.status not in ("succeeded", "failed", "refused", "cancelled"):
                await runtime.handle(row.run_id).cancel(by="eve")
                await runtime.handle(row.run_id).result(PATIENCE_S)
        return tried + len(intents), _found(runtime, vault, wall)


def _found(runtime: Runtime, vault: Vault, wall: str) -> list[str]:
    found = [f"behind the wall {wall}: {vault.done}"] if wall and vault.done else []
    for row in runtime.runs():
        proven = prove(proof_of(runtime.insights, row.run_id))
        done = sum(run_id == row.run_id for run_id, _ in vault.done)
        found += [f"{row.route}: {finding}" for finding in proven.findings]
        if done > proven.effects:
            found.append(f"{row.route}: {done} times for {proven.effects} intents")
    return found if wall or vault.done else [*found, "the control opened nothing"]


def _hole(where: str, words: str, instead: str) -> Plant:
    return mutant("", 0, "I4", (f"core.judge:{where}", words, instead)).planted


PLANTS: dict[str, Plant] = {
    "a policy's no is no more than advice": _hole("rule", 'if outcome != "allow" and outcome != "ask":', "if False:"),
    "switches are not looked at": _hole("revoked", "if controls.version:", "if False:"),
    "whatever has a name may be called": _hole("_screen_tool", "proposal.name not in contract.allowed_tools or", ""),
    "an advisor may act": _hole("_screen_tool", "is Ruling.DENY", "is None"),
}

SUITES = (suite_of("gate-bypass", detoured, PLANTS, quick=12, whole=600),)
