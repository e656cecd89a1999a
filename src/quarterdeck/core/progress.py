"""Progress: what a long call, or a workflow, says of how far it is. It changes nothing; people look at it.

A report is journaled, so that it reaches whoever follows the run, from any process, and resumes like every other event. It is bounded:
the newest report of a call replaces the ones before it until the next may be written, and the pause between two grows with their
number, so that a tool that reports a thousand times a second for a day writes a few hundred events.

>>> report(3, 10, "three of ten")
Report(done=3, total=10, note='three of ten')
>>> pause_s(0), pause_s(60), pause_s(10_000)
(1.0, 2.0, 300.0)
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.errors import UsageError

MAX_COUNT = 2**53 - 1
"""The most that may be done: what every reader of JSON can hold."""
MAX_NOTE = 500
"""The longest note of a report, in characters; what is longer is cut."""
EVERY_S = 1.0
"""The shortest pause between two reports of one run that are written down."""
SLOWEST_S = 300.0
"""The longest."""
SLOWER_AFTER = 60
"""After so many reports of one run the pause doubles."""


class Report(msgspec.Struct, frozen=True):
    """So much is ``done``, of ``total`` where that is known, in units of the reporter's own; ``note`` is a sentence for people."""

    done: int
    total: int | None = None
    note: str = ""


def report(done: int, total: int | None = None, note: str = "") -> Report:
    """A report; raises :class:`UsageError` (``progress.invalid``) for counts that are no whole numbers from 0 up, or text that is none."""
    for count in (done, 0 if total is None else total):
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise UsageError("progress.invalid", f"progress counts in whole numbers from 0 to 2^53 - 1, not {str(count)[:40]}")
    if type(note) is not str:
        raise UsageError("progress.invalid", f"the note of a report is a text, not {type(note).__name__}")
    return Report(done, total, note[:MAX_NOTE].encode("utf-8", "replace").decode())


def pause_s(written: int) -> float:
    """How long to wait after so many reports of a run before the next is written down."""
    return float(min(SLOWEST_S, EVERY_S * 2.0 ** min(written // SLOWER_AFTER, 16)))
