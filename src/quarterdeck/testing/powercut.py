"""A disk that remembers the order of things, and every state in which a power cut could have left it.

:class:`RecordingDisk` is an ``apsw`` VFS over the ordinary one. While it is in force it notes each write, truncation, sync, creation
and deletion of the database files in one folder, and the marks that a workload puts between them ("the third commit was
acknowledged here"). :class:`Replay` then rebuilds what the disk may have held after each of those calls: what was synced is there;
of what was not synced, nothing, everything, or anything.

The model is that of SQLite's own crash tests (https://sqlite.org/testing.html), with one assumption less: names are not durable at
once. A created or deleted name is certain only when its folder was synced (SQLite does that at the first sync of a journal or log,
and at a deletion that asks for it); until then the old folder may come back, in the order in which it changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from types import TracebackType
from typing import assert_never

import apsw

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL


@dataclass(frozen=True, slots=True)
class Written:
    """``data`` was written at ``offset`` of a file; files are numbered in the order in which they appeared."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file was cut (or extended with zeros) to ``size`` bytes."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything written to a file before this is durable; with ``folder`` every name before this as well."""

    file: int
    folder: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A name now means this file, or nothing (``file`` is ``None``); with ``folder`` durably so."""

    name: str
    file: int | None
    folder: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """What the workload had come to: so many batches begun, so many acknowledged."""

    begun: int
    acknowledged: int


Step = Written | Cut | Synced | Named | Mark


class RecordingDisk(apsw.VFS):
    """The default VFS of this process for as long as the ``with`` block runs. Files outside ``folder`` are not noted.

    ``deaf`` is a disk that ignores syncs, a planted defect: it acknowledges them and makes nothing durable.
    """

    NAME = "quarterdeck-recording"

    def __init__(self, folder: Path, *, deaf: bool = False) -> None:
        super().__init__(self.NAME, "unix", makedefault=True)
        self.folder = str(folder.resolve())
        self.deaf = deaf
        self.log: list[Step] = []
        self._names: dict[str, int] = {}
        self._files = 0

    def __enter__(self) -> RecordingDisk:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.unregister()

    def mark(self, begun: int, acknowledged: int) -> None:
        """Note how far the workload is."""
        self.log.append(Mark(begun, acknowledged))

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file as usual, noting the name if that made it."""
        path = _plain(name)
        if path is None or not self.concerns(name, flags):
            return apsw.VFSFile("unix", name, flags)
        if path not in self._names:
            if os.path.exists(path):
                raise ValueError(f"{path} was there before the recording; record in an empty folder")
            self._names[path] = self._files
            self.log.append(Named(os.path.basename(path), self._files))
            self._files += 1
        return self.opened(self._names[path], name, flags)

    def concerns(self, name: str | apsw.URIFilename | None, flags: list[int]) -> bool:
        """Whether this is a database file, log or journal of the folder."""
        path = _plain(name)
        kinds = apsw.SQLITE_OPEN_MAIN_DB | _JOURNALS
        return path is not None and os.path.dirname(path) == self.folder and bool(flags[0] & kinds)

    def opened(self, file: int, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """The open file behind a name; ``file`` is its number in the log."""
        return RecordingFile(self, file, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Delete as usual, noting it."""
        super().xDelete(filename, syncdir)
        if self._names.pop(filename, None) is not None:
            self.log.append(Named(os.path.basename(filename), None, folder=syncdir and not self.deaf))


