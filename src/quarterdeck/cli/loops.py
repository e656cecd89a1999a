"""The event loop of every process that drives runs: uvloop where it is installed, else the one of the standard library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What :class:`asyncio.Runner` makes its loop with; ``None`` is its own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
