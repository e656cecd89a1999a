"""Journals as this runtime could write them: random, but every move legal where it is made."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from quarterdeck.core import events as ev
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, ReceiptStatus, Ruling, Status, StopReason
from quarterdeck.testing.samples import T0_US, contract

MODEL_NEED = {"turns": 1, "model_calls": 1, "tokens": 100, "cost_microusd": 900}
TOOL_NEED = {"tool_calls": 1, "cost_microusd": 50}
STATUSES = st.sampled_from(ReceiptStatus)


class Writer:
    """Keeps just enough to know which moves are legal; it does not fold."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.at_us = T0_US
        self.status = Status.QUEUED
        self.epoch = 0
        self.turn = 0
        self.failures = 0
        self.replied = False
        self.opened: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        self.planned: dict[str, str] = {}
        self.unknown: list[str] = []
        self.pending: list[str] = []
        self.slices: dict[str, int] = {}
        self.events: list[ev.Event] = [ev.RunAdmitted(T0_US, contract(), draw(st.integers(0, 50)))]

    def add(self, *events: ev.Event) -> None:
        self.events.extend(events)
        self.at_us += self.draw(st.integers(0, 1_000))

    def moves(self) -> list[Callable[[], None]]:
        if self.status is Status.RUNNING:
            legal = [self.start, self.wait, self.finish, self.cancel, self.lease]
            return legal + self._steps()
        if self.status in (Status.QUEUED, Status.WAITING):
            return [self.start, self.start, self.start, self.finish, self.cancel]
        return []

    def _steps(self) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = []
        if not self.opened and not self.planned:
            steps += [self.deny_reply] if self.replied else [self.open_model] * 4
        steps += [self.close] * 4 + [self.reopen] if self.opened else []
        steps += [self.decide] * 4 if self.planned else []
        steps += [self.resolve] if self.unknown else []
        steps += [self.answer] * 2 if self.pending else []
        return steps

    def start(self) -> None:
        self.epoch += 1
        self.status = Status.RUNNING
        self.add(ev.RunStarted(self.at_us, f"w{self.epoch}", self.epoch))

    def wait(self) -> None:
        self.status = Status.WAITING
        wake = self.draw(st.none() | st.just(self.at_us + 5))
        self.add(ev.RunWaiting(self.at_us, StopReason.BLOCKED, "effect.unknown", ("timer",), wake))

    def finish(self) -> None:
        endings = [Status.FAILED, Status.REFUSED, Status.CANCELLED]
        endings += [Status.SUCCEEDED] if self.status is Status.RUNNING else []
        self.status = self.draw(st.sampled_from(endings))
        self.add(ev.RunFinished(self.at_us, self.status, StopReason.FAILED, "run.over", {"failed": 1}, {"tokens": 2}))

    def cancel(self) -> None:
        self.add(ev.CancelRequested(self.at_us, "ada", self.draw(st.text(max_size=5))))

    def open_model(self) -> None:
        call = f"m{self.turn}r{self.failures}"
        self.opened[call] = "model"
        self.add(
            ev.GateDecided(self.at_us, call, ProposalKind.MODEL, "model-1", "d", Ruling.ALLOW, reserve=MODEL_NEED),
            ev.ModelOpened(self.at_us, call, "model-1", f"key-{call}", self.at_us + 9, 100),
        )

    def close(self) -> None:
        call = self.draw(st.sampled_from(sorted(self.opened)))
        kind = self.opened.pop(call)
        status = self.draw(STATUSES)
        if kind == "tool":
            self._close_tool(call, status)
            return
        if status is not ReceiptStatus.SUCCEEDED:
            self.failures += 1
            self.add(ev.ModelClosed(self.at_us, call, status, "model.timeout", input_tokens=7, cost_microusd=3))
            return
        count = self.draw(st.integers(0, 3))
        calls = tuple(ev.Planned(f"t{self.turn}.{place}", f"call-{place}", "refund") for place in range(count))
        self.turn += 1
        self.failures, self.replied = 0, not calls
        self.planned = {planned.call: planned.tool for planned in calls}
        self.add(
            ev.ModelClosed(
                self.at_us,
                call,
                status,
                input_tokens=self.draw(st.integers(0, 60)),
                output_tokens=self.draw(st.integers(0, 40)),
                cost_microusd=self.draw(st.integers(0, 900)),
                attempts=self.draw(st.integers(1, 3)),
                tokens=5,
                calls=calls,
                said=self.draw(st.booleans()),
            )
        )

    def _close_tool(self, call: str, status: ReceiptStatus) -> None:
        if status is ReceiptStatus.UNKNOWN:
            self.unknown.append(call)
        labels = self.draw(st.none() | st.builds(Labels, st.sampled_from(Integrity), st.sampled_from(Confidentiality)))
        cost = self.draw(st.integers(0, 50))
        self.add(ev.ToolClosed(self.at_us, call, status, "", cost, self.draw(st.integers(1, 4)), 9, labels))

    def reopen(self) -> None:
        call = self.draw(st.sampled_from(sorted(self.opened)))
        self.add(ev.EffectReopened(self.at_us, call, self.at_us + 9))

    def decide(self) -> None:
        call = self.draw(st.sampled_from(sorted(self.planned)))
        tool = self.planned[call]
        ruling = self.draw(st.sampled_from([Ruling.ALLOW, Ruling.DENY, Ruling.ASK, Ruling.REDACT]))
        if ruling is Ruling.ASK:
            approval = f"a{len(self.events)}"
            self.pending.append(approval)
            self.add(
                ev.GateDecided(self.at_us, call, ProposalKind.TOOL, tool, f"d-{call}", ruling, ("autonomy",)),
                ev.ApprovalRequested(self.at_us, approval, call, f"d-{call}", self.at_us + 100, ("autonomy",)),
            )
            return
        del self.planned[call]
        reserve = TOOL_NEED if ruling is not Ruling.DENY else {}
        decided = ev.GateDecided(self.at_us, call, ProposalKind.TOOL, tool, f"d-{call}", ruling, ("x",), reserve)
        if ruling is Ruling.DENY:
            self.add(decided)
            return
        self.opened[call] = "tool"
        effect = self.draw(st.sampled_from(EffectClass))
        opened = ev.ToolOpened(self.at_us, call, tool, effect, f"d-{call}", f"key-{call}", self.at_us + 9, True)
        self.add(decided, opened)

    def deny_reply(self) -> None:
        self.replied = False
        call = f"r{self.turn}"
        self.add(ev.GateDecided(self.at_us, call, ProposalKind.REPLY, "reply", "d", Ruling.DENY, ("policy.denied",)))

    def resolve(self) -> None:
        call = self.unknown.pop()
        status = self.draw(st.sampled_from([ReceiptStatus.SUCCEEDED, ReceiptStatus.FAILED]))
        self.add(ev.EffectResolved(self.at_us, call, status, "ada"))

    def answer(self) -> None:
        outcome = self.draw(st.sampled_from(["approved", "rejected", "expired"]))
        self.add(ev.ApprovalDecided(self.at_us, self.pending.pop(), outcome, "ada"))

    def lease(self) -> None:
        held = self.slices.get("tokens", 0)
        if held and self.draw(st.booleans()):
            self.slices.clear()
            moves = (ev.Move("tenant:acme", "tokens", returned=held, spent=3),)
            self.add(ev.BudgetMoved(self.at_us, moves, report=True))
            return
        amount = self.draw(st.integers(1, 30))
        self.slices["tokens"] = held + amount
        self.add(ev.BudgetMoved(self.at_us, (ev.Move("tenant:acme", "tokens", leased=amount),)))


@st.composite
def journals(draw: st.DrawFn, most: int = 30) -> list[ev.Event]:
    """A whole journal, or its beginning."""
    writer = Writer(draw)
    for _ in range(draw(st.integers(0, most))):
        moves = writer.moves()
        if not moves:
            break
        draw(st.sampled_from(moves))()
    return writer.events
