"""A store in memory: the same promises as a durable one, as long as the object lives.

It is for tests and simulations. Every operation is applied inside ``submit``, in order, and answered on the next turn
of the event loop; nothing depends on threads, files or clocks. What a process death leaves behind is modelled exactly:
the rows stay, answers that had not arrived never do. Several owners may share one set of rows:

>>> first = MemoryStore("w1")
>>> first.crash()
>>> second = first.connect("w2")
>>> second.tables is first.tables
True

A *fault hook* sees each operation twice, before and after it is applied. Raising a :class:`QuarterdeckError` there
loses the answer (the caller gets that error, and cannot know which of the two moments it was); returning a future
delays. Any other exception leaves ``submit`` at that very moment, which is how a simulator stops the process there.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from enum import StrEnum

from quarterdeck.core.audit import AuditRow
from quarterdeck.core.commit import Claim, InboxRow, Op, Outcome
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import (
    MAX_PAGE,
    AccountRow,
    ApprovalRow,
    ErasureRow,
    FactRow,
    KeyRow,
    LetterRow,
    Opening,
    PostRow,
    RunPosition,
    RunRow,
    StoredEvent,
    WorkerRow,
    opened,
    page_size,
    unknown_place,
)
from quarterdeck.testing.tables import Run, Tables


class Moment(StrEnum):
    """When a fault hook is asked: before the operation is applied, or after it, before its answer."""

    BEFORE = "before"
    AFTER = "after"


Faults = Callable[[Moment, Op], "asyncio.Future[None] | None"]
"""A fault hook: ``None`` lets things be, a future delays until it is done, a raised error loses the answer."""


def lost_answer() -> Unavailable:
    """The error of an operation whose outcome nobody knows; raised by a fault hook."""
    return Unavailable("store.unknown", "the answer was lost; submit the same operation again")


class MemoryStore:
    """One owner's handle: a ``Journal`` and its ``Insights`` over shared rows.

    With ``quiesced`` (as an embedded store is), there is one owner at a time, and opening proves that every earlier one
    has stopped; opening releases all runs. Without it (as a shared database is), owners come and go independently:
    opening releases only what workers hold that are not alive, and :meth:`declare_dead` is what a lost heartbeat would
    be.
    """

    def __init__(
        self,
        worker: str = "worker",
        *,
        incarnation: int = 1,
        quiesced: bool = True,
        faults: Faults | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.worker = worker
        self.quiesced = quiesced
        self.failing = False
        self._shared = shared if shared is not None else Shared(Tables(incarnation))
        self.tables = self._shared.tables
        self._faults = faults
        self._callback: Callable[[], None] | None = None
        self._hinted = False
        self._pending: deque[tuple[Op, asyncio.Future[Outcome]]] = deque()
        self._stalled = False
        self._open = True
        self._crashed = False
        self._context = copy_context()  # of whoever opened it: hints arrive there, whoever caused them
        self._shared.enter(self)

    def connect(self, worker: str, *, faults: Faults | None = None) -> MemoryStore:
        """Open the same rows for another owner; raises ``Unavailable`` (``store.owned``) if it has its one owner."""
        return MemoryStore(worker, quiesced=self.quiesced, faults=faults, shared=self._shared)

    def crash(self) -> None:
        """The owner dies here: no answer arrives any more, nothing is released. Others do not know it yet."""
        self._open, self._crashed = False, True
        self._pending.clear()
        self._shared.leave(self)

    def declare_dead(self, worker: str) -> None:
        """Release what ``worker`` holds, as others do when its heartbeat has stopped; it may in truth still act."""
        self._shared.bury(worker)

    @property
    def incarnation(self) -> int:
        """The incarnation that commits must name."""
        return self.tables.incarnation

    def submit(self, op: Op) -> asyncio.Future[Outcome]:
        """Apply one operation; it is applied, and not yet answered, when this returns, unless a fault delays it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if not self._open:
            future.set_exception(Unavailable("store.closed", "the store is closed; open it again"))
            return future
        self._pending.append((op, future))
        self._advance()
        return future

    def hints(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the loop after operations that may have made something ready; several are one call."""
        self._callback = callback

    def introduce(self, about: bytes, programs: Collection[str] | None) -> None:
        """Kept for :meth:`workers`."""
        self._shared.known[self.worker] = about

    async def close(self) -> None:
        """Apply what was submitted, then stop. The worker is known to be gone."""
        if not self._open:
            return
        if self._pending:
            await asyncio.wait([future for _, future in self._pending])
        self._open = False
        self._shared.leave(self)
        self._shared.give_up(self)

    def _advance(self) -> None:
        """Apply from the front of the queue for as long as nothing delays it."""
        while self._pending and not self._stalled:
            op, future = self._pending.popleft()
            try:
                delay = self._faults(Moment.BEFORE, op) if self._faults is not None else None
            except QuarterdeckError as error:
                self._answer(future, error)
                continue
            if delay is not None:
                self._stalled = True
                self._pending.appendleft((op, future))
                delay.add_done_callback(lambda _: self._resume())
                return
            self._apply(op, future)

    def _resume(self) -> None:
        self._stalled = False
        if self._pending and not self._crashed:
            self._apply(*self._pending.popleft())
            self._advance()

    def _apply(self, op: Op, future: asyncio.Future[Outcome]) -> None:
        outcome = self._shared.apply(op)
        try:
            delay = self._faults(Moment.AFTER, op) if self._faults is not None else None
        except QuarterdeckError as error:
            self._answer(future, error)
            return
        if delay is not None:
            delay.add_done_callback(lambda _: self._answer(future, outcome))
        else:
            self._answer(future, outcome)

    def _answer(self, future: asyncio.Future[Outcome], answer: Outcome | QuarterdeckError) -> None:
        future.get_loop().call_soon(self._arrive, future, answer)

    def _arrive(self, future: asyncio.Future[Outcome], answer: Outcome | QuarterdeckError) -> None:
        if future.done() or self._crashed:
            return
        if isinstance(answer, QuarterdeckError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def hint(self) -> None:
        """Tell this owner, soon and once, that something may have become ready."""
        if self._callback is not None and not self._hinted and self._open:
            self._hinted = True
            asyncio.get_running_loop().call_soon(self._call_back, context=self._context)

    def _call_back(self) -> None:
        self._hinted = False
        if self._callback is not None and self._open:
            self._callback()

    def events(self, run_id: str, after: int = 0, limit: int = 10_000) -> Sequence[StoredEvent]:
        """The events of a run with a sequence greater than ``after``, in order."""
        run = self.tables.runs.get(run_id)
        return run.events[after : after + limit] if run is not None else []

    def inbox(self, run_id: str) -> tuple[int, Sequence[InboxRow], int]:
        """The run's control counter, its unread inbox rows and its epoch."""
        run = self.tables.runs.get(run_id)
        return (run.control, list(run.inbox.values()), run.epoch) if run is not None else (0, [], 0)

    def run(self, run_id: str) -> RunRow | None:
        """One run, or ``None``."""
        run = self.tables.runs.get(run_id)
        return _row(run) if run is not None else None

    def runs(
        self,
        *,
        status: str | None = None,
        route: str | None = None,
        tenants: Collection[str] | None = None,
        actor: str | None = None,
        correlation: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """Runs, newest first."""
        if before is not None and before not in self.tables.runs:
            raise unknown_place("run", before)
        end = self.tables.runs[before].position if before is not None else self.tables.admitted
        found = [
            _row(run)
            for run in self.tables.runs.values()
            if run.position < end
            and actor in (None, run.new.actor)
            and status in (None, run.status)
            and route in (None, run.new.route)
            and correlation in (None, run.new.correlation_id)
            and (tenants is None or run.new.tenant in tenants)
        ]
        return found[::-1][: page_size(limit)]

    def dead_letters(
        self, *, tenants: Collection[str] | None = None, route: str | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[RunRow]:
        """Runs that could not be done and that nobody has requeued or dropped, the newest first."""
        found = self.runs(status="failed", route=route, tenants=tenants, before=before, limit=MAX_PAGE)
        return [row for row in found if row.reason == "blocked" and row.run_id not in self.tables.letters][: max(1, limit)]

    def letter(self, run_id: str) -> LetterRow | None:
        """What became of a run that was a dead letter, or ``None``."""
        return self.tables.letters.get(run_id)

    def workers(self) -> Sequence[WorkerRow]:
        """Every owner that has said who it is."""
        holders = Counter(run.worker for run in self.tables.runs.values())
        known = self._shared.known
        return [WorkerRow(name, name in self._shared.live, holders[name], about) for name, about in known.items()]

    def keyed(self, tenant: str, key: str, now_us: int) -> str | None:
        """The run that a tenant's idempotency key means at this moment, or ``None``."""
        held = self.tables.keys.get((tenant, key))
        return held[0] if held is not None and held[1].expires_at_us > now_us else None

    def standing(self) -> Mapping[str, int]:
        """How many runs have not ended, by status."""
        return Counter(run.status for run in self.tables.runs.values() if run.status not in TERMINAL)

    def openings(self, run_ids: Sequence[str]) -> Sequence[Opening]:
        """What driving each of these runs begins with."""
        return [opening for run_id in run_ids for opening in opened(self, run_id)]

    def positions(self, run_ids: Sequence[str]) -> Sequence[RunPosition]:
        """Where each of these runs stands."""
        found = [self.tables.runs[run_id] for run_id in run_ids if run_id in self.tables.runs]
        return [RunPosition(run.run_id, run.seq, run.status, run.worker) for run in found]

    def approval(self, approval: str) -> ApprovalRow | None:
        """One approval, or ``None``."""
        return self.tables.approvals.get(approval)

    def approvals(
        self,
        *,
        status: str | None = "pending",
        tenants: Collection[str] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Sequence[ApprovalRow]:
        """Approvals, the nearest deadline first."""
        place = self.tables.approvals.get(after) if after is not None else None
        if after is not None and place is None:
            raise unknown_place("approval", after)
        found = [
            row
            for row in self.tables.approvals.values()
            if status in (None, row.status)
            and (tenants is None or row.tenant in tenants)
            and (place is None or (row.expires_at_us, row.approval) > (place.expires_at_us, place.approval))
        ]
        return sorted(found, key=lambda row: (row.expires_at_us, row.approval))[: page_size(limit)]

    def snapshot(self) -> AbstractContextManager[None]:
        """Nothing changes between two reads of one task here."""
        return nullcontext()

    def accounts(self, name: str | None = None) -> Sequence[AccountRow]:
        """Every shared account, or the one of this name, in every dimension that was ever touched."""
        return [row for _, row in sorted(self.tables.accounts.items()) if name in (None, row.account)]

    def facts(self) -> Sequence[FactRow]:
        """The facts that decisions are judged by."""
        return [row for _, row in sorted(self.tables.facts.items())]

    def due(self, now_us: int, programs: tuple[str, ...] | None = None) -> bool:
        """Whether a claim now would find anything."""
        if any(programs is None or self.tables.runs[name].new.needs in ("", *programs) for name in self.tables.ready):
            return True
        return any(
            run.wake_at_us is not None and run.wake_at_us <= now_us and run.worker is None for run in self.tables.runs.values()
        )

    def key(self, prefix: str) -> KeyRow | None:
        """One API key by its public prefix, or ``None``."""
        return self.tables.api_keys.get(prefix)

    def keys(self) -> Sequence[KeyRow]:
        """Every API key that was ever made, the oldest first."""
        return list(self.tables.api_keys.values())

    def audit(self, after: int = 0, limit: int = 1_000) -> Sequence[AuditRow]:
        """The audit log behind a row, in order."""
        return self.tables.audit[after : after + page_size(limit)]

    def post(self, message: str) -> PostRow | None:
        """One message of the outbox, or ``None``."""
        return self.tables.outbox.find(message)

    def posts(
        self,
        *,
        status: str | None = None,
        topic: str | None = None,
        run_id: str | None = None,
        tenants: Collection[str] | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> Sequence[PostRow]:
        """Messages of the outbox, newest first."""
        place = self.post(before) if before is not None else None
        if before is not None and place is None:
            raise unknown_place("message", before)
        found = [
            row
            for row in self.tables.outbox.rows.values()
            if status in (None, row.status)
            and topic in (None, row.topic)
            and run_id in (None, row.run_id)
            and (tenants is None or row.tenant in tenants)
            and (place is None or row.number < place.number)
        ]
        return found[::-1][: page_size(limit)]

    def posts_due(self, now_us: int) -> bool:
        """Whether taking messages now would find any."""
        return self.tables.outbox.is_due(now_us)

    def erasures(self, limit: int = 1_000) -> Sequence[ErasureRow]:
        """What was erased, newest first."""
        return self.tables.erasures[::-1][: page_size(limit)]

    def salt(self, run_id: str) -> bytes | None:
        """The key of a run's payload digests, or ``None`` after erasure."""
        run = self.tables.runs.get(run_id)
        return run.salt if run is not None else None


class Shared:
    """What the owners of one store have in common: its rows, and who is there. ``live`` are workers thought to be
    alive."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.live: set[str] = set()
        self.known: dict[str, bytes] = {}
        self._owners: list[MemoryStore] = []

    def enter(self, owner: MemoryStore) -> None:
        """An owner opens the store, and adopts what dead ones held."""
        if owner.quiesced and self._owners:
            raise Unavailable("store.owned", "the store is in use by another owner; close or crash that one first")
        self._owners.append(owner)
        if owner.quiesced:
            self.tables.adopt()
        else:
            self.live.add(owner.worker)
            self.tables.adopt(self._dead())

    def leave(self, owner: MemoryStore) -> None:
        """An owner is gone."""
        if owner in self._owners:
            self._owners.remove(owner)

    def give_up(self, owner: MemoryStore) -> None:
        """An owner that is gone in good order holds nothing any more."""
        self.live.discard(owner.worker)
        self.tables.adopt(None if owner.quiesced else frozenset({owner.worker}), died=False)

    def bury(self, worker: str) -> None:
        """A worker is declared dead."""
        self.live.discard(worker)
        self.tables.adopt(frozenset({worker}))
        self._hint()

    def apply(self, op: Op) -> Outcome:
        """Apply one operation and tell every owner that there may be something to do."""
        if isinstance(op, Claim):
            self.live.add(op.worker)
        outcome = self.tables.apply([op])[0]
        if not isinstance(op, Claim):
            self._hint()
        return outcome

    def _dead(self) -> frozenset[str]:
        return frozenset(run.worker for run in self.tables.runs.values() if run.worker) - self.live

    def _hint(self) -> None:
        for owner in self._owners:
            owner.hint()


def _row(run: Run) -> RunRow:
    new = run.new
    return RunRow(
        run.run_id,
        new.tenant,
        new.route,
        new.agent,
        new.actor,
        run.status,
        run.reason,
        run.code,
        run.seq,
        run.epoch,
        run.worker,
        run.waiting_on,
        run.wake_at_us,
        new.admitted_at_us,
        run.updated_at_us,
        new.correlation_id,
        new.thread_id,
        new.parent_run_id,
        new.priority,
        run.head,
    )
