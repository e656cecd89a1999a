"""A seeded load for one store and the audit of what it left: the two halves of every storage fault suite.

:class:`StoreLoad` makes batches of operations that a correct store must all accept, in the mix of a busy runtime: admissions, claims,
steps with payloads of many sizes, inbox rows, approvals, shared accounts, facts, finished and erased runs. :func:`audit` reads a file
and says everything in it that contradicts itself; :func:`fingerprint` is equal for two files exactly if they hold the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import apsw
import msgspec

from quarterdeck.core.commit import (
    Applied,
    Ask,
    Charge,
    Claim,
    Claimed,
    Commit,
    Consume,
    DecideApproval,
    Deliver,
    Erase,
    Head,
    Key,
    NewRun,
    Op,
    Outcome,
    Record,
    SetAccount,
    SetFact,
    record,
)
from quarterdeck.core.contract import Limits
from quarterdeck.core.events import ApprovalDecided, ApprovalRequested, BudgetMoved, Move, RunFinished, RunStarted, ToolClosed
from quarterdeck.core.vocabulary import ReceiptStatus, Status, StopReason
from quarterdeck.store.chain import GENESIS, chained, payload_digest
from quarterdeck.store.sqlite.rows import rows

START_US = 1_700_000_000_000_000
ACCOUNT = "tenant:t"
BOUND = 1_000
"""The limit of the shared account, low enough to bind."""


@dataclass(slots=True)
class _Run:
    run_id: str
    seq: int
    epoch: int = 0
    control: int = 0
    inbox: list[int] = field(default_factory=list)
    approval: str | None = None
    decided: bool = False
    leased: int = 0
    steps: int = 0


class LoadRefused(Exception):
    """A store refused, or answered wrongly, what a correct one accepts."""


class StoreLoad:
    """Makes batches; must be told each batch's outcomes before it makes the next one.

    Every operation is one that a correct store accepts, so any refusal is a finding: :meth:`learn` raises :class:`LoadRefused`.
    """

    def __init__(self, seed: int, incarnation: int, *, width: int = 4, steps: int = 5) -> None:
        self._rng = Random(seed)
        self._incarnation = incarnation
        self._width = width
        self._steps = steps
        self._now_us = START_US
        self._made = 0
        self._held: list[_Run] = []
        self._waiting: dict[str, _Run] = {}
        self._finished: list[str] = []
        self._leased = 0
        self._facts: dict[str, int] = {}
        self._versions: dict[int, str] = {}
        self._told: list[tuple[Op, _Run | None]] = []
        self.accepted = 0
        self.batches = 0

    def batch(self) -> list[Op]:
        """The next operations, to be applied in this order."""
        self._told = []
        self.batches += 1
        if not self._made:
            self._say(SetAccount(ACCOUNT, Limits(tool_calls=BOUND)))
        if len(self._held) + len(self._waiting) < self._width:
            for _ in range(self._rng.randint(1, 3)):
                self._admit()
        if self._waiting:
            self._say(Claim("w1", self._rng.randint(1, 3), self._next_us(), f"claim-{self._now_us}"))
        for run in self._held:
            self._step(run)
        if self._finished and self._rng.random() < 0.3:
            self._say(Erase(self._finished.pop(), self._next_us()))
        if self._rng.random() < 0.15:
            self._say(SetFact("switches", f"v{self._rng.randint(0, 3)}", self._next_us()))
        return [op for op, _ in self._told]

    def delivery(self) -> Op | None:
        """An operation as another process might put beside the batches, or ``None`` if no run is there yet."""
        runs = [*self._held, *self._waiting.values()]
        self._told = []
        if runs:
            self._deliver(self._rng.choice(runs))
        return self._told[0][0] if self._told else None

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of the last batch into account."""
        for (op, run), outcome in zip(self._told, outcomes, strict=True):
            self.accepted += 1
            match outcome:
                case Claimed():
                    for claimed in outcome.runs:
                        taken = self._waiting.pop(claimed.run_id)
                        if taken.seq != claimed.seq:
                            raise LoadRefused(f"{claimed} was claimed at the wrong place; it ends at {taken.seq}")
                        taken.epoch = claimed.epoch
                        self._held.append(taken)
                case Applied(number):
                    if isinstance(op, Deliver) and run is not None:
                        run.inbox.append(number)
                    elif isinstance(op, SetFact):
                        self._facts[op.name] = number
                    elif isinstance(op, Commit) and number != op.seq + len(op.records):
                        raise LoadRefused(f"{op.run_id} ends at {number} after {len(op.records)} events at {op.seq}")
                case _:
                    raise LoadRefused(f"{type(op).__name__} of batch {self.batches} was answered with {outcome}")
        self._held = [run for run in self._held if run.epoch >= 0]

    def _say(self, op: Op, run: _Run | None = None) -> None:
        self._told.append((op, run))

    def _next_us(self) -> int:
        self._now_us += self._rng.randint(1, 1_000)
        return self._now_us

    def _bytes(self) -> bytes:
        return self._rng.randbytes(self._rng.choice((0, 10, 10, 200, 200, 1_500, 9_000)))

    def _admit(self) -> None:
        self._made += 1
        at_us, name = self._next_us(), f"r{self._made}"
        records = (Record(b'{"kind":"run.admitted","run":"%d"}' % self._made, self._bytes()),)
        new = NewRun("t", "route", "agent", "alice", at_us, self._rng.randbytes(16))
        key = Key("t", f"key-{name}", "digest", at_us + 10**12) if self._made % 2 else None
        self._say(Commit(name, 0, 0, self._incarnation, records, at_us, new=new, key=key))
        self._waiting[name] = _Run(name, 1)

    def _deliver(self, run: _Run) -> None:
        run.control += 1
        self._say(Deliver(run.run_id, "signal", self._bytes(), self._next_us(), f"token-{run.control}"), run)

    def _step(self, run: _Run) -> None:
        at_us = self._next_us()
        run.steps += 1
        if run.approval is not None and not run.decided:
            digest = f"digest-{run.approval}"
            self._say(DecideApproval(run.approval, digest, "approved", "bob", "", at_us), run)
            run.decided = True
            run.control += 1
            return
        if run.steps > self._steps:
            self._finish(run, at_us)
            return
        if self._rng.random() < 0.3:
            self._deliver(run)
        closed = ToolClosed(at_us, f"t{run.steps}.0", ReceiptStatus.SUCCEEDED)
        records = [record(RunStarted(at_us, "w1", run.epoch)), record(closed, self._bytes())]
        charges, moved = self._charge(run, at_us)
        asks, consumes = self._approve(run, at_us, records)
        commit = Commit(
            run.run_id, run.seq, run.epoch, self._incarnation, (*records, *moved), at_us, control=run.control,
            facts=dict(self._facts), charges=charges, asks=asks, consumes=consumes, inbox=tuple(run.inbox),
        )  # fmt: skip
        run.inbox = []
        run.seq += len(commit.records)
        self._say(commit, run)

    def _charge(self, run: _Run, at_us: int) -> tuple[tuple[Charge, ...], list[Record]]:
        free = BOUND - self._leased
        leased = min(free, self._rng.randint(0, 40))
        returned = self._rng.randint(0, run.leased)
        spent = self._rng.randint(0, returned)
        if not leased and not returned:
            return (), []
        # What is spent stays counted against the bound; what is returned unspent is free again.
        run.leased += leased - returned
        self._leased += leased - returned + spent
        move = Move(ACCOUNT, "tool_calls", leased, returned, spent)
        return (Charge(move, BOUND),), [record(BudgetMoved(at_us, (move,)))]

    def _approve(self, run: _Run, at_us: int, records: list[Record]) -> tuple[tuple[Ask, ...], tuple[Consume, ...]]:
        if run.approval is not None:
            name, run.approval, run.decided = run.approval, None, False
            records.append(record(ApprovalDecided(at_us, name, "approved", "bob")))
            return (), (Consume(name, f"digest-{name}", at_us),)
        if self._rng.random() < 0.2:
            name = run.approval = f"{run.run_id}-a{run.steps}"
            expires_at_us = at_us + 10**12
            records.append(record(ApprovalRequested(at_us, name, "t1.0", f"digest-{name}", expires_at_us)))
            return (Ask(name, "t1.0", "tool", f"digest-{name}", "alice", expires_at_us, self._bytes()),), ()
        return (), ()

    def _finish(self, run: _Run, at_us: int) -> None:
        move = Move(ACCOUNT, "tool_calls", 0, run.leased, 0)
        records = (
            record(BudgetMoved(at_us, (move,))),
            record(RunFinished(at_us, Status.SUCCEEDED, StopReason.COMPLETED, ""), self._bytes()),
        )
        head = Head("succeeded", "completed", release=True)
        inbox = tuple(run.inbox)
        self._say(
            Commit(
                run.run_id, run.seq, run.epoch, self._incarnation, records, at_us, head=head, charges=(Charge(move),), inbox=inbox
            ),
            run,
        )
        self._leased -= run.leased
        self._finished.append(run.run_id)
        run.epoch = -1


