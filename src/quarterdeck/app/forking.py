"""Forking: a new run that goes on where another one was at a step, with what that one had learned, and nothing of it done again.

A fork is admitted like any other run, under the code, policies and budgets of now. Its journal begins with what it takes along: for a
workflow the recorded steps before the fork, each with its answer, marked as the source's; for an agent the part of the transcript that was
in sight. Compensations of the fork leave the source's effects alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from quarterdeck.app.admission import Admission, canonical_of
from quarterdeck.core import events as ev
from quarterdeck.core.carrying import Carried, carried, is_quiet, learned
from quarterdeck.core.commit import Commit, Record, record
from quarterdeck.core.contract import Caller, Envelope, RunContract
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.fold import fold, start
from quarterdeck.core.labels import NO_LABELS, either
from quarterdeck.core.state import RunState
from quarterdeck.core.steps import MARKERS, StepKind
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.transcript import Transcript
from quarterdeck.engine.workflows.recording import Leaving
from quarterdeck.ports.store import StoredEvent

MAX_INHERITED = 40_000
"""The most events that a fork takes along."""

_encoder = msgspec.json.Encoder(order="deterministic")
_ACTED = (StepKind.TOOL, StepKind.MODEL, StepKind.CHILD)


class Fork(msgspec.Struct, frozen=True):
    """Where a fork begins: at a step, which is done anew, or whose ``result`` (JSON) is this one (``edited``). ``route`` is another one
    that it is to run on.
    """

    step: str
    edited: bool = False
    result: object = None
    route: str | None = None


class Read(msgspec.Struct, frozen=True):
    """One event of the source, read."""

    stored: StoredEvent
    event: ev.Event

    @property
    def payload(self) -> bytes:
        """Its contents; raises :class:`Refused` (``fork.erased``) where they are gone."""
        if self.stored.payload is None:
            raise Refused("fork.erased", "the contents of this run were erased; it cannot be forked")
        return self.stored.payload


def forked(
    admission: Admission,
    source: Sequence[StoredEvent],
    fork: Fork,
    *,
    workflow: bool,
    by: str,
    policy_version: str,
    budget_version: str,
    incarnation: int,
    key: str | None = None,
) -> Commit:
    """The admission of a fork. Raises :class:`UsageError` (``fork.step``) for a step that is not there or cannot be forked at, and what
    admission raises. ``key``: the same fork under the same idempotency key is one run.
    """
    events = [Read(stored, ev.decode(stored.body)) for stored in source]
    first = events[0].event
    if not isinstance(first, ev.RunAdmitted):
        raise UsageError("fork.step", "the journal does not begin with an admission; verify it")
    contract = first.contract
    envelope = Envelope(
        fork.route or contract.route,
        msgspec.json.decode(events[0].payload),
        caller=Caller(contract.tenant, contract.actor),
        correlation_id=contract.correlation_id,
        priority=contract.priority,
        mode=contract.mode if fork.route is None else None,
        thread_id=contract.thread_id,
        idempotency_key=key,
    )
    made, payload = admission.contract(envelope, policy_version, budget_version, by)
    made = msgspec.structs.replace(made, forked_from=contract.run_id, labels=either(made.labels, contract.labels))
    commit = admission.commit(made, payload, envelope, incarnation)
    taken = _workflow(contract, events, fork, by) if workflow else _agent(contract, events, fork, by)
    if len(taken) > MAX_INHERITED:
        raise UsageError("fork.too_long", f"a fork takes at most {MAX_INHERITED} events along; fork from an earlier step")
    named = commit.key
    if named is not None:
        what = _encoder.encode((named.body_digest, contract.run_id, fork))
        named = msgspec.structs.replace(named, body_digest=hashlib.sha256(what).hexdigest())
    return msgspec.structs.replace(commit, records=(*commit.records, *taken), key=named)


def _missing(step: str, why: str) -> UsageError:
    return UsageError("fork.step", f"{step[:80]!r} {why}; `quarterdeck runs events` shows the steps of a run")


def _workflow(contract: RunContract, events: Sequence[Read], fork: Fork, by: str) -> list[Record]:
    begun = max([index for index, one in enumerate(events) if isinstance(one.event, (ev.RunContinued, ev.RunForked))], default=0)
    history = events[begun:]
    cut = next((one for one in history if isinstance(one.event, ev.StepProposed) and one.event.call == fork.step), None)
    if cut is None or not isinstance(cut.event, ev.StepProposed) or cut.event.step in (*MARKERS, StepKind.WITHDRAW):
        raise _missing(fork.step, "is no step of the newest generation of this workflow's history")
    if any(isinstance(one.event, ev.CancelRequested) and one.stored.seq < cut.stored.seq for one in history):
        raise _missing(fork.step, "comes after the run was cancelled")
    head = history[0]
    state = start(events[0].event)
    for one in events[1 : cut.stored.seq - 1]:
        fold(state, one.event)
    seed, generation, begun_at_us = _seed(contract, head.event)
    left = head.payload if begun else _encoder.encode(Leaving(msgspec.Raw(head.payload)))
    at_us = events[-1].event.at_us
    taken = Carried(
        labels=None if state.labels == NO_LABELS else state.labels, succeeded_tools=tuple(sorted(state.succeeded_tools))
    )
    note = ev.RunForked(
        at_us,
        contract.run_id,
        cut.stored.seq - 1,
        events[cut.stored.seq - 2].stored.hash.hex(),
        by,
        seed,
        fork.step if fork.edited else "",
        generation,
        begun_at_us,
        taken,
    )
    records = [record(note, left), *_inherited(contract.run_id, history, cut.stored.seq)]
    if fork.edited:
        answer = ev.StepClosed(cut.event.at_us, fork.step, ReceiptStatus.SUCCEEDED)
        told = ev.StepInherited(cut.event.at_us, fork.step, contract.run_id, 0, ev.encode(answer).decode(), edited=True)
        records += [Record(cut.stored.body, cut.payload), record(told, canonical_of("the result", fork.result))]
    return records


def _seed(contract: RunContract, head: ev.Event) -> tuple[str, int, int]:
    """What the source draws its numbers from, its generation, and when that began."""
    own = f"{contract.run_id}\n{contract.trace_id}"
    if isinstance(head, ev.RunContinued):
        return f"{own}\n{head.generation}", head.generation, head.at_us
    if isinstance(head, ev.RunForked):
        return head.seed, head.generation, head.begun_at_us
    return own, 0, contract.admitted_at_us


def _inherited(run_id: str, history: Sequence[Read], cut: int) -> Iterator[Record]:
    """The steps before ``cut`` with their answers, in the order of the journal; last those that were under way there."""
    asked = {one.event.call: one.event for one in history if isinstance(one.event, ev.StepProposed) and one.stored.seq < cut}
    opened = {_call(one.event) for one in history if one.stored.seq < cut and isinstance(one.event, _OPENED)}
    late: list[Record] = []
    answered: set[str] = set()
    for one in history[1:]:
        event, before = one.event, one.stored.seq < cut
        if isinstance(event, ev.StepProposed) and event.step is not StepKind.WITHDRAW and before:
            yield Record(one.stored.body, one.payload)
        elif isinstance(event, (ev.SignalReceived, ev.RunInterrupted, ev.StepInherited)) and before:
            answered.add(_call(event))
            yield Record(one.stored.body, one.payload)
        elif _answers(event) and (before or _call(event) in opened) and _call(event) in asked and _call(event) not in answered:
            answered.add(_call(event))
            told = ev.StepInherited(event.at_us, _call(event), run_id, one.stored.seq, one.stored.body.decode())
            made = Record(ev.encode(told), one.stored.payload)
            if before:
                yield made
            else:
                late.append(made)
    under_way = sorted(call for call in opened if call in asked and call not in answered and asked[call].step in _ACTED)
    if under_way:
        raise Refused("fork.under_way", f"{', '.join(under_way[:5])} began before this step and has not ended; fork later")
    yield from late


_OPENED = (ev.ToolOpened, ev.ModelOpened, ev.ChildOpened)


def _call(event: ev.Event) -> str:
    return str(getattr(event, "call", ""))


def _answers(event: ev.Event) -> bool:
    match event:
        case ev.ToolClosed():
            return event.status is not ReceiptStatus.UNKNOWN
        case ev.GateDecided():
            return event.ruling is Ruling.DENY and event.proposal not in (ProposalKind.REPLY, ProposalKind.STOP)
        case ev.StepClosed() | ev.EffectResolved() | ev.ModelClosed() | ev.ChildEnded():
            return True
        case _:
            return False


def _agent(contract: RunContract, events: Sequence[Read], fork: Fork, by: str) -> list[Record]:
    transcript = Transcript()
    state: RunState | None = None
    cut = _turn_of(events, fork)
    for one in events[:cut]:
        state = start(one.event) if state is None else fold(state, one.event)
        transcript.apply(one.event, one.stored.payload)
    if state is None or not is_quiet(state):
        raise _missing(fork.step, "is no place where nothing was under way")
    if fork.edited:
        content = canonical_of("the result", fork.result).decode()
        try:
            longer = transcript.edit(fork.step, content)
        except (KeyError, IndexError):
            raise _missing(fork.step, "has no result that the model was shown") from None
        state.turns[-1].tokens = max(1, state.turns[-1].tokens + longer // 4)
    note = ev.RunForked(
        events[-1].event.at_us,
        contract.run_id,
        cut,
        events[cut - 1].stored.hash.hex(),
        by,
        "",
        fork.step if fork.edited else "",
        0,
        0,
        learned(carried(state, transcript.first)),
    )
    return [record(note, transcript.snapshot())]


def _turn_of(events: Sequence[Read], fork: Fork) -> int:
    """How many events a fork at this step takes along: those before a model call, or those with which the turn of a tool call ended."""
    place = next((index for index, one in enumerate(events) if _call(one.event) == fork.step), None)
    if place is None:
        raise _missing(fork.step, "is no step of this run")
    if isinstance(events[place].event, ev.GateDecided) and events[place].event.proposal is ProposalKind.MODEL:  # type: ignore[union-attr]
        if fork.edited:
            raise _missing(fork.step, "is a model call: only the results of tools can be edited")
        return place
    if not fork.edited:
        raise _missing(fork.step, "is a tool call of an agent: fork from its model call, or give it another result")
    for index in range(place, len(events)):
        event = events[index].event
        if isinstance(event, ev.GateDecided) and event.proposal is not ProposalKind.TOOL and _call(event) != fork.step:
            return index
        if isinstance(event, (ev.RunFinished, ev.RunContinued)):
            return index
    return len(events)
