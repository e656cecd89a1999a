"""R09 and bad files: what is unsafe, foreign, newer or damaged is refused with a stable code, and not touched."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random  # noqa: TID251 - seeded

import apsw
import pytest

from proof.unknown import INCARNATION, admission
from quarterdeck.core.commit import Applied
from quarterdeck.core.errors import Corrupt, QuarterdeckError, Unavailable, UsageError
from quarterdeck.store.sqlite import opening
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.store.sqlite.journal import SqliteJournal
from quarterdeck.store.sqlite.opening import SCHEMA, connect, prepare, require_durable
from quarterdeck.store.sqlite.reader import SqliteInsights
from quarterdeck.testing.storeload import StoreLoad, audit

NOBODY = 65_534


def opened(path: Path) -> QuarterdeckError | None:
    """What opening a store there says, by the product's own way; ``None`` if it opens and works."""

    async def tried() -> None:
        store = await SqliteJournal.open(path, INCARNATION)
        assert await store.submit(admission("probe")) == Applied(1)
        await store.close()

    try:
        asyncio.run(tried())
    except QuarterdeckError as error:
        return error
    return None


def refused(path: Path, kind: type[QuarterdeckError], code: str) -> None:
    error = opened(path)
    assert type(error) is kind, error
    assert error.code == code
    assert str(path) in error.message


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock, which tells nothing but who owns the name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"}


def made(path: Path, batches: int = 12) -> None:
    """A store with a load in it, closed in good order."""
    prepare(path, INCARNATION)
    db = connect(path)
    load, writer = StoreLoad(5, INCARNATION), Applier(db)
    for _ in range(batches):
        load.learn(writer.apply(load.batch()))
    db.close()


@pytest.fixture
def shmless() -> Iterator[None]:
    """A system whose files have no shared memory, so that WAL is impossible."""
    vfs = apsw.VFS("quarterdeck-shmless", "unix-dotfile", makedefault=True)
    yield
    vfs.unregister()


def test_a_file_system_that_cannot_do_wal_is_refused(tmp_path: Path, shmless: None) -> None:
    with pytest.raises(UsageError, match="journal_mode=delete") as caught:
        prepare(tmp_path / "store.db", INCARNATION)
    assert caught.value.code == "store.unsafe"


@pytest.mark.parametrize(("pragma", "safe"), [
    ("journal_mode = DELETE", False), ("journal_mode = MEMORY", False), ("journal_mode = OFF", False),
    ("synchronous = OFF", False), ("synchronous = NORMAL", False), ("synchronous = FULL", True), ("synchronous = EXTRA", True),
])  # fmt: skip
def test_only_wal_with_full_or_stronger_is_durable(tmp_path: Path, pragma: str, safe: bool) -> None:
    made(tmp_path / "store.db", 1)
    db = connect(tmp_path / "store.db")
    db.execute(f"PRAGMA {pragma}")
    try:
        require_durable(db)
        accepted = True
    except UsageError as error:
        assert error.code == "store.unsafe"
        accepted = False
    finally:
        db.close()
    assert accepted is safe


def test_an_old_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MIN_LIBRARY", apsw.SQLITE_VERSION_NUMBER + 1)
    error = opened(tmp_path / "store.db")
    assert error is not None
    assert error.code == "store.library"
    assert not (tmp_path / "store.db").exists()


def test_the_library_here_is_new_enough() -> None:
    assert opening.MIN_LIBRARY >= 3_051_003
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


def test_a_read_only_file_is_refused(world_readable: Path) -> None:
    path = world_readable / "store.db"
    made(path)
    path.chmod(0o444)
    before = path.read_bytes()
    with as_nobody(world_readable):
        error = opened(path)
    assert isinstance(error, Unavailable | UsageError), error
    assert error.code in ("store.storage", "store.path")
    assert path.read_bytes() == before


def test_a_folder_without_permission_is_refused(world_readable: Path) -> None:
    path = world_readable / "closed" / "store.db"
    path.parent.mkdir(mode=0o555)
    with as_nobody(world_readable):
        refused(path, UsageError, "store.path")


