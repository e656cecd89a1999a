"""The sole appender of one run's journal.

What has already happened (receipts, inbox rows) is *noted*: folded at once, and carried by the next commit, so that receipts always
precede intents. What is intended is *committed*: folded only when the store has accepted it under the guards. A refused intent
changes nothing; the caller looks at what is new and asks the gate again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import (
    Applied,
    Ask,
    Charge,
    CloseApproval,
    Commit,
    Consume,
    Deliver,
    Free,
    Head,
    InboxRow,
    Outcome,
    Record,
    Refused,
    Statement,
    Take,
    record,
)
from quarterdeck.core.contract import Limits
from quarterdeck.core.errors import Corrupt, OwnershipLost, Unavailable
from quarterdeck.core.fold import fold
from quarterdeck.core.labels import Integrity, Labels
from quarterdeck.core.notices import Notice, notice_of, posts_of
from quarterdeck.core.outbox import Post
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ReceiptStatus, Status
from quarterdeck.engine.services import Services
from quarterdeck.ports.store import Submitted

RESENDS = 20
"""How often a commit whose outcome is unknown is sent again before the store counts as gone, and the whole process stops."""
RESEND_CAP_S = 5.0
"""The longest pause before it is sent again."""

Happening = tuple[ev.Event, bytes | None]
"""An event with its payload."""


class LateReceipt(msgspec.Struct, frozen=True):
    """What a former owner, or an operator, says about an effect; an inbox row of kind ``receipt``.

    ``epoch`` is that owner's, and 0 for a person. An owner knows of its own attempts only: its ``failed`` says nothing about an effect
    that was performed again after it, and its ``unknown`` nothing at all.
    """

    call: str
    status: ReceiptStatus
    by: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    epoch: int = 0
    again: bool = False


class CancelOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``cancel``."""

    by: str
    reason: str = ""
    compensate: bool = True
    mode: str = ""


class InterruptOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``interrupt``: what goes before whatever the run was about to do. ``trusted``: it may steer the run as the
    route's own instructions do; otherwise it is untrusted content like any other.
    """

    by: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    trusted: bool = False


class EscalateOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``escalate``."""

    by: str
    to: str
    reason: str = ""


class RaiseOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``budget``: limits of the run that are other ones from now on."""

    by: str
    limits: Limits
    reason: str = ""


class OperatorOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``pause`` or ``resume``; ``done``: what was stuck was done by hand."""

    by: str
    reason: str = ""
    done: bool = False


class SignalSent(msgspec.Struct, frozen=True):
    """An inbox row of kind ``signal``: a message to a run, by name."""

    name: str
    by: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"null")


class ApprovalAnswer(msgspec.Struct, frozen=True):
    """An inbox row of kind ``approval``; the store wrote it together with the approval's row."""

    approval: str
    outcome: str
    by: str
    reason: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class Superseded(OwnershipLost):
    """This worker may not judge any more, so the run has to go on elsewhere; nothing but that was refused."""


