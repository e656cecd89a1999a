"""The HTTP door: ``create_app(runtime, authenticator, settings)``, then ``await serve(app)``.

It translates and never decides. A request becomes an envelope, a decision, a read; what comes back becomes JSON, a stream or a problem.
The rules are behind it: admission, gate and store refuse, and one table (:mod:`~quarterdeck.server.problems`) says which status a
refusal has.

**Rooms within.** :mod:`~quarterdeck.server.table` is every operation once: router, rights and OpenAPI document are read from it.
:mod:`~quarterdeck.server.door` is the order of the checks, :mod:`~quarterdeck.server.reading` what it takes for a request to be
understood, :mod:`~quarterdeck.server.bodies` what goes over the wire. :mod:`~quarterdeck.server.protocol` keeps the deadlines below all
that, :mod:`~quarterdeck.server.serving` starts and stops. Who somebody is comes from :mod:`quarterdeck.server.identity`.

**Promises.**

* Whatever arrives is answered with a documented status; a defect is a bare 500 and a log entry.
* Nothing is served without a right, except probes and the interface's description. What another tenant owns does not exist (404).
* A run that was answered with 202 is a committed row. A stream resumes by journal sequence without loss or repetition.
* Every wait, size and count has a limit (:class:`~quarterdeck.server.settings.Settings`), and none can be stretched by trickling.
* Browsers of other sites can do nothing here: no cookies, no cross-origin permission, host and site are checked.

**It must never** keep a rule that the core could have, trust a header about identity, or read the body of a caller it does not know.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quarterdeck.server.door import Door, create_app
    from quarterdeck.server.serving import address, listen, serve
    from quarterdeck.server.settings import Settings

__all__ = ["Door", "Settings", "address", "create_app", "listen", "serve"]

_HOMES = {
    "Door": "door",
    "create_app": "door",
    "address": "serving",
    "listen": "serving",
    "serve": "serving",
    "Settings": "settings",
}


def __getattr__(name: str) -> object:
    """Load a part when it is first asked for: who manages keys needs no web server."""
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
