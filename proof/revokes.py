"""R26: what was allowed is revoked between the attempts of a tool that is retried, and model calls that are billed without an answer.

After a cancel, a switch, the deadline or the perform-by time no further attempt starts; and what a provider bills for a call that
failed is settled, at what it says or at the worst case, within the run's own limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from proof.answers import Case
from proof.stage import PRICE, QUICK, Provider, PushedClock, Remembering, ended, expect, on_stage, receipts, rested, sound
from quarterdeck import Budget, Quarterdeck, ToolContext, ToolFailure
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.ports.model import ModelFailure, ModelReply, ModelRequest, Usage
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.scripted import ScriptedModel

Revocation = Callable[[Runtime, str, PushedClock], Awaitable[object]]


async def _cancel(runtime: Runtime, run_id: str, clock: PushedClock) -> None:
    await runtime.cancel(run_id, by="ada")


def _switch(name: str) -> Revocation:
    async def switch(runtime: Runtime, run_id: str, clock: PushedClock) -> None:
        await runtime.switch(name)

    return switch


def _push(seconds: float) -> Revocation:
    async def push(runtime: Runtime, run_id: str, clock: PushedClock) -> None:
        clock.push(seconds)

    return push


REVOCATIONS: dict[str, tuple[Revocation, str | None]] = {
    "cancel": (_cancel, None),
    "switch of the tool": (_switch("disable_tool:act"), None),
    "switch of the route": (_switch("stop_route:a"), None),
    "switch of the tenant": (_switch("deny_tenant:default"), None),
    "freeze": (_switch("freeze"), None),
    "deadline": (_push(31.0), "30s"),
    "perform-by": (_push(61.0), None),
}
"""Each with the run's deadline, where it needs one."""


async def between_attempts(name: str, *, lost: bool) -> list[str]:
    """A tool fails in a way that would be retried; what allowed it is revoked before it says so. ``lost``: it may have done it."""
    found: list[str] = []
    revoke, deadline = REVOCATIONS[name]
    clock, provider = PushedClock(), Provider()
    deck = Quarterdeck("revokes")
    runtimes: list[Runtime] = []

    @deck.tool(effect="write", idempotent=True, dependency=QUICK)
    async def act(ctx: ToolContext) -> str:
        provider.once(ctx.idempotency_key)
        await revoke(runtimes[0], ctx.run_id, clock)
        if lost:
            raise ConnectionResetError("cut")
        raise ToolFailure("tool.busy", "try later", transient=True)

    deck.model("m", Remembering([[("act", {})], "reported"]))
    deck.agent("a", model="m", tools=[act], budget=Budget(deadline=deadline))
    async with on_stage(deck, clock=clock) as runtime:
        runtimes.append(runtime)
        handle = await runtime.submit("a")
        await rested(handle)
        expect(found, "attempts", len(provider.asked), 1)
        wanted = ReceiptStatus.UNKNOWN if lost else ReceiptStatus.FAILED
        expect(found, "the receipt", [one.status for one in receipts(runtime, handle.id)], [wanted])
        found += sound(runtime, handle.id)
    return found


async def not_revoked() -> list[str]:
    """The control: without a revocation the same tool is tried again."""
    found: list[str] = []
    provider = Provider()
    deck = Quarterdeck("revokes")

    @deck.tool(effect="write", idempotent=True, dependency=QUICK)
    async def act(ctx: ToolContext) -> str:
        provider.once(ctx.idempotency_key)
        raise ConnectionResetError("cut")

    deck.model("m", Remembering([[("act", {})], "reported"]))
    deck.agent("a", model="m", tools=[act])
    async with on_stage(deck) as runtime:
        await rested(await runtime.submit("a"))
    expect(found, "attempts", len(provider.asked), 4)
    return found


async def deadline_before_an_answer() -> list[str]:
    """Nobody answers an approval before the run's deadline: the run ends then, once, and nothing was performed."""
    found: list[str] = []
    clock, provider = PushedClock(), Provider()
    deck = Quarterdeck("revokes")

    @deck.tool(effect="external")
    async def act(ctx: ToolContext) -> str:
        provider.blindly(ctx.idempotency_key)
        return "done"

    deck.model("m", Remembering([[("act", {})], "reported"]))
    deck.agent("a", model="m", tools=[act], autonomy="executes_after_approval", budget=Budget(deadline="30s"))
    async with on_stage(deck, clock=clock) as runtime:
        handle = await runtime.submit("a")
        expect(found, "the wait", (await rested(handle)).code, "approval.needed")
        clock.push(31.0)
        result = await ended(handle)
        expect(found, "the end", (result.status, result.reason, result.code), ("failed", "timed_out", "deadline.exceeded"))
        expect(found, "the approval", [row.status for row in runtime.approvals(status=None)], ["withdrawn"])
        expect(found, "attempts", len(provider.asked), 0)
        found += sound(runtime, handle.id)
    return found


