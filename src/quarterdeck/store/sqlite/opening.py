"""Opening the file: who owns it, is it ours, is it whole, which schema has it.

Nothing weaker than WAL with ``synchronous=FULL`` is accepted, and no SQLite library older than 3.51.3 (older ones can corrupt a
WAL that is reset while another connection checkpoints).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from quarterdeck.core.errors import Corrupt, Unavailable, UsageError
from quarterdeck.store.sqlite.rows import one
from quarterdeck.store.sqlite.statements import load, schema

APPLICATION_ID = 0x51444B31
"""Marks a file as Quarterdeck's (``QDK1``)."""
SCHEMA = 5
"""The newest schema version that this code writes."""
MIN_LIBRARY = 3_051_003
BUSY_MS = 10_000
RETRY_S = 0.01
"""How often it is looked whether a dead owner's writer has let go of the file."""
QUICK_CHECK_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked whole when they are opened; larger ones by ``quarterdeck doctor``."""


_EXITING = 0x4
"""``PF_EXITING`` among the flags of ``/proc/PID/stat``: killed, and already giving back what it held."""


class OwnerLock:
    """The lock beside a store's file. It is held by the owner and its writer; the kernel drops it when both have ended.

    Whoever asks while a dead owner's writer still finishes waits for it, at most ``wait_s``; a living owner is named at once, in
    ``Unavailable`` (``store.owned``). Making one waits on this thread; :meth:`take` waits on the event loop.
    """

    def __init__(self, path: Path, wait_s: float = 10.0) -> None:
        self._open(path)
        for pause_s in self._pauses(path, wait_s):
            time.sleep(pause_s)

    @classmethod
    async def take(cls, path: Path, wait_s: float = 10.0) -> OwnerLock:
        """The lock, once it is ours; everything else on the event loop goes on meanwhile."""
        lock = cls.__new__(cls)
        lock._open(path)
        try:
            for pause_s in lock._pauses(path, wait_s):
                await asyncio.sleep(pause_s)
        except asyncio.CancelledError:
            lock.release()
            raise
        return lock

    def _open(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        try:
            self._file = open(self.path, "a+", encoding="ascii")  # noqa: SIM115 - held for the life of the owner
        except OSError as error:
            raise UsageError(
                "store.path", f"{self.path} cannot be opened ({error}); check the folder and its permissions"
            ) from None

    def _pauses(self, path: Path, wait_s: float) -> Iterator[float]:
        """The pauses between attempts, until the lock is taken and marked as ours; raises once there is no more hope."""
        deadline_s = time.monotonic() + wait_s
        while not self._taken():
            holder = self._holder()
            if _alive(holder) or time.monotonic() > deadline_s:
                self._file.close()
                raise Unavailable(
                    "store.owned",
                    f"{path} is in use by process {holder}; stop it, or name another file in QUARTERDECK_STORE",
                    holder=holder,
                )
            yield RETRY_S
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> int:
        self._file.seek(0)
        text = self._file.read(20)
        return int(text) if text.isdigit() else 0

    def fileno(self) -> int:
        """The descriptor that the writer inherits, so that the lock outlives a killed owner until the writer has ended."""
        return self._file.fileno()

    def release(self) -> None:
        """Give the file free; harmless when repeated."""
        self._file.close()


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return fields[0] != "Z" and not int(fields[6]) & _EXITING


def connect(path: Path, *, readonly: bool = False) -> apsw.Connection:
    """A connection with the settings that durability needs; raises ``Unavailable``, ``UsageError`` or ``Corrupt``."""
    if apsw.SQLITE_VERSION_NUMBER < MIN_LIBRARY:
        raise UsageError("store.library", f"SQLite {apsw.sqlite_lib_version()} is too old; install apsw 3.51.3 or newer")
    if path.is_dir():
        raise UsageError("store.path", f"{path} is a folder; name a file in QUARTERDECK_STORE")
    flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        db = apsw.Connection(str(path), flags=flags)
        db.set_busy_timeout(BUSY_MS)
        if not readonly:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            # The writer checkpoints by itself: SQLite's automatic one swallows the errors of the storage.
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("PRAGMA cache_size = -65536")
        db.execute("PRAGMA foreign_keys = OFF")
    except apsw.CantOpenError as error:
        raise UsageError("store.path", f"{path} cannot be opened ({error}); check the folder and its permissions") from None
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise Corrupt("store.corrupt", f"{path} is not a readable SQLite file ({error}); restore a backup") from None
    except (apsw.IOError, apsw.FullError, apsw.ReadOnlyError) as error:
        raise Unavailable("store.storage", f"{path} cannot be written ({error}); free or mount the storage") from None
    except apsw.BusyError as error:
        raise Unavailable("store.busy", f"{path} is locked by another program ({error}); let it finish") from None
    return db


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what SQLite says about a file into errors that say what to do."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise Corrupt("store.corrupt", f"{path} is damaged or no SQLite file ({error}); restore a backup") from None
    except apsw.BusyError as error:
        raise Unavailable("store.busy", f"{path} is locked by another program ({error}); let it finish") from None
    except (apsw.IOError, apsw.FullError, apsw.ReadOnlyError) as error:
        raise Unavailable("store.storage", f"{path} cannot be used ({error}); free or mount the storage") from None


def prepare(path: Path, incarnation: int) -> None:
    """Make the file ours: create or migrate it, check it, and release what the previous owner held.

    Only the owner calls this, before its writer starts. ``incarnation`` is used for a new file only. Raises ``UsageError`` for a
    foreign or newer file (nothing is changed in it) and ``Corrupt`` for a damaged one.
    """
    new = not path.exists() or path.stat().st_size == 0 or _blank(path)
    db = connect(path)
    try:
        with readable(path):
            require_durable(db)
            if new:
                db.execute("BEGIN IMMEDIATE")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                _migrate(db)
                db.execute(load("write")["put_meta"], ("incarnation", incarnation))
                db.execute("COMMIT")
            else:
                if path.stat().st_size <= QUICK_CHECK_BYTES:
                    check(db, path)
                db.execute("BEGIN IMMEDIATE")
                _migrate(db)
                db.execute("COMMIT")
            _adopt(db)
    finally:
        db.close()


def require_ours(path: Path) -> None:
    """Raise unless ``path`` is a store that this version can read; nothing is written, whatever it is."""
    if not path.exists() or (path.is_file() and path.stat().st_size == 0) or _blank(path):
        raise UsageError(
            "store.missing", f"there is no store at {path}; start a runtime first, or name another in QUARTERDECK_STORE"
        )


def incarnation_of(path: Path) -> int:
    """The incarnation of a store that is ours, part of the guard of every commit."""
    db = connect(path, readonly=True)
    try:
        with readable(path):
            return int(one(db, load("write")["meta"], ("incarnation",))[0])
    finally:
        db.close()


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


def _blank(path: Path) -> bool:
    """Whether the file holds nothing yet, as after a crash while it was made; raises if it is not ours to use."""
    db = connect(path, readonly=True)
    try:
        with readable(path):
            application, version = db.pragma("application_id"), db.pragma("user_version")
            tables = one(db, "SELECT count(*) FROM sqlite_schema")[0]
    finally:
        db.close()
    if application == version == tables == 0:
        return True
    if application != APPLICATION_ID:
        raise UsageError("store.foreign", f"{path} is a database of another program; name another file in QUARTERDECK_STORE")
    if not isinstance(version, int) or version > SCHEMA:
        raise UsageError("store.newer", f"{path} has schema {version}, newer than {SCHEMA}; run the newer quarterdeck")
    return False


def require_durable(db: apsw.Connection) -> None:
    """Refuse any setting under which an acknowledged commit could be lost."""
    mode, level = db.pragma("journal_mode"), db.pragma("synchronous")
    if mode != "wal" or level not in (2, 3):
        raise UsageError(
            "store.unsafe", f"journal_mode={mode}, synchronous={level} can lose commits; the file system must allow WAL and FULL"
        )


def check(db: apsw.Connection, path: Path) -> None:
    """SQLite's own quick check of the whole file; raises ``Corrupt`` with its first finding."""
    finding = db.pragma("quick_check", 1)
    if finding != "ok":
        raise Corrupt("store.corrupt", f"{path} is damaged ({finding}); restore a backup")


