"""The life of a run as one literal table.

The docs' diagram, the console's colours and the property tests are read from :data:`TRANSITIONS`; nothing else decides which
status may follow which.

>>> successor(Status.RUNNING, "run.waiting")
<Status.WAITING: 'waiting'>
"""

from __future__ import annotations

from quarterdeck.core.errors import Corrupt
from quarterdeck.core.vocabulary import Status

TRANSITIONS: dict[tuple[Status | None, str], frozenset[Status]] = {
    (None, "run.admitted"): frozenset({Status.QUEUED}),
    (Status.QUEUED, "run.started"): frozenset({Status.RUNNING}),
    (Status.RUNNING, "run.started"): frozenset({Status.RUNNING}),
    (Status.WAITING, "run.started"): frozenset({Status.RUNNING}),
    (Status.RUNNING, "run.waiting"): frozenset({Status.WAITING}),
    (Status.QUEUED, "run.finished"): frozenset({Status.REFUSED, Status.CANCELLED, Status.FAILED}),
    (Status.RUNNING, "run.finished"): frozenset({Status.SUCCEEDED, Status.FAILED, Status.REFUSED, Status.CANCELLED}),
    (Status.WAITING, "run.finished"): frozenset({Status.FAILED, Status.REFUSED, Status.CANCELLED}),
}
"""(status, event kind) -> the statuses that may follow. ``run.started`` on a running run is a new owner after a crash."""


def successor(status: Status | None, kind: str, wanted: Status | None = None) -> Status:
    """The status after an event; ``wanted`` names it where the table leaves a choice.

    Raises :class:`Corrupt` (``journal.transition``) for an event that the table does not know at that status: a journal that
    holds one was not written by this runtime.
    """
    allowed = TRANSITIONS.get((status, kind), frozenset())
    if wanted is None and len(allowed) == 1:
        return next(iter(allowed))
    if wanted is None or wanted not in allowed:
        raise Corrupt("journal.transition", f"{kind} cannot follow status {status}; the journal is not trustworthy")
    return wanted