_TABLES = ("meta", "runs", "contracts", "events", "ready", "claims", "inbox", "approvals", "accounts", "idempotency", "facts")


def fingerprint(db: apsw.Connection) -> bytes:
    """A digest of every row of every table."""
    digest = hashlib.sha256()
    for table in _TABLES:
        for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):  # noqa: S608 - our own table names
            digest.update(repr(row).encode())
    return digest.digest()


def audit(db: apsw.Connection) -> list[str]:
    """Everything in a file that contradicts itself, as sentences; empty for a sound one.

    Journals without gaps whose hash chain and payload digests verify and end where the run's row says; counters of control equal to
    the inbox rows; shared accounts equal to the sum of the movements in all journals, within their bound; nothing orphaned; every
    free run that could go on is ready.
    """
    findings: list[str] = []
    moved: dict[tuple[str, str], list[int]] = {}
    for run, run_id, seq, head, salt in rows(db, "SELECT id, run_id, seq, head, salt FROM runs"):
        findings += _journal(db, run, run_id, seq, head, salt, moved)
    for account, dimension, bound, committed, reserved in rows(db, "SELECT * FROM accounts"):
        spent, held = moved.pop((account, dimension), [0, 0])
        if (committed, reserved) != (spent, held):
            findings.append(f"account {account}|{dimension} holds {committed}+{reserved}, its journals say {spent}+{held}")
        if bound is not None and committed + reserved > bound:
            findings.append(f"account {account}|{dimension} is over its bound: {committed}+{reserved} > {bound}")
    findings += [f"account {name} is missing" for name in moved]
    for what, query in _MUST_BE_EMPTY.items():
        findings += [f"{what}: {row}" for row in rows(db, query)]
    return findings


