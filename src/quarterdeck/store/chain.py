"""The hash chain of a journal, the same in every store.

Each event's hash covers the one before it, its sequence, its body and the keyed digest of its payload. The payload
itself is not covered, so it can be destroyed; the digest is keyed with the run's salt, so that once the salt is
destroyed too, nobody can test guesses against it. A chain shows what was changed, removed, added or moved inside it;
that its end was cut off shows only against the sequence and hash that the run's row holds, and that chain *and* row
were rewritten together only against a copy elsewhere.

>>> chained(GENESIS, 1, b"{}", None) == chained(GENESIS, 1, b"{}", None) != chained(GENESIS, 2, b"{}", None)
True
>>> verify([], None, seq=1, head=GENESIS)
Traceback (most recent call last):
...
quarterdeck.core.errors.Corrupt: journal.truncated: the journal ends at 0 where its run says 1; restore a backup
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable, Iterator

from quarterdeck.core.errors import Corrupt, UsageError
from quarterdeck.ports.store import Insights, RunRow, StoredEvent

_FRAME = struct.Struct(">QI").pack
GENESIS = bytes(32)
"""What the first event of a journal is chained to."""
PAGE = 1_000
"""Events that are read at once when a stored journal is verified."""


def payload_digest(salt: bytes, payload: bytes) -> bytes:
    """The 32-byte digest of a payload under its run's salt (BLAKE2b, keyed)."""
    return hashlib.blake2b(payload, digest_size=32, key=salt).digest()


def chained(previous: bytes, seq: int, body: bytes, digest: bytes | None) -> bytes:
    """The 32-byte hash of one event; ``digest`` is its payload's, where it has one."""
    framed = _FRAME(seq, len(body))
    return hashlib.sha256(previous + framed + body + digest if digest is not None else previous + framed + body).digest()


def verify(events: Iterable[StoredEvent], salt: bytes | None, *, seq: int, head: bytes) -> None:
    """Recompute a whole journal, from its first event to ``seq``, whose hash must be ``head``.

    With its ``salt`` every payload must be there and be the one that was stored; without (after an erasure), none may
    be. Raises :class:`Corrupt` at the first event that is not what was appended: ``journal.gap``, ``journal.chain``,
    ``journal.payload`` or ``journal.truncated``.
    """
    previous, last = GENESIS, 0
    for event in events:
        if event.seq != last + 1:
            raise Corrupt("journal.gap", f"event {event.seq} follows event {last}; restore a backup", seq=event.seq)
        require_whole(event, previous, salt)
        previous, last = event.hash, event.seq
    if last != seq:
        raise Corrupt("journal.truncated", f"the journal ends at {last} where its run says {seq}; restore a backup")
    if not hmac.compare_digest(previous, head):
        raise Corrupt("journal.chain", f"the hash of event {last} is not the one that its run holds; restore a backup")


def require_whole(event: StoredEvent, previous: bytes, salt: bytes | None) -> None:
    """Require that one event is the one that was appended after the event whose hash is ``previous``.

    Raises :class:`Corrupt` (``journal.chain``, ``journal.payload``). Whoever takes a run over checks each event that it folds, so that
    nobody acts upon a journal that was changed.
    """
    if not hmac.compare_digest(chained(previous, event.seq, event.body, event.payload_digest), event.hash):
        raise Corrupt("journal.chain", f"event {event.seq} was changed or moved; restore a backup", seq=event.seq)
    if not _is_whole(event, salt):
        raise Corrupt("journal.payload", f"the payload of event {event.seq} is not the one stored", seq=event.seq)


def verify_run(insights: Insights, run_id: str) -> int:
    """Verify one stored journal up to the sequence that its run has now; how many events that were. See :func:`verified_run`."""
    return verified_run(insights, run_id, lambda _: None).seq


def verified_run(insights: Insights, run_id: str, each: Callable[[StoredEvent], None]) -> RunRow:
    """Verify one stored journal up to the sequence that its run has now; the run's row, which it was compared with.

    ``each`` is given every event before it is verified, in order; perhaps twice, from the first one on, where the run is erased meanwhile.

    Runs beside a busy writer: what is appended meanwhile is left for the next time, and a run that is erased meanwhile
    is verified as an erased one. Raises :class:`Corrupt` like :func:`verify`, and :class:`UsageError` (``run.unknown``)
    where there is no such run.
    """
    row = insights.run(run_id)
    if row is None:
        raise UsageError("run.unknown", f"there is no run {run_id!r}; list them with `quarterdeck runs`")
    salt = insights.salt(run_id)
    try:
        verify(_pages(insights, run_id, row.seq, each), salt, seq=row.seq, head=row.head)
    except Corrupt:
        if insights.salt(run_id) == salt:
            raise
        verify(_pages(insights, run_id, row.seq, each), None, seq=row.seq, head=row.head)
    return row


def _pages(insights: Insights, run_id: str, end: int, each: Callable[[StoredEvent], None]) -> Iterator[StoredEvent]:
    after = 0
    while page := insights.events(run_id, after, PAGE):
        for event in page:
            if event.seq > end:
                return
            after = event.seq
            each(event)
            yield event


def _is_whole(event: StoredEvent, salt: bytes | None) -> bool:
    if event.payload is None:
        return event.payload_digest is None or salt is None
    if event.payload_digest is None or salt is None:
        return False
    return hmac.compare_digest(payload_digest(salt, event.payload), event.payload_digest)
