"""The flags that several commands share, with one wording each, and the reading of values that are JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck.core.canonical import MAX_BYTES, Json, parse
from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import Mode

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="APP", help="The deck: module:deck or a quarterdeck.toml. Else QUARTERDECK_APP, ./quarterdeck.toml."
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="A path, sqlite:///path or postgresql://…. Else QUARTERDECK_STORE, ./quarterdeck.toml, quarterdeck.db.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="A server in place of a store. Else QUARTERDECK_SERVER, ./quarterdeck.toml."),
]
KeyFile = Annotated[
    str | None, typer.Option("--key-file", metavar="FILE", help="Holds the key for the server. Else QUARTERDECK_KEY.")
]
Content = Annotated[bool, typer.Option("--content", help="Show contents too: arguments, results, messages.")]
Follow = Annotated[bool, typer.Option("--follow", help="Print events until the run has ended. Ctrl-C leaves; the run goes on.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who decides this; recorded. A server knows it by the key.")]
Person = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Who answers, not whoever asked for it. A server knows it by the key."),
]
Cursor = Annotated[str | None, typer.Option("--cursor", metavar="NEXT", help="Go on where the previous page ended.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only those of this tenant.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; recorded.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1_000, help="At most so many.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL", help="The approval's id.")]

Input = Annotated[str, typer.Option("--input", metavar="JSON|@FILE|-", help="The payload: JSON, a file, or stdin.")]
Tenant = Annotated[
    str | None, typer.Option("--tenant", metavar="NAME", help="On behalf of this tenant; by default the key's, or default.")
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        metavar="NAME",
        help="On behalf of this user, who cannot approve the run's actions; by default the key's, or anonymous.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", metavar="TEXT", help="The same with the same input means the same run.")
]
Correlation = Annotated[str | None, typer.Option("--correlation", metavar="ID", help="Correlation id; by default the run's.")]
OrderingKey = Annotated[
    str | None, typer.Option("--ordering-key", metavar="TEXT", help="Runs of one route with the same one take effect in order.")
]
Untrusted = Annotated[bool, typer.Option("--untrusted", help="Somebody else wrote the input: it may steer nothing.")]
ModeOption = Annotated[Mode | None, typer.Option("--mode", help="How the run lives over time; by default the route's first.")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Watch at most so long: 30s, 5m. The run goes on.")
]
Turns = Annotated[int | None, typer.Option("--budget-turns", min=0, metavar="N", help="At most so many rounds of the loop.")]
Tools = Annotated[int | None, typer.Option("--budget-tools", min=0, metavar="N", help="At most so many tool calls.")]
Tokens = Annotated[int | None, typer.Option("--budget-tokens", min=0, metavar="N", help="At most so many tokens in all.")]
Context = Annotated[
    int | None, typer.Option("--budget-context", min=0, metavar="N", help="At most so many tokens per model call.")
]
Deadline = Annotated[
    str | None, typer.Option("--budget-deadline", metavar="TIME", help="At most so long from admission: 15s, 5m.")
]
Usd = Annotated[str | None, typer.Option("--budget-usd", metavar="AMOUNT", help="At most so many dollars: 0.20.")]


def json_value(option: str, text: str) -> Json:
    """A JSON value from the text of an option, from ``@file``, or from stdin (``-``); raises :class:`UsageError`.

    >>> json_value("--input", '{"order": "A1"}')
    {'order': 'A1'}
    """
    source: str | bytes = text
    if text == "-":
        source = sys.stdin.buffer.read(MAX_BYTES + 1)
    elif text.startswith("@"):
        try:
            with Path(text[1:]).open("rb") as file:
                source = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UsageError("input.missing", f"{option} {text}: {error.strerror or error}") from None
    try:
        return parse(source)
    except UsageError as error:
        raise UsageError(error.code, f"{option}: {error.message}", **error.detail) from None