class Sequencer:
    """Appends to one journal, under one epoch. ``state`` is always the fold of what is durable plus what was noted.

    ``control``, where it is given, was read since the run was claimed, with nothing unread beside it: then the sequencer is ``informed``.

    ``compared_s`` is the time, in boot-time seconds, after which the store has compared the guards of the newest intents: a cancel, and
    a change of the facts that they were judged by, are known up to then.

    ``told`` receives what the inbox says about effects, so that the transcript holds it as well. ``ordered``, where it is set, receives
    every event in the order of the journal, as soon as that order is certain: what is noted while intents are on their way comes after
    them, or, if they are refused, before whatever follows.
    """

    def __init__(
        self,
        services: Services,
        run_id: str,
        epoch: int,
        state: RunState,
        told: Callable[[ev.Event, bytes | None], None],
        control: int | None = None,
    ) -> None:
        self.state = state
        self._told = told
        self.run_id = run_id
        self.epoch = epoch
        self._services = services
        self._committed = state.seq
        self._fresh = True
        self._noted: list[Record] = []
        self._inbox: list[int] = []
        self._closes: list[CloseApproval] = []
        self._notices: list[Notice] = []
        self._frees: list[Free] = []
        self._control = control or 0
        self.informed = control is not None
        self._lock = asyncio.Lock()
        self.performing: set[str] = set()
        self.held_back = False
        self.compared_s = -inf
        self.ordered: Callable[[ev.Event, bytes | None], None] | None = None
        self._intending = False
        self._unordered: list[Happening] = []

    @property
    def pending(self) -> int:
        """Events that were noted and are not durable."""
        return len(self._noted)

    @property
    def intending(self) -> bool:
        """Whether intents are on their way, so that the place of what is noted now is not certain."""
        return self._intending

    async def certain(self) -> None:
        """Wait until the place of everything that was noted is certain."""
        while self._intending:
            async with self._lock:  # whoever appends holds it until that is so
                pass

    def note(self, event: ev.Event, payload: bytes | None = None) -> None:
        """Record something that has happened; durable with the next commit."""
        if self.state.exclusive:
            self._frees += self._freed(event)
        fold(self.state, event)
        self._noted.append(record(event, payload))
        self._hear(event)
        if self.ordered is not None:
            if self._intending:
                self._unordered.append((event, payload))
            else:
                self.ordered(event, payload)

    def _freed(self, event: ev.Event) -> tuple[Free, ...]:
        """The exclusive key that a call gives back with its receipt; it keeps it for as long as nobody knows how it ended."""
        if isinstance(event, (ev.ToolClosed, ev.EffectResolved)) and event.status is not ReceiptStatus.UNKNOWN:
            key = self.state.exclusive.get(event.call)
            return (Free(key, event.call),) if key is not None else ()
        if isinstance(event, ev.RunFinished):
            return tuple(Free(key, call) for call, key in self.state.exclusive.items())
        return ()

    def receipts(self) -> list[tuple[ev.ToolClosed, bytes | None]]:
        """The receipts of tool calls that were noted and are not durable."""
        noted = [(ev.decode(item.body), item.payload) for item in self._noted]
        return [(event, payload) for event, payload in noted if isinstance(event, ev.ToolClosed)]

    def expire(self, approval: str, now_us: int) -> None:
        """An approval's time is over and nobody has answered."""
        self.note(ev.ApprovalDecided(now_us, approval, "expired", "clock"))
        self._closes.append(CloseApproval(approval, "expired"))

    def withdraw(self, approval: str) -> None:
        """Nobody needs to answer this approval any more; its row is closed with the next commit."""
        if self.state.approvals[approval].outcome == "pending":
            self.note(ev.ApprovalDecided(self._services.clock.now_us(), approval, "withdrawn", "run"))
            self._closes.append(CloseApproval(approval, "withdrawn"))

    async def flush(self) -> None:
        """Make everything noted durable now, without guards: evidence is kept whatever was revoked meanwhile."""
        async with self._lock:
            if self._noted:
                refused = await self._append((), control=None, facts=None)
                if refused is not None:
                    raise Corrupt("journal.evidence", f"the store refused evidence of run {self.run_id}: {refused.guard}")

    async def commit(
        self,
        happenings: Sequence[Happening],
        *,
        facts: dict[str, int] | None = None,
        head: Head | None = None,
        charges: tuple[Charge, ...] = (),
        asks: tuple[Ask, ...] = (),
        consumes: tuple[Consume, ...] = (),
        closes: tuple[CloseApproval, ...] = (),
        delivers: tuple[Deliver, ...] = (),
        outbox: tuple[Post, ...] = (),
        takes: tuple[Take, ...] = (),
        writes: tuple[Statement, ...] = (),
    ) -> Refused | None:
        """Append intents under all guards; ``facts`` are the versions judged by, where that was not just now.

        ``None``: durable and folded. Otherwise what refused; nothing has changed but what was read from the inbox or the facts
        meanwhile. Raises :class:`OwnershipLost` if the run is someone else's now, and :class:`Superseded` if it has to become so.
        """
        async with self._lock:
            self._intending = self.ordered is not None
            accepted = False
            try:
                refused = await self._append(
                    happenings,
                    control=self._control,
                    facts=self._services.gate.versions if facts is None else facts,
                    head=head,
                    charges=charges,
                    asks=asks,
                    consumes=consumes,
                    closes=closes,
                    delivers=delivers,
                    outbox=outbox,
                    takes=takes,
                    writes=writes,
                )
                accepted = refused is None
            finally:
                if self._intending:
                    self._settle_order(happenings if accepted else ())
        if refused is not None:
            if refused.guard == "control":
                self.read_inbox()
            elif refused.guard == "facts":
                self._services.refresh()
                if named := self._services.drain.superseded:
                    said = f"run {self.run_id} is given back: newer {', '.join(named)} are in force than this worker judges by"
                    raise Superseded("worker.superseded", said)
        return refused

    def _settle_order(self, happenings: Sequence[Happening]) -> None:
        """The intents are durable, or refused: what was noted meanwhile comes after them."""
        self._intending = False
        late, self._unordered = self._unordered, []
        if self.ordered is not None:
            for event, payload in (*happenings, *late):
                self.ordered(event, payload)

    async def _append(
        self,
        happenings: Sequence[Happening],
        *,
        control: int | None,
        facts: dict[str, int] | None,
        head: Head | None = None,
        charges: tuple[Charge, ...] = (),
        asks: tuple[Ask, ...] = (),
        consumes: tuple[Consume, ...] = (),
        closes: tuple[CloseApproval, ...] = (),
        delivers: tuple[Deliver, ...] = (),
        outbox: tuple[Post, ...] = (),
        takes: tuple[Take, ...] = (),
        writes: tuple[Statement, ...] = (),
    ) -> Refused | None:
        if head is None and self._fresh and control is not None:
            head = Head(Status.RUNNING)  # the row says so from the first commit of this holder on
        news, heard, told = self._heard(happenings)
        noted, inbox, expired, freed = len(self._noted), len(self._inbox), len(self._closes), len(self._frees)
        frees: tuple[Free, ...] = ()
        if self.state.exclusive or freed:
            frees = (*self._frees, *[free for event, _ in happenings for free in self._freed(event)])
        records = (*self._noted, *[record(event, payload) for event, payload in happenings])
        outcome = await self._durably(
            Commit(
                self.run_id,
                self._committed,
                self.epoch,
                self._services.journal.incarnation,
                records,
                self._services.clock.now_us(),
                control=control,
                facts=facts,
                head=head,
                charges=charges,
                asks=asks,
                consumes=consumes,
                closes=(*self._closes, *closes) if self._closes or closes else (),
                inbox=tuple(self._inbox),
                delivers=delivers,
                outbox=(*outbox, *told) if told else outbox,
                takes=takes,
                frees=frees,
                writes=writes,
            )
        )
        if type(outcome) is not Applied:
            del self._notices[news:heard]  # what was intended has not happened
            return self._refused(outcome)
        del self._notices[:heard]
        after = self._committed
        self._committed += len(records)
        self._fresh = self._fresh and head is None
        del self._noted[:noted], self._inbox[:inbox], self._closes[:expired], self._frees[:freed]
        for event, _ in happenings:
            fold(self.state, event)
        self._services.hub.committed(self.run_id, after, records)
        return None

    def _heard(self, happenings: Sequence[Happening]) -> tuple[int, int, tuple[Post, ...]]:
        """The notices that this commit tells: from where on they are of its intents, where they end, and as messages."""
        news = len(self._notices)
        for event, _ in happenings:
            self._hear(event)
        channels = self._services.channels
        told = tuple([post for notice in self._notices for post in posts_of(notice, channels)]) if channels else ()
        return news, len(self._notices), told

    def _hear(self, event: ev.Event) -> None:
        """The one seam of notices: each rides with the commit that it tells of, as a message of the outbox."""
        notice = notice_of(event, self.state)
        if notice is not None:
            self._notices.append(notice)

    async def _durably(self, commit: Commit) -> Outcome:
        """The outcome of a commit, sent again with the same bytes for as long as it is unknown."""
        delay_s = 0.0
        for sent in range(RESENDS + 1):
            if sent:
                await self._services.clock.sleep(delay_s)
                delay_s = min(RESEND_CAP_S, 2.0 * delay_s + 0.05)
            try:
                asked_s = self._services.clock.boottime_s()
                answer = self._services.journal.submit(commit)
                outcome = await answer
            except Unavailable as error:
                if error.code != "store.unknown":
                    raise
            else:
                if not sent and commit.control is not None:
                    self.compared_s = asked_s + (answer.waited_s if isinstance(answer, Submitted) else 0.0)
                return outcome
        raise Unavailable("store.unknown", f"the store does not answer for run {self.run_id}; restart when it does")

    def _refused(self, outcome: Outcome) -> Refused:
        if not isinstance(outcome, Refused):
            raise Corrupt("store.answer", "the store answered a commit with something else; its adapter is broken")
        match outcome.guard:
            case "epoch" | "seq" | "run" | "incarnation" | "terminal":
                raise OwnershipLost(f"run.{outcome.guard}", f"run {self.run_id} has another owner now; it continues there")
            case "poison":
                raise Corrupt("commit.poison", f"run {self.run_id} produced something that cannot be stored: {outcome.detail}")
            case _:
                return outcome

    def read_inbox(self) -> bool:
        """Fold in what others have put into the run's inbox, and judge by its control from now on; false if the run was taken over since.

        Only a commit proves that it was not. What they say about an effect that we are ``performing`` is ``held_back``: it stays unread
        until our own receipt is there.
        """
        self._control, rows, epoch = self._services.insights.inbox(self.run_id)
        if epoch != self.epoch:
            return False
        known = set(self._inbox)
        self.held_back = False
        for row in rows:
            if row.row not in known and self._fold_in(row):
                self._inbox.append(row.row)
        return True

    def _fold_in(self, row: InboxRow) -> bool:
        """Take one row in; false if it is held back."""
        match row.kind:
            case "cancel":
                order = msgspec.json.decode(row.body, type=CancelOrder)
                self.note(ev.CancelRequested(row.at_us, order.by, order.reason, order.compensate, order.mode))
            case "approval":
                answer = msgspec.json.decode(row.body, type=ApprovalAnswer)
                self._take_answer(row.at_us, answer)
            case "receipt":
                late = msgspec.json.decode(row.body, type=LateReceipt)
                if late.call in self.performing:
                    self.held_back = True
                    return False
                if self._settles(late):
                    self._take_late(row.at_us, late)
                else:
                    self._contradicts(row.at_us, late)
            case "signal":
                sent = msgspec.json.decode(row.body, type=SignalSent)
                self.note(ev.SignalReceived(row.at_us, sent.name, sent.by), bytes(sent.payload))
            case "interrupt":
                self._interrupt(row.at_us, msgspec.json.decode(row.body, type=InterruptOrder))
            case "budget":
                raised = msgspec.json.decode(row.body, type=RaiseOrder)
                self.note(ev.BudgetRaised(row.at_us, raised.by, raised.limits, raised.reason))
            case "escalate":
                moved = msgspec.json.decode(row.body, type=EscalateOrder)
                self.note(ev.RunEscalated(row.at_us, moved.by, moved.to, moved.reason))
            case "pause":
                said = msgspec.json.decode(row.body, type=OperatorOrder)
                self.note(ev.RunPaused(row.at_us, said.by, said.reason))
            case "resume":
                said = msgspec.json.decode(row.body, type=OperatorOrder)
                self.note(ev.RunResumed(row.at_us, said.by, said.reason, said.done))
            case "child" | "raised" | "wake":
                pass  # a child run has ended, its journal says how; a budget was raised, its account says so; or a drain is over
            case _:
                raise Corrupt("inbox.kind", f"run {self.run_id} has an inbox row of unknown kind {row.kind!r}")
        return True

    def _interrupt(self, at_us: int, order: InterruptOrder) -> None:
        """Planned calls that have not begun are withdrawn, and what they asked people with them: the model sees the message first."""
        state, payload = self.state, bytes(order.payload)
        withdrawn = tuple([call for call, mark in state.pending.items() if mark.kind is None and not mark.opened])
        for call in withdrawn:
            approval = state.pending[call].approval
            if approval is not None and state.approvals[approval].outcome == "pending":
                self._closes.append(CloseApproval(approval, "withdrawn"))
        labels = None if order.trusted else Labels(Integrity.UNTRUSTED)
        event = ev.RunInterrupted(at_us, order.by, withdrawn, -(-len(payload) // 4), labels)
        self.note(event, payload)
        self._told(event, payload)

    def _take_answer(self, at_us: int, answer: ApprovalAnswer) -> None:
        if answer.outcome not in ("edited", "answered"):
            self.note(ev.ApprovalDecided(at_us, answer.approval, answer.outcome, answer.by, answer.reason))
            return
        mark = self.state.approvals.get(answer.approval)
        call = mark.call if mark is not None and mark.outcome == "pending" else ""
        event = ev.ApprovalDecided(at_us, answer.approval, answer.outcome, answer.by, answer.reason, call)
        self.note(event, bytes(answer.content))
        self._told(event, bytes(answer.content))

    def _contradicts(self, at_us: int, late: LateReceipt) -> None:
        """Keep as evidence what a late receipt says against the record: it was done after all, or it was not."""
        mark = self.state.calls.get(late.call)
        recorded = mark.closed if mark is not None else None
        if (
            late.epoch
            and recorded is not None
            and ReceiptStatus.UNKNOWN not in (recorded, late.status)
            and recorded != late.status
        ):
            self.note(ev.EffectContradicted(at_us, late.call, recorded, late.status, late.by), bytes(late.result))

    def _settles(self, late: LateReceipt) -> bool:
        """Whether a late receipt settles an effect of this run that is open or unknown."""
        state, effect = self.state, self.state.open.get(late.call)
        if late.status is ReceiptStatus.UNKNOWN or (effect is not None and effect.model):
            return False
        if late.status is ReceiptStatus.SUCCEEDED or not late.epoch:
            return effect is not None or late.call in state.unknown
        if effect is not None:
            return effect.epoch == late.epoch
        spec = self._spec(late.call)
        return late.call in state.unknown and spec is not None and not (spec.idempotent or spec.reconcilable)

    def _take_late(self, at_us: int, late: LateReceipt) -> None:
        payload, state = bytes(late.result), self.state
        spec, tokens = self._spec(late.call), -(-len(late.result) // 4)
        labels = spec.labels if spec is not None and late.status is ReceiptStatus.SUCCEEDED else None
        event: ev.ToolClosed | ev.EffectResolved
        if late.call in state.unknown:
            event = ev.EffectResolved(at_us, late.call, late.status, late.by, tokens, labels, late.again)
        else:
            code = "" if late.status is ReceiptStatus.SUCCEEDED else "tool.failed"
            cost = state.reserves.get(late.call, {}).get("cost_microusd", 0)
            event = ev.ToolClosed(at_us, late.call, late.status, code, cost, tokens=tokens, labels=labels)
        self.note(event, payload)
        self._told(event, payload)

    def _spec(self, call: str) -> ToolSpec | None:
        mark = self.state.calls.get(call)
        return self._services.gate.catalogue.spec(mark.tool) if mark is not None else None
