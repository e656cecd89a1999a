"""Opening the database: is the server safe, is the schema ours, which version has it, is it still the store that it was.

Nothing weaker than a primary with ``fsync`` and ``full_page_writes`` is accepted; ``synchronous_commit`` is set for our sessions,
whatever the server's default. The schema is called ``quarterdeck`` and may live beside an application's own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from quarterdeck.core.errors import QuarterdeckError, Unavailable, UsageError
from quarterdeck.store.postgres.statements import load, migration

SCHEMA = 6
"""The newest schema version that this code makes."""
COMPATIBLE = 1
"""The oldest version of this code that may go on beside the schema that this one makes; older ones that run stop. See :func:`prepare`."""
MIN_SERVER = 150_000
"""PostgreSQL 15."""
CONNECT_S = 5
"""How long a connection may take to be made."""

Row = tuple[object, ...]
Connection = psycopg.Connection[Row]


class Identity(NamedTuple):
    """Which store this is now. ``incarnation`` is part of the guard of every commit."""

    incarnation: int
    changed: bool


class Mark(NamedTuple):
    """What a runtime knows of its store: the incarnation, and of its newest acknowledged renewal the server's time and place in its log.

    No database forgets these unless an older state of it was put back.
    """

    incarnation: int
    owner: int
    beat_at: str = "-infinity"
    lsn: str = "0/0"


def connect(dsn: str, *, readonly: bool = False) -> Connection:
    """A connection with the settings that our statements rely on; raises ``UsageError`` or ``Unavailable``.

    ``readonly`` is for the read side: it can write nothing, and no statement of it takes longer than ten seconds.
    """
    with reachable():
        db = psycopg.connect(completed(dsn), autocommit=True)
        try:
            sql = load("open")
            db.execute(sql["session"])
            if readonly:
                db.execute(sql["read_only"])
        except BaseException:
            db.close()
            raise
    return db


def completed(dsn: str) -> str:
    """A connection string with what it leaves open and we do not; raises ``UsageError`` (``store.dsn``) if it cannot be read."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise UsageError(
            "store.dsn", f"this is no PostgreSQL connection string ({error}); write postgresql://user@host/db"
        ) from None
    ours: dict[str, str | int] = {
        "connect_timeout": CONNECT_S,
        "application_name": "quarterdeck",
        "client_encoding": "utf8",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    }
    return make_conninfo("", **{**ours, **given})


@contextmanager
def reachable() -> Iterator[None]:
    """Turn what the driver says about a connection into errors that say what to do."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise UsageError("store.role", f"the database role may not do this ({_said(error)}); {_GRANTS}") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable("store.unreachable", f"the database cannot be reached ({_said(error)}); see to it") from None


_GRANTS = (
    "let an administrator run: CREATE ROLE quarterdeck_reader NOLOGIN; GRANT quarterdeck_reader TO <your role>; "
    "GRANT CREATE ON DATABASE <your database> TO <your role>"
)


def cut(db: psycopg.Connection[Row] | psycopg.AsyncConnection[Row]) -> None:
    """End a connection under whoever waits for an answer on it, on whatever thread: that one gets an error at once."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(db.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def require_safe(db: Connection, *, writing: bool = True) -> None:
    """Refuse a server that can lose an acknowledged commit, or that is not the one to write to (unless nothing is to be written)."""
    row = db.execute(load("open")["server"]).fetchone() or ()
    version, recovering, read_only, encoding, *durability = row
    if not isinstance(version, int) or version < MIN_SERVER:
        raise UsageError("store.server", f"this server is version {version}; PostgreSQL 15 or newer is needed")
    if recovering or (read_only and writing):
        raise Unavailable(
            "store.replica", "this server is a replica or read-only; name the primary (target_session_attrs=primary)"
        )
    if encoding != "UTF8":
        raise UsageError("store.server", f"this database is encoded in {encoding}; create one with ENCODING 'UTF8'")
    fsync, full_page_writes, synchronous = durability
    if fsync != "on" or full_page_writes != "on" or synchronous not in ("on", "remote_apply"):
        settings = f"fsync={fsync}, full_page_writes={full_page_writes}, synchronous_commit={synchronous}"
        raise UsageError("store.unsafe", f"{settings} can lose commits; set all three to on")


