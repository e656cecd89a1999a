"""``quarterdeck serve`` and ``quarterdeck dev``: a runtime of a deck with the HTTP door on it, until a signal says otherwise.

What starts first stops last: store, runtime, door. The first start on a store makes an admin key and prints it once. SIGTERM or
SIGINT closes the door, lets active runs come to rest, and gives the store free; a second signal does not wait. ``dev`` starts the
same again whenever a Python file, a prompt or a policy under the app's folder changes: runs go on where they were.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from quarterdeck.app.runtime import DRAIN_S
from quarterdeck.cli.logs import log_settings, start_logging
from quarterdeck.cli.loops import loop_factory
from quarterdeck.cli.options import AsJson, Store
from quarterdeck.cli.printing import emit, note
from quarterdeck.cli.settings import Settings, settings
from quarterdeck.cli.storefile import shown
from quarterdeck.core.errors import UsageError
from quarterdeck.server.settings import Settings as ServerSettings

if TYPE_CHECKING:
    from quarterdeck.server.identity.issuer import OidcSettings

VARIABLES = "QUARTERDECK_SERVER_"
WATCHED = (".py", ".md", ".cedar", ".toml", ".sql")
"""What ``dev`` starts again for."""

App = Annotated[
    str | None,
    typer.Argument(
        metavar="[APP]", help="module:deck or a quarterdeck.toml. Else QUARTERDECK_APP, ./quarterdeck.toml.", show_default=False
    ),
]
Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Where to listen; 127.0.0.1 by default.")]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65_535, metavar="N", help="8321 by default; 0: any free one.")]
NoAuth = Annotated[
    bool, typer.Option("--insecure-loopback", help="Whoever reaches this machine's loopback is admin. Development only.")
]

WithParent = Annotated[
    bool, typer.Option("--with-parent", help="Stop when stdin ends: so that a child leaves with its parent, however that dies.")
]

NoWork = Annotated[bool, typer.Option("--no-work", help="Only answer; `quarterdeck worker` drives the runs.")]


def serve(
    app: App = None,
    store: Store = None,
    host: Host = None,
    port: Port = None,
    insecure_loopback: NoAuth = False,
    with_parent: WithParent = False,
    no_work: NoWork = False,
    as_json: AsJson = False,
) -> int:
    """Serve the HTTP interface of a deck, and drive its runs, in this process; with --no-work, workers elsewhere drive them.

    With --json, stdout has one line once requests are taken: url, store, and the key if one was made.
    """
    if with_parent:
        leave_with_parent()
    chosen = settings(app, store)
    start_logging(log_settings(chosen.file.log, os.environ))
    door = server_settings(chosen.file.server, os.environ, {"host": host, "port": port, "insecure_loopback": insecure_loopback})
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(chosen, door, work=not no_work, as_json=as_json))
    except KeyboardInterrupt:
        return 130
    return 0


def dev(
    app: App = None,
    store: Store = None,
    host: Host = None,
    port: Port = None,
    insecure_loopback: NoAuth = False,
    as_json: AsJson = False,
) -> int:
    """Serve, and start again whenever a file of the app changes."""
    from watchfiles import Change, run_process

    chosen = settings(app, store)
    chosen.deck()  # a mistake shows now, not in a loop of restarts

    def matters(_: Change, path: str) -> bool:
        return path.endswith(WATCHED) and not any(
            part.startswith((".", "__pycache__", "build")) for part in Path(path).parts[-3:]
        )

    flags = [("--store", store), ("--host", host), ("--port", port)]
    words = [sys.executable, "-m", "quarterdeck.cli", "serve", "--with-parent", *([app] if app is not None else [])]
    words += [word for name, value in flags if value is not None for word in (name, str(value))]
    words += [word for word, wanted in (("--insecure-loopback", insecure_loopback), ("--json", as_json)) if wanted]
    note(f"watching {chosen.folder}; Ctrl-C ends")
    listening, _ = os.pipe()  # whose other end is open for as long as this process lives
    os.dup2(listening, 0)
    os.close(listening)
    run_process(
        chosen.folder,
        target=shlex.join(words),
        target_type="command",
        watch_filter=matters,
        callback=lambda changes: note(f"changed: {', '.join(sorted(Path(path).name for _, path in changes))}; starting again"),
        sigint_timeout=45,
        sigkill_timeout=5,
    )
    return 0


def leave_with_parent() -> None:
    """Stop as on SIGTERM when stdin ends. Whoever holds its other end need not live to say so: the system closes it."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4_096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="quarterdeck-parent", daemon=True).start()


