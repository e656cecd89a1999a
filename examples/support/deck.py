"""The support desk, declared: tools, model, policies, budgets, agent and route. Read this file to learn the authoring interface.

A deck is only a description. Nothing runs until somebody starts a runtime of it::

    async with deck.start("build/demo/quarterdeck.db") as rt:
        run = await rt.submit("triage_ticket", "Please refund 14 $ for order A1064.", user="lena.garcia@example.com")
        print(await run.result())

The model only proposes. Whether a proposal is valid, allowed and affordable is decided by what is declared here, not by the prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from examples.support.scripted import declare_scripted
from examples.support.shop import HANDBOOK, Shop
from quarterdeck import Budget, DependencyPolicy, LocalModel, Quarterdeck, ToolContext
from quarterdeck.app.clock import SystemClock
from quarterdeck.core.limits import BulkheadPolicy

deck = Quarterdeck("support")
shop = Shop.here()

OrderId = Annotated[str, Meta(pattern="^A[0-9]{4}$", description="order number, such as A1064")]
Email = Annotated[str, Meta(pattern="^[a-z.]+@[a-z.]+$", max_length=60, description="e-mail address of the customer")]
Dollars = Annotated[int, Meta(ge=1, le=100_000, description="whole dollars")]
Line = Annotated[str, Meta(min_length=1, max_length=200)]

PROVIDER_S = 0.25
"""How long the payment provider takes to hear of a refund, and again to answer; a crash in between is what the demo is about."""
SILENT = "@silent.example"
"""The mail gateway takes letters to these addresses, and then says nothing for ten minutes."""

wait = SystemClock().sleep

# -- Tools that read. Performing one again is harmless, so after a crash they are simply performed again. -------------------------


@deck.tool(effect="read", confidentiality="sensitive")
def lookup_order(order_id: OrderId, ctx: ToolContext) -> dict[str, object]:
    """Find an order of the customer: what was bought, for how much, where it is."""
    order = shop.order(order_id, ctx.actor)
    return {
        "order_id": order.id,
        "customer": order.customer,
        "item": order.item,
        "paid_usd": order.amount_usd,
        "status": order.status,
    }


@deck.tool(effect="read", confidentiality="sensitive")
def find_customer(ctx: ToolContext) -> dict[str, object]:
    """Find the orders of the customer who wrote."""
    return {"customer": ctx.actor, "orders": shop.orders_of(ctx.actor)}


@deck.tool(effect="read")
def search_policy(topic: Line) -> dict[str, str]:
    """Search the handbook: refunds, delivery, address, returns."""
    words = topic.lower()
    return {name: text for name, text in HANDBOOK.items() if name.rstrip("s") in words} or HANDBOOK


# -- Tools that write, idempotent: at most one effect per `ctx.idempotency_key`, so they may be repeated under the same key. ------


@deck.tool(effect="write", idempotent=True)
def add_note(order_id: OrderId, text: Line, ctx: ToolContext) -> str:
    """Write a note on an order for the colleagues."""
    shop.note(ctx.idempotency_key, order_id, text)
    return "noted"


@deck.tool(effect="write", idempotent=True)
def update_address(order_id: OrderId, address: Line, ctx: ToolContext) -> dict[str, str]:
    """Change where an order is sent, before it has left."""
    return {"order_id": order_id, "now": address, "before": shop.move(order_id, ctx.actor, address)}


# -- Money: irreversible. Its ledger is unique on the key; it can be asked what happened, and a refund can be taken back. ---------


def find_refund(ctx: ToolContext) -> dict[str, object] | None:
    """What the ledger says about this step: the refund, or ``None`` if it did not happen."""
    found = shop.find_refund(ctx.idempotency_key)
    return None if found is None else {"refunded_usd": found.amount_usd, "order_id": found.order_id}


def reverse_refund(ctx: ToolContext) -> None:
    """Undo it, for whoever compensates this step."""
    shop.reverse_refund(ctx.idempotency_key)


@deck.tool(
    effect="irreversible",
    idempotent=True,
    idempotent_for="24h",
    reconcile=find_refund,
    compensate=reverse_refund,
    evidence=["lookup_order"],  # nobody refunds an order that was not looked up in the same run
    permissions=["refunds:write"],
    timeout="5s",
    cost="0.02",  # what the provider charges
    dependency=DependencyPolicy(concurrency=BulkheadPolicy(slots=2, max_queue=100, max_wait_s=60.0)),
)
async def issue_refund(order_id: OrderId, amount_usd: Dollars, customer: Email, ctx: ToolContext) -> dict[str, object]:
    """Pay money back to the customer for an order."""
    await wait(PROVIDER_S)
    paid = await asyncio.to_thread(shop.refund, ctx.idempotency_key, order_id, amount_usd, customer, ctx.run_id)
    await wait(PROVIDER_S)
    return {"refunded_usd": paid.amount_usd, "order_id": paid.order_id}


# -- The outside: neither idempotent nor able to say what happened. After a crash in mid-send, only a person can tell. ------------


@deck.tool(effect="external", timeout="2m", cost="0.001")
async def send_email(to: Email, text: Line, ctx: ToolContext) -> str:
    """Write a letter to the customer."""
    number = await asyncio.to_thread(shop.send, ctx.idempotency_key, to, text, ctx.run_id)
    await wait(600.0 if to.endswith(SILENT) else 0.05)
    return f"sent as letter {number}"


# -- Model, policies, budgets, agent, route. --------------------------------------------------------------------------------------

deck.model(
    "local",
    LocalModel(),  # 135 million parameters, on this machine, for 0 $; weak, which is the point: it decides nothing
    DependencyPolicy(timeout_s=90.0, concurrency=BulkheadPolicy(slots=1, max_queue=1_000, max_wait_s=600.0)),  # one at a time
)
deck.policy(Path("policies"))

deck.budget("all", Budget(usd="20", tokens=5_000_000))
deck.budget("tenant:*", Budget(usd="10", tokens=2_000_000))
deck.budget("tenant:trial", Budget(tools=3))

TOOLS: list[Callable[..., object]] = [
    lookup_order,
    find_customer,
    search_policy,
    add_note,
    update_address,
    issue_refund,
    send_email,
]

triage = deck.agent(
    "triage",
    model="local",
    instructions="prompts/triage.md",
    tools=TOOLS,
    risk="high",
    max_output_tokens=64,
    budget=Budget(turns=4, tools=4, tokens=12_000, context=2_000, deadline="30m", usd="0.20", repeats=2),
)
deck.route("triage_ticket", triage, owner="desk-lead@shop.example", priority="interactive", approval_timeout="24h")

declare_scripted(deck, TOOLS)  # what a small model does not reach by itself; labelled "scripted" wherever it is shown
