"""T14: programs that delegate, and delegate what they were delegated, until everything is spent.

A tree of workflows is drawn from a seed. Each node calls a tool that costs money as often as it can, asks for as many runs below it
as it can (of itself, of an agent, some with a budget of their own choosing, larger than what there is), some fail, and none heeds a
denial. Counted is what was really done, by a provider: never more than the root's limits, the account of the thread, of the tenant and of
everything allow; no run below the depth that its route allows, no more runs than the delegations; and when the root is cancelled in the
middle, nothing of its family begins any more. In the end the ledger is the fold of all journals.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass, field

from proof.attempts import Tried, suite_of
from proof.stage import on_stage, until
from quarterdeck import Budget, Context, Denied, Quarterdeck, StepFailed
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.contract import Caller, Envelope
from quarterdeck.engine.workflows import children
from quarterdeck.testing import ScriptedModel, ledger
from quarterdeck.testing.mutants_runtime import mutant
from quarterdeck.testing.patching import Plant, patched

DEPTH = 2
"""How deeply runs may nest."""


@dataclass(slots=True)
class Mill:
    """What was really done, in whose name, and what may be."""

    root: int
    thread: int
    tenant: int
    delegations: int
    done: list[str] = field(default_factory=list)
    cancelled_at: int = -1
    """How much had been done when the cancel of the root was acknowledged."""
    attempts: int = 0

    def deck(self, rng: random.Random) -> Quarterdeck:
        deck = Quarterdeck("cascade")

        @deck.tool(effect="write", idempotent=True, cost="0.01")
        async def grind(n: int) -> str:
            """Grind."""
            self.done.append(str(n))
            return "ground"

        turns = [[("grind", {"n": n})] for n in range(6)]
        deck.agent("hand", model=ScriptedModel([*turns, "done"]), tools=[grind], budget=Budget(turns=9, tools=9, depth=DEPTH))
        kids, calls, fails = rng.randint(1, 3), rng.randint(1, 4), rng.random() < 0.3
        limits = Budget(tools=self.root, usd=str(self.root / 100), depth=DEPTH, delegations=self.delegations)

        async def below(ctx: Context, n: int) -> None:
            """Ask for one more, with a claim on more than there is."""
            claim = (None, Budget(tools=1_000, usd="1000"), Budget(tools=2))[n % 3]
            self.attempts += 1
            with suppress(Denied, StepFailed):
                await (ctx.agent("hand", n, budget=claim) if n % 2 else ctx.workflow("mill", n, budget=claim))

        @deck.workflow("mill", tools=["grind"], budget=limits)
        async def mill(ctx: Context, order: object) -> str:
            for n in range(calls):
                self.attempts += 1
                with suppress(Denied, StepFailed):
                    await ctx.tool("grind", n=n)
            for n in range(kids + self.delegations):
                await below(ctx, n)
            if fails:
                raise ValueError("fallen over")
            return "ground"

        deck.budget("thread:*", Budget(tools=self.thread))
        deck.budget("tenant:*", Budget(tools=self.tenant))
        deck.budget("all", Budget(runs=2), per="month")
        return deck


async def cascaded(seed: int) -> Tried:
    """One tree, to its end or to the cancel of its root."""
    rng = random.Random(seed)
    mill = Mill(*[rng.randint(2, 14) for _ in range(3)], delegations=rng.randint(1, 3))
    async with on_stage(mill.deck(rng)) as runtime:
        envelope = Envelope("mill", "go", caller=Caller("acme", "ada"), thread_id="one")
        run = await runtime.admit(envelope)
        if seed % 3 == 0:
            some = rng.randint(1, 4)
            await until(lambda: len(mill.done) >= some or runtime.insights.run(run.id).status == "succeeded")  # type: ignore[union-attr]
            await runtime.cancel(run.id, by="eve", mode="drain")
            mill.cancelled_at = len(mill.done)
        ended = await until(lambda: not [row for row in runtime.runs() if row.status in ("queued", "running", "waiting")])
        if not ended:
            return mill.attempts, [f"not ended: {[(row.run_id, row.status, row.code) for row in runtime.runs()]}"]
        return mill.attempts, _found(runtime, mill, run.id)


def _found(runtime: Runtime, mill: Mill, root: str) -> list[str]:
    rows = list(runtime.runs())
    found = list(ledger.differences(runtime.insights))
    most = min(mill.root, mill.thread, mill.tenant)
    if len(mill.done) > most:
        found.append(
            f"{len(mill.done)} times, of {mill.root} for the root, {mill.thread} for its thread, {mill.tenant} for its tenant"
        )
    deepest = max(_depth(runtime, row.run_id) for row in rows)
    if deepest > DEPTH:
        found.append(f"a run is {deepest} below the root")
    for row in rows:
        asked = sum(each.parent_run_id == row.run_id for each in rows)
        if asked > mill.delegations:
            found.append(f"{row.route} asked for {asked} runs, of {mill.delegations}")
    # what was under way when the cancel was acknowledged is finished; one call of each run is at most
    if mill.cancelled_at >= 0 and len(mill.done) > mill.cancelled_at + 1:
        found.append(f"{len(mill.done) - mill.cancelled_at} after the cancel")
    return found


def _depth(runtime: Runtime, run_id: str) -> int:
    row = runtime.insights.run(run_id)
    return 0 if row is None or row.parent_run_id is None else 1 + _depth(runtime, row.parent_run_id)


PLANTS: dict[str, Plant] = {
    "a child has what it asks for": lambda: patched(children, "_limits", lambda wanted, share: wanted),
    "a child may spend what its parent has spent": mutant(
        "", 0, "I3", ("engine.workflows.children:share_of", "limit - state.spent.get(dimension, 0)", "limit")
    ).planted,
    "depth is not looked at": mutant(
        "", 0, "I3", ("core.judge:_screen_delegation", "contract.depth >= contract.limits.depth", "False")
    ).planted,
    "delegations are not counted": mutant(
        "", 0, "I3", ("core.fold:_child_opened", 'state.spent["delegations"] = state.spent.get("delegations", 0) + 1', "pass")
    ).planted,
    "an account has no limit": mutant("", 0, "I3", ("testing.tables:Tables._fits", "total <= limit", "True")).planted,
}

SUITES = (suite_of("cascade", cascaded, PLANTS, quick=12, whole=600),)
