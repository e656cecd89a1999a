"""A batch of operations as the server's function takes it: small JSON per operation, bytes beside it, and what has to be locked first.

An operation that cannot be written down at all (a text with a lone surrogate or a NUL, a number beyond 64 bits) is answered here as
poison, so that its neighbours go on.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import msgspec
import psycopg
from psycopg import errors

from quarterdeck.core.audit import entry
from quarterdeck.core.commit import (
    AddAudit,
    AddKey,
    Claim,
    Commit,
    DecideApproval,
    DecidePost,
    Deliver,
    Erase,
    GiveBack,
    Head,
    NewRun,
    Op,
    Outcome,
    Purge,
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
from quarterdeck.store.chain import payload_digest
from quarterdeck.store.postgres.composing import Unwritable, composed

Salts = Callable[[str], bytes | None]
"""The key of a run's payload digests; ``None`` where there is none any more."""
UNDONE = (errors.SerializationFailure, errors.DeadlockDetected)
"""The server has undone the batch by itself: it is sent again."""
UNSTORABLE = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded)
"""Something in the batch can never be applied: it is sent again, and each operation isolated."""
REPEATS = 50
"""How often a batch is sent again before its outcome counts as unknown."""
_json = msgspec.json.Encoder().encode
_outcomes = msgspec.json.Decoder(list[Outcome]).decode
_both = msgspec.json.Decoder(tuple[list[int], list[Outcome]]).decode


