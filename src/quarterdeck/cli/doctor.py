"""``quarterdeck doctor``: what must be true of this machine, the store and the deck, checked one by one.

Every check names what it found and, unless that is well, what to do. Nothing is changed: the store is opened for reading.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import apsw
import msgspec

from quarterdeck.cli.settings import Settings
from quarterdeck.cli.storefile import shown
from quarterdeck.core.errors import QuarterdeckError, UsageError
from quarterdeck.store import postgres
from quarterdeck.store.sqlite.opening import MIN_LIBRARY, SCHEMA, check, connect, owner_of, readable, require_ours

LEAST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 100 * 1024 * 1024
"""Below this a store that is written to may stop at any moment."""
FEW_FREE_BYTES = 1024 * 1024 * 1024


class Health(StrEnum):
    """How a check came out; only ``FAIL`` makes the command exit with 1."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


class Check(msgspec.Struct, frozen=True):
    """One check: what was found, and what to do about it."""

    name: str
    health: Health
    found: str
    advice: str = ""


def checks(settings: Settings) -> list[Check]:
    """Make every check; one that fails keeps only those from being made that need what it has found."""
    where = settings.store
    made = [_python(), _sqlite(), _uvloop(), _local_model()]
    made += _database(where) if isinstance(where, str) else [_disk(where), *_store(where)]
    made.append(_app(settings))
    return made


def _python() -> Check:
    found = platform.python_version()
    if tuple(sys.version_info) < LEAST_PYTHON:
        return Check("python", Health.FAIL, found, "install Python 3.11 or newer")
    return Check("python", Health.OK, found)


def _sqlite() -> Check:
    found = f"{apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"
    if apsw.SQLITE_VERSION_NUMBER < MIN_LIBRARY:
        return Check("sqlite", Health.FAIL, found, "older libraries can corrupt a store: pip install 'apsw>=3.51.3'")
    return Check("sqlite", Health.OK, found)


def _uvloop() -> Check:
    if importlib.util.find_spec("uvloop") is None:
        return Check("event loop", Health.WARN, "asyncio", "uvloop is quicker: pip install uvloop")
    return Check("event loop", Health.OK, "uvloop")


def _local_model() -> Check:
    """The bundled local model is optional, so that its absence is a failure only for a deck that names it."""
    from quarterdeck.models.local import BUNDLED_NAME, missing

    lacking = missing()
    if lacking:
        return Check("local model", Health.WARN, "cannot run here", f"for the bundled model, {lacking}")
    return Check("local model", Health.OK, f"{BUNDLED_NAME}, with its engine")


def _disk(path: Path) -> Check:
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", Health.FAIL, found, "the folder cannot be written to; change its permissions or name another store")
    if free < LEAST_FREE_BYTES:
        return Check("disk", Health.FAIL, found, "free some space; a full disk stops the runtime")
    if free < FEW_FREE_BYTES:
        return Check("disk", Health.WARN, found, "free some space soon")
    return Check("disk", Health.OK, found)


def _store(path: Path) -> list[Check]:
    try:
        require_ours(path)
    except UsageError as error:
        if error.code == "store.missing":
            return [Check("store", Health.OK, f"none yet at {path}; the first run makes it")]
        return [_failed("store", error)]
    except QuarterdeckError as error:
        return [_failed("store", error)]
    return [_schema(path), _durability(path), _guarded("store pages", lambda: _pages(path)), _owner(path)]


def _database(dsn: str) -> list[Check]:
    try:
        found = postgres.examine(dsn)
        if not found.schema:
            return [Check("store", Health.OK, f"none yet in {shown(dsn)}; the first runtime makes it")]
        schema = f"{shown(dsn)}, schema {found.schema} of {found.newest}, PostgreSQL {found.server}"
        older = int(found.schema) < found.newest
        made = [
            Check("store", Health.WARN, schema, "start a runtime of this version on it; it migrates while older ones go on")
            if older
            else Check("store", Health.OK, schema),
            Check("durability", Health.OK, "fsync, full_page_writes and synchronous_commit are on"),
        ]
        return made if older else [*made, _workers(dsn)]
    except QuarterdeckError as error:
        return [_failed("store", error)]


def _workers(dsn: str) -> Check:
    with postgres.looking(dsn) as insights:
        rows = insights.workers()
    alive = sum([1 for row in rows if row.alive])
    if not alive:
        return Check("workers", Health.WARN, "none is up", "start `quarterdeck worker` or `quarterdeck serve`: ready runs wait")
    return Check("workers", Health.OK, f"{alive} up, {len(rows) - alive} lost")


def _schema(path: Path) -> Check:
    db = connect(path, readonly=True)
    try:
        version = db.pragma("user_version")
    finally:
        db.close()
    size = path.stat().st_size / 1e6
    return Check("store", Health.OK, f"{path}, schema {version} of {SCHEMA}, {size:.1f} MB")


def _durability(path: Path) -> Check:
    """The journal mode is the file's; the level of syncing is each connection's, and the writer refuses any but FULL."""
    db = connect(path, readonly=True)
    try:
        mode = str(db.pragma("journal_mode"))
    finally:
        db.close()
    if mode != "wal":
        return Check(
            "durability", Health.WARN, f"journal_mode={mode}", "the next runtime sets WAL again; find out who has changed it"
        )
    return Check("durability", Health.OK, "journal_mode=wal, writers sync fully")


def _pages(path: Path) -> Check:
    with readable(path):
        db = connect(path, readonly=True)
        try:
            check(db, path)
        finally:
            db.close()
    return Check("store pages", Health.OK, "quick check passed")


def _owner(path: Path) -> Check:
    pid = owner_of(path)
    if pid is None:
        return Check("owner", Health.OK, "no runtime is up")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Check(
            "owner", Health.WARN, f"process {pid} has ended, its writer has not", "wait a moment; it finishes what it has"
        )
    except PermissionError:
        return Check("owner", Health.OK, f"process {pid} (another user's)")
    return Check("owner", Health.OK, f"process {pid}")


def _app(settings: Settings) -> Check:
    if settings.app is None:
        return Check("app", Health.WARN, "none named", "name it to have its policies checked: --app module:deck")
    return _guarded("app", lambda: _deck(settings))


def _deck(settings: Settings) -> Check:
    from quarterdeck.app.wiring import check_deck, check_models, policy_of

    deck = settings.deck()
    check_deck(deck)
    check_models(deck)
    policy = policy_of(deck)
    counted = f"{len(deck.routes)} routes, {len(deck.agents)} agents, {len(deck.tools)} tools, {len(deck.models)} models"
    return Check("app", Health.OK, f"{deck.name}: {counted}; policy set {policy.version[:16]}")


def _guarded(name: str, made: Callable[[], Check]) -> Check:
    try:
        return made()
    except QuarterdeckError as error:
        return _failed(name, error)


def _failed(name: str, error: QuarterdeckError) -> Check:
    return Check(name, Health.FAIL, error.code, error.message)
