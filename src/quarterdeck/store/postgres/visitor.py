"""What a process may do that is no runtime, such as a command at a shell: put rows into inboxes, decide approvals, ask for runs.

A visitor applies the same operations by the same function, each batch in a transaction of its own, but holds no lease; so it never claims
and never appends to an existing journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from quarterdeck.core.commit import Claim, Commit, Op, Outcome
from quarterdeck.core.errors import UsageError
from quarterdeck.store.postgres.batch import REPEATS, UNDONE, UNSTORABLE, Batch, answers, is_text
from quarterdeck.store.postgres.opening import (
    SCHEMA,
    Connection,
    connect,
    lost,
    meta_of,
    reachable,
    require_present,
    require_safe,
)
from quarterdeck.store.postgres.reader import PostgresInsights
from quarterdeck.store.postgres.statements import load


def visit(dsn: str, op: Op) -> Outcome:
    """Apply one operation to a database that runtimes share. Blocks until it is durable.

    Raises ``Unavailable`` (``store.unknown``) if the answer was lost: the same operation may be given again.
    """
    if isinstance(op, Claim) or (isinstance(op, Commit) and op.new is None):
        raise UsageError("store.visitor", "only a runtime appends to journals; go through the running service")
    db = connect(dsn)
    try:
        with reachable():
            require_present(db)
        try:
            outcome = applied(db, 0, [op])[0]
            db.execute(load("write")["notify"])
        except psycopg.OperationalError as error:
            raise lost(error) from None
        return outcome
    finally:
        db.close()


def look(dsn: str) -> PostgresInsights:
    """The read side of a database that is a store of this version already; nothing is written."""
    db = connect(dsn, readonly=True)
    try:
        with reachable():
            require_present(db, writing=False)
    finally:
        db.close()
    return PostgresInsights(dsn)


class Finding(NamedTuple):
    """What a database is found to be: its server's version, the schema it has, and the newest that this code makes."""

    server: str
    schema: str
    newest: int


def examine(dsn: str) -> Finding:
    """Look at a database as a runtime would before it uses it, and change nothing.

    Raises what a runtime would be refused with; a database without a store is none to be refused (``schema`` is empty).
    """
    db = connect(dsn, readonly=True)
    try:
        with reachable():
            require_safe(db, writing=False)
            (version,) = db.execute(load("open")["version"]).fetchone() or ("",)
            return Finding(str(version), meta_of(db).get("schema", ""), SCHEMA)
    finally:
        db.close()


def applied(db: Connection, owner: int, ops: Sequence[Op], lease_s: float = 0.0) -> list[Outcome]:
    """Apply a batch on a connection of one's own and answer each operation, in order."""
    sql = load("write")
    names = [op.run_id for op in ops if isinstance(op, Commit) and op.new is None and is_text(op.run_id)]
    salts = {str(name): salt for name, salt in db.execute(sql["salts"], (names,))} if names else {}
    batch = Batch()
    known = {name: salt for name, salt in salts.items() if isinstance(salt, bytes)}
    wrong = [batch.add(op, known.get) for op in ops]
    isolate = False
    for _ in range(REPEATS):
        try:
            values: tuple[object, ...] = (owner, lease_s, *batch.arguments(isolate=isolate))
            if batch.audited:
                row = db.execute(sql["apply_audited"], (*values, batch.audits)).fetchone()
            else:
                row = db.execute(sql["apply"], values).fetchone()
            break
        except UNDONE:
            continue
        except UNSTORABLE:
            if isolate:
                raise
            isolate = True
    else:
        raise psycopg.errors.SerializationFailure("the batch was undone too often")
    told = iter(answers(str(row[0]) if row is not None else "[]"))
    return [refused if refused is not None else next(told) for refused in wrong]
