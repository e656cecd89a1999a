"""T05: hands that want something done which nobody who may has approved.

A run asks a person to pay. Who asked for it, who submitted it for somebody else, whoever edits it, and people who may answer, act in an
order that is drawn, several at the same moment: they approve with the digest that is stored, an old one or a made-up one, reject, edit to
another amount, answer with a text, cancel; time passes the expiry; a process dies. What was paid is compared with what was granted: exactly
this amount, by as many different people as the route wants, none of them an asker, in time, and once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from proof.attempts import Tried, suite_of
from proof.stage import PATIENCE_S, PushedClock, on_stage
from quarterdeck import Quarterdeck
from quarterdeck.app.orders import Orders
from quarterdeck.app.runtime import Runtime
from quarterdeck.app.views import is_at_rest
from quarterdeck.core.contract import Caller, Envelope
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.ports.store import ApprovalRow
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.mutants_runtime import Edit, mutant
from quarterdeck.testing.patching import Plant, patched

ASKER, SUBMITTER = "ada", "dan"
HANDS = (ASKER, SUBMITTER, "bob", "eve", "joe")
TIMEOUT_S = 100
ASKED = 500
ROUNDS = 6


@dataclass(slots=True)
class Grant:
    """One answer that was taken: which approval, by whom, for which amount, when."""

    approval: str
    by: str
    amount: int
    until_us: int
    asker: str


@dataclass(slots=True)
class Desk:
    """What was paid, when, and every answer that was taken."""

    clock: PushedClock
    quorum: int
    paid: list[tuple[int, int]] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    ended: bool = False
    tried: int = 0

    def deck(self) -> Quarterdeck:
        deck = Quarterdeck("binding")

        @deck.tool(effect="irreversible")
        async def pay(cents: int) -> str:
            """Pay."""
            self.paid.append((cents, self.clock.now_us()))
            return "paid"

        model = ScriptedModel([[("pay", {"cents": ASKED})], "over"])
        agent = deck.agent("a", model=model, tools=[pay], autonomy="executes_after_approval")
        deck.route("refunds", agent, owner="ann", quorum=self.quorum, approval_timeout=TIMEOUT_S)
        return deck


def _amount(row: ApprovalRow) -> int:
    return int(msgspec.json.decode(row.shown)["arguments"]["cents"])


async def _strike(rng: random.Random, runtime: Runtime, desk: Desk, row: ApprovalRow, digests: list[str]) -> None:
    """One hand does one thing."""
    by, what = rng.choice(HANDS), rng.random()
    desk.tried += 1
    with suppress(QuarterdeckError):
        if what < 0.6:
            named = rng.choice([None, row.digest, rng.choice(digests), f"{rng.getrandbits(256):064x}"])
            await runtime.decide(row.approval, approve=True, by=by, digest=named)
            taken = runtime.insights.approval(row.approval)
            if taken is not None and taken.decided_by == by and named in (None, row.digest):
                desk.grants.append(Grant(row.approval, by, _amount(row), row.expires_at_us, row.requested_by))
        elif what < 0.7:
            await runtime.decide(row.approval, approve=False, by=by)
            desk.refused.append(row.approval)
        elif what < 0.85:
            await runtime.edit(row.approval, {"cents": rng.choice([ASKED, 7, 1_000_000])}, by=by)
            desk.refused.append(row.approval)
        elif what < 0.92:
            await runtime.respond(row.approval, "no need", by=by)
            desk.refused.append(row.approval)
        else:
            await runtime.cancel(row.run_id, by=by)
            desk.ended = True


def _unproven(desk: Desk) -> list[str]:
    found = [f"paid {len(desk.paid)} times"] if len(desk.paid) > 1 else []
    for amount, at_us in desk.paid[:1]:
        good = {
            each.by
            for each in desk.grants
            if each.amount == amount
            and each.approval not in desk.refused
            and each.by not in (ASKER, SUBMITTER, each.asker)
            and at_us < each.until_us
        }
        if len(good) < desk.quorum:
            found.append(f"{amount} was paid on the word of {sorted(good)}, of {desk.grants}")
    return found


async def _pending(runtime: Runtime, run_id: str) -> ApprovalRow | None:
    """What the run waits for once it rests; nothing if it has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            row = await runtime.until(run_id, is_at_rest)
            found = next((each for each in runtime.approvals() if each.run_id == run_id), None)
            if found is not None or row.status != "waiting":
                return found
            await asyncio.sleep(0.002)  # an answer is on its way to the run


async def bound(seed: int) -> Tried:
    """One run, and hands that strike at what it asks."""
    rng = random.Random(seed)
    desk = Desk(PushedClock(), rng.choice([1, 1, 2]))
    store = MemoryStore("w1")
    run_id, digests = "", list[str]()
    for life in range(ROUNDS):
        handle = store.connect("w1") if life else store
        async with on_stage(desk.deck(), handle, desk.clock, "w1") as runtime:
            if not run_id:
                envelope = Envelope("refunds", "pay", caller=Caller("acme", ASKER))
                run_id = (await runtime.admit(envelope, submitted_by=SUBMITTER)).id
            for _ in range(2):
                row = await _pending(runtime, run_id)
                if row is None:
                    return desk.tried, _unproven(desk)
                digests.append(row.digest)
                late = rng.random()
                if late < 0.15:
                    await runtime.pause(run_id)
                    await asyncio.gather(*[_strike(rng, runtime, desk, row, digests) for _ in range(2)])
                    desk.clock.push(TIMEOUT_S)
                    with suppress(QuarterdeckError):
                        await runtime.resume(run_id)
                elif late < 0.25:
                    desk.clock.push((row.expires_at_us - desk.clock.now_us()) / 1e6)
                await asyncio.gather(*[_strike(rng, runtime, desk, row, digests) for _ in range(rng.randint(1, 4))])
    return desk.tried, _unproven(desk)


_RULE, _GUARD, _USABLE = "core.judge:rule", "testing.tables:Tables._guard_decision", "testing.tables:Tables._is_usable"


def _hole(*edits: Edit) -> Plant:
    """The judge and the store with other words: both, where one stands behind the other."""
    return mutant("", 0, "I5", *edits).planted


@contextmanager
def _nobody_asked() -> Iterator[None]:
    with patched(Orders, "_askers", lambda *_: frozenset()), _hole((_RULE, "approval.by in answering.barred", "False"))():
        yield


PLANTS: dict[str, Plant] = {
    "who submitted it may approve it": _nobody_asked,
    "any digest will do": _hole((_GUARD, "approval.digest != op.digest", "False")),
    "an answer may come too late": _hole(
        (_GUARD, "op.at_us >= approval.expires_at_us", "False"),
        (_RULE, "facts.now_us >= until_us", "False"),
        (_USABLE, "approval.expires_at_us > consume.at_us", "True"),
    ),
    "one is a quorum": _hole((_RULE, "< answering.quorum", "< 1")),
    "a rejection counts as an approval": _hole(
        (_RULE, 'approval.outcome in ("rejected", "expired", "answered")', "False"),
        (_RULE, 'approval.outcome != "approved"', "False"),
        (_USABLE, 'approval.status == "approved" and', ""),
    ),
}

SUITES = (suite_of("approval-binding", bound, PLANTS, quick=60, whole=3_000),)
