"""Keys that Cedar's JSON would interpret, made harmless.

In Cedar's JSON a record ``{"__entity": …}`` is a reference to an entity and ``{"__extn": …}`` a typed value. Names
come from tool schemas that others wrote, so such a name gets one more leading underscore wherever it appears: in the
generated schema and in every value. The mapping is one-to-one, so two different names never meet.
"""

from __future__ import annotations

import re

_INTERPRETED = re.compile(r"__+(?:entity|extn|expr)")


def escaped(name: str) -> str:
    """The record key under which policies and Cedar know ``name``.

    >>> escaped("amount"), escaped("__entity"), escaped("___entity"), escaped("__entity_id")
    ('amount', '___entity', '____entity', '__entity_id')
    """
    return "_" + name if _INTERPRETED.fullmatch(name) else name