def test_a_file_without_permission_is_refused(world_readable: Path) -> None:
    path = world_readable / "store.db"
    made(path)
    path.chmod(0)
    with as_nobody(world_readable):
        refused(path, UsageError, "store.path")


@pytest.fixture
def world_readable() -> Iterator[Path]:
    """A folder that every user may use; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="quarterdeck-files-") as name:
        os.chmod(name, 0o777)  # noqa: S103 - that is the point
        yield Path(name)


class as_nobody:
    """Root is above permissions, so for a while this process is nobody."""

    def __init__(self, folder: Path) -> None:
        self._user = os.geteuid()

    def __enter__(self) -> None:
        if self._user == 0:
            os.seteuid(NOBODY)

    def __exit__(self, *_: object) -> None:
        os.seteuid(self._user)


def foreign(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE accounts (a); INSERT INTO accounts VALUES (1)")
    db.close()


def foreign_with_a_log(path: Path) -> None:
    db = apsw.Connection(str(path))
    for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE accounts (a)", "INSERT INTO accounts VALUES (1)"):
        db.execute(statement).fetchall()
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.close()
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def foreign_with_an_id(path: Path) -> None:
    foreign(path)
    db = apsw.Connection(str(path))
    db.execute("PRAGMA application_id = 7; PRAGMA user_version = 1")
    db.close()


def newer(path: Path) -> None:
    made(path)
    db = apsw.Connection(str(path))
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()


@pytest.mark.parametrize(("make", "code"), [
    (foreign, "store.foreign"), (foreign_with_a_log, "store.foreign"), (foreign_with_an_id, "store.foreign"), (newer, "store.newer"),
])  # fmt: skip
def test_what_is_not_ours_is_refused_and_untouched(tmp_path: Path, make: Callable[[Path], None], code: str) -> None:
    path = tmp_path / "store.db"
    make(path)
    before = contents(tmp_path)
    refused(path, UsageError, code)
    after = contents(tmp_path)
    # The index of a log is scratch of whoever reads; the file and its log are not.
    assert {name: data for name, data in after.items() if not name.endswith("-shm") and data} == {
        name: data for name, data in before.items() if not name.endswith("-shm") and data
    }


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    assert opened(path) is None
    assert opened(path) is None


def test_a_store_that_was_never_finished_becomes_one(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connect(path).close()
    assert path.stat().st_size > 0
    assert opened(path) is None


@pytest.mark.parametrize("size", [2, 15, 100, 512, 4_096, 100_000])
def test_random_bytes_are_refused_and_untouched(tmp_path: Path, size: int) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(Random(size).randbytes(size))
    before = contents(tmp_path)
    refused(path, Corrupt, "store.corrupt")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "store.db"
    made(path, 30)
    size = int(path.stat().st_size * part)
    os.truncate(path, size)
    refused(path, Corrupt, "store.corrupt")
    assert path.stat().st_size == size


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_are_found(tmp_path: Path, seed: int) -> None:
    """A page overwritten with noise is found by opening, or by reading and verifying the journals; it is never served."""
    path = tmp_path / "store.db"
    made(path, 30)
    rng = Random(seed)
    data = bytearray(path.read_bytes())
    page = rng.randrange(0, len(data) // 4_096) * 4_096
    data[page : page + 4_096] = rng.randbytes(4_096)
    path.write_bytes(data)
    error = opened(path)
    if error is None:
        db = connect(path, readonly=True)
        findings = audit(db)
        db.close()
        assert findings, f"page {page // 4_096} of {len(data) // 4_096}"
    else:
        assert (type(error), error.code) == (Corrupt, "store.corrupt")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.mkdir()
    refused(path, UsageError, "store.path")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing" / "store.db", UsageError, "store.path")


def test_a_folder_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db.lock").mkdir()
    refused(tmp_path / "store.db", UsageError, "store.path")


def test_readers_say_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        SqliteInsights(tmp_path / "store.db")
    assert caught.value.code == "store.missing"


def test_a_file_locked_by_another_program_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE t (a); BEGIN EXCLUSIVE")
    monkeypatch.setattr(opening, "BUSY_MS", 1)
    error = opened(path)
    other.close()
    assert isinstance(error, Unavailable), error
    assert error.code == "store.busy"
