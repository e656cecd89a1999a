"""The judge of a simulation: the invariants, checked from outside after every operation and every call to the world.

It sees what the store applied, what reached the tools and models, and what the providers' ledger says; it shares with the runtime the
vocabulary of events and the fold, and nothing else. Whatever it knows of policies, approvals, switches and budgets is written here once
more, in its own words. Numbers (I1, I2, …) are those of the architecture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import (
    Applied,
    Claim,
    Claimed,
    Commit,
    DecideApproval,
    Deliver,
    Op,
    Outcome,
    Refused,
    SetFact,
)
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.fold import fold, start
from quarterdeck.core.proposal import proposal_digest
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import AUTONOMY_RULES, TERMINAL, EffectClass, Mode, ProposalKind, ReceiptStatus, Ruling, Status
from quarterdeck.engine.transcript import Transcript
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.model import Message, ModelRequest
from quarterdeck.ports.store import StoredEvent
from quarterdeck.ports.tools import ToolContext
from quarterdeck.store.chain import chained
from quarterdeck.testing.noticing import is_late, notice_decision, notice_receipt, notice_refusal
from quarterdeck.testing.processes import current
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.scenario import VENTURE, Scenario
from quarterdeck.testing.tables import Run, Tables
from quarterdeck.testing.watched import INTENTS, RECEIPTS, Before, Open, Venturing, Watched, class_of, kind_of_body
from quarterdeck.testing.watchedventures import Ventures
from quarterdeck.testing.world import Account, tool_specs

FRESH_S = 1.0
"""A first attempt may begin this long after its intent was submitted without looking at revocations again."""
PROMPT_S = 15.0
"""So long a receipt may wait for a store that is slow; not for anything else."""
MAX_VIOLATIONS = 20
"""After so many a simulation has said enough."""


class Oracle:
    """Every invariant, over one simulation."""

    def __init__(self, scenario: Scenario, tables: Tables, clock: Clock, reached: Reached) -> None:
        self.scenario = scenario
        self.tables = tables
        self.clock = clock
        self.reached = reached
        self.runs: dict[str, Watched] = {}
        self.violations: list[str] = []
        self.commits = 0
        self.dead: set[str] = set()
        self.closing = False
        self._latest_us = 0
        self.facts: dict[str, int] = {}
        self.switches: dict[str, float] = {}
        self.accounts: dict[tuple[str, str], tuple[int, int]] = {}
        self._submitted: dict[tuple[str, int, int, bytes], tuple[float, int]] = {}
        self._trace = hashlib.sha256()
        self.providers: Mapping[str, Account] = {}
        self._prompt = scenario.rates.lost_before + scenario.rates.lost_after < 0.1
        self._ventures = Ventures(self.violated, reached, self.runs, lambda: tables.approvals)
        self._hashes = {(spec.name, spec.schema_hash) for version in (1, 2) for spec in tool_specs(scenario, version)}

    # ---------------------------------------------------------------------------------------------------------- reporting

    def violated(self, invariant: str, message: str) -> None:
        """Note that something happened that must never happen."""
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(f"{invariant} at {self.clock.boottime_s():.3f} s: {message}")

    def check(self, condition: bool, invariant: str, message: str) -> None:
        """Note a violation unless the condition holds."""
        if not condition:
            self.violated(invariant, message)

    def trace(self, *parts: object) -> None:
        """Add to the history that two simulations of one seed must share."""
        self._trace.update(repr((self.clock.boottime_s(), *parts)).encode())

    @property
    def trace_hash(self) -> str:
        """The hash of everything that happened."""
        return self._trace.hexdigest()

    @property
    def finished(self) -> bool:
        """Whether every run that exists has ended."""
        return all(watched.state.status in TERMINAL for watched in self.runs.values())

    # ------------------------------------------------------------------------------------------------------------ the store

    def submitted(self, op: Op) -> None:
        """An owner sends an operation; the first sending of a commit dates its intents."""
        self._latest_us = max(self._latest_us, self.clock.now_us())
        if isinstance(op, Claim):
            self.check(op.now_us <= self._latest_us, "I17", f"{op.worker} claims for a moment that has not come")
        if isinstance(op, Commit) and op.records:
            now_s = self.clock.boottime_s()
            offset_us = self.clock.now_us() - round(now_s * 1e6)
            self._submitted.setdefault(_identity(op), (now_s, offset_us))

    def before(self, op: Op) -> Before:
        """Look at what an operation is about to change."""
        found = Before()
        if isinstance(op, Commit):
            for consume in op.consumes:
                row = self.tables.approvals.get(consume.approval)
                if row is not None:
                    found.approvals[consume.approval] = row
            run = self.tables.runs.get(op.run_id)
            if run is not None and op.inbox:
                found.inbox = dict(run.inbox)
        elif isinstance(op, Claim):
            for run in self.tables.runs.values():
                if run.status == "waiting" and run.worker is None:
                    found.waiting[run.run_id] = (run.wake_at_us, bool(run.inbox) or run.run_id in self.tables.ready)
        return found

    def after(self, op: Op, found: Before, outcome: Outcome) -> None:
        """Judge what an operation did."""
        self.trace(type(op).__name__, msgspec.msgpack.encode(op), msgspec.msgpack.encode(outcome))
        if isinstance(outcome, Refused):
            self._refused(op, outcome)
        elif isinstance(op, Commit):
            self._applied(op, found, outcome)
        elif isinstance(op, Claim) and isinstance(outcome, Claimed):
            self._claimed(op, found, outcome)
        elif isinstance(op, Deliver):
            self._delivered(op.run_id, op.kind, op.token)
        elif isinstance(op, DecideApproval):
            self._delivered(self.tables.approvals[op.approval].run_id, "approval", f"approval:{op.approval}")
        elif isinstance(op, SetFact) and isinstance(outcome, Applied):
            self._fact(op, outcome)

    def released(self, worker: str | None) -> None:
        """A worker's runs (or everybody's) were given free."""
        for watched in self.runs.values():
            if worker is None or watched.holder == worker:
                watched.holder = None

    def _refused(self, op: Op, refused: Refused) -> None:
        self.check(refused.guard != "poison", "contract", f"a poisonous {type(op).__name__}: {refused.detail}")
        notice_refusal(self.reached, op, refused)

    def _fact(self, op: SetFact, outcome: Applied) -> None:
        self.facts[op.name] = outcome.number
        if op.name == "switches":
            rows = msgspec.json.decode(op.value, type=list[dict[str, object]])
            names = [f"{row['kind']}:{row['name']}" if "name" in row else f"{row['kind']}" for row in rows]
            now_s = self.clock.boottime_s()
            self.switches = {name: self.switches.get(name, now_s) for name in sorted(names)}

    def _delivered(self, run_id: str, kind: str, token: str) -> None:
        watched, run = self.runs[run_id], self.tables.runs[run_id]
        is_new = token not in watched.tokens
        watched.tokens.add(token)
        self.check(not is_new or run.status not in TERMINAL, "I8", f"{run_id} has ended, and took {token} in")
        watched.control += is_new
        self.check(
            run.control == watched.control, "I9", f"{run_id}: control is {run.control} after {token}, not {watched.control}"
        )
        if not is_new:
            return
        if kind == "cancel" and watched.cancelled_s is None:
            watched.cancelled_s = self.clock.boottime_s()
            self.reached.sometimes("cancel.running", watched.holder is not None)
            self.reached.sometimes("cancel.waiting", watched.state.status is Status.WAITING)

    def _claimed(self, op: Claim, found: Before, outcome: Claimed) -> None:
        for claimed in outcome.runs:
            watched = self.runs[claimed.run_id]
            if watched.epoch == claimed.epoch and watched.holder == op.worker:
                continue  # the same claim, answered again
            self.check(watched.holder is None, "I12", f"{claimed.run_id} was claimed by {op.worker} from {watched.holder}")
            self.check(claimed.epoch > watched.epoch, "I11", f"{claimed.run_id} was claimed without a new epoch")
            self.check(claimed.seq == watched.seq, "I7", f"{claimed.run_id} was claimed at {claimed.seq}, not {watched.seq}")
            if claimed.run_id in found.waiting:
                wake_at_us, called = found.waiting[claimed.run_id]
                due = wake_at_us is not None and wake_at_us <= op.now_us
                self.check(due or called, "I17", f"{claimed.run_id} was woken early, and nobody called it")
            watched.holder, watched.epoch = op.worker, claimed.epoch

    # ---------------------------------------------------------------------------------------------------------- one commit

    def _applied(self, commit: Commit, found: Before, outcome: Outcome) -> None:
        run = self.tables.runs[commit.run_id]
        watched = self.runs.get(commit.run_id)
        self.check(isinstance(outcome, Applied), "contract", f"a commit was answered with {outcome}")
        if watched is not None and watched.seq >= commit.seq + len(commit.records):
            self.reached.sometimes("commit.answer_lost")
            self.check(watched.seq == run.seq, "I7", f"{run.run_id}: the same bytes, sent again, changed the journal")
            return
        self.commits += 1
        for order in commit.delivers:
            if order.token in self.tables.runs[order.run_id].tokens:
                self._delivered(order.run_id, order.kind, order.token)
        events = [ev.decode(item.body) for item in commit.records]
        if watched is None:
            watched = self._admitted(commit, events[0])
            if watched is None:
                return
        else:
            self._check_guards(commit, watched, events)
        self._check_chain(run, watched, run.events[watched.seq :])
        self._check_order(run, events)
        self._check_consumes(commit, found, watched, events)
        self.reached.sometimes("receipt.late_used", any(is_late(row) for row in found.inbox.values() if row.row in commit.inbox))
        for event, item in zip(events, commit.records, strict=True):
            if watched.seq or not isinstance(event, ev.RunAdmitted):
                self._event(commit, watched, event, item.payload, events)
            watched.seq += 1
        self._check_budgets(run, watched)
        self._check_row(run, watched)
        if commit.head is not None and commit.head.release:
            watched.holder = None

    def _admitted(self, commit: Commit, event: ev.Event) -> Watched | None:
        try:
            state = start(event)
        except Corrupt as error:
            self.violated("I8", f"{commit.run_id}: {error}")
            return None
        transcript = Transcript()
        transcript.apply(event, commit.records[0].payload)
        watched = self.runs[commit.run_id] = Watched(commit.run_id, state, transcript)
        watched.venture = Venturing() if state.contract.route == VENTURE else None
        return watched

    def _check_guards(self, commit: Commit, watched: Watched, events: Sequence[ev.Event]) -> None:
        name = watched.run_id
        self.check(watched.state.status not in TERMINAL, "I8", f"{name}: something was appended after its end")
        self.check(commit.epoch == watched.epoch, "I11", f"{name}: epoch {commit.epoch} wrote, the run is at {watched.epoch}")
        self.check(watched.holder is not None, "I11", f"{name}: somebody appended who does not hold it")
        if not any(isinstance(event, INTENTS) for event in events) and commit.head is None:
            return
        self.check(commit.control == watched.control, "I9", f"{name}: control {commit.control} passed, it is {watched.control}")
        facts = {fact: version for fact, version in (commit.facts or {}).items() if version}
        self.check(facts == self.facts, "I9", f"{name}: facts {commit.facts} passed, they are {self.facts}")

    def _check_chain(self, run: Run, watched: Watched, stored: Sequence[StoredEvent]) -> None:
        seq = watched.seq
        for event in stored:
            seq += 1
            self.check(event.seq == seq, "I7", f"{run.run_id}: event {event.seq} where {seq} belongs")
            watched.head = chained(watched.head, seq, event.body, event.payload_digest)
            self.check(watched.head == event.hash, "I7", f"{run.run_id}: event {seq} does not continue the chain")

    def _check_order(self, run: Run, events: Sequence[ev.Event]) -> None:
        """Receipts come before intents in the commit that carries both."""
        intended = False
        for event in events:
            intended = intended or isinstance(event, INTENTS)
            if intended and isinstance(event, RECEIPTS):
                self.violated("contract 5", f"{run.run_id}: the receipt of {event.call} follows an intent of the same commit")

    def _check_consumes(self, commit: Commit, found: Before, watched: Watched, events: Sequence[ev.Event]) -> None:
        submitted_s, offset_us = self._submitted[_identity(commit)]
        sent_at_us = offset_us + round(submitted_s * 1e6)
        for consume in commit.consumes:
            row, name = found.approvals.get(consume.approval), consume.approval
            if row is None:
                self.violated("I5", f"{name} was consumed and does not exist")
                continue
            self.check(name not in watched.consumed, "I5", f"{name} was consumed twice")
            self.check(row.status == "approved", "I5", f"{name} was consumed, it is {row.status}")
            self.check(sent_at_us < row.expires_at_us, "I5", f"{name} was consumed after it had expired")
            self.check(row.decided_by != row.requested_by, "I5", f"{name} was approved by who asked for it")
            opened = [event for event in events if isinstance(event, ev.ToolOpened) and event.call == row.call]
            self.check(
                [event.digest for event in opened] == [row.digest], "I5", f"{name} was consumed for something else than was shown"
            )
            watched.consumed.add(name)
            self.reached.sometimes("approval.granted")
            self.reached.sometimes("approval.after_crash", watched.asked_by.get(name, "") in self.dead)

    def _event(
        self, commit: Commit, watched: Watched, event: ev.Event, payload: bytes | None, events: Sequence[ev.Event]
    ) -> None:
        submitted_s, offset_us = self._submitted[_identity(commit)]
        self._ventures.event(watched, event, payload)
        match event:
            case ev.ModelOpened() | ev.ToolOpened():
                until_s = (event.perform_by_us - offset_us) / 1e6
                self._opened(commit, watched, event, events, submitted_s, until_s)
            case ev.EffectReopened():
                self._check_waited(watched, event.call, "was reopened")
                name, undoes = watched.open[event.call].name, _undoes(watched, event.call)
                self._check_revoked(watched, name, ProposalKind.TOOL, f"reopening {event.call}", undoes)
                opened = watched.open[event.call]
                opened.worker, opened.submitted_s, opened.attempts = watched.holder or "", submitted_s, 0
                opened.until_s = (event.perform_by_us - offset_us) / 1e6
                self.reached.sometimes("effect.reopened")
            case ev.ModelClosed() | ev.ToolClosed():
                closed = watched.open.pop(event.call, None)
                self.check(closed is not None, "I19", f"{watched.run_id}: a receipt for {event.call}, which is not open")
                if isinstance(event, ev.ToolClosed) and closed is not None:
                    self._check_prompt(watched, closed, event, submitted_s)
                    old_s = self.clock.boottime_s() - closed.opened_s
                    expired = closed.idempotent and event.status is ReceiptStatus.UNKNOWN and old_s > self.scenario.key_kept_s
                    self.reached.sometimes("effect.key_expired", expired)
                    watched.effects[event.call] = closed
                    watched.ended[event.call] = event.status
                notice_receipt(self.reached, event)
            case ev.EffectResolved():
                self.check(event.call in watched.state.unknown, "I2", f"{watched.run_id}: {event.call} was resolved, not unknown")
                watched.ended[event.call] = event.status
                self.reached.sometimes("effect.resolved_by_person", event.by == "person")
            case ev.GateDecided():
                if event.ruling is Ruling.ALLOW:
                    watched.allows[event.call] = event.digest
                notice_decision(self.reached, watched, event)
            case ev.ApprovalRequested():
                watched.asked_by[event.approval] = watched.holder or ""
            case ev.ApprovalDecided():
                self.reached.sometimes("approval.rejected", event.outcome == "rejected")
                self.reached.sometimes("approval.expired", event.outcome == "expired")
            case ev.RunWaiting():
                self._waits(watched, event)
            case ev.RunFinished():
                self._ends(watched, event)
            case _:
                pass
        try:
            fold(watched.state, event)
            watched.transcript.apply(event, payload)
        except Corrupt as error:
            self.violated("I14", f"{watched.run_id}: {ev.kind_of(event)} cannot follow: {error}")

    def _check_prompt(self, watched: Watched, closed: Open, event: ev.ToolClosed, submitted_s: float) -> None:
        """The receipt of an effect that nobody can repeat is made durable at once; it waits for no other call."""
        account = self.providers.get(closed.key)
        answered = account.answered if account is not None else None
        safe = closed.idempotent or closed.effect is EffectClass.READ
        if answered is None or safe or event.status is not ReceiptStatus.SUCCEEDED or not self._prompt:
            return
        at_s, process, pauses = answered
        if closed.epoch == watched.epoch and process.name == watched.holder and process.paused == pauses:
            late_s = submitted_s - at_s
            self.check(
                late_s < PROMPT_S, "contract 5", f"{watched.run_id}: the receipt of {event.call} was kept for {late_s:.1f} s"
            )

    def _opened(
        self,
        commit: Commit,
        watched: Watched,
        event: ev.ModelOpened | ev.ToolOpened,
        events: Sequence[ev.Event],
        submitted_s: float,
        until_s: float,
    ) -> None:
        state, run_id, is_model = watched.state, watched.run_id, isinstance(event, ev.ModelOpened)
        together = {other.call for other in events if isinstance(other, ev.ToolOpened)}
        others = [call for call in watched.open if call not in together and watched.venture is None]
        self.check(not others, "contract 5", f"{run_id}: {event.call} was opened while {others} had no receipt")
        self.check(event.call not in watched.effects, "I2", f"{run_id}: {event.call} was opened twice")
        if isinstance(event, ev.ModelOpened):
            self._check_revoked(watched, event.model, ProposalKind.MODEL, f"the intent of {event.call}")
            messages = _messages(watched, event)
            opened = Open(
                *(event.model, event.key, "", True, False, False, EffectClass.READ),
                *(watched.holder or "", commit.epoch, submitted_s, submitted_s, until_s),
                max_output_tokens=event.max_output_tokens, messages=messages,
            )  # fmt: skip
        else:
            self._check_revoked(
                watched, event.tool, ProposalKind.TOOL, f"the intent of {event.call}", _undoes(watched, event.call)
            )
            self.check(
                watched.allows.get(event.call) == event.digest, "I4", f"{run_id}: {event.call} was opened without its allow"
            )
            self._check_authority(commit, watched, event)
            opened = Open(
                *(event.tool, event.key, event.digest, False, event.idempotent, event.reconcilable, event.effect),
                *(watched.holder or "", commit.epoch, submitted_s, submitted_s, until_s),
            )
        self.check(is_model or event.call in state.calls, "I4", f"{run_id}: {event.call} was opened, nobody proposed it")
        watched.open[event.call] = opened

    def _check_authority(self, commit: Commit, watched: Watched, event: ev.ToolOpened) -> None:
        """Autonomy, mode, switches and policies, in the oracle's words: who needs a person, and what nobody may do."""
        contract = watched.state.contract
        self.check(event.tool in contract.allowed_tools, "I4", f"{watched.run_id} has no tool {event.tool}")
        if _undoes(watched, event.call):
            return
        ruling = AUTONOMY_RULES[contract.autonomy][event.effect]
        self.check(ruling is not Ruling.DENY, "I4", f"{watched.run_id}: {event.tool} is beyond {contract.autonomy}")
        asks = ruling is Ruling.ASK or f"force_approval:{event.tool}" in self.switches
        asks = asks or (contract.mode is Mode.HUMAN_GATED and event.effect is not EffectClass.READ)
        if self.scenario.policies:
            raw = watched.venture.steps[event.call][1] if watched.venture is not None else watched.transcript.raw(event.call)
            written = msgspec.json.decode(raw, type=dict[str, object])
            asks = asks or (event.tool == "pay" and int(str(written["amount"])) > 3)
            self.check(event.tool != "mail" or written["target"] != "c3", "I4", f"{watched.run_id}: a forbidden letter")
        if asks:
            used = any(consume.digest == event.digest for consume in commit.consumes)
            self.check(used, "I5", f"{watched.run_id}: {event.call} ({event.tool}) was opened, and nobody had approved it")

    def _check_revoked(self, watched: Watched, name: str, kind: ProposalKind, what: str, undoes: bool = False) -> None:
        since_s = self._revoked_since(watched, name, kind, undoes)
        self.check(since_s is None, "I9", f"{watched.run_id}: {what} was committed, revoked since {since_s} s")

    def _revoked_since(self, watched: Watched, name: str, kind: ProposalKind, undoes: bool) -> float | None:
        contract = watched.state.contract
        by_kind = f"disable_tool:{name}" if kind is ProposalKind.TOOL else f"block_model:{name}"
        covering = ("freeze", f"stop_route:{contract.route}", f"deny_tenant:{contract.tenant}", by_kind)
        times = [self.switches[switch] for switch in covering if switch in self.switches]
        if watched.cancelled_s is not None and not undoes:
            times.append(watched.cancelled_s)
        return min(times) if times else None

    def _waits(self, watched: Watched, event: ev.RunWaiting) -> None:
        run_id = watched.run_id
        self.check(bool(event.on), "I18", f"{run_id} waits for nothing that has a name")
        self.reached.sometimes("effect.waited_out", event.code == "effect.open")
        self.reached.sometimes("breaker.open", event.code == "breaker.open")
        for on in event.on:
            kind, _, name = on.partition(":")
            if kind == "approval":
                row = self.tables.approvals.get(name)
                self.check(
                    row is not None and event.wake_at_us is not None, "I18", f"{run_id} waits for {on}, which is not there"
                )
            elif kind == "effect":
                known = name in watched.state.unknown or event.wake_at_us is not None
                self.check(known, "I18", f"{run_id} waits for {on}, and nobody can resolve it")
            elif watched.venture is not None and kind in ("signal", "timer", "run"):
                self.check(event.wake_at_us is not None, "I18", f"{run_id} waits for {on} for ever")
            elif watched.venture is not None and kind == "compensation":
                self.check(name in watched.state.calls, "I18", f"{run_id} waits for {on}, which is not there")
            else:
                self.check(
                    kind in ("model", "account") and event.wake_at_us is not None, "I18", f"{run_id} waits for {on} for ever"
                )

    def _ends(self, watched: Watched, event: ev.RunFinished) -> None:
        state, run_id = watched.state, watched.run_id
        self.check(event.status in TERMINAL and bool(event.reason) and bool(event.code), "I8", f"{run_id} ended without a reason")
        self.check(not watched.open, "I19", f"{run_id} ended while {sorted(watched.open)} had no receipt")
        self.check(event.status is not Status.SUCCEEDED or not state.unknown, "I2", f"{run_id} succeeded with an unknown effect")
        self.reached.sometimes("budget.partial", event.reason == "partial")
        self.reached.sometimes("deadline.passed", event.code == "deadline.exceeded")

    # -------------------------------------------------------------------------------------------------- after every commit

    def _check_budgets(self, run: Run, watched: Watched) -> None:
        state, run_id = watched.state, run.run_id
        for dimension in sorted({*state.spent, *state.reserved}):
            limit = getattr(state.contract.limits, dimension)
            used = state.spent.get(dimension, 0) + state.reserved.get(dimension, 0)
            if limit is not None and dimension != "retries" and watched.venture is None:  # undoing is beyond the run's own limits
                self.check(used <= limit, "I3", f"{run_id} has used {used} {dimension}, its limit is {limit}")
        for account in (f"route:{state.contract.route}", f"tenant:{state.contract.tenant}", "all"):
            limits = self.scenario.accounts.get("tenant:*" if account.startswith("tenant:") else account)
            for dimension in ("model_calls", "tool_calls", "tokens", "cost_microusd"):
                if limits is None or getattr(limits, dimension) is None:
                    continue
                held = state.slices.get((account, dimension), 0)
                owed = state.unreported.get(dimension, 0) + state.reserved.get(dimension, 0)
                self.check(held >= owed, "I3", f"{run_id} owes {owed} {dimension} and holds {held} of {account}")

    def _check_row(self, run: Run, watched: Watched) -> None:
        state = watched.state
        self.check(run.seq == watched.seq == state.seq, "I7", f"{run.run_id}: {run.seq}, {watched.seq} and {state.seq} events")
        if state.status in (Status.WAITING, *TERMINAL):
            same = (run.status, run.waiting_on, run.wake_at_us) == (state.status, state.waiting_on, state.wake_at_us)
            self.check(same and run.worker is None, "I18", f"{run.run_id}: its row says {run.status}, its journal {state.status}")

    def ledger(self, commit: Commit) -> None:
        """Accounts move as the journal says, and never beyond their limits."""
        for item in commit.records:
            if kind_of_body(item.body) == "budget.moved":
                event = ev.decode(item.body)
                if isinstance(event, ev.BudgetMoved):
                    for move in event.moves:
                        committed, reserved = self.accounts.get((move.account, move.dimension), (0, 0))
                        spent, leased = committed + move.spent, reserved + move.leased - move.returned
                        self.accounts[move.account, move.dimension] = (spent, leased)
        for charge in commit.charges:
            name = (charge.move.account, charge.move.dimension)
            row = self.tables.accounts[name]
            known = self.accounts.get(name, (0, 0))
            self.check((row.committed, row.reserved) == known, "I3", f"{name} holds {row}, the journals say {known}")
            over = row.limit is not None and row.committed + row.reserved > row.limit
            self.check(not over, "I3", f"{name} is over its limit: {row}")

    # ------------------------------------------------------------------------------------------------------------- the world

    def attempt(self, spec: ToolSpec, arguments: bytes, context: ToolContext) -> None:
        """A tool is about to be called."""
        self.trace("attempt", spec.name, context.idempotency_key, arguments)
        watched = self.runs.get(context.run_id)
        opened = watched.open.get(context.call) if watched is not None else None
        if watched is None or opened is None or opened.model:
            self.violated("I4", f"{context.run_id}: {spec.name} was called for {context.call}, which is not open")
            return
        what = f"{context.run_id}: {spec.name} for {context.call}"
        contract = watched.state.contract
        digests = {
            proposal_digest(contract.tenant, contract.run_id, ProposalKind.TOOL, spec.name, schema_hash, arguments)
            for name, schema_hash in self._hashes
            if name == spec.name
        }
        self.check(opened.digest in digests, "I4", f"{what} got other arguments than were allowed")
        self.check(opened.key == context.idempotency_key, "I2", f"{what} got the key {context.idempotency_key}, not {opened.key}")
        self._check_attempt(watched, opened, ProposalKind.TOOL, spec.name, what, _undoes(watched, context.call))

    def asked(self, model: str, request: ModelRequest) -> None:
        """A model is about to be asked."""
        self.trace("asked", model, request.idempotency_key)
        run_id, _, call = request.idempotency_key.rpartition(":")
        watched = self.runs.get(run_id)
        opened = watched.open.get(call) if watched is not None else None
        if watched is None or opened is None or not opened.model:
            self.violated("I4", f"{run_id}: {model} was asked for {call}, which is not open")
            return
        what = f"{run_id}: {model} for {call}"
        self.check((opened.name, opened.key) == (model, request.idempotency_key), "I4", f"{what} is not what was opened")
        self.check(request.max_output_tokens == opened.max_output_tokens, "I3", f"{what} may write more than was allowed")
        self.check(request.messages == opened.messages, "contract 5", f"{what} sees what the journal does not hold (or less)")
        self._check_attempt(watched, opened, ProposalKind.MODEL, model, what)

    def asks(self, spec: ToolSpec, context: ToolContext) -> None:
        """A tool is about to be asked how an effect ended."""
        self.trace("asks", spec.name, context.idempotency_key)
        watched = self.runs[context.run_id]
        if context.call in watched.open:
            self._check_waited(watched, context.call, "was asked about")

    def _check_waited(self, watched: Watched, call: str, what: str) -> None:
        """Whoever takes over an open intent waits until its former owner can no longer act."""
        opened, process = watched.open[call], current()
        if not self.scenario.quiesced and process is not None and opened.worker != process.name:
            now_s = self.clock.boottime_s()
            early = now_s < opened.until_s and watched.holder == process.name
            self.check(
                not early, "contract 6", f"{watched.run_id}: {call} {what}, its owner may act until {opened.until_s:.3f} s"
            )

    def _check_attempt(
        self, watched: Watched, opened: Open, kind: ProposalKind, name: str, what: str, undoes: bool = False
    ) -> None:
        now_s, process = self.clock.boottime_s(), current()
        opened.attempts += 1
        self.check(process is not None and process.name == opened.worker, "I12", f"{what}: {process} acts for {opened.worker}")
        self.check(now_s <= opened.until_s + 0.001, "contract 6", f"{what} began at {now_s:.3f} s, after {opened.until_s:.3f} s")
        if opened.attempts == 1 and now_s - opened.submitted_s <= FRESH_S:
            return
        since_s = self._revoked_since(watched, name, kind, undoes)
        self.check(since_s is None, "I9", f"{what}: attempt {opened.attempts} began, revoked since {since_s} s")
        deadline_us = watched.state.contract.deadline_at_us
        late = deadline_us is not None and self.clock.now_us() >= deadline_us and not undoes
        self.check(not late, "I9", f"{what}: attempt {opened.attempts} began after the deadline")

    def died(self, worker: str) -> None:
        """A process has died; note what it left open."""
        self.dead.add(worker)
        for watched in self.runs.values():
            if watched.holder == worker:
                for opened in watched.open.values():
                    self.reached.sometimes(f"crash.open.{class_of(opened)}")


def _undoes(watched: Watched, call: str) -> bool:
    """Whether a call compensates a step, as the journal says."""
    return watched.venture is not None and call in watched.venture.steps and watched.venture.steps[call][0].undoes != ""


def _messages(watched: Watched, event: ev.ModelOpened) -> tuple[Message, ...]:
    """What a model may be shown: the transcript, or what a workflow wrote."""
    if watched.venture is None:
        return watched.transcript.window(Message("system", f"You are {watched.state.contract.agent}."), event.first)
    said = msgspec.json.decode(watched.venture.steps[event.call][1])
    return tuple([Message(one["role"], one["content"]) for one in said["messages"]])


def _identity(commit: Commit) -> tuple[str, int, int, bytes]:
    """What a commit and its repetitions have in common."""
    return commit.run_id, commit.seq, commit.epoch, commit.records[-1].body
