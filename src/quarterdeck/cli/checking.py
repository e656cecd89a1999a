"""``quarterdeck check``: what in a deck will break at run time, before it does."""

from __future__ import annotations

from typing import Annotated

import typer

from quarterdeck.cli.options import AsJson
from quarterdeck.cli.outcome import Exit
from quarterdeck.cli.printing import emit, note, safe, say, table
from quarterdeck.cli.settings import settings

App = Annotated[
    str | None,
    typer.Argument(
        metavar="[APP]", help="module:deck or a quarterdeck.toml. Else QUARTERDECK_APP, ./quarterdeck.toml.", show_default=False
    ),
]


def check(app: App = None, as_json: AsJson = False) -> int:
    """Read a deck's tools, agents, routes, workflows and policies for what breaks at run time. Exits 1 if something will or may."""
    from quarterdeck.app.checking import flaws

    found = flaws(settings(app, None).deck())
    if as_json:
        emit({"findings": found})
    elif not found:
        say("nothing was found")
    else:
        table(("", "CODE", "WHERE", "WHAT"), [(one.severity, one.code, one.place, one.what) for one in found], empty="")
        for one in found:
            note(f"{safe(one.place)}: {safe(one.mend)}")
    return Exit.FINDINGS if found else Exit.OK
