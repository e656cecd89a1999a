"""The flags that several commands share, with one wording each, and the reading of values that are JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck.core.canonical import Json, parse
from quarterdeck.core.errors import UsageError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
App = Annotated[
    str | None, typer.Option("--app", metavar="APP", help="The deck: module:deck, or a quarterdeck.toml. Default: QUARTERDECK_APP, then ./quarterdeck.toml.")
]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="STORE", help="The store: a path or sqlite:///path. Default: QUARTERDECK_STORE, quarterdeck.toml, ./quarterdeck.db."),
]
Content = Annotated[bool, typer.Option("--content", help="Show contents too: arguments, results, messages.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on until the run has ended. Ctrl-C leaves; the run goes on.")]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides this; recorded.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id.")]


def json_value(option: str, text: str) -> Json:
    """A JSON value from the text of an option, from ``@file``, or from stdin (``-``); raises :class:`UsageError`.

    >>> json_value("--input", '{"order": "A1"}')
    {'order': 'A1'}
    """
    source: str | bytes = text
    if text == "-":
        source = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            source = Path(text[1:]).read_bytes()
        except OSError as error:
            raise UsageError("input.missing", f"{option} {text}: {error.strerror or error}") from None
    try:
        return parse(source)
    except UsageError as error:
        raise UsageError(error.code, f"{option}: {error.message}", **error.detail) from None
