"""The same bugs as in :mod:`quarterdeck.testing.mutants`, planted in the store in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from quarterdeck.core.commit import (
    AddKey,
    Applied,
    Claim,
    ClaimedRun,
    Commit,
    Consume,
    DecideApproval,
    Deliver,
    Erase,
    Key,
    Op,
    Outcome,
    Refused,
    RevokeKey,
    SettleLetter,
)
from quarterdeck.ports.store import ApprovalRow, KeyRow
from quarterdeck.store import chain
from quarterdeck.testing import tables
from quarterdeck.testing.patching import Plant, patched, varied
from quarterdeck.testing.tables import Attachments, Poison, Run, Tables, storable


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug, by the mechanism that it switches off."""

    name: str
    point: int
    invariants: str
    caught_by: str
    planted: Plant


def _method(name: str, bug: Callable[..., object]) -> Plant:
    return lambda: patched(Tables, name, bug)


def _guards(change: Callable[[Commit, Run], Commit]) -> Plant:
    original = Tables._guard
    return _method("_guard", lambda self, commit, run: original(self, change(commit, run), run))


def _released_appends(self: Tables, commit: Commit, run: Run) -> Refused | None:
    refused = _guard(self, commit, run)
    return None if refused is not None and refused.guard == "epoch" and run.epoch == commit.epoch else refused


def _changed_commit(change: Callable[[Tables, Commit], Commit]) -> Plant:
    original = Tables._commit
    return _method("_commit", lambda self, commit: original(self, change(self, commit)))


def _same_bodies(self: Tables, commit: Commit, run: Run) -> bool:
    stored = run.events[commit.seq : commit.seq + len(commit.records)]
    return bool(stored) and [event.body for event in stored] == [item.body for item in commit.records]


def _appended_again() -> AbstractContextManager[object]:
    stack = ExitStack()
    stack.enter_context(patched(Tables, "_is_repeated", lambda self, commit, run: False))
    ignoring = _guards(lambda commit, run: varied(commit, seq=run.seq, epoch=run.epoch, control=None))
    stack.enter_context(ignoring())
    return stack


def _half_applied(self: Tables, commit: Commit, run: Run) -> Attachments | Refused:
    attached = _attach(self, commit, run)
    if isinstance(attached, Refused):
        self._append(commit, run, Attachments())
    return attached


class _Batch(Tables):
    """Answers a whole group with the poison of one of its operations."""

    poisoned = ""

    def one(self, op: Op) -> Outcome:
        """Apply, unless something before was poison."""
        if not _Batch.poisoned:
            try:
                return self._operation(storable(op))
            except Poison as poison:
                _Batch.poisoned = str(poison)
        return Refused("poison", _Batch.poisoned)


def _unisolated() -> AbstractContextManager[object]:
    _Batch.poisoned = ""
    return patched(Tables, "_one", _Batch.one)


def _unchained(previous: bytes, seq: int, body: bytes, digest: bytes | None) -> bytes:
    return chain.chained(chain.GENESIS, seq, body, digest)


def _same_epoch(self: Tables, picked: Sequence[str], worker: str) -> Iterator[ClaimedRun]:
    for run in _claimed(self, picked, worker):
        self.runs[run.run_id].epoch = max(run.epoch - 1, 1)
        yield varied(run, epoch=max(run.epoch - 1, 1))


def _hands_out_held() -> AbstractContextManager[object]:
    def claimed(self: Tables, picked: Sequence[str], worker: str) -> Iterator[ClaimedRun]:
        for name in picked:
            self.runs[name].worker = None
        return _claimed(self, picked, worker)

    def put(self: Tables, run: Run, kind: str, body: bytes, at_us: int, token: str) -> Applied:
        self.ready.setdefault(run.run_id, at_us)
        return _put_inbox(self, run, kind, body, at_us, token)

    stack = ExitStack()
    stack.enter_context(patched(Tables, "_claimed", claimed))
    stack.enter_context(patched(Tables, "_put_inbox", put))
    return stack


def _undecided(self: Tables, op: SettleLetter) -> Outcome:
    outcome = _settle_letter(self, op)
    self.letters.clear()
    return outcome


def _early(self: Tables, op: Claim) -> Outcome:
    return _claim(self, varied(op, now_us=op.now_us + 1))


def _forgetful(self: Tables, op: Claim) -> Outcome:
    return _claim(self, varied(op, token=""))


