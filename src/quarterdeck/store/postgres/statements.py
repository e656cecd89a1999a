"""Named SQL, read once from the ``.sql`` files beside this module."""

from __future__ import annotations

from importlib import resources
from typing import LiteralString

Sql = LiteralString
"""A statement of ours; the driver takes no other text, so that none can be put together from what somebody sent."""


def load(name: str) -> dict[str, Sql]:
    """The statements of ``sql/<name>.sql`` by their ``-- name:`` line.

    >>> sorted(load("read"))[:2]
    ['account', 'accounts']
    """
    found: dict[str, Sql] = {}
    for block in script(name).split("-- name: ")[1:]:
        title, _, body = block.partition("\n")
        found[title.strip()] = body.strip()
    return found


def script(name: str) -> Sql:
    """The whole of ``sql/<name>.sql``."""
    return (resources.files(__package__) / "sql" / f"{name}.sql").read_text("utf-8")


def migration(version: int) -> tuple[Sql, ...]:
    """What brings an empty schema, or one of the version before, to schema ``version``: tables, rules of the rows, functions."""
    return tuple(script(f"{part}_{version}") for part in ("schema", "security", "functions"))
