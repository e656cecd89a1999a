"""Effects in doubt and what a person does about them; marks and figures; the proof of one run, checked without any store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from quarterdeck import Budget, Quarterdeck, ToolFailure
from quarterdeck.app.oversight import Proof, Step, doubt_of, doubts, overseen, oversight, proof_of, prove
from quarterdeck.app.runtime import Runtime
from quarterdeck.core import events as ev
from quarterdeck.core.commit import Deliver
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.engine.sequencer import LateReceipt
from quarterdeck.store.chain import GENESIS, chained
from quarterdeck.testing import ScriptedModel
from tests.app.desk import desk
from tests.app.test_switches import code_of


class Carrier:
    """A carrier that is silent for a while."""

    def __init__(self, silent: int) -> None:
        self.silent = silent
        self.keys: list[str] = []

    def deck(self, **agent: object) -> Quarterdeck:
        deck = Quarterdeck("parcels")

        @deck.tool(effect="external")
        async def ship(order: str) -> str:
            """Send."""
            self.keys.append(order)
            if len(self.keys) <= self.silent:
                raise ToolFailure("carrier.silent", "no answer", done=None)
            return "sent"

        deck.agent("a", model=ScriptedModel([[("ship", {"order": "A1"})], "over"]), tools=[ship], **agent)  # type: ignore[arg-type]
        return deck


async def in_doubt(runtime: Runtime) -> tuple[str, str]:
    run = await runtime.submit("a", user="ada")
    rests = await run.rest(timeout_s=10)
    assert rests.code == "effect.unknown"
    return run.id, rests.waiting_on[0].partition(":")[2]


async def test_a_person_lists_what_is_in_doubt_and_has_it_tried_again(tmp_path: Path) -> None:
    carrier = Carrier(silent=2)
    async with carrier.deck().start(tmp_path / "s.db") as runtime:
        run_id, call = await in_doubt(runtime)
        [found] = list(doubts(runtime.insights))
        assert (found.run_id, found.call, found.tool, found.key) == (run_id, call, "ship", f"{run_id}:{call}")
        assert doubt_of(runtime.insights, run_id, call) == found
        assert list(doubts(runtime.insights, ["other"])) == []
        assert await code_of(runtime.resolve(run_id, call, done=True, by="bob", retry=True)) == "effect.answer"
        await runtime.resolve(run_id, call, done=False, by="bob", retry=True, reason="the carrier says no")
        await runtime.until(run_id, lambda row: len(carrier.keys) == 2 and row.worker is None)
        assert (await runtime.handle(run_id).rest()).code == "effect.unknown", "it is in doubt once more"
        await runtime.resolve(run_id, call, done=False, by="bob", retry=True)
        result = await runtime.handle(run_id).result(timeout_s=10)
        assert (result.status, result.effects) == ("succeeded", {"succeeded": 1, "failed": 0, "unknown": 0, "compensated": 0})
        opened = [event.body["key"] for event in runtime.handle(run_id).events() if event.kind == "tool.opened"]
        assert opened == [f"{run_id}:{call}"] * 3, "under one key"
        assert prove(proof_of(runtime.insights, run_id)).findings == ()
    assert carrier.keys == ["A1"] * 3


async def test_what_is_tried_again_is_approved_again(tmp_path: Path) -> None:
    carrier = Carrier(silent=1)
    async with carrier.deck(autonomy="executes_after_approval").start(tmp_path / "s.db") as runtime:
        run = await runtime.submit("a", user="ada")
        first = (await run.rest()).waiting_on[0].partition(":")[2]
        await runtime.approve(first, by="bob")
        await runtime.until(run.id, lambda row: row.code == "effect.unknown" and row.worker is None)
        call = (await run.rest()).waiting_on[0].partition(":")[2]
        await runtime.resolve(run.id, call, done=False, by="bob", retry=True)
        await runtime.until(run.id, lambda row: row.code == "approval.needed" and row.worker is None)
        second = (await run.rest()).waiting_on[0].partition(":")[2]
        assert second != first and len(carrier.keys) == 1, "an approval is for one action, once"
        await runtime.approve(second, by="bob")
        assert (await run.result(timeout_s=10)).effects["succeeded"] == 1


async def test_a_late_receipt_that_contradicts_is_kept_as_evidence(tmp_path: Path) -> None:
    carrier = Carrier(silent=1)
    async with carrier.deck(autonomy="executes_after_approval").start(tmp_path / "s.db") as runtime:
        run = await runtime.submit("a", user="ada")
        await runtime.approve((await run.rest()).waiting_on[0].partition(":")[2], by="bob")
        await runtime.until(run.id, lambda row: row.code == "effect.unknown" and row.worker is None)
        call = (await run.rest()).waiting_on[0].partition(":")[2]
        await runtime.pause(run.id)
        await runtime.resolve(run.id, call, done=False, by="bob")
        late = LateReceipt(call, ReceiptStatus.SUCCEEDED, "w-old", msgspec.Raw(b'"sent"'), 1)
        await runtime.apply(Deliver(run.id, "receipt", msgspec.json.encode(late), 1, "late"))
        await runtime.resume(run.id)
        result = await run.result(timeout_s=10)
        told = [event.body for event in run.events() if event.kind == "effect.contradicted"]
        assert told == [{"call": call, "recorded": "failed", "status": "succeeded", "by": "w-old"}]
        assert result.effects["failed"] == 1, "the record stands"
        assert oversight(runtime.insights).contradicted == 1


async def test_marks_and_changed_decisions_are_counted(tmp_path: Path) -> None:
    async with desk().start(tmp_path / "s.db") as runtime:
        runs = []
        for how in ("approve", "reject", "mark"):
            run = await runtime.submit("refunds", user="ada")
            approval = (await run.rest()).waiting_on[0].partition(":")[2]
            await runtime.decide(approval, approve=how != "reject", by="bob", reason="because")
            await run.result()
            runs.append(run)
        call = next(str(event.body["call"]) for event in runs[2].events() if event.kind == "tool.opened")
        await runtime.mark(runs[2].id, call, by="eve", reason="not our customer")
        found = runtime.oversight()
        assert (found.runs, found.decisions, found.overridden, found.false_allows) == (3, 3, 2, 1)
        assert found.override_rate == pytest.approx(2 / 3)
        await runtime.mark(runs[2].id, call, by="eve", reason="it was ours", wrong=False)
        assert runtime.oversight().false_allows == 0, "the newest word counts"
        assert await code_of(runtime.mark(runs[2].id, "t9.9", by="eve", reason="x")) == "decision.unknown"
        assert await code_of(runtime.mark(runs[2].id, call, by="eve", reason=" ")) == "reason.missing"


def rechained(proof: Proof, change: dict[int, bytes | None]) -> Proof:
    """A proof whose events were changed, and whose chain was made anew, by somebody who owns the store."""
    steps: list[Step] = []
    previous = GENESIS
    for step in proof.steps:
        body = change.get(step.seq, step.body.encode())
        if body is None:
            continue
        digest = None if step.payload_digest is None else bytes.fromhex(step.payload_digest)
        previous = chained(previous, len(steps) + 1, body, digest)
        steps.append(Step(len(steps) + 1, body.decode(), step.payload_digest, previous.hex()))
    return Proof(proof.run_id, previous.hex(), tuple(steps))


async def test_a_proof_holds_and_one_that_was_changed_does_not(tmp_path: Path) -> None:
    async with desk().start(tmp_path / "s.db") as runtime:
        run = await runtime.submit("refunds", user="ada")
        await runtime.approve((await run.rest()).waiting_on[0].partition(":")[2], by="bob")
        await run.result()
        proof = proof_of(runtime.insights, run.id)
    found = prove(msgspec.json.decode(msgspec.json.encode(proof), type=Proof))
    assert (found.effects, found.receipts, found.findings) == (1, 1, ())
    places = {type(ev.decode(step.body.encode())): step.seq for step in proof.steps}
    opened = proof.steps[places[ev.ToolOpened] - 1].body
    other = opened.replace('"digest":"', '"digest":"0')
    flipped = msgspec.structs.replace(proof.steps[3], body=proof.steps[3].body + " ")
    attacks = {
        "changed": msgspec.structs.replace(proof, steps=(*proof.steps[:3], flipped, *proof.steps[4:])),
        "cut off": msgspec.structs.replace(proof, steps=proof.steps[:-1]),
        "another digest": rechained(proof, {places[ev.ToolOpened]: other.encode()}),
        "no approval": rechained(proof, {places[ev.ApprovalDecided]: None}),
        "no decision": rechained(proof, {step.seq: None for step in proof.steps if '"kind":"gate.decided"' in step.body}),
        "no intent": rechained(proof, {places[ev.ToolOpened]: None}),
    }
    assert {name for name, attack in attacks.items() if prove(attack).findings} == set(attacks)


async def test_the_figures_of_a_long_journal_let_others_go_on_and_are_the_same(tmp_path: Path) -> None:
    deck = Quarterdeck("long")

    @deck.tool(effect="read")
    async def look(n: int) -> int:
        """Look."""
        return n

    turns = [[("look", {"n": n})] for n in range(300)]
    deck.agent("looks", model=ScriptedModel([*turns, "over"]), tools=[look], budget=Budget(turns=301, tools=300, context=10**6))
    async with deck.start(tmp_path / "s.db") as runtime:
        await (await runtime.submit("looks")).result()
        ticks = 0

        async def ticking() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await runtime.parts.clock.sleep(0.0)

        beside = asyncio.create_task(ticking())
        found = await overseen(runtime.insights, runtime.parts.clock)
        beside.cancel()
        assert found == oversight(runtime.insights) and found.decisions == 300
        assert ticks >= 3, "a page of the journal at a time"
