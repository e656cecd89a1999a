"""Journals that were recorded once must fold and replay for ever. ``python -m tests.workflows.test_histories`` records new ones.

Never record an old one again: a change that needs that would park the runs of everybody who upgrades.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from quarterdeck.core import events as ev
from quarterdeck.core.events import decode
from quarterdeck.core.fold import fold, start
from quarterdeck.engine.workflows.play import Play
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.ports.store import StoredEvent
from quarterdeck.testing import drawn
from tests.workflows import test_replay, test_sagas, test_waits
from tests.workflows.stage import Scene, World, staged

FOLDER = Path(__file__).parent / "histories"
PROGRAM = [
    "try",
    [["saga", [["par", [["pay", 1], ["seq", [["step", 2], ["book", 3]]]]], ["nest", [["draw", 1]]], ["denied", 1]]]],
]


async def _news(runtime, run_id) -> None:
    await runtime.signal(run_id, "news", {"n": 1}, token="one")
    await runtime.signal(run_id, "news", {"n": 2}, token="two")


PLAYED: dict[str, tuple[object, str, object, Scene | None, set[int]]] = {
    "trip": (test_replay.trip, "trip", {"city": "Rome"}, None, {9, 21}),
    "undone": (test_sagas.trip, "trip", {"end": "fails"}, None, {25}),
    "cancelled": (test_sagas.trip, "trip", {"end": "waits"}, test_sagas.cancel, set()),
    "escalated": (test_waits.office, "sign", {"on_timeout": "escalate"}, None, set()),
    "messages": (test_waits.office, "listen", None, _news, {8}),
    "delegates": (test_waits.office, "ask", None, None, {12}),
    "program": (drawn.machine, "interpret", {"program": PROGRAM}, None, {17}),
}
"""What each history is of: a deck, a route, a payload, what people did, and where it crashed."""


class Line(msgspec.Struct):
    """One recorded event."""

    body: str
    payload: str | None = None


def record(name: str) -> None:
    """Play it, and keep the journal of the run that was submitted."""
    make, intent, payload, scene, crashes = PLAYED[name]
    _, _, store = staged(make, intent, payload, crashes=crashes, scene=scene)  # type: ignore[arg-type]
    stored: list[StoredEvent] = list(store.events(store.runs()[-1].run_id))
    lines = [Line(one.body.decode(), one.payload.decode() if one.payload is not None else None) for one in stored]
    (FOLDER / f"{name}.jsonl").write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n")


@pytest.mark.parametrize("name", PLAYED)
def test_an_old_journal_replays(name: str) -> None:
    make, _, _, _, _ = PLAYED[name]
    lines = [msgspec.json.decode(line, type=Line) for line in (FOLDER / f"{name}.jsonl").read_bytes().splitlines()]
    recording, state = Recording(), None
    for line in lines:
        event = decode(line.body.encode())
        assert ev.encode(event).decode() == line.body, "an event is written otherwise now"
        state = start(event) if state is None else fold(state, event)
        recording.apply(event, line.payload.encode() if line.payload is not None else None)
    assert state is not None
    deck = make(World())  # type: ignore[operator]
    deck.complete()
    spec = deck.agents[state.contract.agent]
    function = deck.workflows[spec.name]
    program = WorkflowProgram(spec, None, {}, 0, function=function, names=deck.names, compensations=deck.compensations)

    def unheard(event: ev.StepProposed, payload: bytes) -> None:
        raise AssertionError(f"it asked for something new: {event}")

    play = Play(state, recording, unheard, lambda: 0, lambda name: None, deck.compensations, deck.names)
    play.begin(lambda play: program.body(play, recording.input))
    while recording.arrivals and play.diverged is None:
        play.tell(recording.arrivals.popleft())
    play.require_all()
    assert play.diverged is None
    assert play.ended
    finished = msgspec.json.decode(lines[-1].payload or "{}")
    if "value" in finished:
        assert msgspec.json.decode(msgspec.json.encode(play.strands.main.result)) == finished["value"]
    else:
        assert play.strands.main.error is not None


if __name__ == "__main__":
    for history in PLAYED:
        if not (FOLDER / f"{history}.jsonl").exists():
            record(history)