def _wakes_nobody(self: Tables, run: Run, kind: str, body: bytes, at_us: int, token: str) -> Applied:
    ready = dict(self.ready)
    answer = _put_inbox(self, run, kind, body, at_us, token)
    self.ready = ready
    return answer


def _bumps_nothing(self: Tables, run: Run, kind: str, body: bytes, at_us: int, token: str) -> Applied:
    answer = _put_inbox(self, run, kind, body, at_us, token)
    run.control -= 1
    return answer


def _forgets_tokens(self: Tables, op: Deliver) -> Outcome:
    if op.run_id in self.runs:
        self.runs[op.run_id].tokens.pop(op.token, None)
    return _deliver(self, op)


def _usable(change: Callable[[ApprovalRow, Consume], tuple[ApprovalRow, Consume]]) -> Plant:
    original = Tables._is_usable
    return _method("_is_usable", lambda self, approval, consume: original(self, *change(approval, consume)))


def _decides(*ignored: str) -> Plant:
    original = Tables._guard_decision

    def guard(self: Tables, op: DecideApproval, approval: ApprovalRow, run: Run) -> Refused | None:
        refused = original(self, op, approval, run)
        return None if refused is not None and refused.guard in ignored else refused

    return _method("_guard_decision", guard)


def _of_every_tenant(self: Tables, key: Key, at_us: int) -> tuple[str, Key] | None:
    found = [name for name in self.keys if name[1] == key.key]
    return _held(self, varied(key, tenant=found[0][0]), at_us) if found else None


def _keeps_salt(self: Tables, op: Erase) -> Outcome:
    run = self.runs.get(op.run_id)
    salt = run.salt if run is not None else None
    outcome = _erase(self, op)
    if run is not None:
        run.salt = salt
    return outcome


def _unrevoked(self: Tables, op: RevokeKey) -> Outcome:
    return Applied(0) if op.prefix in self.api_keys else Refused("key", op.prefix)


def _any_hash(self: Tables, row: KeyRow, held: KeyRow) -> bool:
    return _is_same_key(self, varied(row, digest=held.digest), held)


def _always_first(self: Tables, op: AddKey) -> Outcome:
    return _add_key(self, varied(op, first=False))


_add_key, _is_same_key = Tables._add_key, Tables._is_same_key
_guard, _attach, _claim, _claimed = Tables._guard, Tables._attach, Tables._claim, Tables._claimed
_settle_letter = Tables._settle_letter
_put_inbox, _deliver, _held, _erase = Tables._put_inbox, Tables._deliver, Tables._held, Tables._erase

