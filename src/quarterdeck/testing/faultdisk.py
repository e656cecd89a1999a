"""A disk that fails once, at the n-th call, in a chosen way.

:class:`FaultyDisk` is a :class:`~quarterdeck.testing.powercut.RecordingDisk` whose write, truncate, sync, open, delete and read calls
are counted; at the chosen one it fails, and from then on it works again. That is the hard case: a kernel reports a failed sync once,
forgets the pages, and lets the next sync succeed (https://wiki.postgresql.org/wiki/Fsync_Errors). So whoever goes on after the error
on the same descriptors builds on what may not be there; :attr:`FaultyDisk.after` lists every change made after the fault, and
``failed_in`` is what the load had put into ``phase`` when it came.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from types import TracebackType

import apsw

from quarterdeck.testing.powercut import RecordingDisk, RecordingFile


class Failing(StrEnum):
    """How the chosen call fails. ``SHORT`` writes only a part, then reports a full disk, as the operating system does."""

    EIO = "eio"
    ENOSPC = "enospc"
    SHORT = "short"


_EIO = {
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
}
_SPACE = ("write", "truncate", "open")


class FaultyDisk(RecordingDisk):
    """Fails the ``nth`` eligible call (from 1; 0 never). Every call is eligible for ``EIO``, those that need space for the others."""

    NAME = "quarterdeck-faulty"

    def __init__(self, folder: Path, nth: int, failing: Failing) -> None:
        super().__init__(folder)
        self.nth = nth
        self.failing = failing
        self.calls = 0
        self.phase = ""
        self.failed = ""
        self.failed_in = ""
        self.after: list[str] = []
        self.dead = False
        self._hook = sys.unraisablehook

    def about(self, what: str, name: str) -> bool:
        """Count one call; ``True`` if it is the one to fail. Raises for every change once the disk is declared dead."""
        if self.dead and what != "read":
            raise apsw.exception_for(_EIO[what])
        if self.failed and what in ("write", "sync", "truncate"):
            self.after.append(f"{what} {name}")
        if self.failing is not Failing.EIO and what not in _SPACE:
            return False
        self.calls += 1
        if self.calls != self.nth or self.failed:
            return False
        self.failed, self.failed_in = f"{what} {name}", self.phase
        return True

    def __enter__(self) -> FaultyDisk:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        sys.unraisablehook = self._hook
        super().__exit__(kind, error, trace)

    def _unraisable(self, report: sys.UnraisableHookArgs) -> None:
        """Say nothing of the planned errors that SQLite keeps to itself."""
        if not isinstance(report.exc_value, apsw.Error):
            self._hook(report)

    def error(self, what: str) -> Exception:
        """The error of a failing call."""
        if self.failing is Failing.EIO or what == "open":
            return apsw.exception_for(_EIO[what])
        return apsw.exception_for(apsw.SQLITE_FULL)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open, or fail to."""
        if self.concerns(name, flags) and self.about("open", str(flags[0])):
            raise self.error("open")
        return super().xOpen(name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete, or fail to."""
        if self.about("delete", filename):
            raise self.error("delete")
        super().xDelete(filename, syncdir)

    def opened(self, file: int, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Files of this disk fail as well."""
        return _FaultyFile(self, file, name, flags)


class _FaultyFile(RecordingFile):
    def __init__(self, disk: FaultyDisk, file: int, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(disk, file, name, flags)
        self._faulty = disk
        self._name = "log" if flags[0] & apsw.SQLITE_OPEN_WAL else "file" if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else "journal"

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._faulty.about("read", self._name):
            raise self._faulty.error("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._faulty.about("write", self._name):
            if self._faulty.failing is Failing.SHORT and len(data) > 1:
                super().xWrite(data[: len(data) // 2], offset)
            raise self._faulty.error("write")
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if self._faulty.about("truncate", self._name):
            raise self._faulty.error("truncate")
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._faulty.about("sync", self._name):
            raise self._faulty.error("sync")
        super().xSync(flags)
