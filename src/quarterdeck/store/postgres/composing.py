"""An author's statement with its values written into it, as the server's function executes it.

Values are written by the driver's own quoting; they are never pasted as text. A place is ``$1``, ``$2`` … outside of texts, names in double
quotes and comments; spellings in which a text could hide from that (``E'…'``, dollar quotes) are refused.

>>> composed(Statement("INSERT INTO t (a, b) VALUES ($1, $2) -- not $1", (5, "it's")))
"INSERT INTO t (a, b) VALUES ( 5,  'it''s') -- not $1"
"""

from __future__ import annotations

import re

from psycopg import sql

from quarterdeck.core.commit import Statement

_PLACES = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(\d+)""", re.DOTALL)
_HIDING = re.compile(r"\b[eE]'|\$[A-Za-z_]?\w*\$|\bU&", re.ASCII)
_OURS = re.compile(r"""\bquarterdeck"?\s*\.""", re.IGNORECASE)


class Unwritable(ValueError):
    """A statement that cannot be written down for the server; the message says why."""


def composed(statement: Statement) -> str:
    """The statement with its values. Raises :class:`Unwritable`."""
    if _HIDING.search(statement.sql) or "\\" in statement.sql:
        raise Unwritable("write texts as 'text'; no E'…', U&'…', backslashes or dollar quotes in a statement")
    if _OURS.search(statement.sql):
        raise Unwritable("the tables of the store are not an author's to change")

    def placed(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        place = int(match[1])
        if not 1 <= place <= len(statement.values):
            raise Unwritable(f"${place} has no value; the statement has {len(statement.values)}")
        return f" {sql.Literal(statement.values[place - 1]).as_string()}"

    return _PLACES.sub(placed, statement.sql)
