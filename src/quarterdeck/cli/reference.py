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

`quarterdeck COMMAND --help` says the same as this page. Every command but `completion` takes `--json`.

## Which deck, which place

APP is `module:deck` (the working directory is importable) or the path of a `quarterdeck.toml`:

```toml
[quarterdeck]
app = "support.agents:deck"
store = "sqlite:///support.db"   # or: server = "https://deck.example"
```

What is read and ordered is kept in the file of a store, or behind a server. Flags (`--app`, `--store`, `--server`) go before the
variables `QUARTERDECK_APP`, `QUARTERDECK_STORE` and `QUARTERDECK_SERVER`, and these before `quarterdeck.toml` in the working directory. The
first of the three that names a store or a server says which is meant; one that names both is an error. A key of that file that is not
known is an error. Paths and modules in it are relative to its folder. Without any of them the place is the file `quarterdeck.db` in the
working directory. `serve`, `dev`, `journal` and `doctor` are about the file itself and ask for no server.

The key for a server comes from `QUARTERDECK_KEY`, or from the file that `--key-file` names; never from a flag's value, which every process
of the machine can read. It is sent to the server that is named and nowhere else, and without https only to this machine. A
`quarterdeck.toml` names code that is run and the server that is told the key: work in folders that you trust.

```sh
quarterdeck runs ls --server https://deck.example --key-file ~/.config/quarterdeck/key
```

## A store and a server say the same

A command prints the same text and the same JSON from both, and fails with the same codes and exit codes. A server knows by the key who
asks, so `--by` is for stores alone; which tenants, contents and orders are allowed, is up to the [key's roles](guide/identity.md). How
`dependencies` are doing, only a server knows. A command that gets no answer tries for 5 seconds, then says `client.unreachable`; a
stream that is followed is taken up again for two minutes, after its last event, over restarts of the server.

## Beside a running runtime, or without one

`quarterdeck run` with a server hands the run to it. Beside a store it owns the store if nobody does: it starts a runtime of the deck in its
own process, and everything else that is ready in the store goes on with it. If another process owns the store, the run is handed over to
it. All other commands work beside an owner and without one: they read what is committed, and what they ask for (a cancel, an answer to an
approval, how an unknown effect ended, a switch) is durable when they return. An owner acts on it within about 50 ms; without an owner, the
next runtime does.

Ctrl-C while `run` or `--follow` watches a run leaves it alone: a run is stopped with `quarterdeck runs cancel`. If the runtime is in
the same process, it stops with it: what it is doing may come to rest first, a second Ctrl-C lets go of it at once; the run goes on
from its journal when a runtime starts.

## Switches

`quarterdeck switches set disable_tool:refund --reason "…"` stops it everywhere: when the command returns, no intent that the switch covers
commits any more, in any process. As proof of its reach it prints the new version of all switches, which every later decision is judged
by, and what it covers now: the runs that have not ended, the routes, tools and tenants. A name that nothing here has is said, and set all
the same. `--preview` shows the reach and changes nothing. Beside a store, routes and tools come from the deck (`--app`).
`quarterdeck switch` is the same as `quarterdeck switches`.

## Output

Results go to stdout, remarks and errors to stderr. With `--json`, stdout is one JSON document; `runs events` and `run --follow` write
JSON Lines, one event a line (`seq`, `kind`, `at_us`, `body`), and `run` ends with the result of the run, which has a `run_id` instead
of a `seq`. Objects are those of the [HTTP interface](guide/http.md), field by field; an order prints the run or approval as it is then. A
list has a `next`: the `--cursor` of its next page, or `null`. Times are microseconds since 1970 (UTC), money is micro-dollars, digests are
hexadecimal.

Contents (arguments, results, messages) are shown only with `--content`, except that `run` shows the reply to whoever asked for it, and
`approvals show` what will be executed. Characters that could steer a terminal are escaped.

Long work counts on stderr while that is a terminal. `source <(quarterdeck completion bash)` lets the shell complete commands and options
(`zsh`, `fish`: the same).

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
        if below.hidden:
            continue  # another name of commands that have their place
        yield from _helps(typer.Context(below, info_name=name, parent=context, terminal_width=WIDTH))


if __name__ == "__main__":
    sys.stdout.write(reference())