_MUST_BE_EMPTY = {
    "events of no run": "SELECT run FROM events WHERE run NOT IN (SELECT id FROM runs)",
    "run without contract": "SELECT run_id FROM runs WHERE id NOT IN (SELECT run FROM contracts)",
    "key of no run": "SELECT key FROM idempotency WHERE run NOT IN (SELECT id FROM runs)",
    "control is not the number of inbox rows": (
        "SELECT run_id, control FROM runs r WHERE control <> (SELECT count(*) FROM inbox i WHERE i.run = r.id)"
    ),
    "free and not ready": (
        "SELECT run_id FROM runs WHERE worker IS NULL AND status IN ('queued', 'running') AND id NOT IN (SELECT run FROM ready)"
    ),
    "approval used without consent": "SELECT approval FROM approvals WHERE consumed = 1 AND status <> 'approved'",
}


def _journal(
    db: apsw.Connection, run: int, run_id: str, seq: int, head: bytes, salt: bytes | None, moved: dict[tuple[str, str], list[int]]
) -> list[str]:
    findings: list[str] = []
    events = rows(db, "SELECT seq, body, payload, payload_digest, hash FROM events WHERE run = ? ORDER BY seq", (run,))
    if [row[0] for row in events] != list(range(1, seq + 1)):
        findings.append(f"{run_id} says {seq} events and has {[row[0] for row in events]}")
    previous = GENESIS
    for number, body, payload, digest, stored in events:
        if payload is not None and digest != payload_digest(salt or b"", payload):
            findings.append(f"{run_id}#{number}: the payload is not the one that was digested")
        previous = chained(previous, number, body, digest)
        if previous != stored:
            findings.append(f"{run_id}#{number}: the hash chain is broken")
        if body.startswith(b'{"kind":"budget.moved"'):
            for move in msgspec.json.decode(body, type=BudgetMoved).moves:
                sums = moved.setdefault((move.account, move.dimension), [0, 0])
                sums[0] += move.spent
                sums[1] += move.leased - move.returned
    if previous != head:
        findings.append(f"{run_id}: the journal does not end in the head of its row")
    return findings
