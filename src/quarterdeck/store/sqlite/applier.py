"""Applies operations to the file: one batch, one transaction, each operation whole or not at all.

This is the append contract in code. It runs in the writer's process, on one connection, synchronously; every guard is compared in
the transaction that applies. A batch is first tried in one go; if an operation turns out to be poisonous (it raises), the batch is
rolled back and applied again operation by operation, so that the others still land.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from typing import assert_never

import apsw
import msgspec

from quarterdeck.core.audit import ORIGIN, Audit, entry, linked
from quarterdeck.core.commit import (
    AddAudit,
    AddKey,
    Applied,
    Claim,
    Claimed,
    ClaimedRun,
    Commit,
    DecideApproval,
    DecidePost,
    Deliver,
    Erase,
    GiveBack,
    Op,
    Outcome,
    Purge,
    Record,
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
from quarterdeck.store.chain import GENESIS, chained, payload_digest
from quarterdeck.store.sqlite import posting
from quarterdeck.store.sqlite.purging import purge
from quarterdeck.store.sqlite.rows import Row, one, rows
from quarterdeck.store.sqlite.statements import load
from quarterdeck.store.sqlite.writing import write

CHECKPOINT_PAGES = 4_000
"""Pages in the log from which :meth:`Applier.checkpoint` copies them into the file."""

_STORAGE = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
    apsw.CantOpenError,
)
"""Errors of the storage itself: the batch is rolled back and the writer stops. They are never retried in place."""


_ANSWER = msgspec.msgpack.Decoder(tuple[ClaimedRun, ...])


def _same(item: Record, stored: tuple[object, ...]) -> bool:
    """Whether a stored event (body, payload, digest) is this one. Of an erased payload is known only that there was one."""
    body, payload, digest = stored
    erased = payload is None and digest is not None and item.payload is not None
    return body == item.body and (erased or payload == item.payload)


class Applier:
    """The one writer of a file. Not thread-safe; whoever owns the connection calls it, one batch at a time."""

    def __init__(self, connection: apsw.Connection, checkpoint_pages: int = CHECKPOINT_PAGES) -> None:
        self._db = connection
        self._checkpoint_pages = checkpoint_pages
        self._log_pages = 0
        connection.set_wal_hook(self._committed)
        self._execute = connection.execute
        self._sql = load("write")
        self._sql["end"] = f"{self._sql['step_head']} RETURNING line"
        self._runs: dict[str, tuple[int, int, bytes, bytes | None]] = {}
        self._facts: dict[str, int] = {}
        self.incarnation: int = self._one("meta", ("incarnation",))[0]

    def apply(self, batch: Sequence[Op]) -> list[Outcome]:
        """Apply a batch durably and answer each operation, in order.

        Raises an ``apsw`` storage error if the file cannot be written; then nothing of the batch is in it, unless the error came
        from the commit itself, whose outcome is unknown until the same operations are applied again.
        """
        try:
            return self._transaction(batch, isolate=False)
        except _STORAGE:
            raise
        except (apsw.Error, OverflowError, TypeError, ValueError):
            return self._transaction(batch, isolate=True)

    def checkpoint(self) -> None:
        """Copy a long log into the file; call it between batches, after the answers are out.

        SQLite's automatic checkpoint would go on after an error of the storage and try again on the same descriptors. This one
        raises it; everything answered is safe in the log.
        """
        if self._log_pages < self._checkpoint_pages:
            return
        with contextlib.suppress(apsw.BusyError):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._log_pages = 0

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _transaction(self, batch: Sequence[Op], *, isolate: bool) -> list[Outcome]:
        self._execute("BEGIN IMMEDIATE")
        try:
            self._facts = dict(rows(self._db, self._sql["facts"]))
            one = self._isolated if isolate else self._recorded
            outcomes = [one(op) for op in batch]
            self._execute("COMMIT")
        except BaseException:
            self._runs.clear()
            if self._db.in_transaction:
                self._execute("ROLLBACK")
            raise
        if len(self._runs) > 50_000:
            self._runs.clear()
        return outcomes

    def _isolated(self, op: Op) -> Outcome:
        self._execute("SAVEPOINT op")
        try:
            outcome = self._recorded(op)
        except _STORAGE:
            raise
        except (apsw.Error, OverflowError, TypeError, ValueError) as error:
            self._undo()
            return Refused("poison", str(error)[:200])
        self._execute("RELEASE op")
        return outcome

    def _undo(self) -> None:
        self._execute("ROLLBACK TO op")
        self._execute("RELEASE op")
        self._runs.clear()

    def _recorded(self, op: Op) -> Outcome:
        """Apply one operation, and with it the row of the audit log that tells of it."""
        outcome = self._operation(op)
        if isinstance(outcome, Applied) and (said := audit_of(op)) is not None:
            self._record(said)
        return outcome

    def _record(self, said: Audit) -> None:
        body = entry(said)
        digest = hashlib.sha256(body).digest()
        if self._execute(self._sql["find_audit"], (digest,)).fetchone() is not None:
            return
        last = self._execute(self._sql["last_audit"]).fetchone()
        seq, previous = last if last is not None else (0, ORIGIN)
        self._execute(self._sql["insert_audit"], (seq + 1, body, digest, linked(previous, seq + 1, body)))

    def _operation(self, op: Op) -> Outcome:
        match op:
            case Commit():
                if op.charges or op.consumes or op.takes or op.writes:
                    return self._all_or_nothing(op)
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
                self._runs.clear()
                outcome, told = purge(self._db, self._sql, op)
                if told is not None:
                    self._record(told)
                return outcome
            case TakePosts():
                return posting.take(self._db, self._sql, op)
            case SettlePost():
                return posting.settle(self._db, self._sql, op)
            case DecidePost():
                return posting.decide(self._db, self._sql, op)
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

    def _all_or_nothing(self, commit: Commit) -> Outcome:
        self._execute("SAVEPOINT guarded")
        try:
            outcome = self._commit(commit)
        except BaseException:
            self._execute("ROLLBACK TO guarded")
            self._execute("RELEASE guarded")
            raise
        if isinstance(outcome, Refused):
            self._execute("ROLLBACK TO guarded")
        self._execute("RELEASE guarded")
        return outcome

    def _commit(self, commit: Commit) -> Outcome:
        if commit.incarnation != self.incarnation:
            return Refused("incarnation", str(self.incarnation))
        wrong = unstorable(commit)
        if wrong is not None:
            return Refused("poison", wrong)
        if commit.new is not None:
            return self._admit(commit)
        found = self._runs.get(commit.run_id)
        if found is None:
            row = self._execute(self._sql["find_run"], (commit.run_id,)).fetchone()
            if row is None:
                return Refused("run", commit.run_id)
            found = row
        run, seq, head, salt = found
        if seq != commit.seq:
            return self._again_or_refused(commit, run)
        if commit.facts is not None:
            for name, version in commit.facts.items():
                if self._facts.get(name, 0) != version:
                    return self._again_or_refused(commit, run, Refused("facts", name))
        return self._append(commit, run, head, salt)

    def _append(self, commit: Commit, run: int, head: bytes, salt: bytes | None) -> Outcome:
        rows, head = self._rows(commit, run, head, salt)
        seq = commit.seq + len(rows)
        guard = (seq, head, commit.at_us, run, commit.seq, commit.epoch, commit.control)
        line = None
        if commit.head is None:
            self._execute(self._sql["step"], guard)
            is_applied = self._db.changes() != 0
        else:
            new = commit.head
            waiting_on = msgspec.json.encode(new.waiting_on).decode()
            fields = (new.status, new.reason, new.code, waiting_on, new.wake_at_us, new.release)
            if new.status in TERMINAL:
                ended = self._execute(self._sql["end"], guard + fields).fetchone()
                is_applied, line = ended is not None, ended[0] if ended is not None else None
            else:
                self._execute(self._sql["step_head"], guard + fields)
                is_applied = self._db.changes() != 0
        if not is_applied:
            return self._again_or_refused(commit, run)
        refused = self._attachments(commit, run)
        if refused is not None:
            return refused
        if line is not None:
            self._advance(run, line, commit.at_us)
        self._db.executemany(self._sql["insert_event"], rows)
        self._runs[commit.run_id] = (run, seq, head, salt)
        return Applied(seq)

    def _rows(self, commit: Commit, run: int, head: bytes, salt: bytes | None) -> tuple[list[tuple[object, ...]], bytes]:
        rows: list[tuple[object, ...]] = []
        seq = commit.seq
        for item in commit.records:
            seq += 1
            digest = None
            if item.payload is not None:
                digest = payload_digest(salt or b"", item.payload)
            head = chained(head, seq, item.body, digest)
            rows.append((run, seq, item.body, item.payload, digest, head))
        return rows, head

    def _attachments(self, commit: Commit, run: int) -> Refused | None:
        """Everything of a commit beside its events; a refusal here undoes the run's row through the savepoint around it."""
        sql, execute = self._sql, self._execute
        for charge in commit.charges:
            move = charge.move
            execute(sql["open_account"], (move.account, move.dimension, charge.limit))
            execute(sql["charge"], (move.account, move.dimension, move.leased, move.returned, move.spent))
            if self._db.changes() == 0:
                return Refused("account", f"{move.account}|{move.dimension}")
        for consume in commit.consumes:
            execute(sql["consume_approval"], (consume.approval, run, consume.digest, consume.at_us))
            if self._db.changes() == 0:
                return Refused("approval", consume.approval)
        for ask in commit.asks:
            values = (ask.approval, run, ask.call, ask.tool, ask.digest, ask.requested_by, ask.expires_at_us, ask.shown)
            execute(sql["insert_approval"], values)
        for closed in commit.closes:
            execute(sql["close_approval"], (closed.status, closed.approval, run))
        for row in commit.inbox:
            execute(sql["consume_inbox"], (row, run))
        if commit.delivers or commit.outbox or commit.takes or commit.frees or commit.writes:
            return self._beside(commit, run)
        return None

    def _beside(self, commit: Commit, run: int) -> Refused | None:
        """What few commits carry: exclusive keys, messages, rows for other runs, statements on the author's own tables."""
        sql, execute = self._sql, self._execute
        for free in commit.frees:
            execute(sql["free_key"], (free.key, run, free.call))
        for take in commit.takes:
            execute(sql["take_key"], (take.key, run, take.call))
            if self._db.changes() == 0:
                holder = execute(sql["key_holder"], (take.key,)).fetchone()
                return Refused("exclusive", f"{take.key}|{holder[0] if holder is not None else ''}")
        for statement in commit.writes:
            wrong = write(self._db, statement)
            if wrong:
                return Refused("statement", wrong)
        for post in commit.outbox:
            posting.put(self._db, sql, run, post, commit.at_us)
        for order in commit.delivers:
            self._deliver(order)
        return None

    def _advance(self, run: int, line: str, at_us: int) -> None:
        """A run that stood in a line has ended: whoever is the first there now may be claimed."""
        self._execute(self._sql["leave_line"], (run,))
        first = self._execute(self._sql["first_in_line"], (line,)).fetchone()
        if first is not None:
            self._execute(self._sql["insert_ready"], (first[0], at_us))

    def _again_or_refused(self, commit: Commit, run: int, refused: Refused | None = None) -> Outcome:
        """Success if exactly these bytes are already there; otherwise the guard that failed."""
        seq, epoch, control, worker = self._one("guards", (run,))
        last = commit.seq + len(commit.records)
        if seq >= last and commit.records:
            stored = self._execute(self._sql["stored_events"], (run, commit.seq, last)).fetchall()
            if all(_same(item, row) for item, row in zip(commit.records, stored, strict=True)):
                return Applied(last)
        if epoch != commit.epoch or worker is None:
            return Refused("epoch", str(epoch))
        if seq != commit.seq:
            return Refused("seq", str(seq))
        if commit.control is not None and control != commit.control:
            return Refused("control", str(control))
        return refused if refused is not None else Refused("seq", str(seq))

    def _admit(self, commit: Commit) -> Outcome:
        new, key, sql = commit.new, commit.key, self._sql
        if new is None or commit.seq != 0:
            return Refused("seq", "an admission begins a journal at sequence 0")
        row = self._execute(sql["find_run"], (commit.run_id,)).fetchone()
        if row is not None:
            outcome = self._again_or_refused(commit, row[0])
            return outcome if isinstance(outcome, Applied) else Refused("run", commit.run_id)
        if key is not None:
            held = self._execute(sql["find_key"], (key.tenant, key.key)).fetchone()
            if held is not None and held[2] > commit.at_us:
                return Refused("key" if held[1] == key.body_digest else "digest", held[0])
        if commit.facts is not None:
            for name, version in commit.facts.items():
                if self._facts.get(name, 0) != version:
                    return Refused("facts", name)
        first_rows, head = self._rows(commit, 0, GENESIS, new.salt)
        values = (commit.run_id, "queued", len(first_rows), head, new.salt, commit.at_us)
        line, behind = line_of(new), False
        if line is None:
            run = self._one("insert_run", values)[0]
        else:
            run, behind = self._one("insert_run_in_line", (*values, line))
        self._execute(
            sql["insert_contract"],
            (
                run,
                new.tenant,
                new.route,
                new.agent,
                new.actor,
                new.admitted_at_us,
                new.correlation_id,
                new.thread_id,
                new.parent_run_id,
                new.priority,
                new.needs,
            ),
        )
        self._db.executemany(sql["insert_event"], [(run, *rest) for _, *rest in first_rows])
        if not behind:
            self._execute(sql["insert_ready"], (run, ready_from_us(new.priority, commit.at_us)))
        if key is not None:
            self._execute(sql["put_key"], (key.tenant, key.key, run, key.body_digest, key.expires_at_us))
        return self._attachments(commit, run) or Applied(len(first_rows))

    def _deliver(self, op: Deliver) -> Outcome:
        row = self._execute(self._sql["run_status"], (op.run_id,)).fetchone()
        if row is None:
            return Refused("run", op.run_id)
        run, status = row
        earlier = self._execute(self._sql["find_token"], (run, op.token)).fetchone()
        if earlier is not None:
            return Applied(earlier[0])
        if status in TERMINAL:
            return Refused("terminal", status)
        return Applied(self._put_inbox(run, op.kind, op.body, op.at_us, op.token))

    def _put_inbox(self, run: int, kind: str, body: bytes, at_us: int, token: str) -> int:
        number: int = self._one("insert_inbox", (run, kind, body, at_us, token))[0]
        self._execute(self._sql["bump_control"], (run,))
        self._execute(self._sql["ready_if_waiting"], (run, at_us, kind == "cancel"))
        if kind == "cancel":
            self._execute(self._sql["withdraw_posts"], (run,))
        return number

    def _decide(self, op: DecideApproval) -> Outcome:
        row = self._execute(self._sql["find_approval"], (op.approval,)).fetchone()
        if row is None:
            return Refused("approval", op.approval)
        run, digest, status, expires_at_us, requested_by, _, run_status = row
        body = decision(op)
        token = f"approval:{op.approval}"
        if status != "pending":
            same = self._execute(self._sql["same_row"], (run, token, body, op.at_us)).fetchone()
            return Applied(same[0]) if same is not None else Refused("decided", status)
        if digest != op.digest:
            return Refused("digest", digest)
        if op.at_us >= expires_at_us:
            return Refused("expired", str(expires_at_us))
        if op.by == requested_by:
            return Refused("self", op.by)
        if run_status in TERMINAL:
            return Refused("terminal", run_status)
        self._execute(self._sql["decide_approval"], (op.outcome, op.by, op.reason, op.approval))
        return Applied(self._put_inbox(run, "approval", body, op.at_us, token))

    def _claim(self, op: Claim) -> Outcome:
        sql, execute = self._sql, self._execute
        if op.token and (told := execute(sql["find_claim"], (op.worker, op.token)).fetchone()) is not None:
            return Claimed(_ANSWER.decode(told[0]))
        execute(sql["due_to_ready"], (op.now_us,))
        execute(sql["due_done"], (op.now_us,))
        claimed: list[ClaimedRun] = []
        programs = None if op.programs is None else msgspec.json.encode(op.programs).decode()
        for (run,) in execute(sql["pick_ready"], (op.limit, programs)).fetchall():
            row = execute(sql["claim"], (op.worker, run)).fetchone()
            execute(sql["drop_ready"], (run,))
            if row is not None:
                run_id, seq, epoch, deaths = row
                claimed.append(ClaimedRun(run_id, seq, epoch, tuple(msgspec.json.decode(deaths, type=list[int]))))
        if op.token and claimed:
            execute(sql["put_claim"], (op.worker, op.token, msgspec.msgpack.encode(claimed)))
        return Claimed(tuple(claimed))

    def _give_back(self, op: GiveBack) -> Outcome:
        row = self._execute(self._sql["give_back"], (op.run_id, op.epoch)).fetchone()
        if row is None:
            return Refused("epoch")
        self._execute(self._sql["insert_ready"], (row[0], op.at_us))
        return Applied(0)

    def _set_fact(self, op: SetFact) -> Outcome:
        if op.expected is not None and self._facts.get(op.name, 0) != op.expected:
            if self._one("is_fact", (op.name, op.expected + 1, op.value))[0]:
                return Applied(op.expected + 1)
            return Refused("facts", op.name)
        self._execute(self._sql["put_fact"], (op.name, op.value))
        version: int = self._one("fact_version", (op.name,))[0]
        self._facts[op.name] = version
        return Applied(version)

    def _set_account(self, op: SetAccount) -> Outcome:
        for dimension in ("model_calls", "tool_calls", "tokens", "cost_microusd"):
            limit = getattr(op.limits, dimension)
            self._execute(self._sql["set_account"], (op.account, dimension, limit))
        return Applied(0)

    def _erase(self, op: Erase) -> Outcome:
        row = self._execute(self._sql["run_status"], (op.run_id,)).fetchone()
        if row is None:
            return Refused("run", op.run_id)
        run, status = row
        if status not in TERMINAL:
            return Refused("terminal", status)
        for name in ("erase_payloads", "erase_salt", "erase_shown", "erase_inbox"):
            self._execute(self._sql[name], (run,))
        posting.erase(self._db, self._sql, run, op.at_us)
        self._execute(self._sql["record_erasure"], (run, op.run_id, op.by, op.reason, op.at_us))
        self._runs.pop(op.run_id, None)
        return Applied(0)

    def _settle_letter(self, op: SettleLetter) -> Outcome:
        row = self._execute(self._sql["run_status"], (op.run_id,)).fetchone()
        if row is None:
            return Refused("run", op.run_id)
        run, status = row
        if status not in TERMINAL:
            return Refused("terminal", status)
        self._execute(self._sql["settle_letter"], (run, op.how, op.by, op.why, op.at_us))
        return Applied(0)

    def _add_key(self, op: AddKey) -> Outcome:
        grants = msgspec.json.encode(op.grants).decode()
        values = (op.prefix, op.digest, op.label, op.subject, grants, op.created_by, op.at_us, op.expires_at_us)
        self._execute(self._sql["insert_api_key"], (*values, op.first))
        if self._db.changes() == 0 and not self._one("same_api_key", values)[0]:
            return Refused("key", op.prefix)
        return Applied(0)

    def _revoke_key(self, op: RevokeKey) -> Outcome:
        self._execute(self._sql["revoke_api_key"], (op.prefix, op.at_us, op.by, op.reason))
        return Applied(0) if self._one("find_api_key", (op.prefix,))[0] else Refused("key", op.prefix)

    def _one(self, name: str, values: tuple[object, ...]) -> Row:
        return one(self._db, self._sql[name], values)
