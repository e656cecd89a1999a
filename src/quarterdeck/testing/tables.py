"""The rows of a store, as Python values, and how operations change them: the append contract without a database.

:class:`Tables` applies the same operations with the same answers as every other store. Each operation is first checked
whole and only then carried out, so there is nothing to undo: what is refused has changed nothing. It is synchronous,
deterministic and has no clock, thread or file; :mod:`quarterdeck.testing.memory` puts the ports of a store around it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from quarterdeck.core.audit import Audit, AuditRow, appended, entry, removal
from quarterdeck.core.budget import SHARED, spent_by
from quarterdeck.core.commit import (
    AddAudit,
    AddKey,
    Applied,
    Ask,
    Claim,
    Claimed,
    ClaimedRun,
    Commit,
    Consume,
    DecideApproval,
    DecidePost,
    Deliver,
    Erase,
    GiveBack,
    Head,
    InboxRow,
    Key,
    NewRun,
    Op,
    Outcome,
    Purge,
    Purged,
    Refused,
    RevokeKey,
    SetAccount,
    SetFact,
    SettleLetter,
    SettlePost,
    TakePosts,
    audit_of,
    decision,
    line_of,
    unstorable,
)
from quarterdeck.core.fairness import ready_from_us
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import AccountRow, ApprovalRow, ErasureRow, FactRow, KeyRow, LetterRow, StoredEvent
from quarterdeck.store.chain import GENESIS, chained, payload_digest
from quarterdeck.testing.tables_outbox import Outbox

_INT64 = 2**63
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Op] = msgspec.msgpack.Decoder(Op)


class Poison(Exception):
    """An operation that no store could ever apply."""


@dataclass(slots=True)
class Run:
    """One run's rows. ``position`` is its place among all runs ever admitted; ``inbox`` holds what is not consumed
    yet."""

    position: int
    run_id: str
    new: NewRun
    salt: bytes | None
    status: str = "queued"
    reason: str = ""
    code: str = ""
    waiting_on: tuple[str, ...] = ()
    wake_at_us: int | None = None
    seq: int = 0
    epoch: int = 0
    control: int = 0
    worker: str | None = None
    head: bytes = GENESIS
    updated_at_us: int = 0
    line: str | None = None
    behind: bool = False
    events: list[StoredEvent] = field(default_factory=list)
    inbox: dict[int, InboxRow] = field(default_factory=dict)
    tokens: dict[str, InboxRow] = field(default_factory=dict)
    deaths: tuple[int, ...] = ()


@dataclass(slots=True)
class Attachments:
    """What a commit changes beside its own run, computed before anything is changed."""

    accounts: dict[tuple[str, str], AccountRow] = field(default_factory=dict)
    approvals: dict[str, ApprovalRow] = field(default_factory=dict)
    exclusive: dict[str, tuple[str, str]] | None = None


class Tables:
    """All rows of one store. Several owners may use one instance, one after the other or at once."""

    def __init__(self, incarnation: int = 1) -> None:
        self.incarnation = incarnation
        self.runs: dict[str, Run] = {}
        self.ready: dict[str, int] = {}
        self.approvals: dict[str, ApprovalRow] = {}
        self.accounts: dict[tuple[str, str], AccountRow] = {}
        self.keys: dict[tuple[str, str], tuple[str, Key]] = {}
        self.facts: dict[str, FactRow] = {}
        self.claims: dict[str, tuple[str, Claimed]] = {}
        self.api_keys: dict[str, KeyRow] = {}
        self.audit: list[AuditRow] = []
        self.letters: dict[str, LetterRow] = {}
        self.rows = 0
        self.outbox = Outbox()
        self.exclusive: dict[str, tuple[str, str]] = {}
        self.erasures: list[ErasureRow] = []
        self.admitted = 0

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        """Apply operations in order, each whole or not at all, and answer each."""
        return [self._one(op) for op in batch]

    def adopt(self, dead: frozenset[str] | None = None, *, died: bool = True) -> None:
        """Release what dead workers hold, and make ready what somebody has to look at; ``None``: all are dead. Not ``died``: they
        have given it up.
        """
        for run in self.runs.values():
            if dead is not None and run.worker is not None and run.worker not in dead:
                continue
            waits_its_turn = run.behind and run.worker is None
            if (run.status in ("queued", "running") and not waits_its_turn) or (
                run.status == "waiting" and (run.worker or run.inbox)
            ):
                self.ready.setdefault(run.run_id, run.updated_at_us)
            if run.worker is not None and died:
                run.deaths = (*run.deaths[-15:], run.seq)
            run.worker = None
        if dead is None:
            self.outbox.free_all()
        self.claims = {w: claim for w, claim in self.claims.items() if dead is not None and w not in dead}

    def _one(self, op: Op) -> Outcome:
        try:
            op = storable(op)
            outcome = self._operation(op)
        except Poison as poison:
            return Refused("poison", str(poison)[:200])
        said = audit_of(op)
        if said is not None and isinstance(outcome, Applied):
            self._record(said)
        return outcome

    def _record(self, said: Audit) -> None:
        body = entry(said)
        if all(row.body != body for row in self.audit):
            self.audit.append(appended(self.audit, body))

    def _operation(self, op: Op) -> Outcome:
        match op:
            case Commit():
                return self._commit(op)
            case Deliver():
                return self._deliver(op)
            case DecideApproval():
                return self._decide(op)
            case Claim():
                return self._claim(op)
            case GiveBack():
                return self._give_back(op)
            case SetFact():
                return self._set_fact(op)
            case SetAccount():
                return self._set_account(op)
            case Erase():
                return self._erase(op)
            case Purge():
                return self._purge(op)
            case TakePosts():
                return self.outbox.take(op)
            case SettlePost():
                return self.outbox.settle(op)
            case DecidePost():
                return self.outbox.decide(op)
            case SettleLetter():
                return self._settle_letter(op)
            case AddKey():
                return self._add_key(op)
            case RevokeKey():
                return self._revoke_key(op)
            case AddAudit():
                return Applied(0)
            case _:
                assert_never(op)

    def _commit(self, commit: Commit) -> Outcome:
        if commit.incarnation != self.incarnation:
            return Refused("incarnation", str(self.incarnation))
        wrong = unstorable(commit)
        if wrong is not None:
            return Refused("poison", wrong)
        if commit.new is not None:
            return self._admit(commit, commit.new)
        run = self.runs.get(commit.run_id)
        if run is None:
            return Refused("run", commit.run_id)
        if self._is_repeated(commit, run):
            return Applied(commit.seq + len(commit.records))
        refused = self._guard(commit, run)
        if refused is not None:
            return refused
        attached = self._attach(commit, run)
        if isinstance(attached, Refused):
            return attached
        self._append(commit, run, attached)
        return Applied(run.seq)

    def _is_repeated(self, commit: Commit, run: Run) -> bool:
        stored = run.events[commit.seq : commit.seq + len(commit.records)]
        if not commit.records or len(stored) != len(commit.records):
            return False
        return all(
            event.body == item.body and (event.payload == item.payload or (_is_erased(event) and item.payload is not None))
            for item, event in zip(commit.records, stored, strict=True)
        )

    def _guard(self, commit: Commit, run: Run) -> Refused | None:
        if run.epoch != commit.epoch or run.worker is None:
            return Refused("epoch", str(run.epoch))
        if run.seq != commit.seq:
            return Refused("seq", str(run.seq))
        if commit.control is not None and run.control != commit.control:
            return Refused("control", str(run.control))
        return self._guard_facts(commit)

    def _guard_facts(self, commit: Commit) -> Refused | None:
        for name, version in (commit.facts or {}).items():
            row = self.facts.get(name)
            if version != (row.version if row is not None else 0):
                return Refused("facts", name)
        return None

    def _attach(self, commit: Commit, run: Run) -> Attachments | Refused:
        attached = Attachments()
        for charge in commit.charges:
            move, name = charge.move, (charge.move.account, charge.move.dimension)
            row = attached.accounts.get(name) or self.accounts.get(name) or AccountRow(*name, charge.limit, 0, 0)
            committed, reserved = row.committed + move.spent, row.reserved + move.leased - move.returned
            if move.leased and not self._fits(row.limit, committed + reserved):
                return Refused("account", "|".join(name))
            if not (abs(committed) < _INT64 and abs(reserved) < _INT64):
                raise Poison(f"account {name[0]} overflows")
            attached.accounts[name] = AccountRow(*name, row.limit, committed, reserved)
        for consume in commit.consumes:
            approval = attached.approvals.get(consume.approval) or self.approvals.get(consume.approval)
            if approval is None or approval.run_id != run.run_id or not self._is_usable(approval, consume):
                return Refused("approval", consume.approval)
            attached.approvals[consume.approval] = msgspec.structs.replace(approval, consumed=True)
        for ask in commit.asks:
            if ask.approval in attached.approvals or ask.approval in self.approvals:
                raise Poison(f"approval {ask.approval} exists")
            attached.approvals[ask.approval] = _asked(ask, run)
        for closed in commit.closes:
            approval = attached.approvals.get(closed.approval) or self.approvals.get(closed.approval)
            if approval is not None and approval.run_id == run.run_id and approval.status == "pending":
                attached.approvals[closed.approval] = msgspec.structs.replace(approval, status=closed.status)
        if commit.takes or commit.frees:
            refused = self._exchange(commit, attached)
            if refused is not None:
                return refused
        if commit.writes:
            return Refused("statement", "this store has no tables of an author's")
        if self.outbox.has(commit.outbox):
            raise Poison("a message of that name exists")
        return attached

    def _exchange(self, commit: Commit, attached: Attachments) -> Refused | None:
        held = attached.exclusive = dict(self.exclusive)
        for free in commit.frees:
            if held.get(free.key) == (commit.run_id, free.call):
                del held[free.key]
        for take in commit.takes:
            if held.setdefault(take.key, (commit.run_id, take.call)) != (commit.run_id, take.call):
                return Refused("exclusive", f"{take.key}|{held[take.key][0]}")
        return None

    def _fits(self, limit: int | None, total: int) -> bool:
        return limit is None or total <= limit

    def _is_usable(self, approval: ApprovalRow, consume: Consume) -> bool:
        approved = approval.status == "approved" and not approval.consumed
        return approved and approval.digest == consume.digest and approval.expires_at_us > consume.at_us

    def _append(self, commit: Commit, run: Run, attached: Attachments) -> None:
        for item in commit.records:
            run.seq += 1
            digest = None if item.payload is None else payload_digest(run.salt or b"", item.payload)
            run.head = chained(run.head, run.seq, item.body, digest)
            run.events.append(StoredEvent(run.seq, item.body, item.payload, digest, run.head))
        run.updated_at_us = commit.at_us
        if commit.head is not None and commit.new is None:
            self._set_head(run, commit.head)
        for row in commit.inbox:
            run.inbox.pop(row, None)
        self.accounts.update(attached.accounts)
        self.approvals.update(attached.approvals)
        if attached.exclusive is not None:
            self.exclusive = attached.exclusive
        self.outbox.put(run.run_id, run.new.tenant, commit.outbox, commit.at_us)
        for order in commit.delivers:
            self._deliver(order)

    def _set_head(self, run: Run, head: Head) -> None:
        run.status, run.reason, run.code = head.status, head.reason, head.code
        run.waiting_on, run.wake_at_us = head.waiting_on, head.wake_at_us
        if head.release:
            run.worker = None
        if run.status in TERMINAL and run.line is not None:
            self._advance(run, run.line)

    def _advance(self, run: Run, line: str) -> None:
        """A run that stood in a line has ended: whoever is the first there now may be claimed."""
        run.line, run.behind = None, False
        first = next((other for other in self.runs.values() if other.line == line), None)
        if first is not None and first.behind:
            first.behind = False
            self.ready.setdefault(first.run_id, run.updated_at_us)

    def _admit(self, commit: Commit, new: NewRun) -> Outcome:
        if commit.seq != 0:
            return Refused("seq", "an admission begins a journal at sequence 0")
        found = self.runs.get(commit.run_id)
        if found is not None:
            same = self._is_repeated(commit, found)
            return Applied(len(commit.records)) if same else Refused("run", commit.run_id)
        key = commit.key
        held = self._held(key, commit.at_us) if key is not None else None
        if key is not None and held is not None:
            return Refused("key" if held[1].body_digest == key.body_digest else "digest", held[0])
        refused = self._guard_facts(commit)
        if refused is not None:
            return refused
        run = Run(self.admitted, commit.run_id, new, new.salt, line=line_of(new))
        attached = self._attach(commit, run)
        if isinstance(attached, Refused):
            return attached
        self._append(commit, run, attached)
        self.admitted += 1
        run.behind = run.line is not None and any(other.line == run.line for other in self.runs.values())
        self.runs[run.run_id] = run
        if not run.behind:
            self.ready[run.run_id] = ready_from_us(new.priority, commit.at_us)
        if key is not None:
            self.keys[key.tenant, key.key] = (run.run_id, key)
        return Applied(run.seq)

    def _held(self, key: Key, at_us: int) -> tuple[str, Key] | None:
        held = self.keys.get((key.tenant, key.key))
        return held if held is not None and held[1].expires_at_us > at_us else None

    def _deliver(self, op: Deliver) -> Outcome:
        run = self.runs.get(op.run_id)
        if run is None:
            return Refused("run", op.run_id)
        earlier = run.tokens.get(op.token)
        if earlier is not None:
            return Applied(earlier.row)
        if run.status in TERMINAL:
            return Refused("terminal", run.status)
        return self._put_inbox(run, op.kind, op.body, op.at_us, op.token)

    def _put_inbox(self, run: Run, kind: str, body: bytes, at_us: int, token: str) -> Applied:
        self.rows += 1
        run.inbox[self.rows] = run.tokens[token] = InboxRow(self.rows, kind, body, at_us)
        run.control += 1
        if run.worker is None and (not run.behind or kind == "cancel"):
            self.ready.setdefault(run.run_id, at_us)
        if kind == "cancel":
            self.outbox.withdraw(run.run_id)
        return Applied(self.rows)

    def _decide(self, op: DecideApproval) -> Outcome:
        approval = self.approvals.get(op.approval)
        if approval is None:
            return Refused("approval", op.approval)
        run = self.runs[approval.run_id]
        token = f"approval:{op.approval}"
        body = decision(op)
        if approval.status != "pending":
            earlier = run.tokens.get(token)
            if earlier is not None and (earlier.body, earlier.at_us) == (body, op.at_us):
                return Applied(earlier.row)
        refused = self._guard_decision(op, approval, run)
        if refused is not None:
            return refused
        decided = msgspec.structs.replace(approval, status=op.outcome, decided_by=op.by, reason=op.reason)
        self.approvals[op.approval] = decided
        return self._put_inbox(run, "approval", body, op.at_us, token)

    def _guard_decision(self, op: DecideApproval, approval: ApprovalRow, run: Run) -> Refused | None:
        if approval.status != "pending":
            return Refused("decided", approval.status)
        if approval.digest != op.digest:
            return Refused("digest", approval.digest)
        if op.at_us >= approval.expires_at_us:
            return Refused("expired", str(approval.expires_at_us))
        if op.by == approval.requested_by:
            return Refused("self", op.by)
        return Refused("terminal", run.status) if run.status in TERMINAL else None

    def _claim(self, op: Claim) -> Outcome:
        told = self.claims.get(op.worker)
        if op.token and told is not None and told[0] == op.token:
            return told[1]
        for run in self.runs.values():
            if run.wake_at_us is not None and run.wake_at_us <= op.now_us and run.worker is None:
                self.ready.setdefault(run.run_id, run.wake_at_us)
                run.wake_at_us = None
        has = (
            self.ready
            if op.programs is None
            else [name for name in self.ready if self.runs[name].new.needs in ("", *op.programs)]
        )
        picked = heapq.nsmallest(op.limit, has, key=lambda name: (self.ready[name], self.runs[name].position))
        answer = Claimed(tuple(self._claimed(picked, op.worker)))
        if op.token and answer.runs:
            self.claims[op.worker] = (op.token, answer)
        return answer

    def _claimed(self, picked: Sequence[str], worker: str) -> Iterator[ClaimedRun]:
        for name in picked:
            del self.ready[name]
            run = self.runs[name]
            if run.worker is None and run.status in ("queued", "running", "waiting"):
                run.epoch += 1
                run.worker = worker
                yield ClaimedRun(run.run_id, run.seq, run.epoch, run.deaths)

    def _settle_letter(self, op: SettleLetter) -> Outcome:
        run = self.runs.get(op.run_id)
        if run is None:
            return Refused("run", op.run_id)
        if run.status not in TERMINAL:
            return Refused("terminal", run.status)
        self.letters.setdefault(op.run_id, LetterRow(op.run_id, op.how, op.by, op.why, op.at_us))
        return Applied(0)

    def _give_back(self, op: GiveBack) -> Outcome:
        run = self.runs.get(op.run_id)
        if run is None or run.epoch != op.epoch or run.worker is None:
            return Refused("epoch")
        run.worker = None
        self.ready.setdefault(run.run_id, op.at_us)
        return Applied(0)

    def _set_fact(self, op: SetFact) -> Outcome:
        row = self.facts.get(op.name)
        version = row.version if row is not None else 0
        repeated = row is not None and op.expected is not None and (version, row.value) == (op.expected + 1, op.value)
        if op.expected is not None and op.expected != version and not repeated:
            return Refused("facts", op.name)
        if row is None or row.value != op.value:
            row = self.facts[op.name] = FactRow(op.name, row.version + 1 if row is not None else 1, op.value)
        return Applied(row.version)

    def _set_account(self, op: SetAccount) -> Outcome:
        for dimension in SHARED:
            name = (op.account, str(dimension))
            row = self.accounts.get(name) or AccountRow(*name, None, 0, 0)
            self.accounts[name] = msgspec.structs.replace(row, limit=op.limits.limit(dimension))
        return Applied(0)

    def _erase(self, op: Erase) -> Outcome:
        run = self.runs.get(op.run_id)
        if run is None:
            return Refused("run", op.run_id)
        if run.status not in TERMINAL:
            return Refused("terminal", run.status)
        run.salt = None
        run.events = [msgspec.structs.replace(event, payload=None) for event in run.events]
        run.inbox = {row: msgspec.structs.replace(item, body=b"") for row, item in run.inbox.items()}
        run.tokens = {token: msgspec.structs.replace(item, body=b"") for token, item in run.tokens.items()}
        for name, approval in self.approvals.items():
            if approval.run_id == op.run_id:
                self.approvals[name] = msgspec.structs.replace(approval, shown=b"")
        self.outbox.erase(run.run_id, op.at_us)
        if all(row.run_id != run.run_id for row in self.erasures):
            self.erasures.append(ErasureRow(run.run_id, run.new.tenant, run.new.actor, op.by, op.reason, op.at_us))
        return Applied(0)

    def _purge(self, op: Purge) -> Outcome:
        """Positions count from 1 here, as rows of a database do."""
        before_us = op.now_us - op.retain_us
        removed = after = 0
        spent: Counter[tuple[str, str]] = Counter()
        seen = [run for run in self.runs.values() if run.new.route == op.route and run.position + 1 > op.after]
        for run in sorted(seen, key=lambda one: one.position)[: op.limit]:
            if run.new.admitted_at_us > before_us:
                after = 0
                break
            after = run.position + 1
            if self._is_over(run, before_us):
                spent.update(spent_by([event.body for event in run.events]))
                self._remove(run)
                removed += 1
        if removed:
            self._record(removal(op.route, removed, spent, op.now_us))
        return Purged(removed, after)

    def _is_over(self, run: Run, before_us: int) -> bool:
        return run.status in TERMINAL and run.updated_at_us <= before_us and not self.outbox.is_open(run.run_id)

    def _remove(self, run: Run) -> None:
        del self.runs[run.run_id]
        self.ready.pop(run.run_id, None)
        self.outbox.remove(run.run_id)
        self.letters.pop(run.run_id, None)
        self.approvals = {name: row for name, row in self.approvals.items() if row.run_id != run.run_id}
        self.keys = {name: held for name, held in self.keys.items() if held[0] != run.run_id}
        self.exclusive = {key: held for key, held in self.exclusive.items() if held[0] != run.run_id}

    def _add_key(self, op: AddKey) -> Outcome:
        row = KeyRow(op.prefix, op.digest, op.label, op.subject, op.grants, op.created_by, op.at_us, op.expires_at_us)
        held = self.api_keys.get(op.prefix)
        if held is not None:
            return Applied(0) if self._is_same_key(row, held) else Refused("key", op.prefix)
        if op.first and self.api_keys:
            return Refused("key", op.prefix)
        self.api_keys[op.prefix] = row
        return Applied(0)

    def _is_same_key(self, row: KeyRow, held: KeyRow) -> bool:
        return row == msgspec.structs.replace(held, revoked_at_us=None, revoked_by="", reason="")

    def _revoke_key(self, op: RevokeKey) -> Outcome:
        row = self.api_keys.get(op.prefix)
        if row is None:
            return Refused("key", op.prefix)
        if row.revoked_at_us is None:
            ended = msgspec.structs.replace(row, revoked_at_us=op.at_us, revoked_by=op.by, reason=op.reason)
            self.api_keys[op.prefix] = ended
        return Applied(0)


def _is_erased(event: StoredEvent) -> bool:
    return event.payload is None and event.payload_digest is not None


def _asked(ask: Ask, run: Run) -> ApprovalRow:
    return ApprovalRow(
        ask.approval,
        run.run_id,
        run.new.tenant,
        ask.call,
        ask.tool,
        ask.digest,
        ask.requested_by,
        ask.expires_at_us,
        status="pending",
        decided_by="",
        reason="",
        consumed=False,
        shown=ask.shown,
    )


def storable(op: Op) -> Op:
    """The operation as a store would read it back; raises :class:`Poison` where it cannot be written down or read."""
    try:
        copy = _decoder.decode(_encoder.encode(op))
    except (msgspec.ValidationError, OverflowError, TypeError, ValueError) as error:
        raise Poison(str(error)) from None
    if any(not -_INT64 <= number < _INT64 for number in _integers(msgspec.to_builtins(copy, builtin_types=(bytes,)))):
        raise Poison("an integer does not fit 64 bits")
    return copy


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _integers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _integers(item)
