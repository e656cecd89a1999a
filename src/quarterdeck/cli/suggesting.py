"""What somebody may have meant who has mistyped a name.

>>> near("refnd", ["refund", "find_order"])
"; did you mean 'refund'?"
>>> near("weather", ["refund"])
''
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(name: str, names: Iterable[str]) -> str:
    """The rest of a sentence that says which name is close to this one; empty if none is."""
    found = get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