class Batch:
    """What one call of the server's function is given. Operations keep their order; *plain* commits come before all others."""

    __slots__ = (
        "asked",
        "audits",
        "bodies",
        "booked",
        "change_facts",
        "charged",
        "digests",
        "names",
        "ops",
        "payloads",
        "plain",
        "size",
        "touched",
        "use_facts",
    )

    def __init__(self) -> None:
        self.ops: list[str] = []
        self.plain: list[str] = []
        self.audits: list[bytes | None] = []
        self.bodies: list[bytes] = []
        self.payloads: list[bytes | None] = []
        self.digests: list[bytes | None] = []
        self.names: set[str] = set()
        self.asked: set[str] = set()
        self.charged: set[str] = set()
        self.booked: set[str] = set()
        self.touched: set[str] = set()
        self.use_facts = False
        self.change_facts = False
        self.size = 0

    def add(self, op: Op, salt_of: Salts) -> Refused | None:
        """Add one operation; or say why no store can ever apply it, and leave the batch as it was."""
        wrong = unstorable(op) if isinstance(op, Commit) else None
        if wrong is not None:
            return Refused("poison", wrong)
        try:
            written = self._written(op)
            if isinstance(op, Commit | Erase) and op.run_id in self.touched:
                written["flush"] = True
            if isinstance(op, Purge) and self.touched:
                written["flush"] = True
            text = _text(written)
        except Unwritable as error:
            return Refused("statement", str(error)[:200])
        except (OverflowError, TypeError, ValueError) as error:
            return Refused("poison", str(error)[:200])
        self.ops.append(text)
        self.size += len(text)
        self._surround(op, salt_of)
        return None

    def add_plain(self, op: Commit, salt_of: Salts) -> bool:
        """Add a commit that only adds events, charges and a change of its row to a run that this batch has not touched; whether it is
        such a one.

        It is applied together with all others of its kind, and left out if anything is not as it expects: then it is to be added to
        another batch by :meth:`add`, to be told why.
        """
        beside = op.asks or op.consumes or op.closes or op.inbox or op.delivers or op.outbox or op.takes or op.frees or op.writes
        if beside or op.new or op.audit or not op.records or unstorable(op) is not None:
            return False
        if op.run_id in self.touched or op.run_id in self.names or self.asked or self.change_facts or not is_text(op.run_id):
            return False
        if self.booked and any(charge.move.account in self.booked for charge in op.charges):
            return False
        found = (
            op.run_id,
            op.seq,
            op.epoch,
            op.control,
            op.at_us,
            len(self.bodies) + 1,
            len(op.records),
            op.incarnation,
            op.facts,
            _head(op.head) if op.head is not None else None,
            _charges(op),
        )
        try:
            text = _text(found)
        except (OverflowError, TypeError, ValueError):
            return False
        self.plain.append(text)
        self.size += len(text)
        self._carry(op, salt_of)
        return True

    def _surround(self, op: Op, salt_of: Salts) -> None:
        """What goes beside an operation's text: bytes, locks, the row of the audit log."""
        said = audit_of(op)
        # What a removal tells of itself, the database writes; the log is to be taken first.
        self.audits.append(entry(said) if said is not None else b"" if isinstance(op, Purge) else None)
        match op:
            case Commit():
                self._carry(op, salt_of)
                self.booked.update(charge.move.account for charge in op.charges)
            case Deliver():
                self._attach(op.body)
                self.names.add(op.run_id)
            case DecideApproval():
                self._attach(decision(op))
                self.asked.add(op.approval)
            case Erase() | GiveBack() | SettleLetter():
                self.names.add(op.run_id)
            case SetAccount():
                self.charged.add(op.account)
                self.booked.add(op.account)
            case SetFact():
                self.change_facts = True
            case SettlePost():
                self.charged.add(f"lane:{op.lane}")
            case Claim() | AddKey() | RevokeKey() | Purge() | TakePosts() | DecidePost() | AddAudit():
                pass
            case _:
                assert_never(op)

    def arguments(self, *, isolate: bool) -> tuple[object, ...]:
        """Everything that the function takes behind the owner and its lease."""
        return (
            self.ops,
            self.bodies,
            self.payloads,
            self.digests,
            self.use_facts,
            self.change_facts,
            list(self.names),
            list(self.asked),
            list(self.charged),
            isolate,
        )

    def plainly(self) -> str:
        """The plain commits, as the function for them takes them behind the other arguments."""
        return f"[{','.join(self.plain)}]"

    @property
    def audited(self) -> bool:
        """Whether some operation brings a row of the audit log: then the batch goes through the function that writes them."""
        return any(body is not None for body in self.audits)

    def _carry(self, op: Commit, salt_of: Salts) -> None:
        self.touched.add(op.run_id)
        salt = b""
        if any(item.payload is not None for item in op.records):
            salt = (op.new.salt if op.new is not None else salt_of(op.run_id)) or b""
        for item in op.records:
            self._attach(item.body, item.payload, payload_digest(salt, item.payload) if item.payload is not None else None)
        if op.new is None:
            self.names.add(op.run_id)
        self.use_facts = self.use_facts or op.facts is not None
        self.charged.update(charge.move.account for charge in op.charges)
        if op.delivers or op.outbox or op.takes:
            self.names.update(order.run_id for order in op.delivers if is_text(order.run_id))
            self.charged.update(f"lane:{post.lane}" for post in op.outbox)
            self.charged.update(f"exclusive:{take.key}" for take in op.takes)

    def _attach(self, body: bytes, payload: bytes | None = None, digest: bytes | None = None) -> None:
        self.bodies.append(body)
        self.payloads.append(payload)
        self.digests.append(digest)
        self.size += len(body) + (len(payload) if payload is not None else 0)

    def _written(self, op: Op) -> dict[str, Any]:
        place = len(self.bodies) + 1
        match op:
            case Commit():
                return _commit(op, place)
            case Deliver():
                return {"op": "deliver", "run": op.run_id, "kind": op.kind, "at": op.at_us, "token": op.token, "x": place}
            case DecideApproval():
                answer = {"outcome": op.outcome, "by": op.by, "reason": op.reason, "digest": op.digest, "at": op.at_us}
                return {"op": "decide", "approval": op.approval, "x": place, **answer}
            case Claim():
                asked = {"op": "claim", "worker": op.worker, "limit": op.limit, "now": op.now_us, "token": op.token}
                return asked if op.programs is None else {**asked, "programs": op.programs}
            case GiveBack():
                return {"op": "back", "run": op.run_id, "epoch": op.epoch, "at": op.at_us}
            case SetFact():
                return {"op": "fact", "name": op.name, "value": op.value, "expected": op.expected}
            case SetAccount():
                limits = {name: getattr(op.limits, name) for name in ("model_calls", "tool_calls", "tokens", "cost_microusd")}
                return {"op": "account", "account": op.account, "limits": limits}
            case Erase():
                return {"op": "erase", "run": op.run_id, "by": op.by, "reason": op.reason, "at": op.at_us}
            case Purge():
                behind = {"after": op.after, "limit": op.limit}
                return {"op": "purge", "route": op.route, "now": op.now_us, "retain": op.retain_us, **behind}
            case TakePosts():
                return {"op": "take", "limit": op.limit, "now": op.now_us, "lease": op.lease_us}
            case SettlePost():
                of = {"number": op.number, "lane": op.lane, "ticket": op.ticket}
                return {"op": "settle", **of, "outcome": op.outcome, "at": op.at_us, "due": op.due_us, "code": op.code}
            case DecidePost():
                said = {"action": op.action, "by": op.by, "reason": op.reason, "at": op.at_us}
                return {"op": "post", "message": op.message, **said}
            case SettleLetter():
                return {"op": "letter", "run": op.run_id, "how": op.how, "by": op.by, "why": op.why, "at": op.at_us}
            case AddKey():
                return _key(op)
            case RevokeKey():
                return {"op": "revoke", "prefix": op.prefix, "by": op.by, "reason": op.reason, "at": op.at_us}
            case AddAudit():
                return {
                    "op": "account",
                    "account": "",
                    "limits": {},
                }  # an operation that changes nothing; its row is written beside it
            case _:
                assert_never(op)


