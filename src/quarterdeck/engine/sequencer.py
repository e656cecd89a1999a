"""The sole appender of one run's journal.

What has already happened (receipts, inbox rows) is *noted*: folded at once, and carried by the next commit, so that receipts always
precede intents. What is intended is *committed*: folded only when the store has accepted it under the guards. A refused intent
changes nothing; the caller looks at what is new and asks the gate again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.commit import (
    Applied,
    Ask,
    Charge,
    CloseApproval,
    Commit,
    Consume,
    Head,
    InboxRow,
    Outcome,
    Record,
    Refused,
    record,
)
from quarterdeck.core.errors import Corrupt, OwnershipLost, Unavailable
from quarterdeck.core.fold import fold
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.engine.services import Services

RESENDS = 5
"""How often a commit whose outcome is unknown is sent again before the run is given up to its next owner."""

Happening = tuple[ev.Event, bytes | None]
"""An event with its payload."""


class LateReceipt(msgspec.Struct, frozen=True):
    """What a former owner, or an operator, says about an effect; an inbox row of kind ``receipt``."""

    call: str
    status: ReceiptStatus
    by: str
    result: msgspec.Raw = msgspec.Raw(b"null")


class CancelOrder(msgspec.Struct, frozen=True):
    """An inbox row of kind ``cancel``."""

    by: str
    reason: str = ""


class ApprovalAnswer(msgspec.Struct, frozen=True):
    """An inbox row of kind ``approval``; the store wrote it together with the approval's row."""

    approval: str
    outcome: str
    by: str
    reason: str = ""


class Sequencer:
    """Appends to one journal, under one epoch. ``state`` is always the fold of what is durable plus what was noted."""

    def __init__(self, services: Services, run_id: str, epoch: int, state: RunState) -> None:
        self.state = state
        self.run_id = run_id
        self.epoch = epoch
        self._services = services
        self._committed = state.seq
        self._noted: list[Record] = []
        self._inbox: list[int] = []
        self._closes: list[CloseApproval] = []
        self._control = 0
        self._lock = asyncio.Lock()

    def note(self, event: ev.Event, payload: bytes | None = None) -> None:
        """Record something that has happened; durable with the next commit."""
        fold(self.state, event)
        self._noted.append(record(event, payload))

    def receipts(self) -> list[tuple[ev.ToolClosed, bytes | None]]:
        """The receipts of tool calls that were noted and are not durable."""
        noted = [(ev.decode(item.body), item.payload) for item in self._noted]
        return [(event, payload) for event, payload in noted if isinstance(event, ev.ToolClosed)]

    def expire(self, approval: str, now_us: int) -> None:
        """An approval's time is over and nobody has answered."""
        self.note(ev.ApprovalDecided(now_us, approval, "expired", "clock"))
        self._closes.append(CloseApproval(approval, "expired"))

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
        head: Head | None = None,
        charges: tuple[Charge, ...] = (),
        asks: tuple[Ask, ...] = (),
        consumes: tuple[Consume, ...] = (),
        closes: tuple[CloseApproval, ...] = (),
    ) -> Refused | None:
        """Append intents under all guards. ``None``: durable and folded. Otherwise what refused; nothing has changed but what was
        read from the inbox or the facts meanwhile. Raises :class:`OwnershipLost` if the run is someone else's now."""
        async with self._lock:
            refused = await self._append(
                happenings,
                control=self._control,
                facts=self._services.gate.versions,
                head=head,
                charges=charges,
                asks=asks,
                consumes=consumes,
                closes=closes,
            )
        if refused is not None:
            if refused.guard == "control":
                self.read_inbox()
            elif refused.guard == "facts":
                self._services.refresh()
        return refused

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
    ) -> Refused | None:
        noted, inbox, expired = len(self._noted), len(self._inbox), len(self._closes)
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
            )
        )
        if type(outcome) is not Applied:
            return self._refused(outcome)
        after = self._committed
        self._committed += len(records)
        del self._noted[:noted], self._inbox[:inbox], self._closes[:expired]
        for event, _ in happenings:
            fold(self.state, event)
        self._services.hub.committed(self.run_id, after, records)
        return None

    async def _durably(self, commit: Commit) -> Outcome:
        for _ in range(RESENDS):
            try:
                return await self._services.journal.submit(commit)
            except Unavailable as error:
                if error.code != "store.unknown":
                    raise
        raise OwnershipLost("store.unknown", f"the store does not answer for run {self.run_id}; its next owner continues")

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

    def read_inbox(self) -> None:
        """Fold in what others have put into the run's inbox, and judge by its control from now on."""
        self._control, rows = self._services.insights.inbox(self.run_id)
        known = set(self._inbox)
        for row in rows:
            if row.row not in known:
                self._inbox.append(row.row)
                self._fold_in(row)

    def _fold_in(self, row: InboxRow) -> None:
        match row.kind:
            case "cancel":
                order = msgspec.json.decode(row.body, type=CancelOrder)
                self.note(ev.CancelRequested(row.at_us, order.by, order.reason))
            case "approval":
                answer = msgspec.json.decode(row.body, type=ApprovalAnswer)
                self.note(ev.ApprovalDecided(row.at_us, answer.approval, answer.outcome, answer.by, answer.reason))
            case "receipt":
                late = msgspec.json.decode(row.body, type=LateReceipt)
                if late.call in self.state.unknown or late.call in self.state.open:
                    self._take_late(row.at_us, late)
            case _:
                raise Corrupt("inbox.kind", f"run {self.run_id} has an inbox row of unknown kind {row.kind!r}")

    def _take_late(self, at_us: int, late: LateReceipt) -> None:
        payload = bytes(late.result)
        if late.call in self.state.unknown:
            self.note(ev.EffectResolved(at_us, late.call, late.status, late.by), payload)
        elif not self.state.open[late.call].model:
            code = "" if late.status is ReceiptStatus.SUCCEEDED else "tool.failed"
            self.note(ev.ToolClosed(at_us, late.call, late.status, code), payload)
