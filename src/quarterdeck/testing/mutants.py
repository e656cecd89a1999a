"""Bugs on purpose: each mutant switches off one mechanism of a store, and a named check has to notice.

A suite that cannot fail proves nothing. While :meth:`Mutant.planted` is open, stores that are opened in this process
have the bug; then :attr:`Mutant.caught_by` has to raise :class:`~quarterdeck.testing.conformance.Broken`. SQLite
mutants rewrite the named SQL statements, or methods of the applier, so they are for stores whose applier runs in this
process (:mod:`quarterdeck.testing.inline`). A mutant whose target is no longer there raises instead of planting
nothing.

>>> from quarterdeck.testing.conformance import CHECKS
>>> {mutant.caught_by for mutant in MUTANTS} <= {check.name for check in CHECKS}
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from quarterdeck.core.commit import Applied, Commit, Outcome, Record, Refused
from quarterdeck.store import chain
from quarterdeck.store.sqlite import applier, opening
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.testing import mutants_memory, mutants_shared
from quarterdeck.testing.patching import Plant, patched, varied


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug: the store it is planted in, the contract's point and the invariants that it breaks."""

    name: str
    store: str
    point: int
    invariants: tuple[str, ...]
    caught_by: str
    planted: Plant


def _rewritten(*edits: tuple[str, str, str]) -> Plant:
    """Plant a bug into named statements: (statement, what it says, what it says instead)."""

    def statements(original: Callable[[str], dict[str, str]]) -> Callable[[str], dict[str, str]]:
        def load(name: str) -> dict[str, str]:
            found = original(name)
            for statement, old, new in edits:
                if old not in found[statement]:
                    raise LookupError(f"statement {statement} no longer says {old!r}")
                found[statement] = found[statement].replace(old, new)
            return found

        return load

    @contextmanager
    def planted() -> Iterator[None]:
        with ExitStack() as stack:
            for module in (applier, opening):
                stack.enter_context(patched(module, "load", statements(module.load)))
            yield

    return planted


def _commits(change: Callable[[Applier, Commit], Commit]) -> Plant:
    """Plant a bug by changing every commit before it is judged."""
    original = Applier._commit

    def commit(self: Applier, op: Commit) -> Outcome:
        return original(self, change(self, op))

    return lambda: patched(Applier, "_commit", commit)


def _repeats(answer: Callable[[Applier, Commit, Outcome], Outcome]) -> Plant:
    """Plant a bug by changing what a commit at a taken sequence is answered."""
    original = Applier._again_or_refused

    def again(self: Applier, commit: Commit, run: int, refused: Refused | None = None) -> Outcome:
        return answer(self, commit, original(self, commit, run, refused))

    return lambda: patched(Applier, "_again_or_refused", again)


def _at_the_end(self: Applier, commit: Commit) -> Outcome:
    row = self._execute(self._sql["find_run"], (commit.run_id,)).fetchone()
    return self._commit(varied(commit, seq=row[1] if row is not None else 0))


def _unisolated() -> AbstractContextManager[object]:
    original = Applier._isolated

    def isolated(self: Applier, op: Commit) -> Outcome:
        outcome = original(self, op)
        if isinstance(outcome, Refused) and outcome.guard == "poison":
            raise ValueError(outcome.detail)
        return outcome

    transaction = Applier._transaction

    def whole(self: Applier, batch: list[Commit], *, isolate: bool) -> list[Outcome]:
        try:
            return transaction(self, batch, isolate=isolate)
        except ValueError as error:
            return [Refused("poison", str(error))] * len(batch)

    stack = ExitStack()
    stack.enter_context(patched(Applier, "_isolated", isolated))
    stack.enter_context(patched(Applier, "_transaction", whole))
    return stack


def _kept(self: Applier) -> None:
    self._execute("RELEASE op")
    self._runs.clear()


def _unchained(previous: bytes, seq: int, body: bytes, digest: bytes | None) -> bytes:
    return chain.chained(chain.GENESIS, seq, body, digest)


def _same_body(item: Record, stored: tuple[object, ...]) -> bool:
    return stored[0] == item.body


def _sqlite(name: str, point: int, invariants: str, caught_by: str, planted: Plant) -> Mutant:
    return Mutant(name, "sqlite", point, tuple(invariants.split()), caught_by, planted)


