"""Which deck, and which store or server a command means: flags, then ``QUARTERDECK_*`` variables, then ``quarterdeck.toml``.

A key that is not known is an error, because a misspelt one would be a setting that silently is not made::

    [quarterdeck]
    app = "support.agents:deck"
    store = "sqlite:///support.db"  # or "postgresql://user@host/db"
    # or: server = "https://deck.example", for everything but what needs the store itself

    [server]  # every field of quarterdeck.server.Settings; also QUARTERDECK_SERVER_PORT=8400 and so on
    port = 8400

    [oidc]  # an identity provider beside the store's own keys: quarterdeck.server.identity.OidcSettings
    issuer = "https://login.example"

    [notices.desk]  # who is told of what waits for a person: quarterdeck.app.telling.Target
    webhook = "https://desk.example/hooks"
    secret_env = "DESK_SECRET"

    [log]  # also QUARTERDECK_LOG_LEVEL, QUARTERDECK_LOG_FORMAT
    format = "json"

It is looked for in the working directory, or named in place of APP. Its paths, and the modules it names, are relative to its folder.
"""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quarterdeck.app.stores import DEFAULT_STORE
from quarterdeck.app.telling import Target
from quarterdeck.cli.printing import note
from quarterdeck.cli.storefile import Where, where_of
from quarterdeck.core.errors import UsageError
from quarterdeck.core.overrides import Change

if TYPE_CHECKING:
    from quarterdeck.app.deck import Quarterdeck

FILE = "quarterdeck.toml"
APP_VARIABLE = "QUARTERDECK_APP"
STORE_VARIABLE = "QUARTERDECK_STORE"
SERVER_VARIABLE = "QUARTERDECK_SERVER"
KEY_VARIABLE = "QUARTERDECK_KEY"
MAX_KEY_BYTES = 16_384
"""A longer key file is another file."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    app: str | None = None
    store: str | None = None
    server: str | None = None


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configuration file. The tables of the server are checked by who needs them."""

    quarterdeck: _Table = _Table()
    server: dict[str, object] = {}
    oidc: dict[str, object] | None = None
    log: dict[str, object] = {}
    dependencies: dict[str, Change] = {}
    notices: dict[str, Target] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the three places say together. ``folder`` is where modules of the app are looked for first."""

    app: str | None
    store: Where
    folder: Path
    file: File = field(default_factory=File)

    def deck(self) -> Quarterdeck:
        """The deck of ``app``; raises :class:`UsageError` if none is named or it is not there. Importing it runs its code."""
        if self.app is None:
            raise UsageError("app.unnamed", f"no deck is named; use --app module:deck, {APP_VARIABLE} or {FILE}")
        deck = _imported(self.app, self.folder)
        for name, change in self.file.dependencies.items():
            deck.change_dependency(name, change)
        for name, target in self.file.notices.items():
            if deck.channels.get(name, (None, None))[1] is not target:
                deck.notify(name, target, owners=target.owners, kinds=target.kinds)
        return deck


def settings(app: str | None, store: str | None) -> Settings:
    """The settings of a command whose flags are ``app`` and ``store``. Reads the file and the environment, imports nothing."""
    app = app or os.environ.get(APP_VARIABLE) or None
    store = store or os.environ.get(STORE_VARIABLE) or None
    folder = Path.cwd()
    file = folder / FILE
    if app is not None and app.endswith(".toml"):
        file, app = Path(app).absolute(), None
        if not file.is_file():
            raise UsageError("config.missing", f"there is no file {file}; name a module:deck or a quarterdeck.toml")
    tables = _read(file) if file.is_file() else File()
    found = tables.quarterdeck
    if app is None and found.app is not None:
        app, folder = found.app, file.parent
    if store is None:
        return Settings(app, where_of(found.store or DEFAULT_STORE, file.parent), folder, tables)
    return Settings(app, where_of(store), folder, tables)


def server_of(file: File, store: str | None, server: str | None, *, app: str | None = None) -> str | None:
    """The server that a command goes to, or ``None``: then it goes to the store. The first of flags, variables and file that names
    one of the two says which; one that names both is an error (``config.place``). ``app`` is a flag that means this machine.
    """
    places = (
        ("flags", store or app, server),
        ("variables", os.environ.get(STORE_VARIABLE), os.environ.get(SERVER_VARIABLE)),
        (FILE, file.quarterdeck.store, file.quarterdeck.server),
    )
    for where, here, there in places:
        if here and there:
            said = f"{where} name both a server and a store or deck of this machine; say with --server or --store which is meant"
            raise UsageError("config.place", said)
        if here or there:
            return there or None
    return None


def key_of(key_file: str | None) -> str | None:
    """The key for a server: from a file, else from ``QUARTERDECK_KEY``. It is never a flag's value, which every process could read."""
    if key_file is None:
        return os.environ.get(KEY_VARIABLE, "").strip() or None
    try:
        with Path(key_file).open("rb") as file:
            text = file.read(MAX_KEY_BYTES + 1).decode("ascii", "replace").strip()
            open_to_others = os.fstat(file.fileno()).st_mode & 0o077
    except OSError as error:
        # The name is not repeated: it may be the key itself, given by mistake.
        raise UsageError("config.key", f"the key file cannot be read: {error.strerror or 'no such file'}") from None
    if not text or len(text) > MAX_KEY_BYTES or len(text.split()) != 1:
        raise UsageError("config.key", "the key file holds no key; it has one line, the key")
    if open_to_others and Path(key_file).is_file():
        note("the key file can be read by others on this machine; chmod 600 it")
    return text


def _read(file: Path) -> File:
    try:
        return msgspec.convert(tomllib.loads(file.read_text("utf-8")), File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("config.invalid", f"{file} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        said = f"{file}: {error}; it may have [quarterdeck] (app, store, server), [server], [oidc], [log], [notices.NAME], [dependencies]"
        raise UsageError("config.invalid", said) from None


def _imported(app: str, folder: Path) -> Quarterdeck:
    from quarterdeck.app.deck import Quarterdeck

    module_name, _, attribute = app.partition(":")
    if not module_name or not attribute:
        raise UsageError("app.invalid", f"{app!r} does not name a deck; write module:deck, as in support.agents:deck")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise UsageError("app.missing", f"there is no module {error.name!r} in {folder}; name it as module:deck") from None
    found = getattr(module, attribute, None)
    if not isinstance(found, Quarterdeck):
        decks = [name for name, value in vars(module).items() if isinstance(value, Quarterdeck)]
        raise UsageError("app.invalid", f"{app!r} is no deck; {module_name} has: {', '.join(decks) or 'none'}")
    return found
