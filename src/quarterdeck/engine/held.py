"""A run as its present holder has it: the sequencer, the transcript and the program, with what the stages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from quarterdeck.core import events as ev
from quarterdeck.core.budget import Account
from quarterdeck.core.commit import Charge
from quarterdeck.core.judge import account_kind, revoked
from quarterdeck.core.loop import Finish, Wait, ending
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import CancelMode, EffectClass, OnBudget, ProposalKind, StopReason
from quarterdeck.engine.performing import Revoked
from quarterdeck.engine.programs import Program
from quarterdeck.engine.reports import Reports
from quarterdeck.engine.sequencer import Happening, Sequencer
from quarterdeck.engine.services import Services
from quarterdeck.engine.transcript import Transcript
from quarterdeck.ports.tools import ToolContext, Transaction
from quarterdeck.resilience.eager import Reins

PERFORM_WITHIN_S = 60.0
"""How long after its commit an intent may be acted upon; whoever takes it over first waits that time out."""
DRAINED_S = 60.0
"""How often a run that a drain keeps from beginning looks for itself; whoever clears the drain wakes it before."""
CROWDED_S = 1.0
"""How long a run rests before it asks a shared account again, whose room other runs have only reserved."""
MAX_UNHEEDED = 8
"""How often in a row the store may refuse an account that the judge was told is exhausted, before the run ends."""
PAUSED_S = 300.0
"""How long a run that rests until a budget is raised waits before it looks by itself."""
FRESH_S = 1.0
"""How long the guards of an intent's commit stand for its first attempt, once they may have been compared; later, revocations are read
again."""
READ_LATELY_S = 0.05
"""So long before a first attempt that is not fresh any more, facts may have been read for another one: so that many of these, when a
process is behind, do not read the same again and again and fall behind further."""


_SHARED = frozenset({"budget.all", "budget.tenant", "budget.route", "budget.agent", "budget.thread", "budget.approver"})
"""Limits that are not the run's own."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The run comes to rest: the decisions that led there, and how. ``output``: what a workflow ends with, as JSON."""

    how: Finish | Wait
    happenings: tuple[Happening, ...] = ()
    output: bytes | None = None


