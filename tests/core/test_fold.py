"""The fold of a journal: total over what is legal, loud about what is not, and blind to contents."""

from __future__ import annotations

import copy
import itertools

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quarterdeck.core import events as ev
from quarterdeck.core.contract import RunContract
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.fold import fold, fold_all, start
from quarterdeck.core.state import RunState
from quarterdeck.core.transitions import TRANSITIONS, successor
from quarterdeck.core.vocabulary import TERMINAL, EffectClass, ProposalKind, ReceiptStatus, Ruling, Status, StopReason
from quarterdeck.testing.samples import T0_US, contract
from tests.core.journals import journals

ADMITTED = ev.RunAdmitted(T0_US, contract())
STARTED = ev.RunStarted(T0_US, "w1", 1)

names = st.sampled_from(["m0", "t0.0", "t0.1", "a1"])
amounts = st.dictionaries(st.sampled_from(["turns", "tokens", "cost_microusd"]), st.integers(0, 9), max_size=2)
any_event = st.one_of(
    *[
        st.builds(kind, **{name: names for name in ("call", "approval") if name in kind.__struct_fields__})
        for kind in ev.KINDS.values()
        if kind not in (ev.RunAdmitted, ev.GateDecided)
    ],
    st.builds(ev.GateDecided, call=names, reserve=amounts, reasons=st.tuples(st.sampled_from(["budget.cost", "x"]))),
    st.just(ADMITTED),
)


@given(journals())
def test_every_legal_journal_folds_to_its_own_end(events: list[ev.Event]) -> None:
    state = fold_all(events)
    assert state.seq == len(events)
    assert state.last_event_at_us == events[-1].at_us
    statuses = [event for event in events if isinstance(event, ev.RunStarted | ev.RunWaiting | ev.RunFinished)]
    expected = Status.QUEUED
    if statuses:
        last = statuses[-1]
        expected = last.status if isinstance(last, ev.RunFinished) else Status.RUNNING
        expected = Status.WAITING if isinstance(last, ev.RunWaiting) else expected
    assert state.status is expected
    assert (state.wake_at_us is None) or state.status is Status.WAITING


@given(journals(), st.data())
def test_folding_in_parts_is_folding_whole(events: list[ev.Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(events)))
    state = fold_all(events[:cut])
    for event in events[cut:]:
        state = fold(state, event)
    assert state == fold_all(events)


@given(journals())
def test_folding_does_not_change_events(events: list[ev.Event]) -> None:
    before = copy.deepcopy(events)
    first = fold_all(events)
    assert events == before
    assert fold_all(events) == first


@given(journals())
def test_events_are_read_back_as_they_were(events: list[ev.Event]) -> None:
    bodies = [ev.encode(event) for event in events]
    assert [ev.decode(body) for body in bodies] == events
    assert fold_all(map(ev.decode, bodies)) == fold_all(events)
    assert [msgspec.json.decode(body)["kind"] for body in bodies] == [ev.kind_of(event) for event in events]


@given(any_event)
def test_any_event_is_read_back_as_it_was(event: ev.Event) -> None:
    assert ev.decode(ev.encode(event)) == event


@given(journals())
def test_the_books_of_a_run_balance(events: list[ev.Event]) -> None:
    """Reserved is what open effects have reserved; spent is what receipts say; the counts of effects are the receipts'."""
    state = fold_all(events)
    reserves = {event.call: event.reserve for event in events if isinstance(event, ev.GateDecided) and event.reserve}
    for dimension in ("turns", "tokens", "cost_microusd", "tool_calls", "model_calls"):
        reserved = sum(reserves[call].get(dimension, 0) for call in state.open)
        assert state.reserved.get(dimension, 0) == reserved
    closed = [event for event in events if isinstance(event, ev.ModelClosed | ev.ToolClosed)]
    assert state.spent.get("cost_microusd", 0) == sum(event.cost_microusd for event in closed)
    models = [event for event in closed if isinstance(event, ev.ModelClosed)]
    assert state.spent.get("tokens", 0) == sum(event.input_tokens + event.output_tokens for event in models)
    assert state.spent.get("turns", 0) == sum(event.status is ReceiptStatus.SUCCEEDED for event in models)
    assert state.spent.get("tool_calls", 0) == len(closed) - len(models)
    counts = state.effects.succeeded + state.effects.failed + state.effects.unknown
    assert counts == len(closed) - len(models)
    assert state.effects.unknown == len(state.unknown)
    assert set(state.reserves) == set(state.open)