def is_text(name: str) -> bool:
    """Whether the server can store, and so can hold, this text.

    >>> is_text("r1"), is_text("r\\0"), is_text("r\\udc80")
    (True, False, False)
    """
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def answers(text: str) -> Sequence[Outcome]:
    """What the function answered, one outcome per operation."""
    return _outcomes(text)


def both_answers(text: str) -> tuple[Sequence[int], Sequence[Outcome]]:
    """The places, from 1, of the plain commits that were appended; one outcome per other operation."""
    return _both(text)


def _text(written: dict[str, Any] | tuple[object, ...]) -> str:
    text = _json(written).decode()
    if "\\u0000" in text and "\0" in str(written):
        raise ValueError("PostgreSQL stores no NUL in a text")
    return text


def _commit(op: Commit, place: int) -> dict[str, Any]:
    written: dict[str, Any] = {
        "op": "commit" if op.new is None else "admit",
        "run": op.run_id,
        "seq": op.seq,
        "epoch": op.epoch,
        "incarnation": op.incarnation,
        "at": op.at_us,
        "x": place,
        "n": len(op.records),
    }
    if op.control is not None:
        written["control"] = op.control
    if op.facts is not None:
        written["facts"] = op.facts
    if op.head is not None:
        written["head"] = _head(op.head)
    if op.new is not None:
        written["new"] = _new(op.new, op.at_us)
        if op.key is not None:
            written["key"] = (op.key.tenant, op.key.key, op.key.body_digest, op.key.expires_at_us)
    if op.charges or op.asks or op.consumes or op.closes or op.inbox:
        written["more"] = _more(op)
        if op.charges or op.consumes:
            written["undo"] = True
    if op.delivers or op.outbox or op.takes or op.frees or op.writes:
        written["beside"] = _beside(op)
        if op.takes or op.writes:
            written["undo"] = True
    return written


def _beside(op: Commit) -> dict[str, Any]:
    """What few commits carry; only what is there."""
    found: dict[str, Any] = {
        "frees": [(free.key, free.call) for free in op.frees],
        "takes": [(take.key, take.call) for take in op.takes],
        "writes": [(composed(statement), statement.rows) for statement in op.writes],
        "outbox": [
            (post.message, post.lane, post.topic, post.key, _base64(post.body), _json(post.headers).decode())
            for post in op.outbox
        ],
        "delivers": [
            {"run": order.run_id, "kind": order.kind, "at": order.at_us, "token": order.token, "body": _base64(order.body)}
            for order in op.delivers
        ],
    }
    return {name: items for name, items in found.items() if items}


def _more(op: Commit) -> dict[str, Any]:
    return {
        "charges": _charges(op),
        "consumes": [(each.approval, each.digest, each.at_us) for each in op.consumes],
        "asks": [
            (each.approval, each.call, each.tool, each.digest, each.requested_by, each.expires_at_us, _base64(each.shown))
            for each in op.asks
        ],
        "closes": [(each.approval, each.status) for each in op.closes],
        "inbox": op.inbox,
    }


def _head(head: Head) -> tuple[object, ...]:
    return (head.status, head.reason, head.code, _json(head.waiting_on).decode(), head.wake_at_us, head.release)


def _charges(op: Commit) -> list[tuple[object, ...]]:
    moves = [(charge.move, charge.limit) for charge in op.charges]
    return [(move.account, move.dimension, move.leased, move.returned, move.spent, limit) for move, limit in moves]


def _new(new: NewRun, at_us: int) -> tuple[object, ...]:
    who = (new.tenant, new.route, new.agent, new.actor, new.admitted_at_us)
    where = (new.correlation_id, new.thread_id, new.parent_run_id, new.priority)
    return (*who, *where, _base64(new.salt), ready_from_us(new.priority, at_us), line_of(new), new.needs)


def _key(op: AddKey) -> dict[str, Any]:
    return {
        "op": "key",
        "prefix": op.prefix,
        "digest": _base64(op.digest),
        "label": op.label,
        "subject": op.subject,
        "grants": msgspec.json.encode(op.grants).decode(),
        "by": op.created_by,
        "at": op.at_us,
        "expires": op.expires_at_us,
        "first": op.first,
    }


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
