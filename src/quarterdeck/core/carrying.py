"""What a run takes along into a fresh history: of its own (a new *generation*), or into another run's (a *fork*).

A generation begins with an event that holds all that is needed of everything before it, so that folding may begin there: replay costs
what the generation is long, not what the run has lived. It begins only where nothing is under way. A fork takes along what the source
had learned, but neither what it spent nor what it holds: it is a run of its own, with limits of its own.
"""

from __future__ import annotations

from dataclasses import fields

import msgspec

from quarterdeck.core.errors import Corrupt
from quarterdeck.core.labels import NO_LABELS, Labels
from quarterdeck.core.state import Effects, ProgressMark, RunState, TurnMark


class Mark(msgspec.Struct, frozen=True, gc=False):
    """One turn of the transcript that is still in sight."""

    turn: int
    seq: int
    tokens: int


class Held(msgspec.Struct, frozen=True, gc=False):
    """A slice of a shared account that the run holds."""

    account: str
    dimension: str
    amount: int


class Reported(msgspec.Struct, frozen=True, gc=False):
    """The newest report of how far the run is."""

    call: str
    done: int
    total: int | None
    at_us: int
    seq: int


class Carried(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a run's state that outlives its history. ``digests`` are those that were proposed more than once."""

    epoch: int = 0
    turn: int = 0
    turns: tuple[Mark, ...] = ()
    input_tokens: int = 0
    said: bool = False
    limited: str = ""
    denied_replies: int = 0
    spent: dict[str, int] = {}
    unreported: dict[str, int] = {}
    slices: tuple[Held, ...] = ()
    digests: dict[str, int] = {}
    succeeded_tools: tuple[str, ...] = ()
    effects: dict[str, int] = {}
    labels: Labels | None = None
    started: dict[str, str] = {}
    paused: bool = False
    resumes: int = 0
    interrupts: int = 0
    owner: str = ""
    escalations: int = 0
    summarised: int = 0
    summary_tokens: int = 0
    inherited: dict[str, str] = {}
    uncounted: tuple[tuple[str, str, int], ...] = ()
    progress: Reported | None = None


def is_quiet(state: RunState) -> bool:
    """Whether nothing of the run is under way or planned, so that it may be taken along."""
    return not (state.open or state.pending or state.children or state.unknown or state.reserves or state.cancelled_by)


def carried(state: RunState, first: int = 0) -> Carried:
    """What is taken along of a quiet run; of its turns those from ``first`` on."""
    if not is_quiet(state):
        raise Corrupt("run.not_quiet", "a run takes along its state only while nothing of it is under way; report this")
    mark = state.progress
    return Carried(
        epoch=state.epoch,
        turn=state.turn,
        turns=tuple([Mark(mark.turn, mark.seq, mark.tokens) for mark in state.turns if mark.turn >= first]),
        input_tokens=state.input_tokens,
        said=state.said,
        limited=state.limited,
        denied_replies=state.denied_replies,
        spent=dict(state.spent),
        unreported=dict(state.unreported),
        slices=tuple([Held(account, dimension, amount) for (account, dimension), amount in state.slices.items()]),
        digests={digest: count for digest, count in state.digests.items() if count > 1},
        succeeded_tools=tuple(sorted(state.succeeded_tools)),
        effects=state.effects.counts(),
        labels=None if state.labels == NO_LABELS else state.labels,
        started=dict(state.started),
        paused=state.paused,
        resumes=state.resumes,
        interrupts=state.interrupts,
        owner=state.owner,
        escalations=state.escalations,
        summarised=state.summarised,
        summary_tokens=state.summary_tokens,
        inherited=dict(state.inherited),
        uncounted=tuple(state.uncounted),
        progress=None if mark is None else Reported(mark.call, mark.done, mark.total, mark.at_us, mark.seq),
    )


def learned(taken: Carried) -> Carried:
    """The part of it that a fork takes along: what the source knew, not what it spent, holds, or has under way."""
    return msgspec.structs.replace(
        taken, epoch=0, limited="", spent={}, unreported={}, slices=(), digests={}, effects={}, started={}, paused=False, owner="",
        escalations=0, resumes=0, interrupts=0, denied_replies=0, uncounted=(), progress=None,
    )  # fmt: skip


def take_up(state: RunState, taken: Carried) -> None:
    """Make ``state`` that of a run whose history begins here, in place; its contract, status and sequence stay."""
    fresh = RunState(state.contract, state.status, state.seq)
    for each in fields(RunState):
        setattr(state, each.name, getattr(fresh, each.name))
    state.epoch = taken.epoch
    state.turn = taken.turn
    state.turns = [TurnMark(mark.turn, mark.seq, mark.tokens) for mark in taken.turns]
    state.input_tokens = taken.input_tokens
    state.said = taken.said
    state.limited = taken.limited
    state.denied_replies = taken.denied_replies
    state.spent = dict(taken.spent)
    state.unreported = dict(taken.unreported)
    state.slices = {(held.account, held.dimension): held.amount for held in taken.slices}
    state.digests = dict(taken.digests)
    state.succeeded_tools = set(taken.succeeded_tools)
    state.effects = Effects(**taken.effects)
    state.labels = taken.labels or NO_LABELS
    state.started = dict(taken.started)
    state.paused = taken.paused
    state.resumes = taken.resumes
    state.interrupts = taken.interrupts
    state.owner = taken.owner
    state.escalations = taken.escalations
    state.summarised = taken.summarised
    state.summary_tokens = taken.summary_tokens
    state.inherited = dict(taken.inherited)
    state.uncounted = list(taken.uncounted)
    if (told := taken.progress) is not None:
        state.progress = ProgressMark(told.call, told.done, told.total, told.at_us, told.seq)
