"""The file of a store as a visitor finds it: is it there, is it ours, who owns it; then reading and visiting it.

Everything is checked before anything is opened for writing, because opening a file for writing already changes it: a database of
another program stays as it is.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from quarterdeck.core.commit import Applied, Op, Refused
from quarterdeck.core.errors import Corrupt, Unavailable, UsageError
from quarterdeck.store.sqlite.opening import APPLICATION_ID, SCHEMA, connect
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.store.sqlite.statements import load
from quarterdeck.store.sqlite.visitor import visit


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a file into errors that say what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Corrupt("store.corrupt", f"{path} is damaged ({error}); restore a backup") from None
    except apsw.BusyError as error:
        raise Unavailable("store.busy", f"{path} is busy ({error}); try again") from None
    except (apsw.IOError, apsw.FullError, apsw.ReadOnlyError, apsw.CantOpenError) as error:
        raise Unavailable("store.storage", f"{path} cannot be used ({error}); free or mount the storage") from None


def require_ours(path: Path) -> None:
    """Raise unless ``path`` is a store that this version can read; nothing is written."""
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        raise UsageError("store.missing", f"there is no store at {path}; `quarterdeck run` makes one, --store names another")
    with readable(path):
        db = connect(path, readonly=True)
        try:
            application, version = db.pragma("application_id"), db.pragma("user_version")
        finally:
            db.close()
    if application != APPLICATION_ID:
        raise UsageError("store.foreign", f"{path} is a database of another program; name another file with --store")
    if not isinstance(version, int) or version > SCHEMA:
        raise UsageError("store.newer", f"{path} has schema {version}, newer than {SCHEMA}; run the newer quarterdeck")


@contextmanager
def reading(path: Path) -> Iterator[SqliteInsights]:
    """The read side of a store, with its errors in our words; works beside an owner and without one."""
    require_ours(path)
    with readable(path):
        insights = SqliteInsights(path)
        try:
            yield insights
        finally:
            insights.close()


def ask_store(path: Path, op: Op) -> Applied | Refused:
    """Apply one operation as a visitor; returns when it is durable."""
    require_ours(path)
    with readable(path):
        outcome = visit(path, op)
    if not isinstance(outcome, (Applied, Refused)):
        raise Corrupt("store.answer", "the store answered with something else; its adapter is broken")
    return outcome


def incarnation_of(path: Path) -> int:
    """The incarnation of a store, part of the guard of an admission."""
    with readable(path):
        db = connect(path, readonly=True)
        try:
            row = db.execute(load("write")["meta"], ("incarnation",)).fetchone()
        finally:
            db.close()
    if row is None:
        raise Corrupt("store.corrupt", f"{path} has lost its incarnation; restore a backup")
    return int(row[0])


def owner_of(path: Path) -> int | None:
    """The process that owns the store now, or ``None``. A moment's truth: who acts on it must be right either way.

    The kernel holds the lock for the owner and its writer, so what is asked is the lock; the file only says who took it last.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        with lock.open(encoding="ascii", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read(20)
                return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        return None
    return None
