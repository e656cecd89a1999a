"""``quarterdeck check``: one planted defect per finding, and a clean deck without any."""

# ruff: noqa: TID251, ASYNC230 - what is banned is planted here, to be found
from __future__ import annotations

import asyncio
import json
import random
import time
from asyncio import sleep as pause
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pytest

from quarterdeck import Budget, Context, Quarterdeck
from quarterdeck.app.checking import Severity, flaws
from quarterdeck.app.purity import impure
from quarterdeck.core.vocabulary import Mode
from quarterdeck.testing import ScriptedModel
from tests.doors.cli_shop import Shop

Plant = Callable[[Quarterdeck], None]


def clean() -> Quarterdeck:
    deck = Quarterdeck("clean")

    @deck.tool(effect="read")
    async def look(order: str) -> str:
        """Look."""
        return "a mug"

    async def unship(order: str) -> str:
        return "back"

    @deck.tool(effect="write", idempotent=True, compensate=unship, evidence=["look"], permissions=["parcels"])
    async def ship(order: str) -> str:
        """Ship."""
        return "gone"

    agent = deck.agent("a", model=ScriptedModel(["hello"]), tools=["look", "ship"])
    deck.route("orders", agent, owner="ann", autonomy="executes_after_approval", escalation=["bo"], escalate_after="1h")

    @deck.workflow("w", tools=["look", "ship"])
    async def w(ctx: Context, order: str) -> str:
        await ctx.sleep(1)
        return str(await ctx.now())

    deck.policy('permit (principal, action, resource) when { context.route == "orders" };', "open")
    return deck


def no_key(deck: Quarterdeck) -> None:
    @deck.tool(effect="irreversible")
    async def pay(cents: int) -> str:
        """Pay."""
        return "paid"


def no_undo(deck: Quarterdeck) -> None:
    @deck.tool(effect="write", idempotent=True)
    async def book(room: str) -> str:
        """Book."""
        return "booked"

    @deck.workflow("trip", tools=[book])
    async def trip(ctx: Context) -> str:
        return "done"


def key_forgotten(deck: Quarterdeck) -> None:
    @deck.tool(effect="write", idempotent=True, idempotent_for="20s", timeout="30s")
    async def late(x: str) -> str:
        """Late."""
        return x


def evidence_impossible(deck: Quarterdeck) -> None:
    deck.agent("blind", model=ScriptedModel(["x"]), tools=["ship"])


def unreachable(deck: Quarterdeck) -> None:
    deck.agent("lost", model=ScriptedModel(["x"]))
    del deck.routes["lost"]


def no_tenant(deck: Quarterdeck) -> None:
    deck.route("nobody", "a", tenants=[], owner="ann")


def unused_tool(deck: Quarterdeck) -> None:
    deck.agent("narrow", model=ScriptedModel(["x"]), tools=["look"])
    deck.route("narrow2", "narrow", tools=["look", "ship"], owner="ann")


def impure_workflow(deck: Quarterdeck) -> None:
    @deck.workflow("dice", tools=[])
    async def dice(ctx: Context) -> str:
        return str(random.random())


def autonomy_denies(deck: Quarterdeck) -> None:
    deck.route("advice", "a", autonomy="advisory", owner="ann")


def mode_denies(deck: Quarterdeck) -> None:
    @deck.tool(effect="irreversible", reconcile=lambda x: None)
    async def final(x: str) -> str:
        """Final."""
        return x

    agent = deck.agent("hasty", model=ScriptedModel(["x"]), tools=[final])
    deck.route("fast", agent, modes=[Mode.SYNC], owner="ann")


def too_few_tokens(deck: Quarterdeck) -> None:
    deck.route("short", "a", budget=Budget(tokens=100), owner="ann")


def too_dear(deck: Quarterdeck) -> None:
    @deck.tool(effect="read", cost="0.50")
    async def search(x: str) -> str:
        """Search."""
        return x

    agent = deck.agent("rich", model=ScriptedModel(["x"]), tools=[search])
    deck.route("cheap", agent, budget=Budget(usd="0.10"), owner="ann")