class RecordingFile(apsw.VFSFile):
    """One open file of a :class:`RecordingDisk`."""

    def __init__(self, disk: RecordingDisk, file: int, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._file = file
        self._first = bool(flags[0] & _JOURNALS)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk.log.append(Written(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._disk.log.append(Cut(self._file, newsize))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if not self._disk.deaf:
            self._disk.log.append(Synced(self._file, self._first))
            self._first = False


class Fate(StrEnum):
    """What became of everything that was not synced when the power went."""

    ABSENT = "absent"
    PRESENT = "present"
    SUBSET = "subset"
    TORN = "torn"
    SCATTERED = "scattered"


@dataclass(slots=True)
class Replay:
    """Walks a log; at any point :meth:`image` says what the folder may hold after a power cut there."""

    _durable: dict[int, bytearray] = field(default_factory=dict)
    _pending: dict[int, list[Written | Cut]] = field(default_factory=dict)
    _folder: dict[str, int] = field(default_factory=dict)
    _names: list[Named] = field(default_factory=list)
    begun: int = 0
    acknowledged: int = 0

    def advance(self, step: Step) -> None:
        """Take one more call into account."""
        match step:
            case Written() | Cut():
                self._pending.setdefault(step.file, []).append(step)
            case Synced():
                content = self._durable.setdefault(step.file, bytearray())
                for change in self._pending.pop(step.file, []):
                    _apply(content, change)
                if step.folder:
                    self._settle()
            case Named():
                self._names.append(step)
                if step.folder:
                    self._settle()
            case Mark():
                self.begun, self.acknowledged = step.begun, step.acknowledged
            case _:
                assert_never(step)

    def image(self, fate: Fate, rng: Random) -> dict[str, bytes]:
        """The files of one possible disk, by name."""
        names = len(self._names)
        if fate is Fate.ABSENT:
            names = 0
        elif fate in (Fate.SUBSET, Fate.SCATTERED):
            names = rng.randint(0, names)
        folder = dict(self._folder)
        _rename(folder, self._names[:names])
        found: dict[str, bytes] = {}
        last = max((file for file, pending in self._pending.items() if pending), default=None)
        for name, file in folder.items():
            content = bytearray(self._durable.get(file, b""))
            for change in _survivors(self._pending.get(file, []), fate, rng, torn=file == last):
                _apply(content, change)
            found[name] = bytes(content)
        return found

    def _settle(self) -> None:
        _rename(self._folder, self._names)
        self._names = []


def images(log: list[Step], seed: int, share: float = 1.0) -> Iterator[tuple[Replay, Fate, dict[str, bytes]]]:
    """Every distinct image of a log: after each call, each fate. The same bytes under the same promises come once.

    ``share`` is the part of them that is built, chosen by the seed.
    """
    rng = Random(seed)
    replay = Replay()
    seen: set[tuple[object, ...]] = set()
    for step in log:
        replay.advance(step)
        for fate in Fate:
            if rng.random() >= share:
                continue
            files = replay.image(fate, rng)
            key = (replay.begun, replay.acknowledged, *sorted((name, hash(content)) for name, content in files.items()))
            if key not in seen:
                seen.add(key)
                yield replay, fate, files


def _plain(name: str | apsw.URIFilename | None) -> str | None:
    return name.filename() if isinstance(name, apsw.URIFilename) else name


def _rename(folder: dict[str, int], changes: list[Named]) -> None:
    for change in changes:
        if change.file is None:
            folder.pop(change.name, None)
        else:
            folder[change.name] = change.file


def _apply(content: bytearray, change: Written | Cut) -> None:
    end = change.size if isinstance(change, Cut) else change.offset + len(change.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if isinstance(change, Cut):
        del content[end:]
    else:
        content[change.offset : end] = change.data


def _survivors(pending: list[Written | Cut], fate: Fate, rng: Random, *, torn: bool) -> list[Written | Cut]:
    match fate:
        case Fate.ABSENT:
            return []
        case Fate.PRESENT:
            return pending
        case Fate.SUBSET:
            return [change for change in pending if rng.random() < 0.5]
        case Fate.TORN:
            return [*pending[:-1], *_torn(pending[-1], rng)] if torn and pending else pending
        case Fate.SCATTERED:
            sectors = [piece for change in pending for piece in _sectors(change)]
            landed = sorted(rng.sample(range(len(sectors)), rng.randint(0, len(sectors))))
            return [sectors[place] for place in landed]
        case _:
            assert_never(fate)


def _torn(change: Written | Cut, rng: Random) -> list[Written | Cut]:
    if isinstance(change, Cut):
        return []
    boundary = (change.offset // SECTOR + rng.randint(1, max(1, len(change.data) // SECTOR))) * SECTOR
    kept = change.data[: max(0, boundary - change.offset)]
    return [Written(change.file, change.offset, kept)] if len(kept) < len(change.data) else []


def _sectors(change: Written | Cut) -> list[Written | Cut]:
    """A write as the disk sees it: pieces that end at sector boundaries; each may have landed before any other."""
    if isinstance(change, Cut):
        return [change]
    pieces: list[Written | Cut] = []
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        pieces.append(Written(change.file, start, change.data[start - change.offset : stop - change.offset]))
        start = stop
    return pieces