_HELD = " AND worker IS NOT NULL"
_FREE = " AND worker IS NULL"
_CONTROL = "(?7 IS NULL OR control = ?7)"

APPENDING = (
    _sqlite(
        "epoch not compared",
        3,
        "I11 I12",
        "a_stale_epoch_appends_nothing",
        _rewritten(("step", " AND epoch = ?6", " AND ?6 = ?6"), ("step_head", " AND epoch = ?6", "")),
    ),
    _sqlite(
        "released holder appends",
        1,
        "I11",
        "a_released_run_is_appended_to_by_nobody",
        _rewritten(("step", _HELD, ""), ("step_head", _HELD, "")),
    ),
    _sqlite(
        "control not compared",
        3,
        "I9",
        "a_stale_control_is_refused",
        _rewritten(("step", _CONTROL, "(?7 IS NULL OR 1)"), ("step_head", _CONTROL, "1")),
    ),
    _sqlite("facts not compared", 3, "I9", "a_changed_fact_is_refused", _commits(lambda _, op: varied(op, facts=None))),
    _sqlite(
        "incarnation not compared",
        10,
        "I11",
        "another_incarnation_is_refused",
        _commits(lambda self, op: varied(op, incarnation=self.incarnation)),
    ),
    _sqlite(
        "sequence not compared",
        1,
        "I7",
        "one_of_many_appends_at_one_sequence_wins",
        _repeats(
            lambda self, op, answer: _at_the_end(self, op) if isinstance(answer, Refused) and answer.guard == "seq" else answer
        ),
    ),
    _sqlite(
        "repetition appended",
        4,
        "I2 I7",
        "the_same_append_again_is_success",
        _repeats(lambda self, op, answer: _at_the_end(self, op) if isinstance(answer, Applied) else answer),
    ),
    _sqlite(
        "repetition refused",
        4,
        "I2",
        "the_same_append_again_is_success",
        _repeats(lambda _, op, answer: Refused("seq", "") if isinstance(answer, Applied) else answer),
    ),
    _sqlite(
        "payload of a repetition not compared",
        4,
        "I7",
        "other_bytes_at_a_taken_sequence_are_refused",
        lambda: patched(applier, "_same", _same_body),
    ),
    _sqlite("poison fails its batch", 3, "I1", "a_poisonous_operation_fails_alone", _unisolated),
    _sqlite(
        "poison not undone",
        3,
        "I1",
        "a_poisonous_operation_fails_alone",
        lambda: patched(Applier, "_undo", _kept),
    ),
    _sqlite(
        "refused charge not undone",
        8,
        "I3",
        "a_refused_charge_leaves_nothing_behind",
        lambda: patched(Applier, "_all_or_nothing", Applier._commit),
    ),
    _sqlite("head not chained", 1, "I7", "journals_verify", lambda: patched(applier, "chained", _unchained)),
)

