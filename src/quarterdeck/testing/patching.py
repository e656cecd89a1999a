"""Changing one thing of a module or class for a while; how planted bugs are planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import msgspec

Plant = Callable[[], AbstractContextManager[object]]
"""Opens a span of time in which a bug is there."""

S = TypeVar("S", bound=msgspec.Struct)


@contextmanager
def patched(owner: object, name: str, value: object) -> Iterator[None]:
    """Let ``owner.name`` be ``value``; raises ``AttributeError`` where there is no such thing to change.

    >>> import math
    >>> with patched(math, "tau", 3):
    ...     math.tau
    3
    """
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def varied(value: S, **changes: object) -> S:
    """A copy of a struct with some fields changed."""
    return msgspec.structs.replace(value, **changes)
