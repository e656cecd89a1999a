"""Bugs on purpose in what commits carry beside their run: messages, lines, exclusive keys, rows for other runs, retention.

For the stores in SQL as edits of what their statements say; :mod:`quarterdeck.testing.mutants` and
:mod:`quarterdeck.testing.mutants_postgres` make mutants of them. For the store in memory as patches.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

from quarterdeck.core.commit import Applied, Commit, GiveBack, NewRun, Refused, SettlePost
from quarterdeck.testing.mutants_memory import Bug
from quarterdeck.testing.patching import Plant, patched, varied
from quarterdeck.testing.tables import Attachments, Run, Tables
from quarterdeck.testing.tables_outbox import Outbox


class Edited(NamedTuple):
    """One bug as edits: (statement or function, what it says, what it says instead)."""

    name: str
    point: int
    invariants: str
    caught_by: str
    edits: tuple[tuple[str, str, str], ...]


SQLITE = (
    Edited(
        "given back by a former holder",
        1,
        "I11 I12",
        "a_run_that_is_given_back_goes_on_elsewhere",
        (("give_back", "AND epoch = ?", "AND ? > 0"),),
    ),
    Edited(
        "line not kept at admission",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        (("insert_run_in_line", "EXISTS (SELECT 1 FROM runs WHERE line = ?7)", "0"),),
    ),
    Edited(
        "delivery passes the line",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        (("ready_if_waiting", "AND (behind = 0 OR ?3)", "AND (?3 OR 1)"),),
    ),
    Edited(
        "new owner forgets the line",
        1,
        "I6",
        "a_new_owner_keeps_the_line",
        (("adopt_ready", "AND (behind = 0 OR worker IS NOT NULL)", ""),),
    ),
    Edited(
        "any end moves the line",
        1,
        "I6",
        "a_cancelled_run_may_end_before_its_turn",
        (("first_in_line", "ORDER BY id LIMIT 1", "AND behind = 1 ORDER BY id LIMIT 1"),),
    ),
    Edited(
        "one line for all keys of a route's",
        1,
        "I6",
        "lines_do_not_hinder_each_other",
        (("insert_run_in_line", "WHERE line = ?7", "WHERE line IS NOT NULL"),),
    ),
    Edited(
        "dead message passed",
        2,
        "I13",
        "a_dead_message_stops_its_lane_until_a_person_decides",
        (
            ("first_post", "o.status IN ('queued', 'dead')", "o.status = 'queued'"),
            ("stop_lane", "SET due_us = NULL", "SET due_us = 0"),
        ),
    ),
    Edited(
        "lease of a lane not kept", 2, "I13", "messages_of_a_lane_leave_one_after_the_other", (("hold_lane", "?2", "0 * ?2"),)
    ),
    Edited("ticket not renewed", 2, "I13", "a_lane_has_one_taker_at_a_time", (("hold_lane", "ticket + 1", "ticket"),)),
    Edited(
        "newest message first",
        2,
        "I13",
        "messages_of_a_lane_leave_one_after_the_other",
        (("first_post", "ORDER BY o.id", "ORDER BY o.id DESC"),),
    ),
    Edited(
        "attempts not counted",
        2,
        "I13",
        "a_failed_message_rests_before_its_next_attempt",
        (("attempt_post", "attempts + 1", "attempts"),),
    ),
    Edited(
        "cancel withdraws nothing",
        2,
        "I9",
        "a_cancel_withdraws_what_has_not_begun",
        (("withdraw_posts", "status = 'queued'", "status = ''"),),
    ),
    Edited(
        "cancel calls back what is under way",
        2,
        "I9",
        "a_cancel_leaves_what_is_on_its_way",
        (("withdraw_posts", " AND attempts = 0", ""),),
    ),
    Edited(
        "message of an erased run kept",
        7,
        "I16",
        "erasing_a_run_erases_its_messages",
        (("erase_posts", "body = x''", "body = body"),),
    ),
    Edited(
        "exclusive key taken twice",
        3,
        "I2",
        "an_exclusive_key_has_one_holder",
        (("take_key", "WHERE run = excluded.run AND call = excluded.call", "WHERE 1"),),
    ),
    Edited(
        "exclusive key freed by another",
        3,
        "I2",
        "an_exclusive_key_is_freed_by_its_holder_alone",
        (("free_key", "AND run = ? AND call = ?", "AND ? AND ? <> ''"),),
    ),
    Edited(
        "runs removed too early",
        7,
        "I16",
        "what_ended_long_ago_is_removed",
        (("old_runs", "AND r.updated_at_us <= ?3, c.admitted_at_us <= ?3", ", ?3 <> 0"),),
    ),
    Edited(
        "open runs removed",
        7,
        "I16",
        "what_ended_long_ago_is_removed",
        (("old_runs", "r.status NOT IN ('queued', 'running', 'waiting') AND", ""),),
    ),
    Edited(
        "undelivered messages removed",
        7,
        "I16",
        "what_ended_long_ago_is_removed",
        (("open_posts", "status IN ('queued', 'dead')", "0"),),
    ),
    Edited(
        "erasure not recorded",
        7,
        "I16",
        "an_erasure_is_recorded",
        (("record_erasure", "WHERE run = ?1", "WHERE run = ?1 AND 0"),),
    ),
)
"""Bugs of the store in a file."""

POSTGRES = (
    Edited(
        "given back by a former holder",
        1,
        "I11 I12",
        "a_run_that_is_given_back_goes_on_elsewhere",
        (("give_back", " AND epoch = (op -> 'epoch')::bigint", ""),),
    ),
    Edited(
        "given back and not ready",
        1,
        "I18",
        "a_run_that_is_given_back_goes_on_elsewhere",
        (("give_back", "VALUES (of_run, (op -> 'at')::bigint)", "SELECT of_run, 0 WHERE false"),),
    ),
    Edited(
        "line not kept at admission",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        (("admit", "stands_behind := EXISTS (SELECT 1 FROM runs WHERE line = new ->> 11)", "stands_behind := false"),),
    ),
    Edited(
        "delivery passes the line",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        (("put_inbox", "AND (NOT behind OR of_kind = 'cancel')", ""),),
    ),
    Edited("new owner forgets the line", 1, "I6", "a_new_owner_keeps_the_line", (("rouse", " AND NOT behind", ""),)),
    Edited(
        "any end moves the line",
        1,
        "I6",
        "a_cancelled_run_may_end_before_its_turn",
        (("leave_line", "WHERE line = of_line ORDER BY", "WHERE line = of_line AND behind ORDER BY"),),
    ),
    Edited(
        "end does not move the line",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        (
            ("append", "PERFORM leave_line", "PERFORM length"),
            ("append", "length(of_run, stood_in, (op -> 'at')::bigint)", "length(stood_in)"),
        ),
    ),
    Edited(
        "dead message passed",
        2,
        "I13",
        "a_dead_message_stops_its_lane_until_a_person_decides",
        (
            ("take_posts", "o.status = ANY (ARRAY['queued', 'dead']) ORDER", "o.status = 'queued' ORDER"),
            ("settle_post", "WHEN 'dead' THEN NULL", "WHEN 'dead' THEN 0"),
        ),
    ),
    Edited(
        "lease of a lane not kept",
        2,
        "I13",
        "messages_of_a_lane_leave_one_after_the_other",
        (("take_posts", "until_us = now_us + (op -> 'lease')::bigint", "until_us = 0"),),
    ),
    Edited(
        "ticket not compared",
        2,
        "I13",
        "a_lane_has_one_taker_at_a_time",
        (("settle_post", " OR held IS DISTINCT FROM (op -> 'ticket')::bigint", ""),),
    ),
    Edited(
        "newest message first",
        2,
        "I13",
        "messages_of_a_lane_leave_one_after_the_other",
        (("take_posts", "ORDER BY o.id LIMIT", "ORDER BY o.id DESC LIMIT"),),
    ),
    Edited(
        "cancel withdraws nothing",
        2,
        "I9",
        "a_cancel_withdraws_what_has_not_begun",
        (("put_inbox", "AND status = 'queued' AND attempts = 0", "AND false"),),
    ),
    Edited(
        "cancel calls back what is under way",
        2,
        "I9",
        "a_cancel_leaves_what_is_on_its_way",
        (("put_inbox", " AND attempts = 0", ""),),
    ),
    Edited(
        "message of an erased run kept",
        7,
        "I16",
        "erasing_a_run_erases_its_messages",
        (("erase", "body = '', headers", "headers"),),
    ),
    Edited(
        "exclusive key taken twice",
        3,
        "I2",
        "an_exclusive_key_has_one_holder",
        (("attach_beside", "WHERE e.run = excluded.run AND e.call = excluded.call", ""),),
    ),
    Edited(
        "exclusive key freed by another",
        3,
        "I2",
        "an_exclusive_key_is_freed_by_its_holder_alone",
        (("attach_beside", " AND run = of_run AND call = item ->> 1", ""),),
    ),
    Edited(
        "child's end not told",
        1,
        "I18",
        "a_commit_delivers_to_another_run",
        (("attach_beside", "op -> 'delivers'", "op -> 'nothing'"),),
    ),
    Edited(
        "open runs removed",
        7,
        "I16",
        "what_ended_long_ago_is_removed",
        (("purge", "AND NOT status = ANY (ARRAY['queued', 'running', 'waiting'])", ""),),
    ),
    Edited(
        "undelivered messages removed",
        7,
        "I16",
        "what_ended_long_ago_is_removed",
        (("purge", "AND o.status = ANY (ARRAY['queued', 'dead'])", "AND false"),),
    ),
    Edited(
        "erasure not recorded",
        7,
        "I16",
        "an_erasure_is_recorded",
        (("erase", "FROM contracts WHERE run = of_run ON CONFLICT", "FROM contracts WHERE false ON CONFLICT"),),
    ),
)
"""Bugs of the shared store."""


def _method(of: type, name: str, bug: object) -> Plant:
    return lambda: patched(of, name, bug)


def _without(**changes: object) -> Plant:
    """Commits lose something before they are applied."""
    original = Tables._commit
    return _method(Tables, "_commit", lambda self, commit: original(self, varied(commit, **changes)))


def _never_behind(self: Tables, run: Run, line: str) -> None:
    run.line, run.behind = None, False
    for other in self.runs.values():
        if other.line == line and other.behind:
            other.behind = False
            self.ready.setdefault(other.run_id, run.updated_at_us)
            return


def _taken_by_all(self: Tables, commit: Commit, attached: Attachments) -> None:
    attached.exclusive = {**self.exclusive, **{take.key: (commit.run_id, take.call) for take in commit.takes}}


def _first_queued(self: Outbox, lane: str) -> object:
    rows = (row for number, row in self.rows.items() if self._lane_of[number] == lane and row.status == "queued")
    return next(rows, None)


def _passed() -> AbstractContextManager[object]:
    settle = Outbox.settle

    def settled(self: Outbox, op: SettlePost) -> Applied | Refused:
        answer = settle(self, op)
        self.lanes[op.lane].due_us = op.due_us or op.at_us
        return answer

    stack = ExitStack()
    stack.enter_context(patched(Outbox, "_first", _first_queued))
    stack.enter_context(patched(Outbox, "settle", settled))
    return stack


def _withdraw_all(self: Outbox, run_id: str) -> None:
    for row in list(self.rows.values()):
        if row.run_id == run_id and row.status == "queued":
            self._change(row, status="withdrawn")


def _keeps_bodies(self: Outbox, run_id: str, at_us: int) -> None:
    self.withdraw(run_id)


def _over(self: Tables, run: Run, before_us: int) -> bool:
    return run.updated_at_us <= before_us


_purge = Tables._purge


def _unlined(self: Tables, commit: Commit, new: NewRun) -> object:
    return _admit(self, commit, varied(new, ordering_key=None))


_admit = Tables._admit

_give_back = Tables._give_back


def _given_back_by_anybody(self: Tables, op: GiveBack) -> object:
    run = self.runs.get(op.run_id)
    return _give_back(self, op if run is None else varied(op, epoch=run.epoch))


def _given_back_for_ever(self: Tables, op: GiveBack) -> object:
    answer = _give_back(self, op)
    self.ready.pop(op.run_id, None)
    return answer


MEMORY = (
    Bug(
        "given back by a former holder",
        1,
        "I11 I12",
        "a_run_that_is_given_back_goes_on_elsewhere",
        _method(Tables, "_give_back", _given_back_by_anybody),
    ),
    Bug(
        "given back and not ready",
        1,
        "I18",
        "a_run_that_is_given_back_goes_on_elsewhere",
        _method(Tables, "_give_back", _given_back_for_ever),
    ),
    Bug(
        "line not kept at admission",
        1,
        "I6",
        "a_run_waits_for_the_one_before_it_in_its_line",
        _method(Tables, "_admit", _unlined),
    ),
    Bug("any end moves the line", 1, "I6", "a_cancelled_run_may_end_before_its_turn", _method(Tables, "_advance", _never_behind)),
    Bug("messages left out", 2, "I13", "a_message_is_recorded_with_its_commit", _without(outbox=())),
    Bug(
        "dead message passed",
        2,
        "I13",
        "a_dead_message_stops_its_lane_until_a_person_decides",
        _passed,
    ),
    Bug(
        "ticket not compared",
        2,
        "I13",
        "a_lane_has_one_taker_at_a_time",
        _method(Outbox, "_is_held", lambda self, lane, ticket: True),
    ),
    Bug(
        "lease of a lane not kept",
        2,
        "I13",
        "messages_of_a_lane_leave_one_after_the_other",
        _method(Outbox, "_is_due", lambda self, lane, now_us: lane.due_us is not None and lane.due_us <= now_us),
    ),
    Bug(
        "cancel calls back what is under way",
        2,
        "I9",
        "a_cancel_leaves_what_is_on_its_way",
        _method(Outbox, "withdraw", _withdraw_all),
    ),
    Bug("message of an erased run kept", 7, "I16", "erasing_a_run_erases_its_messages", _method(Outbox, "erase", _keeps_bodies)),
    Bug("exclusive key taken twice", 3, "I2", "an_exclusive_key_has_one_holder", _method(Tables, "_exchange", _taken_by_all)),
    Bug("child's end not told", 1, "I18", "a_commit_delivers_to_another_run", _without(delivers=())),
    Bug("open runs removed", 7, "I16", "what_ended_long_ago_is_removed", _method(Tables, "_is_over", _over)),
    Bug(
        "purge without bound",
        7,
        "I16",
        "a_purge_is_bounded",
        _method(Tables, "_purge", lambda self, op: _purge(self, varied(op, limit=10**6))),
    ),
)
"""Bugs of the store in memory."""
