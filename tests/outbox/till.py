"""A till whose money is in tables of its own, beside the store's: ``python -m tests.outbox.till STORE dies`` is killed in the middle.

It pays and dies after its tool has returned, before the receipt is durable; started again, it goes on and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.engine import acting, recovery, settling
from quarterdeck.engine.workflows.context import Context

TABLES = (
    "CREATE TABLE accounts_of_ours (name text PRIMARY KEY, cents integer NOT NULL CHECK (cents >= 0), version integer NOT NULL)",
    "CREATE TABLE IF NOT EXISTS payments (key text PRIMARY KEY, cents integer NOT NULL)",
    "INSERT INTO accounts_of_ours VALUES ('ada', 1000, 1)",
)


def till() -> Quarterdeck:
    """A deck that takes money out of an account, in one transaction with its receipt and a message."""
    deck = Quarterdeck("till")

    @deck.outbox("paid")
    async def receive(message: object) -> None:
        return None

    @deck.tool(effect="write", transactional=True)
    async def pay(cents: int, ctx: ToolContext, version: int = 0) -> str:
        """Pay."""
        where = " AND version = $3" if version else ""
        values = ("ada", cents, version) if version else ("ada", cents)
        ctx.execute(
            f"UPDATE accounts_of_ours SET cents = cents - $2, version = version + 1 WHERE name = $1{where}",  # noqa: S608
            *values,
            rows=1,
        )
        ctx.execute("INSERT INTO payments (key, cents) VALUES ($1, $2)", ctx.idempotency_key, cents)
        ctx.publish("paid", {"cents": cents, "said": "it's $1"})
        return "paid"

    @deck.tool(effect="write", transactional=True)
    async def meddle(sql: str, ctx: ToolContext) -> str:
        """Execute anything."""
        ctx.execute(sql)
        return "done"

    @deck.workflow("buy")
    async def buy(ctx: Context, payload: dict[str, object]) -> object:
        return await ctx.tool(pay, **payload)

    @deck.workflow("try")
    async def attempt(ctx: Context, payload: str) -> object:
        return await ctx.tool(meddle, sql=payload)

    return deck


async def main(store: str, *, first: bool) -> None:
    settle = settling.settle

    async def dying(*arguments: object) -> None:
        if first:
            os.kill(os.getpid(), 9)
        await settle(*arguments)  # type: ignore[arg-type]

    acting.settle = recovery.settle = dying  # type: ignore[assignment]
    async with till().start(store) as rt:
        rows = rt.runs()
        handle = rt.handle(rows[0].run_id) if rows else await rt.submit("buy", {"cents": 300})
        print((await handle.result(50.0)).status)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], first=sys.argv[2] == "dies"))
