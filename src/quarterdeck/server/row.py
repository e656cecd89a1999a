"""One operation of the interface, as the tables have it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import Response

from quarterdeck.core.identity import Action
from quarterdeck.server import queries
from quarterdeck.server.exchange import Exchange

Handler = Callable[[Exchange], Awaitable[Response]]
STREAM = "text/event-stream"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. ``action`` is the right that it needs (``None``: public); ``codes`` are the problems of its own.

    ``answers`` maps each success status to its body, ``None`` where there is none or it is no JSON (``media``). ``lasting`` says that the
    caller decides how long the answer takes. ``example`` is a body that is accepted.
    """

    verb: str
    path: str
    name: str
    summary: str
    handler: Handler
    action: Action | None
    answers: dict[int, type[msgspec.Struct] | None]
    query: type[msgspec.Struct] = queries.NoQuery
    request: type[msgspec.Struct] | None = None
    body_required: bool = True
    headers: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    media: str = "application/json"
    lasting: bool = False
    example: dict[str, object] | None = None