def slow_tool(deck: Quarterdeck) -> None:
    deck.route("quick", "a", budget=Budget(deadline="10s"), owner="ann")


def wider(deck: Quarterdeck) -> None:
    deck.route("wide", "a", budget=Budget(usd="5"), owner="ann")
    deck.budget("all", Budget(usd="1"))


def unowned(deck: Quarterdeck) -> None:
    deck.route("orphan", "a", autonomy="executes_after_approval")


def never_escalates(deck: Quarterdeck) -> None:
    deck.route("stuck", "a", owner="ann", approval_timeout="1h", escalation=["bo"], escalate_after="2h")


def never_matches(deck: Quarterdeck) -> None:
    deck.policy('forbid (principal, action, resource) when { context.route == "order" };', "typo")


def invalid_policy(deck: Quarterdeck) -> None:
    deck.policy('forbid (principal, action, resource == Tool::"shipp");', "unknown")


def invalid_deck(deck: Quarterdeck) -> None:
    deck.agent("bad", model="none")


PLANTED: dict[str, tuple[Plant, ...]] = {
    "tool.no_key": (no_key,),
    "tool.no_undo": (no_undo,),
    "tool.key_forgotten": (key_forgotten,),
    "tool.timeout": (slow_tool,),
    "evidence.impossible": (evidence_impossible,),
    "program.unreachable": (unreachable,),
    "route.unreachable": (no_tenant,),
    "route.unused_tool": (unused_tool,),
    "workflow.impure": (impure_workflow,),
    "autonomy.denies": (autonomy_denies,),
    "mode.denies": (mode_denies,),
    "limit.impossible": (too_few_tokens, too_dear),
    "limit.wider_than_account": (wider,),
    "approval.no_owner": (unowned,),
    "approval.never_escalates": (never_escalates,),
    "policy.never": (never_matches,),
    "policy.invalid": (invalid_policy,),
    "deck.invalid": (invalid_deck,),
}


def test_a_clean_deck_has_no_finding() -> None:
    assert flaws(clean()) == []


@pytest.mark.parametrize("plant", [plant for plants in PLANTED.values() for plant in plants], ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_found(plant: Plant) -> None:
    code = next(code for code, plants in PLANTED.items() if plant in plants)
    deck = clean()
    plant(deck)
    found = flaws(deck)
    assert code in {flaw.code for flaw in found}, found
    assert all(flaw.place and flaw.what and flaw.mend and flaw.severity in Severity for flaw in found)


async def leaky(ctx: Context, time_s: float, random: str) -> None:
    import secrets as hidden

    time.time()
    datetime.now()
    uuid4()
    asyncio.sleep(1)
    pause(1)
    hidden.token_hex()
    open("x")  # noqa: SIM115
    random.upper()
    await ctx.sleep(1)

    async def inside() -> float:
        return time.time()

    await ctx.step(inside)


def test_impure_calls_are_told_with_their_lines_and_nothing_else() -> None:
    found = [name for name, _ in impure(leaky)]
    assert found == [
        "time.time",
        "datetime.datetime.now",
        "uuid.uuid4",
        "asyncio.sleep",
        "asyncio.sleep",
        "secrets.token_hex",
        "builtins.open",
    ]
    lines = Path(__file__).read_text("utf-8").splitlines()
    assert all(
        name.rpartition(".")[2].split("_")[0] in lines[line - 1] or "pause" in lines[line - 1] for name, line in impure(leaky)
    )


def test_the_command_tells_and_exits(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    told = shop.read("check", "--json")
    findings = json.loads(told.stdout)["findings"]
    assert (told.returncode, bool(findings)) == (1, True)
    assert {"code", "severity", "place", "what", "mend"} == findings[0].keys()
    assert shop.read("check").returncode == 1
