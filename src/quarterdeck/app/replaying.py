"""Offline replay: a run is executed again, under the code, policies and switches of now, against what it recorded. Nothing is done.

A workflow is executed against its recording, from its newest generation on. Whatever the run had decided at the gate is judged again, each
with the state, and at the time, that it was judged with then. What comes out is where the two differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt, QuarterdeckError
from quarterdeck.core.fold import fold, start
from quarterdeck.core.proposal import Proposal
from quarterdeck.core.state import RunState
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling, Status
from quarterdeck.engine.services import Services
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.engine.workflows.play import Play
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.gate.gate import Gate
from quarterdeck.ports.store import StoredEvent

MAX_DIFFERENCES = 100
"""Differences that are told; the first is what matters."""

_encoder = msgspec.json.Encoder(order="deterministic")
_payloads: msgspec.json.Decoder[ModelPayload] = msgspec.json.Decoder(ModelPayload)


class Difference(msgspec.Struct, frozen=True):
    """One thing that is otherwise now. ``seq`` is where it stands in the journal (0: at its end), ``kind`` what it is: ``step`` (the
    workflow asks for something else), ``ruling`` (the gate says something else), ``end`` (it ends otherwise)."""

    seq: int
    kind: str
    call: str
    recorded: str
    now: str


class Replay(msgspec.Struct, frozen=True):
    """What came of it: how many steps were executed again and how many decisions judged again, and where it differs."""

    run_id: str
    steps: int
    decisions: int
    differences: tuple[Difference, ...] = ()

    @property
    def same(self) -> bool:
        """Whether it would go the same way now."""
        return not self.differences


def replayed(services: Services, stored: Sequence[StoredEvent]) -> Replay:
    """Replay a whole journal. Raises :class:`Corrupt` for one that cannot be read, or whose contents were erased."""
    events = [(one, ev.decode(one.body)) for one in stored]
    first = events[0][1]
    if not isinstance(first, ev.RunAdmitted):
        raise Corrupt("journal.first_event", "a journal must begin with run.admitted; it is not trustworthy")
    differences, decisions = _judged(services, events)
    steps = 0
    program = services.programs.get(first.contract.agent)
    if isinstance(program, WorkflowProgram):
        steps, found = _executed(services, program, events)
        differences = [*found, *differences]
    elif program is None:
        differences.insert(0, Difference(1, "end", "", first.contract.agent, "no such agent or workflow"))
    return Replay(first.contract.run_id, steps, decisions, tuple(differences[:MAX_DIFFERENCES]))


Events = Sequence[tuple[StoredEvent, ev.Event]]


def _judged(services: Services, events: Events) -> tuple[list[Difference], int]:
    """Every decision of the run, made again."""
    moment = [0]
    current = services.gate
    gate = Gate(current.catalogue, current.policy, current.accounts, lambda: moment[0])
    gate.controls = current.controls
    state: RunState | None = None
    raws: dict[str, str] = {}
    differences: list[Difference] = []
    decisions = 0
    for stored, event in events:
        if state is not None and isinstance(event, ev.GateDecided):
            moment[0] = event.at_us
            proposal = _proposal(services, gate, state, event, raws)
            if proposal is not None:
                decisions += 1
                decision = gate.judge(proposal, state, gate.standing(state.contract)).decision
                if proposal.digest != event.digest:
                    now = f"{proposal.name} with digest {proposal.digest[:12]}"
                    differences.append(Difference(stored.seq, "ruling", event.call, f"{event.name} {event.digest[:12]}", now))
                elif _said(decision.ruling, decision.reasons) != _said(event.ruling, event.reasons):
                    now = _said(decision.ruling, decision.reasons)
                    differences.append(Difference(stored.seq, "ruling", event.call, _said(event.ruling, event.reasons), now))
        _remember(event, stored.payload, raws)
        state = start(event) if state is None else fold(state, event)
    return differences, decisions


def _said(ruling: Ruling, reasons: tuple[str, ...]) -> str:
    return f"{ruling} {reasons[0]}" if reasons and ruling is not Ruling.ALLOW else str(ruling)


def _remember(event: ev.Event, payload: bytes | None, raws: dict[str, str]) -> None:
    if isinstance(event, ev.ModelClosed) and payload is not None and event.status is ReceiptStatus.SUCCEEDED:
        for planned, call in zip(event.calls, _payloads.decode(payload).calls, strict=False):
            raws[planned.call] = call.arguments
    elif isinstance(event, ev.StepProposed) and payload is not None:
        raws[event.call] = payload.decode()


def _proposal(services: Services, gate: Gate, state: RunState, event: ev.GateDecided, raws: dict[str, str]) -> Proposal | None:
    """What was decided on; ``None`` for what cannot be had again (replies, delegations) or depended on the moment (capacity)."""
    if event.ruling is Ruling.DENY and event.reasons and event.reasons[0].partition(".")[0] in _MOMENTARY:
        return None
    if event.proposal is ProposalKind.TOOL and event.call in raws:
        dependency = services.tool_dependencies.get(event.name)
        attempts = dependency.policy.retry.max_attempts if dependency is not None else 1
        made = gate.catalogue.propose(state.contract, event.call, event.name, raws[event.call], attempts)
        return msgspec.structs.replace(made, reserve=event.reserve) if event.reserve else made
    if event.proposal is ProposalKind.MODEL and event.ruling is Ruling.ALLOW:
        return Proposal(ProposalKind.MODEL, event.call, event.name, event.digest, b"{}", {}, event.reserve)
    return None


_MOMENTARY = frozenset({"breaker", "bulkhead", "rate", "budget", "run"})


def _executed(services: Services, program: WorkflowProgram, events: Events) -> tuple[int, list[Difference]]:
    """The workflow, executed against its newest generation."""
    recording, state = Recording(), None
    places: dict[str, int] = {}
    for stored, event in events:
        state = start(event) if state is None else fold(state, event)
        recording.apply(event, stored.payload)
        if isinstance(event, ev.StepProposed):
            places[event.call] = stored.seq
    if state is None:
        raise Corrupt("journal.empty", "a run without events exists; verify the journal")
    steps = len(recording.proposals)
    asked: list[ev.StepProposed] = []
    contract = state.contract
    spec = services.gate.catalogue.spec
    last = events[-1][1]

    def noted(event: ev.StepProposed, _: bytes) -> None:
        asked.append(event)

    play = Play(state, recording, noted, lambda: last.at_us, spec, program.compensations, program.names)
    try:
        play.begin(lambda play: program.body(play, recording.input))
        while recording.arrivals and play.diverged is None and not asked:
            play.tell(recording.arrivals.popleft())
        if not asked:
            play.require_all()
        return steps, _differs(play, asked, events, places)
    except QuarterdeckError as error:
        return steps, [Difference(0, "end", "", contract.agent, f"{error.code}: {error.message}"[:500])]
    finally:
        play.close()


def _differs(play: Play, asked: list[ev.StepProposed], events: Events, places: dict[str, int]) -> list[Difference]:
    stored, last = events[-1]
    if play.diverged is not None:
        call = play.diverged.recorded.rpartition(" as ")[2].partition(",")[0]
        return [Difference(places.get(call, 0), "step", call, play.diverged.recorded[:500], play.diverged.proposed[:500])]
    ended = isinstance(last, ev.RunFinished)
    if ended and asked:
        beyond = asked[0]
        return [Difference(0, "step", beyond.call, "the end of the workflow", f"{beyond.step} {beyond.name} as {beyond.call}")]
    if ended and isinstance(last, ev.RunFinished) and last.status is Status.SUCCEEDED and play.ended:
        error, result = play.strands.main.error, play.strands.main.result
        before = msgspec.json.decode(stored.payload)["value"] if stored.payload is not None else None
        if error is not None:
            return [Difference(stored.seq, "end", "", "succeeded", f"{type(error).__name__}: {error}"[:500])]
        if stored.payload is not None and msgspec.json.decode(_encoder.encode(result)) != before:
            return [Difference(stored.seq, "end", "", "its result", "another result")]
    return []