BUGS = (
    Bug(
        "epoch not compared",
        3,
        "I11 I12",
        "a_stale_epoch_appends_nothing",
        _guards(lambda commit, run: varied(commit, epoch=run.epoch)),
    ),
    Bug(
        "released holder appends",
        1,
        "I11",
        "a_released_run_is_appended_to_by_nobody",
        _method("_guard", _released_appends),
    ),
    Bug(
        "control not compared",
        3,
        "I9",
        "a_stale_control_is_refused",
        _guards(lambda commit, _: varied(commit, control=None)),
    ),
    Bug(
        "facts not compared",
        3,
        "I9",
        "a_changed_fact_is_refused",
        _method("_guard_facts", lambda self, commit: None),
    ),
    Bug(
        "incarnation not compared",
        10,
        "I11",
        "another_incarnation_is_refused",
        _changed_commit(lambda self, commit: varied(commit, incarnation=self.incarnation)),
    ),
    Bug(
        "sequence not compared",
        1,
        "I7",
        "one_of_many_appends_at_one_sequence_wins",
        _guards(lambda commit, run: varied(commit, seq=run.seq)),
    ),
    Bug("repetition appended", 4, "I2 I7", "the_same_append_again_is_success", _appended_again),
    Bug(
        "repetition refused",
        4,
        "I2",
        "the_same_append_again_is_success",
        _method("_is_repeated", lambda self, commit, run: False),
    ),
    Bug(
        "payload of a repetition not compared",
        4,
        "I7",
        "other_bytes_at_a_taken_sequence_are_refused",
        _method("_is_repeated", _same_bodies),
    ),
    Bug("poison fails its batch", 3, "I1", "a_poisonous_operation_fails_alone", _unisolated),
    Bug(
        "refused charge half applied",
        8,
        "I3",
        "a_refused_charge_leaves_nothing_behind",
        _method("_attach", _half_applied),
    ),
    Bug("head not chained", 1, "I7", "journals_verify", lambda: patched(tables, "chained", _unchained)),
    Bug("claim keeps the epoch", 1, "I11 I12", "every_claim_has_a_new_epoch", _method("_claimed", _same_epoch)),
    Bug("held run handed out", 1, "I12", "a_held_run_is_not_claimed_again", _hands_out_held),
    Bug(
        "code of a run ignored",
        9,
        "I12 I18",
        "runs_go_to_whoever_has_their_code",
        _method("_claim", lambda self, op: _claim(self, varied(op, programs=None))),
    ),
    Bug(
        "deaths forgotten",
        1,
        "I12",
        "deaths_of_owners_are_remembered",
        _method(
            "_claimed",
            lambda self, picked, worker: (varied(run, deaths=run.deaths[:1]) for run in _claimed(self, picked, worker)),
        ),
    ),
    Bug("decided letter listed", 8, "I8", "dead_letters_wait_for_a_decision", _method("_settle_letter", _undecided)),
    Bug("timer early", 1, "I17", "a_timer_fires_at_its_time", _method("_claim", _early)),
    Bug("delivery wakes nobody", 1, "I18", "a_run_without_a_timer_waits", _method("_put_inbox", _wakes_nobody)),
    Bug(
        "repeated claim claims anew",
        4,
        "I18",
        "a_claim_whose_answer_was_lost_can_be_repeated",
        _method("_claim", _forgetful),
    ),
    Bug(
        "dead owner keeps its runs",
        1,
        "I1 I18",
        "a_new_owner_adopts_what_the_former_held",
        _method("adopt", lambda self, dead=None, died=True: None),
    ),
    Bug(
        "delivery does not bump control",
        1,
        "I9",
        "a_delivery_is_read_with_its_control",
        _method("_put_inbox", _bumps_nothing),
    ),
    Bug(
        "token not remembered",
        4,
        "I2",
        "a_delivery_with_a_known_token_changes_nothing",
        _method("_deliver", _forgets_tokens),
    ),
    Bug(
        "delivered to an ended run",
        1,
        "I8",
        "nothing_is_delivered_to_an_ended_run",
        lambda: patched(tables, "TERMINAL", frozenset()),
    ),
    Bug(
        "approval used twice",
        7,
        "I5",
        "an_approval_is_used_once",
        _usable(lambda row, use: (varied(row, consumed=False), use)),
    ),
    Bug(
        "approval used for another digest",
        7,
        "I5",
        "an_approval_is_used_once",
        _usable(lambda row, use: (row, varied(use, digest=row.digest))),
    ),
    Bug(
        "rejected approval used",
        7,
        "I5",
        "a_rejected_approval_is_never_used",
        _usable(lambda row, use: (varied(row, status="approved"), use)),
    ),
    Bug("self-approval", 3, "I5", "nobody_approves_their_own_request", _decides("self")),
    Bug("approval decided twice", 3, "I5", "an_approval_is_decided_once", _decides("decided")),
    Bug(
        "approval decided after its expiry",
        3,
        "I5",
        "a_decision_after_the_expiry_is_refused",
        _decides("expired"),
    ),
    Bug("key of every tenant", 2, "I15", "a_key_is_a_tenants_own", _method("_held", _of_every_tenant)),
    Bug(
        "key never expires",
        2,
        "I2",
        "a_key_expires",
        _method("_held", lambda self, key, at_us: _held(self, key, 0)),
    ),
    Bug(
        "limit not compared",
        8,
        "I3",
        "an_account_is_never_leased_beyond_its_limit",
        _method("_fits", lambda self, limit, total: True),
    ),
    Bug(
        "erased salt kept",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        _method("_erase", _keeps_salt),
    ),
    Bug("key's hash not compared", 4, "I15", "a_key_is_never_replaced", _method("_is_same_key", _any_hash)),
    Bug("revoked key accepted", 3, "I15", "a_revoked_key_stays_revoked", _method("_revoke_key", _unrevoked)),
    Bug("two first keys", 3, "I15", "one_of_many_makes_the_first_key", _method("_add_key", _always_first)),
)
"""Every bug of the store in memory."""