class Held:
    """One run in the hands of one worker. ``compacted`` is the turn for which a summary was last asked for;
    ``state`` is the fold of everything that is durable or noted; it changes in place."""

    def __init__(self, services: Services, run_id: str, sequencer: Sequencer, transcript: Transcript, program: Program) -> None:
        self.services = services
        self.run_id = run_id
        self.sequencer = sequencer
        self.state: RunState = sequencer.state
        self.transcript = transcript
        self.program = program
        self.accounts: tuple[Account, ...] = tuple(services.gate.accounts(sequencer.state.contract))
        self.standing = services.gate.standing(sequencer.state.contract)
        self.exact = False  # a shared account had no room for a round slice: from now on this run takes just what it needs
        self.compacted = -1
        self.reports = Reports(services, sequencer)
        self._unheeded = 0
        self._bounds = {account.name: account.limits for account in self.accounts}

    def note(self, event: ev.Event, payload: bytes | None = None) -> None:
        """Note an event that has happened, for the journal and for the transcript."""
        self.sequencer.note(event, payload)
        self.transcript.apply(event, payload)

    def receive(self, closed: ev.ToolClosed, payload: bytes) -> None:
        """Note the receipt of an act of our own; only now look at what others have said about that effect meanwhile."""
        self.reports.settle(closed.call)
        self.sequencer.performing.discard(closed.call)
        self.note(closed, payload)
        if self.sequencer.held_back:
            self.sequencer.read_inbox()

    def received(self, closed: ev.ToolClosed, payload: bytes) -> None:
        """The receipt of an act of our own is in the journal already; only now look at what others have said about that effect."""
        self.sequencer.performing.discard(closed.call)
        self.transcript.apply(closed, payload)
        if self.sequencer.held_back:
            self.sequencer.read_inbox()

    def charges(self, moves: Iterable[ev.Move]) -> tuple[Charge, ...]:
        """The account movements of a commit, with each account's configured limit."""
        bounds = self._bounds
        return tuple(
            [Charge(move, getattr(bounds[move.account], move.dimension) if move.account in bounds else None) for move in moves]
        )

    def unheeded(self, refused: str, exhausted: str | None) -> Rest | None:
        """The store has refused an account of which the judge was told that it has nothing left, and which it allowed all the same.

        Judging once more is right where something has changed. Where the same is refused :data:`MAX_UNHEEDED` times in a row, nothing
        does, and the run ends instead of going round for ever.
        """
        self._unheeded = self._unheeded + 1 if refused == exhausted else 0
        return Rest(self.ending("budget.unheeded")) if self._unheeded >= MAX_UNHEEDED else None

    def crowded(self, refused: str, moves: Iterable[ev.Move]) -> Rest | None:
        """What refused the smallest slice, ``account|dimension``, has room for it but for what other runs have reserved: then the
        run rests, holding nothing, and asks again. ``None``: the account itself does not allow it.
        """
        account, _, dimension = refused.partition("|")
        needed = sum([move.leased for move in moves if (move.account, move.dimension) == (account, dimension)])
        limit = getattr(self._bounds[account], dimension)
        for row in self.services.insights.accounts():
            if (row.account, row.dimension) != (account, dimension):
                continue
            if row.reserved and row.committed + needed <= (limit if row.limit is None else row.limit):
                wake_at_us = self.services.clock.now_us() + int(CROWDED_S * 1e6)
                code = f"budget.{account_kind(account)}"
                return Rest(Wait(StopReason.BLOCKED, code, (f"account:{account}",), wake_at_us))
        return None

    def paused(self, code: str, exhausted: str | None) -> Rest | None:
        """At the limit of a shared account: the run rests until it is raised, if its route says so; ``None`` if not."""
        contract = self.state.contract
        if (
            exhausted is None
            or code != f"budget.{account_kind(exhausted)}"
            or self.services.routes[contract.route].on_budget is not OnBudget.PAUSE
        ):
            return None
        wake_at_us = self.services.clock.now_us() + int(PAUSED_S * 1e6)
        return Rest(Wait(StopReason.BLOCKED, code, (f"account:{exhausted.partition('|')[0]}",), wake_at_us))

    def escalate(self, now_us: int) -> None:
        """What nobody has answered in time becomes the next owner's; the last one has it until it expires."""
        route = self.services.routes.get(self.state.contract.route)
        if route is None or not route.escalation or route.escalate_after_s is None:
            return
        for name, mark in list(self.state.approvals.items()):
            while mark.outcome == "pending" and mark.escalates_at_us is not None and now_us >= mark.escalates_at_us:
                level = mark.level + 1
                following = mark.escalates_at_us + route.escalate_after_s * 1_000_000
                next_us = following if level < len(route.escalation) else None
                self.note(ev.ApprovalEscalated(now_us, name, route.escalation[level - 1], level, next_us))

    def drained(self) -> Rest | None:
        """A drain covers this run, which has not begun anything: then it rests, and begins when the drain is over."""
        state, services = self.state, self.services
        if state.begun or state.cancelled_by or not services.gate.controls.bounded:
            return None
        now_us = services.clock.now_us()
        drain = services.gate.controls.drains(state.contract.tenant, state.contract.route, now_us)
        if drain is None:
            return None
        wake_at_us = now_us + int(DRAINED_S * 1e6)
        if drain.expires_at_us is not None:
            wake_at_us = min(wake_at_us, drain.expires_at_us)
        return Rest(Wait(StopReason.BLOCKED, "switch.draining", (f"switch:{drain.key}",), wake_at_us))

    def model_name(self, wanted: str) -> str:
        """The model that is called: the one that is wanted, or the one to which an operator has pinned this run."""
        controls, contract = self.services.gate.controls, self.state.contract
        if not controls.bounded:
            return wanted
        pinned = controls.pinned(contract.tenant, contract.route, self.services.clock.now_us())
        return pinned if pinned in self.services.models else wanted

    def deadline_s(self, call: str = "") -> float:
        """The run's deadline on the clock that counts suspension; infinite if it has none, and for what undoes a step."""
        deadline_us = self.state.contract.deadline_at_us
        if deadline_us is None or (call and self.undoes(call)):
            return inf
        clock = self.services.clock
        return clock.boottime_s() + (deadline_us - clock.now_us()) / 1e6

    def window(self) -> tuple[int, float]:
        """Until when an intent that is committed now may be acted upon: wall clock in microseconds, and boot-time seconds."""
        clock = self.services.clock
        return clock.now_us() + int(PERFORM_WITHIN_S * 1e6), clock.boottime_s() + PERFORM_WITHIN_S

    def context(self, call: str, key: str, transaction: Transaction | None = None) -> ToolContext:
        """What a tool is told about the step that it performs."""
        contract = self.state.contract
        return ToolContext(
            self.run_id,
            call,
            contract.tenant,
            contract.actor,
            key,
            contract.service,
            transaction=transaction,
            report=self.reports.reporter(call),
        )

    def repeats_until_s(self, spec: ToolSpec, opened_at_us: int) -> float:
        """Until when, in boot-time seconds, an effect may be attempted again: the last attempt must arrive while the provider still
        knows the key. Infinite for what needs no key."""
        if spec.effect is EffectClass.READ or not spec.idempotent:
            return inf
        clock = self.services.clock
        opened_s = clock.boottime_s() + (opened_at_us - clock.now_us()) / 1e6
        return opened_s + spec.idempotent_for_s - spec.timeout_s

    def ending(self, code: str) -> Finish | Wait:
        """How a run rests that a decision has stopped: it ends, or, at a limit of its own, waits to have it raised if its route says so."""
        route = self.services.routes.get(self.state.contract.route)
        if code.startswith("budget.") and code not in _SHARED and route is not None and route.at_limit == "pause":
            return Wait(StopReason.BLOCKED, code, ("budget",), None)
        return ending(self.state, code)

    def reins(self, call: str, *, model: bool) -> Reins:
        """What ends an attempt of ours that waits: a cancel, as its mode says, and for a model of the loop an interrupt."""
        before = self.state.interrupts

        def look() -> str:
            self.sequencer.read_inbox()
            state = self.state
            if state.cancelled_by and not self.undoes(call):
                mode = state.cancel_mode
                return "run.cancelled" if mode is CancelMode.STOP or (model and mode is not CancelMode.DRAIN) else ""
            heard = model and state.interrupts > before and call not in state.calls
            return "run.interrupted" if heard else ""

        return self.services.flights.reins(self.run_id, look)

    def undoes(self, call: str) -> bool:
        """Whether a call compensates a step of this run."""
        mark = self.state.calls.get(call)
        return mark is not None and mark.undoes != ""

    def guard(
        self,
        kind: ProposalKind,
        name: str,
        until_s: float,
        *,
        fresh: bool = True,
        repeats: Callable[[], float] | None = None,
        undoes: bool = False,
    ) -> Callable[[], None]:
        """What runs before each attempt: raises :class:`Revoked` if the attempt must not start; a further one than the first not
        after what ``repeats`` says either (boot-time seconds).

        The first attempt follows its commit, whose guards were exact, so where that was quick it only looks at the time
        (``fresh``), and where it was slow because it waited for its turn only at what passes with time; each further one reads
        cancellations and switches again.
        """
        services = self.services
        trusted_until_s = until_s - PERFORM_WITHIN_S + FRESH_S if fresh else -inf
        retries = self.state.contract.limits.retries
        compared_s = self.sequencer.compared_s if fresh else -inf
        attempts = 0

        def before_attempt() -> None:
            nonlocal trusted_until_s, attempts
            attempts += 1
            now_s = services.clock.boottime_s()
            if now_s > until_s or (attempts > 1 and repeats is not None and now_s > repeats()):
                raise Revoked("effect.perform_by")
            if retries is not None and attempts > 1 and self.state.spent.get("retries", 0) + attempts - 1 > retries:
                raise Revoked("budget.retries")
            if now_s <= trusted_until_s:
                trusted_until_s = -inf
                return
            if attempts > 1 or now_s > compared_s + FRESH_S:
                if not self.sequencer.read_inbox():
                    raise Revoked("run.epoch")  # the new holder may have read, and put away, what would revoke this
                services.refresh(READ_LATELY_S if attempts == 1 else 0.0)
            code = revoked(kind, name, self.state, services.gate.controls, services.clock.now_us(), undoes=undoes)
            if code is not None:
                raise Revoked(code)

        return before_attempt
