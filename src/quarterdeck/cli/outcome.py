"""How a command ends: exit codes, error lines, and the one place where errors become both."""

from __future__ import annotations

import logging
import os
import sys
from enum import IntEnum

import msgspec
import typer

from quarterdeck.core.errors import OUTCOMES, QuarterdeckError
from quarterdeck.core.vocabulary import Status


class Exit(IntEnum):
    """Exit codes beside those of errors; ``MEANINGS`` says what each one means."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    FAILED = 10
    REFUSED = 11
    CANCELLED = 12
    WAITING = 13
    STILL_GOING = 14
    DETACHED = 130


OF_STATUS: dict[Status, Exit] = {
    Status.QUEUED: Exit.STILL_GOING,
    Status.RUNNING: Exit.STILL_GOING,
    Status.WAITING: Exit.WAITING,
    Status.SUCCEEDED: Exit.OK,
    Status.FAILED: Exit.FAILED,
    Status.REFUSED: Exit.REFUSED,
    Status.CANCELLED: Exit.CANCELLED,
}
"""What `quarterdeck run` exits with, by the status that its run has then."""

MEANINGS: dict[int, str] = {
    0: "done; for `run`: the run succeeded",
    1: "`doctor` or `check` found something; `runs replay` and `runs diff` found a difference",
    2: "the command, its input or its configuration is wrong; change it",
    3: "refused: authority, budget, policy or an earlier answer does not allow it",
    4: "cannot be served now; try again later",
    5: "another process has it now",
    6: "what is stored contradicts itself; touch nothing, restore a backup",
    10: "`run`: the run failed",
    11: "`run`: the run was refused",
    12: "`run`: the run was cancelled",
    13: "`run`: the run waits for something and has not ended",
    14: "`run`: the run was still going when `--timeout` had passed",
    130: "interrupted; a run that was watched goes on",
}
"""The table that ``docs/cli.md`` prints."""


def run_command(arguments: list[str]) -> int:
    """Run one command line to its end and return its exit code.

    Errors that Quarterdeck raises on purpose become one line on stderr. Anything else passes: it is a defect of ours, or of the
    deck that was loaded, and its traceback is wanted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    from quarterdeck.cli.commands import app
    from quarterdeck.cli.completion import prepare

    prepare()
    as_json = "--json" in arguments
    try:
        code: int | None = app(args=arguments, prog_name="quarterdeck", standalone_mode=False)
    except QuarterdeckError as error:
        report(error.code, error.message, error.detail, as_json=as_json)
        return OUTCOMES[type(error)].exit_code
    except typer.TyperException as error:
        report("cli.usage", f"{error.format_message()} (`--help` lists what there is)", {}, as_json=as_json)
        return Exit.USAGE
    except typer.Abort:
        report("cli.aborted", "nothing was changed", {}, as_json=as_json)
        return Exit.DETACHED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not fail once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    return code or Exit.OK


def report(code: str, message: str, detail: dict[str, object], *, as_json: bool) -> None:
    """Say what went wrong, as one line on stderr."""
    if as_json:
        line = msgspec.json.encode({"code": code, "message": message, "detail": detail}, enc_hook=str).decode()
    else:
        line = f"error {code}: {message}"
    print(line, file=sys.stderr, flush=True)