async def while_a_recovery_asks() -> list[str]:
    """The owner dies within an act that can be asked about. While the next one asks, a switch is set; the answer is that nothing
    happened, and nothing happens."""
    found: list[str] = []
    provider = Provider()
    runtimes: list[Runtime] = []
    began = asyncio.Event()

    async def asked() -> None:
        await runtimes[-1].switch("disable_tool:act")

    def deck(*, dies: bool) -> Quarterdeck:
        made = Quarterdeck("revokes")

        @made.tool(effect="irreversible", reconcile=asked, dependency=QUICK)
        async def act(ctx: ToolContext) -> str:
            if dies:
                began.set()
                await asyncio.Event().wait()
            provider.blindly(ctx.idempotency_key)
            return "done"

        made.model("m", Remembering([[("act", {})], "reported"]))
        made.agent("a", model="m", tools=[act])
        return made

    store = MemoryStore("first")
    first = on_stage(deck(dies=True), store)
    handle = await (await first.__aenter__()).submit("a")
    await asyncio.wait_for(began.wait(), 5.0)
    store.crash()
    async with on_stage(deck(dies=False), store.connect("second")) as runtime:
        runtimes.append(runtime)
        await rested(runtime.handle(handle.id))
        expect(found, "attempts", len(provider.asked), 0)
        expect(found, "the receipt", [one.code for one in receipts(runtime, handle.id)], ["switch.tool_disabled"])
        found += sound(runtime, handle.id)
    await first.__aexit__(RuntimeError, None, None)
    return found


class Billing(ScriptedModel):
    """A model whose provider bills calls that it does not answer; it keeps the bills."""

    def __init__(self, failures: list[ModelFailure | None], *, hangs: bool = False) -> None:
        super().__init__(["done"] * 10, price=PRICE)
        self._failures = failures
        self._hangs = hangs
        self.billed = 0
        self.asked = 0
        self.tenders: list[Usage] = []

    async def propose(self, request: ModelRequest, emit: Callable[[str], None]) -> ModelReply:
        self.asked += 1
        worst = self.worst_case(request)
        self.tenders.append(worst)
        failure = self._failures.pop(0) if self._failures else None
        if self._hangs and failure is not None:
            self.billed += worst.input_tokens + worst.output_tokens
            raise TimeoutError("no answer")
        if failure is not None:
            usage = failure.usage or Usage()
            self.billed += usage.input_tokens + usage.output_tokens if usage.known else worst.input_tokens + worst.output_tokens
            raise failure
        reply = await super().propose(msgspec.structs.replace(request, turn=0), emit)
        self.billed += reply.usage.input_tokens + reply.usage.output_tokens
        return reply


def _failure(usage: Usage | None, code: str = "model.timeout") -> ModelFailure:
    return ModelFailure(code, "no answer", transient=True, usage=usage)


FAST = DependencyPolicy(retry=RetryPolicy(max_attempts=5, base_s=0.001, cap_s=0.002))


async def billed(failures: list[ModelFailure | None], tokens: int | None, *, hangs: bool = False) -> list[str]:
    """Failures that are billed count, at what the provider says or at the worst case, and never beyond the limit."""
    found: list[str] = []
    model = Billing(list(failures), hangs=hangs)
    deck = Quarterdeck("revokes")
    deck.model("m", model, FAST)
    deck.agent("a", model="m", budget=Budget(tokens=tokens, usd="1"), max_output_tokens=100)
    deck.budget("all", Budget(tokens=10_000, usd="10"))
    async with on_stage(deck) as runtime:
        handle = await runtime.submit("a", "x" * 400)
        result = await ended(handle)
        spent = result.spent.get("tokens", 0)
        if spent < model.billed:
            found.append(f"{model.billed} tokens were billed, {spent} are settled")
        if tokens is not None and model.billed > tokens:
            found.append(f"{model.billed} tokens were billed on a limit of {tokens}")
        ceiling = sum(worst.input_tokens + worst.output_tokens for worst in model.tenders)
        if spent > ceiling:
            found.append(f"{spent} tokens are settled, the worst case of all calls is {ceiling}")
        if result.spent.get("cost_microusd", 0) < spent:
            found.append(f"the cost {result.spent} does not cover the tokens")
        found += sound(runtime, handle.id)
    return found


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {"not revoked": not_revoked, "deadline before an answer": deadline_before_an_answer}
    cases["switch while a recovery asks"] = while_a_recovery_asks
    for name in REVOCATIONS:
        for lost in (True, False):
            cases[f"{name}, {'lost' if lost else 'declined'}"] = lambda name=name, lost=lost: between_attempts(name, lost=lost)
    known, unknown = _failure(Usage(100, 40)), _failure(Usage(known=False))
    for tokens in (None, 300, 600):
        cases[f"billed as told, limit {tokens}"] = lambda tokens=tokens: billed([known, known], tokens)
        cases[f"billed, nobody says how much, limit {tokens}"] = lambda tokens=tokens: billed([unknown, unknown], tokens)
        cases[f"billed every time, limit {tokens}"] = lambda tokens=tokens: billed([unknown] * 9, tokens)
        cases[f"not billed, limit {tokens}"] = lambda tokens=tokens: billed([_failure(None, "model.server_error")] * 3, tokens)
        cases[f"timed out under way, limit {tokens}"] = lambda tokens=tokens: billed([unknown] * 9, tokens, hangs=True)
    return cases


CASES = _cases()
"""Every case by name; each returns what must not be."""
