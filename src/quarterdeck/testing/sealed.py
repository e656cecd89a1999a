"""A simulation must not touch real time or real chance: here both are errors that name the caller.

>>> with sealed():
...     time.time()
Traceback (most recent call last):
...
quarterdeck.testing.sealed.Unsealed: quarterdeck.testing.sealed read time.time in a simulation; ask the Clock or Entropy port
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

_EXEMPT = ("logging",)
"""Records carry the moment of their making; nothing reads it."""


class Unsealed(RuntimeError):
    """Something read a real clock or drew real chance in a simulation."""


def _forbidden(name: str, real: Callable[..., object]) -> Callable[..., object]:
    def refuse(*arguments: object, **named: object) -> object:
        caller = str(sys._getframe(1).f_globals.get("__name__", "?"))
        if caller in _EXEMPT:
            return real(*arguments, **named)
        raise Unsealed(f"{caller} read {name} in a simulation; ask the Clock or Entropy port")

    return refuse


@contextmanager
def sealed() -> Iterator[None]:
    """While this is open, clocks, sleeps and unseeded chance raise :class:`Unsealed`."""
    sources: list[tuple[object, str]] = [
        *((time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "clock_gettime", "sleep")),
        *((random, name) for name in ("random", "randint", "randrange", "choice", "shuffle", "uniform", "getrandbits")),
        *((secrets, name) for name in ("token_bytes", "token_hex", "randbits")),
        (os, "urandom"),
        (uuid, "uuid4"),
        (uuid, "uuid1"),
    ]
    patches = [
        patch.object(owner, name, _forbidden(f"{getattr(owner, '__name__', '')}.{name}", getattr(owner, name)))
        for owner, name in sources
    ]
    for change in patches:
        change.start()
    try:
        yield
    finally:
        for change in reversed(patches):
            change.stop()
