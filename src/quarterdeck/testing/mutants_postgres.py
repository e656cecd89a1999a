"""Bugs on purpose in the PostgreSQL store: each rewrites the text of one of its functions in the database.

While :meth:`Mutant.planted` is open, functions that are installed by :func:`install` have the bug. A mutant whose target is no longer
there raises instead of planting nothing.

>>> {mutant.store for mutant in MUTANTS}
{'postgres'}
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from quarterdeck.store.postgres import statements
from quarterdeck.store.postgres.opening import SCHEMA
from quarterdeck.testing import mutants_shared
from quarterdeck.testing.mutants import Mutant
from quarterdeck.testing.patching import Plant, patched

SCRIPTS = tuple([f"functions_{version}" for version in range(1, SCHEMA + 1)])
"""The scripts that mutants rewrite: of each function the newest form."""


def install(dsn: str) -> None:
    """Put the functions as they are now, planted bugs included, into a database that has the schema."""
    newest: dict[str, str] = {}
    for name in SCRIPTS:
        newest.update(_blocks(statements.script(name)))
    text = "".join(newest.values())
    for made in ("FUNCTION", "TRIGGER"):
        text = text.replace(f"CREATE {made}", f"CREATE OR REPLACE {made}")
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("SET search_path = quarterdeck, pg_temp")
        db.execute(text.encode())


def _blocks(text: str) -> dict[str, str]:
    return dict(block.split("\n", 1) for block in text.split("-- name: ")[1:])


def rewritten(*edits: tuple[str, str, str]) -> Plant:
    """Plant a bug into named functions: (function, what it says, what it says instead)."""

    def mutated(original: Callable[[str], str]) -> Callable[[str], str]:
        def script(name: str) -> str:
            text = original(name)
            if name not in SCRIPTS:
                return text
            blocks = _blocks(text)
            known = {function for other in SCRIPTS for function in _blocks(original(other))}
            if missing := {function for function, _, _ in edits} - known:
                raise LookupError(f"there is no function {missing}")
            for function, old, new in edits:
                if function not in blocks or any(
                    function in _blocks(original(one)) for one in SCRIPTS[SCRIPTS.index(name) + 1 :]
                ):
                    continue
                if old not in blocks[function]:
                    raise LookupError(f"function {function} no longer says {old!r}")
                blocks[function] = blocks[function].replace(old, new)
            return "".join(f"-- name: {name}\n{body}" for name, body in blocks.items())

        return script

    return lambda: patched(statements, "script", mutated(statements.script))


def _bug(name: str, point: int, invariants: str, caught_by: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, "postgres", point, tuple(invariants.split()), caught_by, rewritten(*edits))


_CONTROL = "(op ->> 'control' IS NULL OR control = (op ->> 'control')::bigint)"
_AT_THE_END = ("append", "after bigint := op -> 'seq'", "after bigint := (SELECT seq FROM runs WHERE run_id = op ->> 'run')")
_POISON = "result := ROW(refused('poison', left(SQLERRM, 200)), NULL, NULL)::answered;"
_NOBODY = """ops := array_fill('{"op":"erase","run":"?"}'::text, ARRAY[cardinality(ops)]);"""

APPENDING = (
    _bug(
        "epoch not compared",
        3,
        "I11 I12",
        "a_stale_epoch_appends_nothing",
        ("append", "epoch = (op -> 'epoch')::bigint AND ", ""),
    ),
    _bug(
        "released holder appends",
        1,
        "I11",
        "a_released_run_is_appended_to_by_nobody",
        ("append", " AND worker IS NOT NULL", ""),
    ),
    _bug("control not compared", 3, "I9", "a_stale_control_is_refused", ("append", _CONTROL, "true")),
    _bug("facts not compared", 3, "I9", "a_changed_fact_is_refused", ("append", "NOT present @> (op -> 'facts')", "false")),
    _bug(
        "facts of a batch read once",
        3,
        "I9",
        "a_changed_fact_is_refused",
        ("apply", "IF op ->> 'op' = 'fact' THEN", "IF false THEN"),
    ),
    _bug(
        "incarnation not compared",
        10,
        "I11",
        "another_incarnation_is_refused",
        ("apply_one", "op ->> 'incarnation' <> incarnation", "false"),
    ),
    _bug("sequence not compared", 1, "I7", "one_of_many_appends_at_one_sequence_wins", _AT_THE_END),
    _bug("repetition appended", 4, "I2 I7", "the_same_append_again_is_success", _AT_THE_END),
    _bug(
        "repetition refused",
        4,
        "I2",
        "the_same_append_again_is_success",
        ("again_or_refused", "AND is_stored(of_run, after, bodies, given)", "AND false"),
    ),
    _bug(
        "repetition in one batch unknown",
        4,
        "I2",
        "the_same_append_again_is_success",
        ("apply", "IF op ? 'flush' THEN", "IF false THEN"),
    ),
    _bug(
        "payload of a repetition not compared",
        4,
        "I7",
        "other_bytes_at_a_taken_sequence_are_refused",
        ("is_stored", "p.payload IS NOT DISTINCT FROM given[e.seq - after]", "true"),
    ),
    _bug(
        "erased repetition unknown",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        ("is_stored", "p.payload IS NULL AND e.payload_digest IS NOT NULL", "false"),
    ),
    _bug("poison fails its batch", 3, "I1", "a_poisonous_operation_fails_alone", ("apply", _POISON, _POISON + _NOBODY)),
    _bug(
        "refused charge ignored",
        8,
        "I3",
        "a_refused_charge_leaves_nothing_behind",
        ("attach", "RAISE EXCEPTION USING ERRCODE = 'QD001', MESSAGE = 'account'", "RAISE NOTICE USING MESSAGE = 'account'"),
    ),
    _bug(
        "head not chained",
        1,
        "I7",
        "journals_verify",
        ("chained_at", "sha256(head ||", "sha256(decode(repeat('00', 32), 'hex') ||"),
    ),
)

_WRITTEN = "digests[at], hash FROM event"
_PLAIN_CONTROL = "(s.control IS NULL OR runs.control = s.control)"

PLAIN = tuple(
    [
        _bug(f"plain commits: {name}", point, invariants, caught_by, ("append_plain", old, new))
        for name, point, invariants, caught_by, old, new in (
            ("epoch not compared", 3, "I11 I12", "a_stale_epoch_appends_nothing", "runs.epoch = s.epoch AND ", ""),
            ("released holder appends", 1, "I11", "a_released_run_is_appended_to_by_nobody", " AND runs.worker IS NOT NULL", ""),
            ("control not compared", 3, "I9", "a_stale_control_is_refused", _PLAIN_CONTROL, "true"),
            ("facts not compared", 3, "I9", "a_changed_fact_is_refused", "present @> (item -> 8)", "true"),
            ("incarnation not compared", 10, "I11", "another_incarnation_is_refused", "item ->> 7 = incarnation", "true"),
            ("head not chained", 1, "I7", "journals_verify", "chained_at(r.head,", "chained_at(sha256(r.head),"),
            ("answered and not written", 1, "I1 I7", "appends_are_read_back_in_order", _WRITTEN, f"{_WRITTEN} WHERE seq < 3"),
            ("lease kept at rest", 1, "I17 I18", "a_timer_fires_at_its_time", "(s.new -> 5)::boolean", "false"),
            ("timer not set", 1, "I17 I18", "a_timer_fires_at_its_time", "(s.new ->> 4)::bigint", "NULL"),
            ("limit not compared", 8, "I3", "an_account_is_never_leased_beyond_its_limit", "place <> ALL (without)", "true"),
            ("charges left out", 4, "I3", "the_same_append_again_is_success", "charges AND appended", "false AND appended"),
            ("payloads left out", 1, "I7", "appends_are_read_back_in_order", "given[at] IS NOT NULL", "false"),
        )
    ]
)  # fmt: skip

CLAIMING = (
    _bug(
        "claim keeps the epoch",
        1,
        "I11 I12",
        "every_claim_has_a_new_epoch",
        ("claim", "epoch = epoch + 1", "epoch = greatest(epoch, 1)"),
    ),
    _bug(
        "held run handed out",
        1,
        "I12",
        "a_held_run_is_not_claimed_again",
        ("claim", "worker IS NULL AND status", "status"),
        ("put_inbox", " AND worker IS NULL", ""),
    ),
    _bug("ended run handed out", 1, "I8", "an_ended_run_is_claimed_by_nobody", ("claim", "'waiting'])", "'waiting', 'failed'])")),
    _bug("timer early", 1, "I17", "a_timer_fires_at_its_time", ("wake_due", "wake_at_us <= now_us", "wake_at_us - 1 <= now_us")),
    _bug("timer lost", 1, "I17 I18", "a_timer_fires_at_its_time", ("wake_due", "wake_at_us <= now_us", "false")),
    _bug("delivery wakes nobody", 1, "I18", "a_run_without_a_timer_waits", ("put_inbox", "worker IS NULL", "false")),
    _bug(
        "order of readiness ignored",
        1,
        "I18",
        "runs_are_claimed_in_order_and_up_to_a_limit",
        ("claim", "ORDER BY at_us, run", "ORDER BY run"),
        ("claim", "ORDER BY t.at_us, h.id", "ORDER BY h.id"),
    ),
    _bug(
        "repeated claim claims anew",
        4,
        "I18",
        "a_claim_whose_answer_was_lost_can_be_repeated",
        ("claim", "token = op ->> 'token';", "false;"),
    ),
    _bug(
        "claims of a dead runtime remembered",
        4,
        "I12",
        "a_claim_whose_answer_was_lost_can_be_repeated",
        ("claim", "owner = of_owner AND worker = op ->> 'worker' AND token", "worker = op ->> 'worker' AND token"),
        ("release", "DELETE FROM claims WHERE owner = gone;", ""),
    ),
    _bug(
        "code of a run ignored",
        9,
        "I12 I18",
        "runs_go_to_whoever_has_their_code",
        ("claim", "WHERE needs BETWEEN p.has AND p.has", "WHERE true"),
    ),
    _bug(
        "need not written",
        9,
        "I12 I18",
        "runs_go_to_whoever_has_their_code",
        ("need", "coalesce(max(needs), '')", "''"),
    ),
    _bug(
        "deaths forgotten",
        1,
        "I12",
        "deaths_of_owners_are_remembered",
        ("release_expired", "(deaths || seq)", "(deaths)"),
    ),
    _bug(
        "decided letter listed",
        8,
        "I8",
        "dead_letters_wait_for_a_decision",
        ("settle_letter", "ON CONFLICT DO NOTHING;", "ON CONFLICT DO NOTHING; DELETE FROM dead_letters;"),
    ),
    _bug(
        "dead owner keeps its runs",
        1,
        "I1 I18",
        "a_new_owner_adopts_what_the_former_held",
        ("release_expired", "lease_until < clock_timestamp()", "false"),
    ),
    _bug(
        "claimed run forgotten at adoption",
        1,
        "I1 I18",
        "a_new_owner_adopts_what_the_former_held",
        ("release", "'running', 'waiting']", "'running']"),
    ),
    _bug(
        "unread inbox forgotten at adoption",
        1,
        "I18",
        "a_new_owner_finds_unread_deliveries",
        ("rouse", "NOT i.consumed AND", "false AND"),
    ),
)

REACHING = (
    _bug(
        "delivery does not bump control",
        1,
        "I9",
        "a_delivery_is_read_with_its_control",
        ("put_inbox", "control = control + 1", "control = control"),
    ),
    _bug(
        "delivered to an ended run",
        1,
        "I8",
        "nothing_is_delivered_to_an_ended_run",
        ("deliver", "NOT at_status = ANY (ARRAY['queued', 'running', 'waiting'])", "false"),
    ),
    _bug(
        "inbox row not consumed",
        2,
        "I9",
        "only_named_rows_of_the_own_run_are_consumed",
        ("attach", "SET consumed = true\n    WHERE id", "SET consumed = false\n    WHERE id"),
    ),
    _bug(
        "foreign inbox row consumed",
        2,
        "I15",
        "only_named_rows_of_the_own_run_are_consumed",
        ("attach", "(op -> 'inbox'))) AND run = of_run", "(op -> 'inbox')))"),
    ),
    _bug("key of every tenant", 2, "I15", "a_key_is_a_tenants_own", ("admit", "k.tenant = named ->> 0 AND ", "")),
    _bug(
        "key never expires",
        2,
        "I2",
        "a_key_expires",
        ("admit", "k.key = named ->> 1 AND k.expires_at_us > (op -> 'at')::bigint", "k.key = named ->> 1"),
    ),
    _bug(
        "key not remembered",
        2,
        "I2",
        "one_key_is_one_run",
        ("admit", "k.tenant = named ->> 0", "false"),
        ("admit", "WHERE k.expires_at_us <= (op -> 'at')::bigint", ""),
    ),
    _bug(
        "erased payload kept",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        ("erase", "DELETE FROM payloads WHERE run = of_run", "DELETE FROM payloads WHERE false"),
    ),
    _bug(
        "erased salt kept",
        4,
        "I16",
        "an_erased_run_keeps_its_chain_and_nothing_else",
        ("erase", "SET salt = NULL", "SET salt = salt"),
    ),
    _bug(
        "erased everywhere",
        4,
        "I15",
        "erasing_one_run_leaves_the_others",
        ("erase", "DELETE FROM payloads WHERE run = of_run", "DELETE FROM payloads"),
    ),
)

DECIDING = (
    _bug("approval used twice", 7, "I5", "an_approval_is_used_once", ("attach", " AND NOT consumed", "")),
    _bug(
        "approval used for another digest",
        7,
        "I5",
        "an_approval_is_used_once",
        ("attach", "digest = item ->> 1 AND", ""),
    ),
    _bug(
        "approval used after its expiry",
        7,
        "I5",
        "an_approval_is_used_once",
        ("attach", "expires_at_us > (item ->> 2)::bigint", "true"),
    ),
    _bug(
        "approval of another run used",
        7,
        "I5 I15",
        "an_approval_is_its_runs_own",
        ("attach", "approval = item ->> 0 AND run = of_run AND digest", "approval = item ->> 0 AND digest"),
    ),
    _bug("rejected approval used", 7, "I5", "a_rejected_approval_is_never_used", ("attach", "status = 'approved' AND", "")),
    _bug(
        "self-approval",
        3,
        "I5",
        "nobody_approves_their_own_request",
        ("decide", "op ->> 'by' = asked.requested_by", "false"),
    ),
    _bug(
        "approval decided twice",
        3,
        "I5",
        "an_approval_is_decided_once",
        ("decide", "asked.status <> 'pending'", "false"),
        ("decide", " AND status = 'pending'", ""),
    ),
    _bug(
        "approval decided after its expiry",
        3,
        "I5",
        "a_decision_after_the_expiry_is_refused",
        ("decide", "now_us >= asked.expires_at_us", "false"),
    ),
    _bug(
        "limit not compared",
        8,
        "I3",
        "an_account_is_never_leased_beyond_its_limit",
        ("attach", "committed + used + reserved + taken - given_back <= bound", "true"),
    ),
    _bug(
        "limit compared with spending only",
        8,
        "I3",
        "an_account_is_never_leased_beyond_its_limit",
        ("attach", "committed + used + reserved + taken - given_back <= bound", "committed + used + taken <= bound"),
    ),
    _bug("overdraft refused", 8, "I3", "spending_is_recorded_even_beyond_the_limit", ("attach", "taken = 0 OR ", "")),
    _bug(
        "new limit forgets what is booked",
        8,
        "I3",
        "a_limit_is_set_once_and_changed_by_name",
        ("set_account", "SET bound = excluded.bound", "SET bound = excluded.bound, reserved = 0"),
    ),
)

IDENTIFYING = (
    _bug(
        "key's hash not compared",
        4,
        "I15",
        "a_key_is_never_replaced",
        ("add_key", "AND digest = hash", ""),
    ),
    _bug(
        "revoked key accepted",
        3,
        "I15",
        "a_revoked_key_stays_revoked",
        ("revoke_key", "SET revoked_at_us = (op -> 'at')::bigint", "SET revoked_at_us = NULL"),
    ),
    _bug(
        "second revocation overwrites",
        3,
        "I15",
        "a_revoked_key_stays_revoked",
        ("revoke_key", " AND revoked_at_us IS NULL", ""),
    ),
    _bug(
        "many first keys",
        3,
        "I15",
        "one_of_many_makes_the_first_key",
        ("add_key", "NOT (op -> 'first')::boolean", "true"),
    ),
)

SHARING = tuple(_bug(bug.name, bug.point, bug.invariants, bug.caught_by, *bug.edits) for bug in mutants_shared.POSTGRES)

MUTANTS: tuple[Mutant, ...] = APPENDING + PLAIN + CLAIMING + REACHING + DECIDING + IDENTIFYING + SHARING
"""Every planted bug of this store."""
