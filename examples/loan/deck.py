"""A loan application: gather, score, hold the money, ask an underwriter, pay out; or undo everything and say so.

Run it with ``python -m examples.loan.deck``: it plays the three endings. Granted: the loan is paid. Denied: what was held is given back,
and the applicant is told. Nobody answers in time, nor does the second person who is asked: the same, and an administrator is told. Both
are messages of the outbox: recorded with the step that decides them, delivered at least once, whatever crashes.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from quarterdeck import Context, Denied, Quarterdeck, ToolContext
from quarterdeck.ports.outbox import Message
from quarterdeck.testing import ScriptedModel

deck = Quarterdeck("loans")
held: dict[str, int] = {}
"""What the bank holds for whom, by idempotency key; it stands for a system of somebody else."""
paid: dict[str, int] = {}
told: dict[str, tuple[str, object]] = {}
"""Who was told what, by the message's name: one that arrives twice is told once."""

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


@deck.outbox("applicants")
async def write_to_applicant(message: Message) -> None:
    """A letter to who has applied."""
    told[message.message] = ("applicant", message.json())


@deck.outbox("administrators")
async def page_administrator(message: Message) -> None:
    """A page to who sees to it that applications are answered."""
    told[message.message] = ("administrator", message.json())


@deck.workflow("loan")
async def loan(ctx: Context, application_id: str, patience_s: float = 86_400.0) -> dict[str, object]:
    """One application, from its documents to its end. Days may pass in the middle; the run is rows only then."""
    documents = await ctx.step(gather_documents, application_id)
    amount = int(documents["asked"])  # type: ignore[index]
    score, _ = await ctx.gather(ctx.agent(scorer, documents), ctx.step(gather_documents, application_id))
    try:
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
    except Denied as denied:
        unanswered = denied.code == "approval.expired"
        note = {"application": application_id, "code": denied.code, "why": denied.message}
        await ctx.publish("administrators" if unanswered else "applicants", note, key=application_id)
        raise
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
                while runtime.insights.posts(status="queued"):
                    await runtime.parts.clock.sleep(0.05)
                print(answer, result.status, result.code, result.text, f"held: {sum(held.values())}", *told.values())
                told.clear()


if __name__ == "__main__":
    asyncio.run(main())