def server_settings(table: Mapping[str, object], environment: Mapping[str, str], flags: Mapping[str, object]) -> ServerSettings:
    """The door's settings: the file's table, then ``QUARTERDECK_SERVER_*``, then flags that were given.

    >>> server_settings({"port": 1}, {"QUARTERDECK_SERVER_PORT": "8400"}, {"port": None}).port
    8400
    """
    named = {name.removeprefix(VARIABLES).lower(): value for name, value in environment.items() if name.startswith(VARIABLES)}
    given = {name: value for name, value in flags.items() if value is not None and value is not False}
    try:
        return msgspec.convert({**table, **named, **given}, ServerSettings, strict=not named)
    except msgspec.ValidationError as error:
        raise UsageError("config.invalid", f"[server], {VARIABLES}* or flags: {error}; docs/guide/http.md lists them") from None


def oidc_settings(table: Mapping[str, object] | None) -> OidcSettings | None:
    """The identity provider of a file's table, if it has one; raises :class:`UsageError` (``config.invalid``)."""
    if table is None:
        return None
    from quarterdeck.server.identity.issuer import OidcSettings

    try:
        return msgspec.convert(table, OidcSettings)
    except msgspec.ValidationError as error:
        raise UsageError("config.invalid", f"[oidc]: {error}; docs/guide/identity.md has an example") from None


async def _serve(chosen: Settings, door: ServerSettings, *, work: bool, as_json: bool) -> None:
    from quarterdeck.server import create_app, listen
    from quarterdeck.server import serve as serve_door
    from quarterdeck.server.identity import (
        Authenticator,
        Chain,
        KeyAuthenticator,
        KeyCache,
        LoopbackAnonymous,
        ensure_first_admin,
    )
    from quarterdeck.server.identity.issuer import OidcAuthenticator

    deck, oidc = chosen.deck(), oidc_settings(chosen.file.oidc)
    listener = listen(door)  # before the store: an address that is taken stops nobody's runs
    try:
        async with deck.start(chosen.store, work=work) as runtime:
            clock, entropy = runtime.parts.clock, runtime.parts.entropy
            first = None
            if not door.insecure_loopback:
                first = await ensure_first_admin(runtime.apply, runtime.insights, clock, entropy)
                if first is not None and not as_json:
                    note(f"the admin key of this store, shown once: {first}")
                    note(
                        "give it as: Authorization: Bearer KEY (or QUARTERDECK_KEY for the client); more: quarterdeck keys create"
                    )
            remembered = KeyCache()
            authenticator: Authenticator = Chain(
                KeyAuthenticator(runtime.insights, clock, remembered),
                OidcAuthenticator(oidc, clock) if oidc is not None else None,
                LoopbackAnonymous(door.host) if door.insecure_loopback else None,
            )
            app = create_app(runtime, authenticator, door, remembered)

            def ready(url: str) -> None:
                if as_json:
                    emit({"url": url, "store": shown(chosen.store), "key": first})
                else:
                    note(f"serving {chosen.app} on {url}, store {shown(chosen.store)}")

            await serve_door(app, listener=listener, ready=ready)
            note(f"no more requests are taken; {runtime.active} runs under way come to rest first, for at most {DRAIN_S:g} s")
        note("stopped; what has not ended goes on when a runtime starts on this store")
    finally:
        listener.close()
