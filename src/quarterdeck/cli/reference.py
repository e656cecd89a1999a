"""The reference of the command line, written from the commands themselves: ``python -m quarterdeck.cli.reference > docs/cli.md``.

A test compares the file with what this writes, so that no command or option can be missing from it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import typer

from quarterdeck.cli.commands import app
from quarterdeck.cli.outcome import MEANINGS

INTRODUCTION = """\
# The command line

*This page is written by `python -m quarterdeck.cli.reference`; a test fails when it is stale.*

`quarterdeck COMMAND --help` says the same as this page. Every command takes `--json`.

## Which deck, which store

APP is `module:deck` (the working directory is importable) or the path of a `quarterdeck.toml`:

```toml
[quarterdeck]
app = "support.agents:deck"
store = "sqlite:///support.db"
```

Flags (`--app`, `--store`) go before the variables `QUARTERDECK_APP` and `QUARTERDECK_STORE`, and these before `quarterdeck.toml` in
the working directory. A key of that file that is not known is an error. Paths and modules in it are relative to its folder. Without
any store the file is `quarterdeck.db` in the working directory.

## Beside a running runtime, or without one

`quarterdeck run` owns the store if nobody does: it starts a runtime of the deck in its own process, and everything else that is ready
in the store goes on with it. If another process owns the store, the run is handed over to it. All other commands work beside an owner
and without one: they read what is committed, and what they ask for (a cancel, an answer to an approval, how an unknown effect ended)
is durable when they return. An owner acts on it within about 50 ms; without an owner, the next runtime does.

Ctrl-C while `run` or `--follow` watches a run leaves it alone: a run is stopped with `quarterdeck runs cancel`. If the runtime is in
the same process, it stops with it: what it is doing may come to rest first, a second Ctrl-C lets go of it at once; the run goes on
from its journal when a runtime starts.

## Output

Results go to stdout, remarks and errors to stderr. With `--json`, stdout is one JSON document; `runs events` and `run --follow` write
JSON Lines, one event a line (`seq`, `kind`, `at_us`, `body`), and `run` ends with the result of the run, which has a `run_id` instead
of a `seq`. Times are microseconds since 1970 (UTC), money is micro-dollars, digests are hexadecimal.

Contents (arguments, results, messages) are shown only with `--content`, except that `run` shows the reply to whoever asked for it, and
`approvals show` what will be executed. Characters that could steer a terminal are escaped.

An error is one line, `error <code>: <message>`, or with `--json` one line of JSON, `{"code", "message", "detail"}`; codes are stable.

## Exit codes

"""


WIDTH = 110
"""Columns of the help texts on the page."""


def reference() -> str:
    """The whole page: the introduction, the exit codes, and the help of every command."""
    codes = [f"| {code} | {meaning} |" for code, meaning in sorted(MEANINGS.items())]
    lines = [INTRODUCTION + "| code | meaning |\n|---|---|", *codes, "", "## Commands"]
    for path, text in helps():
        lines += ["", f"### `{path}`", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def helps() -> Iterator[tuple[str, str]]:
    """Each command's path with its help, the whole tree in the order of its declaration."""
    root = typer.main.get_command(app)
    yield from _helps(typer.Context(root, info_name="quarterdeck", terminal_width=WIDTH))


def _helps(context: typer.Context) -> Iterator[tuple[str, str]]:
    command = context.command
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, text
    for name, below in getattr(command, "commands", {}).items():
        yield from _helps(typer.Context(below, info_name=name, parent=context, terminal_width=WIDTH))


if __name__ == "__main__":
    sys.stdout.write(reference())
