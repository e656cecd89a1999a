"""Where a command goes: to the file of a store, or to a server. Both are a :class:`Place`, and answer in the same shapes.

The shapes are those of the HTTP interface, as :mod:`quarterdeck.client.shapes` has them, so that a command prints the same text and
the same JSON, and fails with the same code, wherever what it asks about is kept. :mod:`~quarterdeck.cli.places.stored` reads the file
and comes to it as a visitor; :mod:`~quarterdeck.cli.places.served` asks a server through the client. No command knows which of the two
it has.

**The differences that remain** are of the things themselves. To a file somebody who can write it says who they are (``--by``); a server
knows it by the key, and a name beside it is refused, for it would not be recorded. How dependencies are doing is known only where they are
called. A file may have no runtime; then an order waits for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quarterdeck.cli.places.verbs import Asked, Ended, Page, Place, PostFilter, Record, RunFilter, SwitchOrder, Watching
from quarterdeck.cli.settings import key_of, server_of, settings

__all__ = ["Asked", "Ended", "Page", "Place", "PostFilter", "Record", "RunFilter", "SwitchOrder", "Watching", "place"]


@contextmanager
def place(
    *,
    app: str | None = None,
    store: str | None = None,
    server: str | None = None,
    key_file: str | None = None,
    local: bool = False,
) -> Iterator[Place]:
    """The place that flags, variables and file mean. ``local``: the flag ``--app`` alone means this machine too."""
    chosen = settings(app, store)
    url = server_of(chosen.file, store, server, app=app if local else None)
    if url is None:
        from quarterdeck.cli.places.stored import Stored

        yield Stored(chosen)
        return
    from quarterdeck.cli.places.served import serving

    with serving(url, key_of(key_file)) as there:
        yield there
