"""Taking a run over: the fold of its journal, and its transcript, from the beginning of its newest generation."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.fold import fold, start
from quarterdeck.core.origins import Origins
from quarterdeck.core.state import RunState
from quarterdeck.engine.programs import Program
from quarterdeck.engine.services import Services
from quarterdeck.engine.transcript import Transcript
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.ports.store import Opening, StoredEvent
from quarterdeck.store.chain import GENESIS, require_whole

PAGE = 2_000
"""Events read at once when a run is taken over."""
_CONTINUED = b'{"kind":"run.continued"'
_PROGRESS: frozenset[type] = frozenset(
    {
        ev.RunContinued,
        ev.RunWaiting,
        ev.ModelClosed,
        ev.ToolClosed,
        ev.StepClosed,
        ev.EffectResolved,
        ev.ChildOpened,
        ev.ChildEnded,
        ev.CancelRequested,
        ev.ApprovalDecided,
        ev.SignalReceived,
        ev.RunInterrupted,
        ev.BudgetRaised,
        ev.RunResumed,
    }
)
"""What shows that a run gets on, or that somebody wants it to: deaths of owners before it no longer count against the run."""


def load(services: Services, run_id: str, upto: int, opening: Opening | None = None) -> tuple[RunState, Transcript, int]:
    """The state of a run whose journal ends at ``upto`` or later, what it has said, and the sequence of its newest event that was progress.
    Every event is checked against the chain. With an ``opening`` nothing is read.

    Raises :class:`Corrupt` for a journal that has a gap, does not fit its hashes, or cannot be read.
    """
    progress = 0
    transcript = Transcript()
    state: RunState | None = None
    first, previous = _beginning(services, run_id, upto)
    after = first - 1
    salt = services.insights.salt(run_id) if opening is None else opening.salt
    for stored in _events(services, run_id, after) if opening is None else opening.events:
        if stored.seq != after + 1:
            raise Corrupt("journal.gap", f"event {after + 1} of run {run_id} is missing; restore a backup")
        require_whole(stored, previous, salt)
        event = ev.decode(stored.body)
        if state is None:
            state = start(event, stored.seq)
            program = services.program(state.contract)
            if isinstance(program, WorkflowProgram):
                transcript = Recording()
            if services.gate.labelled or state.labels.untrusted:
                transcript.watch(_origins(services, state, program), services.gate.catalogue.spec)
        else:
            fold(state, event)
        try:
            transcript.apply(event, stored.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Corrupt("journal.payload", f"the payload of event {stored.seq} cannot be read ({error})") from None
        after, previous = stored.seq, stored.hash
        if type(event) in _PROGRESS and not (type(event) is ev.RunWaiting and event.code == "effect.open"):
            progress = after
    if state is None:
        raise Corrupt("journal.empty", f"run {run_id} has no events; restore a backup")
    return state, transcript, progress


def _origins(services: Services, state: RunState, program: Program | None) -> Origins:
    """What a run may trust before anything has happened: its agent's instructions, and what the operator configured."""
    origins = Origins(services.gate.trusted, tainted=state.labels.untrusted)
    if program is not None:
        origins.ask(program.spec.instructions)
    return origins


def _events(services: Services, run_id: str, after: int) -> Iterator[StoredEvent]:
    while page := services.insights.events(run_id, after, PAGE):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].seq


def _beginning(services: Services, run_id: str, upto: int) -> tuple[int, bytes]:
    """Where the newest generation begins, and the hash before it. Found from the end, so that it costs what the generation is long;
    a journal of one page is read from its beginning, as it is read anyway.
    """
    if upto <= PAGE:
        return 1, GENESIS
    end = upto
    while end > 1:
        after = max(0, end - PAGE)
        for stored in reversed(services.insights.events(run_id, after, end - after)):
            if stored.body.startswith(_CONTINUED):
                return stored.seq, services.insights.events(run_id, stored.seq - 2, 1)[0].hash
        end = after
    return 1, GENESIS
