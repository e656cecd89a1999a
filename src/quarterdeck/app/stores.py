"""Which store a setting names, and what it takes to open another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from quarterdeck.core.errors import UsageError
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal

DEFAULT_STORE = "quarterdeck.db"


class OpenStore(Protocol):
    """A store that a runtime can own: both sides of it."""

    async def __call__(self, entropy: Entropy) -> tuple[Journal, Insights]:
        """Open both sides."""
        ...


def shared_store(store: str | Path | None) -> str | None:
    """The connection string of a store setting that names a PostgreSQL database; ``None`` for a file.

    >>> shared_store("postgresql://db.example/agents"), shared_store("sqlite:///x.db")
    ('postgresql://db.example/agents', None)
    """
    chosen = store if store is not None else os.environ.get("QUARTERDECK_STORE", DEFAULT_STORE)
    return chosen if isinstance(chosen, str) and chosen.startswith(("postgresql://", "postgres://")) else None


def store_path(store: str | Path | None) -> Path:
    """The file that a store setting names: ``sqlite:///path``, a path, or the default.

    >>> store_path("sqlite:///tmp/x.db")
    PosixPath('tmp/x.db')
    """
    chosen = store if store is not None else os.environ.get("QUARTERDECK_STORE", DEFAULT_STORE)
    if isinstance(chosen, Path):
        return chosen
    if chosen.startswith("sqlite:///"):
        return Path(chosen.removeprefix("sqlite:///"))
    if "://" in chosen:
        said = f"{chosen.partition(':')[0]} does not name a file here; use sqlite:///path, or postgresql://… where a database can stand"
        raise UsageError("store.unsupported", said)
    return Path(chosen)