def prepare(dsn: str, incarnation: int, mark: Mark | None = None) -> Identity:
    """Make the schema ours: create or migrate it, and see whether it is still the store that it was.

    Any number of processes may do this at once, also while older workers run, and each may be killed in the middle: it is one transaction.
    Migrations only add, and each states the oldest code that may go on beside it. ``incarnation`` is used for a new store, for one that was
    restored, copied or failed over since it was last opened, and for one that older workers may not go on with: then whatever was held is
    released, so that every run that has not ended is looked at again, and what they have decided is refused. ``mark`` is what a runtime
    knows that has used it before; where that is missing, an older state was put back.
    """
    db = connect(dsn)
    try:
        with reachable():
            require_safe(db)
            sql = load("open")
            found = meta_of(db)
            identity = _identity(db)
            if found.get("schema") == str(SCHEMA) and found.get("identity") == identity:
                if mark is None or not standing(db, mark).went_back:
                    return Identity(int(found["incarnation"]), changed=False)
                return Identity(renew(dsn, incarnation, mark.incarnation), changed=True)
            with db.transaction():
                db.execute(sql["take_schema"])
                return _settle(db, incarnation, identity)
    finally:
        db.close()


def _settle(db: Connection, incarnation: int, identity: str) -> Identity:
    """Under the lock of the schema, which whoever came first has used already."""
    sql = load("open")
    known = meta_of(db)
    if not known:
        db.execute(sql["make_schema"])
    present = int(known.get("schema", 0))
    for version in range(present + 1, SCHEMA + 1):
        for part in migration(version):
            db.execute(part)
        db.execute(sql["put_meta"], ("schema", str(version)))
        db.execute(sql["put_meta"], ("compatible", str(COMPATIBLE)))
    same = known.get("identity") == identity and present >= COMPATIBLE
    if not same:
        db.execute(sql["put_meta"], ("identity", identity))
        db.execute(sql["put_meta"], ("incarnation", str(incarnation)))
        db.execute(sql["release_all"])
    return Identity(int(known["incarnation"]) if same else incarnation, changed=bool(known) and not same)


def meta_of(db: Connection) -> dict[str, str]:
    """What the schema says of itself; empty if there is none. Raises ``UsageError`` if it is not ours to use."""
    sql = load("open")
    exists, ours = db.execute(sql["schemas"]).fetchone() or (False, False)
    if not exists:
        return {}
    try:
        known = {str(name): str(value) for name, value in db.execute(sql["meta"])} if ours else {}
    except errors.UndefinedColumn:
        known = {}
    if "schema" not in known:
        raise UsageError("store.foreign", "this database has a schema `quarterdeck` of another program; name another database")
    if int(known.get("compatible", 0)) > SCHEMA:
        raise UsageError(
            "store.newer", f"the schema is version {known['schema']}, newer than {SCHEMA}; run the newer quarterdeck"
        )
    return known


def _identity(db: Connection) -> str:
    (identity,) = db.execute(load("open")["identity"]).fetchone() or ("",)
    return str(identity)


def require_present(db: Connection, *, writing: bool = True) -> None:
    """Raise ``UsageError`` unless there is a store that this version can use; nothing is written.

    Who only reads may do so from any server, even from one that is not safe enough to write to.
    """
    if writing:
        require_safe(db)
    known = meta_of(db)
    if not known:
        raise UsageError("store.missing", "there is no store in this database; start a runtime first, or name another")
    if int(known["schema"]) < SCHEMA:
        raise UsageError(
            "store.older", f"the schema is version {known['schema']}, older than {SCHEMA}; start a runtime on it once"
        )


class Standing(NamedTuple):
    """Which incarnation the store has now, and whether it is the one of a mark, but misses what the mark says."""

    incarnation: int
    went_back: bool


def standing(db: Connection, mark: Mark) -> Standing:
    """Compare what is there with what a runtime knows. Who has seen another incarnation knows nothing of this one yet."""
    values = (mark.lsn, mark.beat_at, mark.owner, mark.owner)
    found, misses = db.execute(load("write")["standing"], values).fetchone() or ("", False)
    incarnation = int(str(found))
    return Standing(incarnation, bool(misses) and incarnation == mark.incarnation)


def renew(dsn: str, incarnation: int, known: int | None = None) -> int:
    """Say that the store was restored, and release whatever is held; its incarnation from now on.

    For where nothing else can tell: after an older state was put back while no runtime was up. With ``known`` nothing is done if the
    store has another incarnation than that already: somebody else was quicker.
    """
    db = connect(dsn)
    try:
        with reachable(), db.transaction():
            sql = load("open")
            db.execute(sql["take_schema"])
            present = int(meta_of(db).get("incarnation", incarnation))
            if known is not None and present != known:
                return present
            db.execute(sql["put_meta"], ("incarnation", str(incarnation)))
            db.execute(sql["release_all"])
            return incarnation
    finally:
        db.close()


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def lost(error: BaseException) -> QuarterdeckError:
    """What a caller is told whose outcome nobody knows."""
    return Unavailable("store.unknown", f"the answer was lost ({_said(error)}); submit the same operation again")