@given(journals())
def test_slices_are_the_sum_of_moves(events: list[ev.Event]) -> None:
    moves = [move for event in events if isinstance(event, ev.BudgetMoved) for move in event.moves]
    held = sum(move.leased - move.returned for move in moves)
    assert fold_all(events).slices == ({("tenant:acme", "tokens"): held} if held else {})


@given(st.lists(any_event, max_size=12))
@settings(max_examples=300)
@example([ev.GateDecided(T0_US, "r0", ProposalKind.REPLY, "reply", "d", Ruling.DENY)])
def test_any_sequence_folds_or_is_called_corrupt(events: list[ev.Event]) -> None:
    state = start(ADMITTED)
    for event in events:
        try:
            state = fold(state, event)
        except Corrupt as error:
            assert error.code.startswith("journal.")
            return
    assert isinstance(state, RunState)


@given(journals())
def test_a_terminal_status_never_changes(events: list[ev.Event]) -> None:
    ended: Status | None = None
    state = start(events[0])
    for event in events[1:]:
        state = fold(state, event)
        assert ended is None or state.status is ended
        ended = state.status if state.status in TERMINAL else None
    if ended is not None:
        for event in (STARTED, ev.RunWaiting(T0_US, StopReason.BLOCKED, "x", ("x",)), _finished(Status.SUCCEEDED)):
            with pytest.raises(Corrupt, match=r"journal\.transition"):
                fold(copy.deepcopy(state), event)


def _finished(status: Status) -> ev.RunFinished:
    return ev.RunFinished(T0_US, status, StopReason.FAILED, "x")


TO: dict[Status | None, list[ev.Event]] = {
    None: [],
    Status.QUEUED: [ADMITTED],
    Status.RUNNING: [ADMITTED, STARTED],
    Status.WAITING: [ADMITTED, STARTED, ev.RunWaiting(T0_US, StopReason.BLOCKED, "x", ("x",))],
    **{status: [ADMITTED, STARTED, _finished(status)] for status in sorted(TERMINAL)},
}
MOVES: list[tuple[ev.Event, Status | None]] = [
    (ADMITTED, None),
    (STARTED, None),
    (ev.RunWaiting(T0_US, StopReason.BLOCKED, "x", ("x",)), None),
    *[(_finished(status), status) for status in Status],
]


@pytest.mark.parametrize("before", TO, ids=str)
@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{ev.kind_of(move[0])}-{move[1]}")
def test_every_move_at_every_status_is_as_the_table_says(before: Status | None, move: tuple[ev.Event, Status | None]) -> None:
    event, wanted = move
    allowed = TRANSITIONS.get((before, ev.kind_of(event)), frozenset())
    if allowed and (wanted is None or wanted in allowed):
        after = fold_all([*TO[before], event]).status
        assert after in allowed
        assert wanted in (None, after)
    else:
        with pytest.raises(Corrupt, match="journal"):
            fold_all([*TO[before], event])


def test_the_table_covers_every_status() -> None:
    reached = frozenset(itertools.chain.from_iterable(TRANSITIONS.values()))
    assert reached == frozenset(Status)
    sources = {status for status, _ in TRANSITIONS if status is not None}
    assert sources == frozenset(Status) - TERMINAL
    assert {kind for _, kind in TRANSITIONS} == {"run.admitted", "run.started", "run.waiting", "run.finished"}
    assert {kind for _, kind in TRANSITIONS} <= set(ev.KINDS)
    for status in sources:
        assert TRANSITIONS[status, "run.finished"] <= TERMINAL


def test_a_choice_must_be_named_and_legal() -> None:
    with pytest.raises(Corrupt, match=r"journal\.transition"):
        successor(Status.RUNNING, "run.finished")
    with pytest.raises(Corrupt, match=r"journal\.transition"):
        successor(Status.RUNNING, "run.finished", Status.WAITING)
    with pytest.raises(Corrupt, match=r"journal\.transition"):
        successor(Status.RUNNING, "run.resurrected")


