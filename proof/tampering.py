"""T11: somebody who owns the store's file changes what is recorded, and hopes that nobody sees it.

A store with a few runs, orders of operators, and an audit log that is signed. Every trial changes one thing: a bit of a row, a row removed,
moved, exchanged, the end cut off, one run's journal put in the place of another's, a payload, the salt, the head that a run keeps; or, as
somebody who knows how chains are made, everything behind the change is chained anew. Or it changes what no chain covers and everything
reads: an approval, an account, a switch, the policy in force, whose a run is, a key. ``journal verify`` has to find each of them. What it
cannot find by itself is a whole journal that was chained anew together with its run's head; a proof that somebody else keeps shows it.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import apsw

from proof.attempts import Tried, suite_of
from quarterdeck import Budget, Quarterdeck
from quarterdeck.app import auditing, books, verifying, vouching
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.verifying import check_store
from quarterdeck.cli.audit import check_log
from quarterdeck.cli.storefile import ask_store
from quarterdeck.core.audit import AuditRow, appended
from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.server.identity import ensure_first_admin
from quarterdeck.store import chain
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.mutants_runtime import mutant
from quarterdeck.testing.patching import Plant, patched


def desk() -> Quarterdeck:
    """Runs that ask a person, with something to say, below accounts with limits."""
    deck = Quarterdeck("tampering")
    deck.budget("tenant:acme", Budget(tools=50, tokens=1_000_000))

    @deck.tool(effect="irreversible")
    async def pay(cents: int) -> str:
        """Pay."""
        return "paid"

    deck.agent("clerk", model=ScriptedModel([[("pay", {"cents": 5})], "over"]), tools=[pay], autonomy="executes_after_approval")
    return deck


async def worked(path: Path) -> None:
    """A few runs and orders."""
    async with desk().start(path) as runtime:
        await runtime.switch("disable_tool:other", by="eve", reason="incident")
        for by in ("bob", "joe"):
            run = await runtime.submit("clerk", "pay", user="ada", tenant="acme")
            await run.rest(10)
            [row] = runtime.approvals()
            await runtime.approve(row.approval, by=by, reason="known")
            await run.result(10)
        await runtime.switch("disable_tool:other", on=False, by="eve", reason="over")
        await runtime.switch("deny_tenant:umbrella", by="eve", reason="unpaid")
        await runtime.raise_account("tenant:acme", Budget(tools=60), by="eve", reason="more")
        waits = await runtime.submit("clerk", "pay", user="ada", tenant="acme")
        await waits.rest(10)

    async def apply(op: Op) -> Applied | Refused:
        return ask_store(path, op)

    with contextlib.closing(SqliteInsights(path)) as insights:
        await ensure_first_admin(apply, insights, SystemClock(), SystemEntropy())


def found(path: Path, *, log_alone: bool = False) -> list[str]:
    """What verifying says of a store, offline, as the command does; of the log alone, what the log itself shows."""
    codes = [finding.code for finding in check_log(path, None, None, None).findings]
    if log_alone:
        return codes
    with contextlib.closing(SqliteInsights(path)) as insights:
        codes += [wrong.code for wrong in check_store(insights, lambda _: None).findings]
    return codes


EACH = 4
"""How often each attack is tried on one store."""
Attack = Callable[[apsw.Connection, random.Random], str]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _a_bit(table: str, columns: tuple[str, ...]) -> Attack:
    def attack(db: apsw.Connection, rng: random.Random) -> str:
        column = rng.choice(columns)
        rows = list(db.execute(f"SELECT rowid, {column} FROM {table} WHERE length({column}) > 0"))  # noqa: S608 - of ours
        rowid, value = rng.choice(rows)
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_flipped(value, rng), rowid))  # noqa: S608 - of ours
        return f"{table}.{column} of row {rowid}"

    return attack


def _removed(db: apsw.Connection, rng: random.Random) -> str:
    row, seq = rng.choice(list(db.execute("SELECT id, seq FROM events")))
    db.execute("DELETE FROM events WHERE id = ?", (row,))
    return f"event {seq} removed"


def _exchanged(db: apsw.Connection, rng: random.Random) -> str:
    run, last = rng.choice(list(db.execute("SELECT run, max(seq) FROM events GROUP BY run")))
    seq = rng.randrange(1, last)
    for old, new in ((seq, -1), (seq + 1, seq), (-1, seq + 1)):
        db.execute("UPDATE events SET seq = ? WHERE run = ? AND seq = ?", (new, run, old))
    return f"events {seq} and {seq + 1} exchanged"


def _of_another(db: apsw.Connection, rng: random.Random) -> str:
    (one,), (two,) = db.execute("SELECT id FROM runs ORDER BY id LIMIT 2")
    for old, new in ((one, -1), (two, one), (-1, two)):
        db.execute("UPDATE events SET run = ? WHERE run = ?", (new, old))
    return "two journals exchanged"


def _chained_anew(db: apsw.Connection, rng: random.Random) -> str:
    """One event says something else, every hash behind it fits, but the run holds the hash at which its journal ended."""
    run, last = rng.choice(list(db.execute("SELECT run, max(seq) FROM events GROUP BY run")))
    rows = list(db.execute("SELECT id, seq, body, payload_digest FROM events WHERE run = ? ORDER BY seq", (run,)))
    chosen, previous = rng.randint(1, last), chain.GENESIS
    for row, seq, body, digest in rows:
        body = body.replace(b'"kind"', b'"kinD"', 1) if seq == chosen else body
        previous = chain.chained(previous, seq, body, digest)
        db.execute("UPDATE events SET body = ?, hash = ? WHERE id = ?", (body, previous, row))
    return f"a journal made anew from event {chosen}"


def _log(change: Callable[[list[AuditRow], random.Random], list[AuditRow]]) -> Attack:
    def attack(db: apsw.Connection, rng: random.Random) -> str:
        stored = db.execute("SELECT seq, body, hash FROM audit ORDER BY seq")
        changed = change([AuditRow(seq, bytes(body), bytes(kept)) for seq, body, kept in stored], rng)
        db.execute("DELETE FROM audit")
        for row in changed:
            values = (row.seq, row.body, row.seq.to_bytes(32, "big"), row.hash)
            db.execute("INSERT INTO audit (seq, body, digest, hash) VALUES (?, ?, ?, ?)", values)
        return f"of the log: {change.__name__}"

    return attack


def one_gone(rows: list[AuditRow], rng: random.Random) -> list[AuditRow]:
    place = rng.randrange(len(rows) - 1)
    return [*rows[:place], *rows[place + 1 :]]


def one_gone_and_renumbered(rows: list[AuditRow], rng: random.Random) -> list[AuditRow]:
    place = rng.randrange(len(rows) - 1)
    return [*rows[:place], *[AuditRow(row.seq - 1, row.body, row.hash) for row in rows[place + 1 :]]]


def end_cut_off(rows: list[AuditRow], rng: random.Random) -> list[AuditRow]:
    return rows[: rng.randrange(len(rows) - 1)]


def chained_anew(rows: list[AuditRow], rng: random.Random) -> list[AuditRow]:
    """One record says something else, and every hash behind it fits."""
    names = [place for place, row in enumerate(rows) if any(name in row.body for name in (b'"eve"', b'"bob"', b'"joe"'))]
    chosen, made = rng.choice(names), list[AuditRow]()
    for place, row in enumerate(rows):
        body = row.body.replace(b'"eve"', b'"mal"').replace(b'"bob"', b'"mal"').replace(b'"joe"', b'"mal"')
        made.append(appended(made, body if place == chosen else row.body))
    return made


def _rows(told: str, *statements: str) -> Attack:
    """Something that no chain covers says otherwise: found, because journals and the log say what it follows from."""

    def attack(db: apsw.Connection, rng: random.Random) -> str:
        before = db.total_changes()
        db.execute(rng.choice(statements))
        if db.total_changes() == before:
            raise AssertionError(f"nothing was there to change: {told}")
        return told

    return attack


_SWITCH = """UPDATE facts SET version = version + 1, value = json_insert(value, '$[#]', json('{"kind":"freeze","by":"mal","at_us":5}'))
WHERE name = 'switches'"""
ROWS: tuple[Attack, ...] = (
    _rows(
        "a pending approval is approved in the database",
        "UPDATE approvals SET status = 'approved', decided_by = 'bob' WHERE status = 'pending'",
        "UPDATE approvals SET status = 'approved' WHERE status = 'pending'",
    ),
    _rows(
        "an approval shows, binds or permits something else",
        "UPDATE approvals SET digest = 'd' || substr(digest, 2) WHERE status = 'pending'",
        "UPDATE approvals SET shown = CAST(replace(CAST(shown AS TEXT), '5', '6') AS BLOB) WHERE status = 'pending'",
        "UPDATE approvals SET expires_at_us = expires_at_us + 1 WHERE status = 'pending'",
        "UPDATE approvals SET requested_by = 'nobody' WHERE status = 'pending'",
        "UPDATE approvals SET tool = 'other' WHERE status = 'pending'",
    ),
    _rows(
        "another person is said to have approved",
        "UPDATE approvals SET decided_by = 'mal' WHERE decided_by = 'bob'",
        "UPDATE approvals SET status = 'rejected' WHERE decided_by = 'joe'",
        "UPDATE approvals SET status = 'pending', decided_by = '' WHERE decided_by = 'joe'",
    ),
    _rows("an approval may be used again", "UPDATE approvals SET consumed = 0 WHERE decided_by = 'bob'"),
    _rows(
        "an approval is gone, or ended",
        "DELETE FROM approvals WHERE status = 'pending'",
        "UPDATE approvals SET status = 'expired' WHERE status = 'pending'",
        "DELETE FROM approvals WHERE decided_by = 'joe'",
    ),
    _rows(
        "an account has spent less, or more",
        "UPDATE accounts SET committed = committed - 1 WHERE account = 'tenant:acme' AND dimension = 'tool_calls'",
        "UPDATE accounts SET committed = committed + 1000 WHERE account = 'all' AND dimension = 'tokens'",
        "UPDATE accounts SET reserved = reserved + 1 WHERE account = 'route:clerk' AND dimension = 'model_calls'",
        "DELETE FROM accounts WHERE account = 'tenant:acme' AND dimension = 'tool_calls'",
    ),
    _rows(
        "an account may spend more",
        "UPDATE accounts SET bound = 600 WHERE account = 'tenant:acme' AND dimension = 'tool_calls'",
        "UPDATE accounts SET bound = NULL WHERE account = 'tenant:acme' AND dimension = 'tokens'",
    ),
    _rows(
        "a switch is gone, or one that nobody set is there",
        "UPDATE facts SET version = version + 1, value = '[]' WHERE name = 'switches'",
        "DELETE FROM facts WHERE name = 'switches'",
        "UPDATE facts SET value = replace(value, 'umbrella', 'other') WHERE name = 'switches'",
        _SWITCH,
    ),
    _rows("another policy is said to be in force", "UPDATE facts SET value = 'other' WHERE name = 'policy'"),
    _rows(
        "a run is another's, or has ended",
        "UPDATE contracts SET tenant = 'umbrella' WHERE run = 1",
        "UPDATE contracts SET actor = 'mal' WHERE run = 2",
        "UPDATE runs SET status = 'succeeded' WHERE status = 'waiting'",
        "UPDATE runs SET status = 'cancelled' WHERE status = 'succeeded'",
    ),
    _rows(
        "a key may do more, is another, or is gone",
        "UPDATE api_keys SET digest = zeroblob(32)",
        "UPDATE api_keys SET subject = 'mal'",
        "UPDATE api_keys SET revoked_at_us = 5",
        "DELETE FROM api_keys",
        "INSERT INTO api_keys (prefix, digest, label, subject, grants, created_by, created_at_us) "
        "SELECT 'qd_mallory', zeroblob(32), label, 'mal', grants, created_by, created_at_us FROM api_keys",
    ),
)
"""Changes of what no chain covers."""

LOG: tuple[Attack, ...] = (_log(one_gone), _log(one_gone_and_renumbered), _log(end_cut_off), _log(chained_anew))
"""Changes of the audit log, which it shows by itself."""
ATTACKS: tuple[Attack, ...] = (
    _a_bit("events", ("body", "hash", "payload_digest")),
    _a_bit("events", ("payload",)),
    _a_bit("runs", ("head", "salt")),
    _a_bit("audit", ("body", "hash")),
    _removed,
    _exchanged,
    _of_another,
    _chained_anew,
    *LOG,
    *ROWS,
)


async def tampered(seed: int) -> Tried:
    """One store, and each attack on a copy of it, with what this seed draws."""
    rng, unseen = random.Random(seed), list[str]()
    with tempfile.TemporaryDirectory(prefix="qdproof-") as folder:
        kept = Path(folder) / "kept"
        kept.mkdir()
        await worked(kept / "store.db")
        if found(kept / "store.db"):
            return 1, [f"what nobody has touched: {found(kept / 'store.db')}"]
        for number, attack in enumerate(ATTACKS * EACH):
            path = Path(shutil.copytree(kept, Path(folder) / str(number))) / "store.db"
            with contextlib.closing(apsw.Connection(str(path))) as db:
                told = attack(db, rng)
            if not found(path, log_alone=attack in LOG):
                unseen.append(told)
    return len(ATTACKS) * EACH, unseen


def _unread(event: object, previous: bytes, salt: bytes | None) -> None:
    """Nothing is looked at."""


PLANTS: dict[str, Plant] = {
    "events are not hashed again": lambda: patched(chain, "require_whole", _unread),
    "payloads are not looked at": lambda: patched(chain, "_is_whole", lambda *_: True),
    "the rows of the log need not be linked": lambda: patched(auditing, "require_linked", lambda rows: None),
    "a seal may sign what it likes": mutant(
        "", 0, "L3", ("app.auditing:_wrong", "if hashes[seal.seq] != seal.hash:", "if False:")
    ).planted,
    "a log may end before its seals": mutant(
        "", 0, "L3", ("app.auditing:_wrong", "if seal.seq not in hashes:", "if False:"),
        ("app.auditing:_wrong", "if hashes[seal.seq] != seal.hash:", "if hashes.get(seal.seq, seal.hash) != seal.hash:"),
    ).planted,
    "accounts are not compared": lambda: patched(books, "against", lambda *_: []),
    "rows of approvals are not compared": lambda: patched(vouching, "approvals", lambda *_: []),
    "facts are not compared": lambda: patched(vouching, "facts", lambda *_: []),
    "keys are not compared": lambda: patched(vouching, "keys", lambda *_: []),
    "rows of runs are not compared": lambda: patched(verifying, "_otherwise", lambda *_: []),
    "who answered is not compared": lambda: patched(vouching, "_unsaid", lambda *_: None),
    "the head is not compared": mutant(
        "", 0, "I7", ("store.chain:verify", "if not hmac.compare_digest(previous, head):", "if False:")
    ).planted,
}  # fmt: skip

SUITES = (suite_of("audit-tamper", tampered, PLANTS, quick=1, whole=80),)
