"""Named SQL, read once from the ``.sql`` files beside this module."""

from __future__ import annotations

import re
from importlib import resources


def load(name: str) -> dict[str, str]:
    """The statements of ``sql/<name>.sql`` by their ``-- name:`` line.

    >>> sorted(load("read"))[:2]
    ['account', 'accounts']
    """
    text = (resources.files(__package__) / "sql" / f"{name}.sql").read_text("utf-8")
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        title, _, body = block.partition("\n")
        found[title.strip()] = body.strip()
    return found


def schema(version: int) -> str:
    """The script that brings an empty file, or one of the version before, to schema ``version``."""
    return (resources.files(__package__) / "sql" / f"schema_{version}.sql").read_text("utf-8")


def ours() -> frozenset[str]:
    """The names of every table that a version of this code makes.

    >>> "runs" in ours(), "orders" in ours()
    (True, False)
    """
    folder = resources.files(__package__) / "sql"
    scripts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.startswith("schema_")]
    return frozenset(name for text in scripts for name in re.findall(r"CREATE TABLE (\w+)", text))