def _migrate(db: apsw.Connection) -> None:
    """Bring the file from its schema to :data:`SCHEMA`, inside the caller's transaction: wholly, or not at all."""
    for version in range(_version(db) + 1, SCHEMA + 1):
        db.execute(schema(version))
        db.execute(f"PRAGMA user_version = {version}")


def _version(db: apsw.Connection) -> int:
    return int(one(db, "PRAGMA user_version")[0])


def require_present(db: apsw.Connection, path: Path) -> None:
    """Raise ``UsageError`` (``store.older``) for a file that an owner has to bring to this version's schema first."""
    version = _version(db)
    if version < SCHEMA:
        raise UsageError("store.older", f"{path} has schema {version}, older than {SCHEMA}; start a runtime on it once")


def leave(path: Path) -> None:
    """Give up what its owner still holds, which then is nobody's death. Only the owner calls this, after its writer has ended."""
    db = connect(path)
    try:
        sql = load("write")
        if one(db, sql["is_held"])[0]:
            db.execute("BEGIN IMMEDIATE")
            for name in ("adopt_ready", "adopt_unread", "adopt_release"):
                db.execute(sql[name])
            db.execute("COMMIT")
    finally:
        db.close()


def _adopt(db: apsw.Connection) -> None:
    sql = load("write")
    db.execute("BEGIN IMMEDIATE")
    for name in ("adopt_deaths", "adopt_ready", "adopt_unread", "adopt_release", "adopt_claims", "adopt_lanes"):
        db.execute(sql[name])
    db.execute("COMMIT")
