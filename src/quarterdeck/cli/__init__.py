"""The command line: ``quarterdeck …``.

A door: it translates what a person types into what the rooms behind it already do, and what they answer into text. It decides
nothing; the guards of the store decide, so every command is as safe beside a running runtime as without one.

**One place, two kinds.** What is read and ordered is kept in the file of a store or behind a server. :mod:`~quarterdeck.cli.places` is
the seam: commands speak to a place, and print the same from both. To a file they come as visitors: they read what is committed, and put
requests (a run, a cancel, an answer to an approval) where the owner finds them within about 50 ms. ``quarterdeck run`` alone becomes the
owner of the file if nobody is, and starts a runtime in its own process. To a server they come with a key, through the client.

**Promises.**

* Contents (arguments, results, messages) are shown only with ``--content``. Two commands show contents by their nature:
  ``run`` shows the reply to the caller who asked for it, ``approvals show`` shows what will be executed.
* Results go to stdout, everything said about them to stderr. With ``--json`` stdout is one JSON document, or JSON Lines where events are
  followed, and an error is one JSON line on stderr: ``{"code", "message", "detail"}``.
* The exit code tells what happened: :mod:`~quarterdeck.cli.outcome` has the table, ``docs/cli.md`` prints it.
* What comes from models, callers and tools is printed with control characters escaped: it cannot steer a terminal.
* An unexpected exception is a defect and shows its traceback.

**It must never** write to a store except through its operations, or keep a rule that the core could have.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of the ``quarterdeck`` command; exits with a documented code."""
    from quarterdeck.cli.outcome import run_command

    sys.exit(run_command(sys.argv[1:]))
