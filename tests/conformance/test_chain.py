"""A journal that was tampered with does not verify, whatever was done to it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import Corrupt, UsageError
from quarterdeck.ports.store import StoredEvent
from quarterdeck.store.chain import GENESIS, PAGE, chained, payload_digest, verify, verify_run
from quarterdeck.testing.memory import MemoryStore
from quarterdeck.testing.samples import admission
from quarterdeck.testing.tables import Tables

SALT = b"salt"
contents = st.lists(st.tuples(st.binary(max_size=20), st.none() | st.binary(max_size=20)), min_size=2, max_size=8)


def journal(pairs: list[tuple[bytes, bytes | None]]) -> list[StoredEvent]:
    head, events = GENESIS, []
    for seq, (body, payload) in enumerate(pairs, start=1):
        digest = payload_digest(SALT, payload) if payload is not None else None
        head = chained(head, seq, body, digest)
        events.append(StoredEvent(seq, body, payload, digest, head))
    return events


def verdict(events: list[StoredEvent], original: list[StoredEvent], salt: bytes | None = SALT) -> str:
    """The code that verification gives a tampered copy, against what the original's run row holds."""
    try:
        verify(events, salt, seq=len(original), head=original[-1].hash)
    except Corrupt as error:
        return error.code
    return "ok"


def flip(data: bytes, place: int) -> bytes:
    return data[: place // 8] + bytes([data[place // 8] ^ (1 << place % 8)]) + data[place // 8 + 1 :]


@given(contents)
def test_an_untouched_journal_verifies_with_and_without_payloads(pairs: list[tuple[bytes, bytes | None]]) -> None:
    events = journal(pairs)
    assert verdict(events, events) == "ok"
    erased = [msgspec.structs.replace(event, payload=None) for event in events]
    assert verdict(erased, events, salt=None) == "ok"


@given(contents, st.data())
def test_a_flipped_bit_is_found(pairs: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    events = journal(pairs)
    index = data.draw(st.integers(0, len(events) - 1))
    event = events[index]
    fields = [name for name in ("body", "payload", "payload_digest", "hash") if getattr(event, name)]
    field = data.draw(st.sampled_from(fields))
    original = getattr(event, field)
    place = data.draw(st.integers(0, len(original) * 8 - 1))
    tampered = list(events)
    tampered[index] = msgspec.structs.replace(event, **{field: flip(original, place)})
    assert verdict(tampered, events) == ("journal.payload" if field == "payload" else "journal.chain")


@given(contents, st.data())
def test_a_removed_event_is_found(pairs: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    events = journal(pairs)
    index = data.draw(st.integers(0, len(events) - 1))
    tampered = events[:index] + events[index + 1 :]
    assert verdict(tampered, events) == ("journal.truncated" if index == len(events) - 1 else "journal.gap")
    renumbered = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(tampered, start=1)]
    assert verdict(renumbered, events) == ("journal.truncated" if index == len(events) - 1 else "journal.chain")


@given(contents, st.data())
def test_an_inserted_event_is_found(pairs: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    events = journal(pairs)
    index = data.draw(st.integers(0, len(events)))
    previous = events[index - 1].hash if index else GENESIS
    forged = StoredEvent(index + 1, b"forged", None, None, chained(previous, index + 1, b"forged", None))
    rest = [msgspec.structs.replace(event, seq=event.seq + 1) for event in events[index:]]
    assert verdict([*events[:index], forged, *rest], events) != "ok"


@given(contents, st.data())
def test_swapped_events_are_found(pairs: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    events = journal(pairs)
    index = data.draw(st.integers(0, len(events) - 2))
    one, two = events[index], events[index + 1]
    swapped = [*events[:index], two, one, *events[index + 2 :]]
    assert verdict(swapped, events) == "journal.gap"
    renumbered = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(swapped, start=1)]
    assert verdict(renumbered, events) == "journal.chain"


@given(contents, st.data())
def test_a_rewritten_end_is_found_by_the_run_row(pairs: list[tuple[bytes, bytes | None]], data: st.DataObject) -> None:
    events = journal(pairs)
    index = data.draw(st.integers(0, len(events) - 1))
    changed = [*pairs[:index], (b"another body", pairs[index][1]), *pairs[index + 1 :]]
    assert verdict(journal(changed), events) == "journal.chain"


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda event: msgspec.structs.replace(event, payload=None), id="payload-gone-without-erasure"),
        pytest.param(lambda event: msgspec.structs.replace(event, payload=b"other"), id="payload-exchanged"),
    ],
)
def test_payloads_are_checked_while_there_is_a_salt(tamper: Callable[[StoredEvent], StoredEvent]) -> None:
    events = journal([(b"a", b"payload"), (b"b", None)])
    assert verdict([tamper(events[0]), events[1]], events) == "journal.payload"


def test_a_payload_without_a_digest_or_after_an_erasure_is_found() -> None:
    events = journal([(b"a", b"payload"), (b"b", None)])
    assert verdict([events[0], msgspec.structs.replace(events[1], payload=b"smuggled")], events) == "journal.payload"
    assert verdict(events, events, salt=None) == "journal.payload"


def test_a_moved_border_between_body_and_digest_is_found() -> None:
    events = journal([(b"body", b"payload")])
    digest = events[0].payload_digest or b""
    moved = msgspec.structs.replace(events[0], body=b"body" + digest, payload=None, payload_digest=None)
    assert verdict([moved], events) == "journal.chain"


def test_a_long_stored_journal_is_verified_page_by_page() -> None:
    tables = Tables()
    tables.apply([admission("r1")])
    run = tables.runs["r1"]
    run.events = journal([(b"%d" % number, None) for number in range(PAGE * 2 + 5)])
    run.seq, run.head, run.salt = len(run.events), run.events[-1].hash, SALT
    store = MemoryStore()
    store.tables.runs = tables.runs
    assert verify_run(store, "r1") == PAGE * 2 + 5
    del run.events[-1]
    with pytest.raises(Corrupt, match=r"journal\.truncated"):
        verify_run(store, "r1")
    run.seq -= 1
    with pytest.raises(Corrupt, match=r"journal\.chain"):
        verify_run(store, "r1")
    with pytest.raises(UsageError, match=r"run\.unknown"):
        verify_run(store, "nobody")