CLAIMING = (
    _sqlite(
        "claim keeps the epoch",
        1,
        "I11 I12",
        "every_claim_has_a_new_epoch",
        _rewritten(("claim", "epoch = epoch + 1", "epoch = max(epoch, 1)")),
    ),
    _sqlite(
        "held run handed out",
        1,
        "I12",
        "a_held_run_is_not_claimed_again",
        _rewritten(("claim", _FREE, ""), ("ready_if_waiting", _FREE, "")),
    ),
    _sqlite(
        "ended run handed out",
        1,
        "I8",
        "an_ended_run_is_claimed_by_nobody",
        _rewritten(("claim", "'waiting')", "'waiting', 'failed')")),
    ),
    _sqlite(
        "code of a run ignored",
        9,
        "I12 I18",
        "runs_go_to_whoever_has_their_code",
        _rewritten(("pick_ready", "?2 IS NULL OR", "1 OR")),
    ),
    _sqlite(
        "deaths forgotten",
        1,
        "I12",
        "deaths_of_owners_are_remembered",
        _rewritten(("adopt_deaths", "worker IS NOT NULL", "0")),
    ),
    _sqlite(
        "decided letter listed",
        8,
        "I8",
        "dead_letters_wait_for_a_decision",
        _rewritten(("settle_letter", "VALUES (?, ?, ?, ?, ?)", "SELECT ?, ?, ?, ?, ? WHERE 0")),
    ),
    _sqlite(
        "timer early",
        1,
        "I17",
        "a_timer_fires_at_its_time",
        _rewritten(("due_to_ready", "wake_at_us <= ?", "wake_at_us - 1 <= ?")),
    ),
    _sqlite(
        "timer lost",
        1,
        "I17 I18",
        "a_timer_fires_at_its_time",
        _rewritten(("due_to_ready", "wake_at_us <= ?", "wake_at_us <= ? AND 0")),
    ),
    _sqlite(
        "delivery wakes nobody",
        1,
        "I18",
        "a_run_without_a_timer_waits",
        _rewritten(("ready_if_waiting", _FREE, " AND 0")),
    ),
    _sqlite(
        "order of readiness ignored",
        1,
        "I18",
        "runs_are_claimed_in_order_and_up_to_a_limit",
        _rewritten(("pick_ready", "ORDER BY at_us, run", "ORDER BY run")),
    ),
    _sqlite(
        "repeated claim claims anew",
        4,
        "I18",
        "a_claim_whose_answer_was_lost_can_be_repeated",
        _rewritten(("find_claim", "token = ?", "token = ? AND 0")),
    ),
    _sqlite(
        "dead owner keeps its runs",
        1,
        "I1 I18",
        "a_new_owner_adopts_what_the_former_held",
        _rewritten(("adopt_release", "worker IS NOT NULL", "0")),
    ),
    _sqlite(
        "claimed run forgotten at adoption",
        1,
        "I1 I18",
        "a_new_owner_adopts_what_the_former_held",
        _rewritten(("adopt_ready", "(status = 'waiting' AND worker IS NOT NULL)", "0")),
    ),
    _sqlite(
        "unread inbox forgotten at adoption",
        1,
        "I18",
        "a_new_owner_finds_unread_deliveries",
        _rewritten(("adopt_unread", "i.consumed = 0", "0")),
    ),
)

REACHING = (
    _sqlite(
        "delivery does not bump control",
        1,
        "I9",
        "a_delivery_is_read_with_its_control",
        _rewritten(("bump_control", "control + 1", "control")),
    ),
    _sqlite(
        "token not remembered",
        4,
        "I2",
        "a_delivery_with_a_known_token_changes_nothing",
        _rewritten(("find_token", "token = ?", "token = ? AND 0")),
    ),
    _sqlite(
        "delivered to an ended run",
        1,
        "I8",
        "nothing_is_delivered_to_an_ended_run",
        lambda: patched(applier, "TERMINAL", frozenset()),
    ),
    _sqlite(
        "inbox row not consumed",
        2,
        "I9",
        "only_named_rows_of_the_own_run_are_consumed",
        _rewritten(("consume_inbox", "id = ?", "id = ? AND 0")),
    ),
    _sqlite(
        "foreign inbox row consumed",
        2,
        "I15",
        "only_named_rows_of_the_own_run_are_consumed",
        _rewritten(("consume_inbox", "run = ?", "? > 0")),
    ),
    _sqlite(
        "key of every tenant",
        2,
        "I15",
        "a_key_is_a_tenants_own",
        _rewritten(("find_key", "k.tenant = ?", "? <> ''")),
    ),
    _sqlite(
        "key never expires",
        2,
        "I2",
        "a_key_expires",
        _rewritten(("find_key", "k.expires_at_us", "9223372036854775807")),
    ),
    _sqlite(
        "key not remembered",
        2,
        "I2",
        "one_key_is_one_run",
        _rewritten(("find_key", "k.key = ?", "k.key = ? AND 0")),
    ),
    _sqlite(
        "erased payload kept",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        _rewritten(("erase_payloads", "run = ?", "run = ? AND 0")),
    ),
    _sqlite(
        "erased salt kept",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        _rewritten(("erase_salt", "id = ?", "id = ? AND 0")),
    ),
    _sqlite(
        "erased everywhere",
        4,
        "I15",
        "erasing_one_run_leaves_the_others",
        _rewritten(("erase_payloads", "run = ?", "? > 0")),
    ),
)

