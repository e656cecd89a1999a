"""A loan application: gather, score, hold the money, ask an underwriter, pay out; or undo everything.

Run it with ``python -m examples.loan.deck``: it plays the three endings (granted, denied, and nobody answers in time).
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from quarterdeck import Context, Quarterdeck, ToolContext
from quarterdeck.testing import ScriptedModel

deck = Quarterdeck("loans")
held: dict[str, int] = {}
"""What the bank holds for whom, by idempotency key; it stands for a system of somebody else."""
paid: dict[str, int] = {}

scorer = deck.agent(
    "scorer",
    model=ScriptedModel(["score 640: steady income, one late payment"]),
    instructions="Score the application and say why in one line.",
)


async def gather_documents(application_id: str) -> dict[str, object]:
    """Read what there is on an application: a step, because it only reads."""
    return {"application": application_id, "income": 52_000, "asked": 12_000}


async def release(ctx: ToolContext) -> None:
    """Give back what was held under this key."""
    held.pop(ctx.idempotency_key, None)


@deck.tool(effect="write", idempotent=True, compensate=release)
async def hold_funds(application_id: str, amount: int, ctx: ToolContext) -> str:
    """Hold the money for a loan."""
    held[ctx.idempotency_key] = amount
    return f"held {amount} for {application_id}"


@deck.tool(effect="irreversible", idempotent=True)
async def pay_out(application_id: str, amount: int, ctx: ToolContext) -> str:
    """Pay the loan out."""
    paid[ctx.idempotency_key] = amount
    return f"paid {amount} to {application_id}"


@deck.workflow("loan")
async def loan(ctx: Context, application_id: str, patience_s: float = 86_400.0) -> dict[str, object]:
    """One application, from its documents to its end. Days may pass in the middle; the run is rows only then."""
    documents = await ctx.step(gather_documents, application_id)
    amount = int(documents["asked"])  # type: ignore[index]
    score, _ = await ctx.gather(ctx.agent(scorer, documents), ctx.step(gather_documents, application_id))
    async with ctx.saga():
        await ctx.tool(hold_funds, application_id=application_id, amount=amount)
        answer = await ctx.approve(
            "underwriter_review",
            {"application": application_id, "amount": amount, "score": score},
            timeout=patience_s,
            on_timeout="escalate",
        )
        answer.require()  # a no, or no answer at all, leaves the saga: the hold is given back
        receipt = await ctx.tool(pay_out, application_id=application_id, amount=amount)
    return {"receipt": receipt, "approved_by": answer.by, "escalated": answer.escalated}


async def main() -> None:
    """Play the three endings."""
    with tempfile.TemporaryDirectory() as folder:
        async with deck.start(Path(folder) / "loans.db") as runtime:
            for answer in ("yes", "no", None):
                patience_s = 60.0 if answer else 0.5
                run = await runtime.submit("loan", {"application_id": f"A-{answer}", "patience_s": patience_s}, user="ada")
                await runtime.until(run.id, lambda row: row.reason == "needs_approval" and row.worker is None)
                for row in runtime.approvals():
                    if answer:
                        await runtime.decide(row.approval, approve=answer == "yes", by="underwriter", reason="looked at it")
                result = await run.result()
                print(answer, result.status, result.code, result.text, f"held: {sum(held.values())}")


if __name__ == "__main__":
    asyncio.run(main())