def _tool_call(status: ReceiptStatus) -> list[ev.Event]:
    return [
        ev.ToolOpened(T0_US, "t0.0", "refund", EffectClass.WRITE, "d", "k", T0_US),
        ev.ToolClosed(T0_US, "t0.0", status),
    ]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing"),
        pytest.param([STARTED], id="no-admission"),
        pytest.param([ADMITTED, ADMITTED], id="two-admissions"),
        pytest.param([ADMITTED, _tool_call(ReceiptStatus.FAILED)[1]], id="receipt-without-intent"),
        pytest.param([ADMITTED, *_tool_call(ReceiptStatus.FAILED), _tool_call(ReceiptStatus.FAILED)[1]], id="twice"),
        pytest.param([ADMITTED, ev.ModelClosed(T0_US, "m0", ReceiptStatus.FAILED)], id="model-receipt-without-intent"),
        pytest.param([ADMITTED, ev.EffectReopened(T0_US, "t0.0", T0_US)], id="reopened-unopened"),
        pytest.param([ADMITTED, ev.ApprovalDecided(T0_US, "a1", "approved", "ada")], id="decided-unasked"),
    ],
)
def test_what_cannot_have_happened_is_corrupt(events: list[ev.Event]) -> None:
    with pytest.raises(Corrupt, match=r"journal\."):
        fold_all(events)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"kind":"run.resurrected","at_us":1}',
        b'{"kind":"run.started","at_us":1}',
        b'{"kind":"run.started","at_us":"x","worker":"w","epoch":1}',
        b'{"kind":"run.started","at_us":1,"worker":"\xff","epoch":1}',
        b"[" * 5_000,
    ],
    ids=repr,
)
def test_bytes_that_nobody_wrote_are_corrupt(body: bytes) -> None:
    with pytest.raises(Corrupt, match=r"journal\.event"):
        ev.decode(body)


def test_an_event_of_a_later_version_is_read_by_its_known_fields() -> None:
    body = b'{"kind":"run.started","at_us":1,"worker":"w","epoch":2,"invented_later":[1]}'
    assert ev.decode(body) == ev.RunStarted(1, "w", 2)


def test_an_unknown_effect_is_resolved_once_by_evidence() -> None:
    state = fold_all([ADMITTED, STARTED, *_tool_call(ReceiptStatus.UNKNOWN)])
    assert (state.effects.unknown, state.unknown) == (1, {"t0.0"})
    fold(state, ev.EffectResolved(T0_US, "t0.0", ReceiptStatus.UNKNOWN, "ada"))
    assert state.unknown == {"t0.0"}
    fold(state, ev.EffectResolved(T0_US, "t0.0", ReceiptStatus.SUCCEEDED, "ada"))
    fold(state, ev.EffectResolved(T0_US, "t0.0", ReceiptStatus.FAILED, "linus"))
    assert (state.effects.succeeded, state.effects.failed, state.effects.unknown) == (1, 0, 0)


def test_the_first_answer_to_an_approval_stands() -> None:
    state = fold_all([ADMITTED, STARTED, ev.ApprovalRequested(T0_US, "a1", "t0.0", "d", T0_US + 1)])
    fold(state, ev.ApprovalDecided(T0_US, "a1", "rejected", "ada"))
    fold(state, ev.ApprovalDecided(T0_US, "a1", "approved", "linus"))
    assert (state.approvals["a1"].outcome, state.approvals["a1"].by) == ("rejected", "ada")


def test_the_first_cancel_names_who() -> None:
    state = fold_all([ADMITTED, ev.CancelRequested(T0_US, "ada", ""), ev.CancelRequested(T0_US, "linus", "")])
    assert state.cancelled_by == "ada"


def test_the_contract_is_the_first_event_and_never_changes() -> None:
    described: RunContract = contract(goal="another")
    state = fold_all([ev.RunAdmitted(T0_US, described), STARTED, ev.RunStarted(T0_US, "w2", 2)])
    assert state.contract is described
    assert state.epoch == 2
