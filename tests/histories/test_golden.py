"""Every event that there is stands in a journal that was recorded once; all of them are read, and mean, the same for ever."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quarterdeck.core.events import KINDS, decode, encode, kind_of
from quarterdeck.core.loop import next_move
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.engine.transcript import Transcript
from quarterdeck.engine.workflows.recording import Recording
from tests.histories.played import FOLDER, OLDER, PLAYED, folded, lines_of, outcome

HISTORIES = {path.stem: path for path in (*sorted(FOLDER.glob("*.jsonl")), *sorted(OLDER.glob("*.jsonl")))}
AGENTS = ("overseen", "compacted")


def test_every_kind_of_event_is_in_some_history() -> None:
    seen = {kind_of(decode(line.body.encode())) for path in HISTORIES.values() for line in lines_of(path)}
    assert set(KINDS) - seen == set(), "play something that writes them, and record it: python -m tests.histories.played"


def test_what_is_played_is_recorded_with_what_it_folds_to() -> None:
    assert set(PLAYED) <= set(HISTORIES)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(HISTORIES)


@pytest.mark.parametrize("name", HISTORIES)
def test_an_old_event_is_written_as_it_was(name: str) -> None:
    for line in lines_of(HISTORIES[name]):
        assert encode(decode(line.body.encode())).decode() == line.body


@pytest.mark.parametrize("name", HISTORIES)
def test_an_old_journal_folds_to_what_it_did(name: str) -> None:
    state = folded(lines_of(HISTORIES[name]))
    said = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())
    now = msgspec.json.decode(msgspec.json.encode(outcome(state)))
    assert {key: now[key] for key in said} == said
    assert state.status in TERMINAL
    assert not state.slices, "every slice was given back"


@pytest.mark.parametrize("name", HISTORIES)
def test_every_beginning_of_an_old_journal_can_be_gone_on_with(name: str) -> None:
    lines = lines_of(HISTORIES[name])
    for end in range(1, len(lines)):
        state = folded(lines[:end])
        if name in AGENTS and state.status not in TERMINAL:
            next_move(state)


@pytest.mark.parametrize("name", HISTORIES)
def test_the_contents_of_an_old_journal_can_be_read(name: str) -> None:
    transcript = Transcript() if name in AGENTS else Recording()
    for line in lines_of(HISTORIES[name]):
        transcript.apply(decode(line.body.encode()), line.payload.encode() if line.payload is not None else None)
    if name == "compacted":
        finished = msgspec.json.decode(lines_of(HISTORIES[name])[-1].payload or "")
        assert transcript.reply == finished["text"] == "looked"
        assert transcript.summary == "it has looked"


def test_a_missing_outcome_would_be_noticed(tmp_path: Path) -> None:
    state = folded(lines_of(HISTORIES["overseen"]))
    assert outcome(state)["labels"] == ["untrusted", "public"]
    state.effects.failed += 1
    assert outcome(state) != outcome(folded(lines_of(HISTORIES["overseen"])))