DECIDING = (
    _sqlite(
        "approval used twice",
        7,
        "I5",
        "an_approval_is_used_once",
        _rewritten(("consume_approval", " AND consumed = 0", "")),
    ),
    _sqlite(
        "approval used for another digest",
        7,
        "I5",
        "an_approval_is_used_once",
        _rewritten(("consume_approval", "digest = ?", "? <> ''")),
    ),
    _sqlite(
        "approval used after its expiry",
        7,
        "I5",
        "an_approval_is_used_once",
        _rewritten(("consume_approval", "expires_at_us > ?", "? > 0")),
    ),
    _sqlite(
        "approval of another run used",
        7,
        "I5 I15",
        "an_approval_is_its_runs_own",
        _rewritten(("consume_approval", "run = ?", "? > 0")),
    ),
    _sqlite(
        "rejected approval used",
        7,
        "I5",
        "a_rejected_approval_is_never_used",
        _rewritten(("consume_approval", " AND status = 'approved'", "")),
    ),
    _sqlite(
        "self-approval",
        3,
        "I5",
        "nobody_approves_their_own_request",
        _rewritten(("find_approval", "a.requested_by", "''")),
    ),
    _sqlite(
        "approval decided twice",
        3,
        "I5",
        "an_approval_is_decided_once",
        _rewritten(("find_approval", "a.status", "'pending'"), ("decide_approval", " AND status = 'pending'", "")),
    ),
    _sqlite(
        "approval decided after its expiry",
        3,
        "I5",
        "a_decision_after_the_expiry_is_refused",
        _rewritten(("find_approval", "a.expires_at_us", "9223372036854775807")),
    ),
    _sqlite(
        "limit not compared",
        8,
        "I3",
        "an_account_is_never_leased_beyond_its_limit",
        _rewritten(("charge", "committed + ?5 + reserved + ?3 - ?4 <= bound", "1")),
    ),
    _sqlite(
        "limit compared with spending only",
        8,
        "I3",
        "an_account_is_never_leased_beyond_its_limit",
        _rewritten(("charge", "+ reserved + ?3 - ?4 <= bound", "+ ?3 <= bound")),
    ),
    _sqlite(
        "overdraft refused",
        8,
        "I3",
        "spending_is_recorded_even_beyond_the_limit",
        _rewritten(("charge", "?3 = 0 OR ", "")),
    ),
    _sqlite(
        "new limit forgets what is booked",
        8,
        "I3",
        "a_limit_is_set_once_and_changed_by_name",
        _rewritten(("set_account", "SET bound = excluded.bound", "SET bound = excluded.bound, reserved = 0")),
    ),
)

IDENTIFYING = (
    _sqlite(
        "key replaced by another",
        4,
        "I15",
        "a_key_is_never_replaced",
        _rewritten(
            ("insert_api_key", "INSERT INTO", "INSERT OR REPLACE INTO"),
            ("insert_api_key", "NOT EXISTS (SELECT 1 FROM api_keys WHERE prefix = ?1)", "1"),
        ),
    ),
    _sqlite(
        "key's hash not compared",
        4,
        "I15",
        "a_key_is_never_replaced",
        _rewritten(("same_api_key", "digest = ?2", "?2 = ?2")),
    ),
    _sqlite(
        "revoked key accepted",
        3,
        "I15",
        "a_revoked_key_stays_revoked",
        _rewritten(("revoke_api_key", "revoked_at_us = ?2", "revoked_at_us = nullif(?2, ?2)")),
    ),
    _sqlite(
        "revoked key made again",
        3,
        "I15",
        "a_revoked_key_stays_revoked",
        _rewritten(
            ("insert_api_key", "INSERT INTO", "INSERT OR REPLACE INTO"),
            ("insert_api_key", "WHERE prefix = ?1)", "WHERE prefix = ?1 AND revoked_at_us IS NULL)"),
        ),
    ),
    _sqlite(
        "two first keys",
        3,
        "I15",
        "one_of_many_makes_the_first_key",
        _rewritten(("insert_api_key", "NOT ?9 OR ", "?9 OR ")),
    ),
)

MEMORY = tuple(
    Mutant(bug.name, "memory", bug.point, tuple(bug.invariants.split()), bug.caught_by, bug.planted)
    for bug in (*mutants_memory.BUGS, *mutants_shared.MEMORY)
)

SHARING = tuple(
    _sqlite(bug.name, bug.point, bug.invariants, bug.caught_by, _rewritten(*bug.edits)) for bug in mutants_shared.SQLITE
)

MUTANTS: tuple[Mutant, ...] = APPENDING + CLAIMING + REACHING + DECIDING + IDENTIFYING + SHARING + MEMORY
"""Every planted bug of a store."""
