"""The command line as its users meet it: real processes on a real file, side by side."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tests.doors.cli_shop import Shop, error_of


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def following(shop: Shop) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that owns the store and follows a run, which waits for an approval by now; and the run's id."""
    process = shop.start("run", "support", "--follow", "--json", "--user", "ann")
    try:
        run_id = read_until(process, "run.waiting")[0]["body"]["contract"]["run_id"]
        yield process, run_id
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], kind: str) -> list[dict]:
    """The events that a following process prints, up to the first of this kind."""
    events: list[dict] = []
    assert process.stdout is not None
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("kind") == kind:
            return events
    raise AssertionError(f"the process ended without {kind}: {events[-1:]}")


def test_a_run_that_is_followed_goes_on_when_another_process_approves(shop: Shop, following) -> None:
    process, run_id = following
    [pending] = shop.json("approvals", "ls")["approvals"]
    assert (pending["run_id"], pending["tool"], pending["requested_by"]) == (run_id, "refund", "ann")

    shown = shop.read("approvals", "show", pending["approval"])
    assert '"arguments":{"cents":500,"order_id":"plum-order"}' in shown.stdout
    assert pending["digest"] in shown.stdout

    own = shop.read("approvals", "approve", pending["approval"], "--by", "ann")
    assert (own.returncode, error_of(own)) == (3, "approval.self")
    other = shop.read("approvals", "approve", pending["approval"], "--by", "bob", "--digest", "0" * 64)
    assert (other.returncode, error_of(other)) == (3, "approval.digest_differs")
    assert shop.paid() == []

    order = shop("approvals", "approve", pending["approval"], "--by", "bob", "--reason", "known customer", "--json")
    assert [json.loads(order.stdout)[name] for name in ("status", "decided_by", "consumed")] == ["approved", "bob", False]
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [
        line["kind"] for line in lines if line.get("kind") in ("approval.decided", "tool.opened", "tool.closed", "run.finished")
    ] == [
        "approval.decided",
        "tool.opened",
        "tool.closed",
        "run.finished",
    ]
    assert [line["seq"] for line in lines[:-1]] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines) - 1))
    assert (lines[-1]["run_id"], lines[-1]["status"]) == (run_id, "succeeded")
    assert len(shop.paid()) == 1

    again = shop.read("approvals", "approve", pending["approval"], "--by", "bob")
    assert (again.returncode, error_of(again)) == (3, "approval.decided")


def test_a_run_is_handed_to_the_process_that_owns_the_store(shop: Shop, following) -> None:
    owner, first = following
    greeted = shop("run", "greet", "--input", '{"name": "Ann"}', "--idempotency-key", "k1")
    assert greeted.returncode == 0, greeted.stderr
    assert f"by process {owner.pid}" in greeted.stderr
    assert "plum-reply" in greeted.stdout
    followed = shop("run", "greet", "--follow", "--json")
    assert json.loads(followed.stdout.splitlines()[-2])["kind"] == "run.finished"
    workers = {row["run_id"]: row for row in shop.json("runs", "ls")["runs"]}
    assert [row["status"] for row in workers.values()] == ["succeeded", "succeeded", "waiting"]

    same = shop("run", "greet", "--input", '{"name":"Ann"}', "--idempotency-key", "k1", "--json")
    assert json.loads(same.stdout)["run_id"] == list(workers)[1]
    differs = shop("run", "greet", "--input", '{"name": "Bob"}', "--idempotency-key", "k1")
    assert (differs.returncode, error_of(differs)) == (2, "idempotency.body_differs")

    assert f"process {owner.pid}" in shop.read("doctor").stdout
    waiting = shop("run", "support")
    assert waiting.returncode == 13
    assert "approval:" in waiting.stdout
    alike = ("policy_version", "budget_policy_version", "version_set", "limits", "allowed_tools", "autonomy", "mode")
    ours, theirs = (
        shop.json("runs", "show", run_id)["contract"] for run_id in (first, shop.json("runs", "ls")["runs"][0]["run_id"])
    )
    assert ours["policy_version"]
    assert [ours.get(name) for name in alike] == [theirs.get(name) for name in alike]
    visitor = shop.start("run", "support", "--follow", "--json")
    read_until(visitor, "run.waiting")
    visitor.send_signal(signal.SIGINT)
    _, err = visitor.communicate(timeout=30)
    assert visitor.returncode == 130
    assert "goes on in the runtime that is up" in err
    assert owner.poll() is None


def test_interrupting_the_owner_leaves_the_run_to_the_next_runtime(shop: Shop, following) -> None:
    process, run_id = following
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["status"] == "waiting"
    assert f"goes on when a runtime starts; `quarterdeck runs cancel {run_id}`" in err

    [pending] = shop.json("approvals", "ls")["approvals"]
    approved = shop("approvals", "approve", pending["approval"], "--by", "bob")
    assert approved.returncode == 0
    assert "the run goes on when one starts" in approved.stderr
    assert shop.paid() == []
    assert shop("run", "greet").returncode == 0
    assert shop.json("runs", "show", run_id)["status"] == "succeeded"
    assert len(shop.paid()) == 1


def test_one_switch_is_spoken_of_as_many_are(shop: Shop) -> None:
    assert shop("run", "greet").returncode == 0
    assert shop("switch", "set", "freeze", "--reason", "a drill").returncode == 0
    assert shop.json("switch", "ls") == shop.json("switches", "ls")
    assert shop.json("switch", "ls")["switches"] == ["freeze"]


def test_cancelling_a_waiting_run(shop: Shop) -> None:
    timed = shop("run", "support", "--follow", "--timeout", "50ms", "--json")
    assert timed.returncode == 13
    run_id = json.loads(timed.stdout.splitlines()[-1])["run_id"]
    cancelled = shop("runs", "cancel", run_id, "--by", "eve", "--reason", "wrong customer")
    assert cancelled.returncode == 0
    assert "the run goes on when one starts" in cancelled.stderr
    assert shop("run", "greet").returncode == 0
    ended = shop.json("runs", "show", run_id)
    assert (ended["status"], ended["code"]) == ("cancelled", "run.cancelled")
    assert shop.paid() == []
    assert "by=eve" in shop.read("runs", "events", run_id).stdout
    assert f"run {run_id} has ended: cancelled" in shop.read("runs", "cancel", run_id).stdout
    late = shop.read("approvals", "approve", next(iter(ended["approvals"])), "--by", "bob")
    assert (late.returncode, error_of(late)) == (3, "run.ended")


def test_an_unknown_effect_is_resolved_by_a_person(shop: Shop) -> None:
    waiting = shop("run", "parcel", "--json")
    assert waiting.returncode == 13
    result = json.loads(waiting.stdout)
    assert (result["code"], result["effects"]["unknown"]) == ("effect.unknown", 1)
    run_id, call = result["run_id"], result["waiting_on"][0].partition(":")[2]
    assert f"effects resolve {run_id} {call}" in shop.read("runs", "show", run_id).stderr

    neither = shop.read("effects", "resolve", run_id, call, "--by", "bob")
    assert (neither.returncode, error_of(neither)) == (2, "effect.answer")
    other = shop.read("effects", "resolve", run_id, "t9.9", "--done", "--by", "bob")
    assert (other.returncode, error_of(other)) == (2, "effect.not_unknown")
    assert shop("effects", "resolve", run_id, call, "--done", "--by", "bob", "--result", '"on its way"').returncode == 0
    twice = shop.read("effects", "resolve", run_id, call, "--not-done", "--by", "bob")
    assert (twice.returncode, error_of(twice)) == (3, "effect.resolved")

    assert shop("run", "greet").returncode == 0
    ended = shop.json("runs", "show", run_id)
    assert (ended["status"], ended["effects"]["unknown"]) == ("succeeded", 0)
    events = shop.read("runs", "events", run_id, "--content").stdout
    assert "on its way" in events
    assert "carrier" not in shop.read("runs", "events", run_id).stdout


def test_contents_are_shown_only_on_request(shop: Shop) -> None:
    first = shop.read("run", "support", "--input", "@order.json")
    assert (first.returncode, error_of(first)) == (2, "input.missing")
    (shop.folder / "order.json").write_text('{"note": "plum-note"}')
    assert shop("run", "support", "--input", "@order.json").returncode == 13
    greeted = shop("run", "greet", "--input", "-", stdin='{"note": "plum-note"}')
    assert "plum-reply \\x1b[31mred" in greeted.stdout
    waiting = shop.json("runs", "ls", "--status", "waiting")["runs"][0]["run_id"]
    ended = shop.json("runs", "ls", "--route", "greet", "--limit", "1")
    assert ended["next"] is None
    greeted = ended["runs"][0]["run_id"]
    reads = [
        ("runs", "ls"),
        ("runs", "show", waiting),
        ("runs", "show", greeted),
        ("runs", "events", waiting),
        ("runs", "events", greeted),
        ("approvals", "ls"),
        ("budgets",),
    ]
    for read in reads:
        for form in ((), ("--json",)):
            shown = shop.read(*read, *form)
            assert shown.returncode == 0, shown.stderr
            assert "plum" not in shown.stdout + shown.stderr, (read, form)
    for read in (("runs", "show", greeted), ("runs", "events", waiting)):
        assert "plum-note" in shop.read(*read, "--content").stdout
        assert "plum-note" in shop.read(*read, "--content", "--json").stdout


def flip(store: Path, statement: str, values: tuple[object, ...]) -> None:
    """Change a store behind Quarterdeck's back."""
    db = apsw.Connection(str(store))
    db.execute(statement, values)
    assert db.changes() > 0
    db.close()


def test_verify_finds_what_was_changed_and_survives_an_erasure(shop: Shop) -> None:
    runs = [
        json.loads(shop("run", intent, "--input", '"plum-note"', "--json").stdout)["run_id"] for intent in ("greet", "support")
    ]
    counted = shop.json("journal", "verify")
    assert (counted["runs"], counted["findings"]) == (2, [])

    refused = shop.read("journal", "erase", runs[1])
    assert (refused.returncode, error_of(refused)) == (3, "erase.not_ended")
    assert shop.read("journal", "erase", runs[0]).returncode == 0
    assert "plum" not in shop.read("runs", "show", runs[0], "--content").stdout
    again = shop.json("journal", "verify")
    assert (again["runs"], again["events"], again["findings"]) == (2, counted["events"], [])
    assert again["audit"]["rows"] == counted["audit"]["rows"] + 1

    place = "run = (SELECT id FROM runs WHERE run_id = ?) AND seq = 3"
    changed = f"UPDATE events SET body = CAST(replace(CAST(body AS TEXT), '1', '2') AS BLOB) WHERE {place}"  # noqa: S608
    flip(shop.store, changed, (runs[1],))
    found = shop("journal", "verify", "--json")
    assert found.returncode == 6
    first, *others = json.loads(found.stdout)["findings"]
    assert (first["run_id"], first["code"]) == (runs[1], "journal.chain")
    assert {each["code"] for each in others} == {"ledger.account", "approval.unasked"}, "and so the books do not agree"
    one = shop.read("journal", "verify", runs[0])
    assert one.returncode == 0
    told = shop.read("journal", "verify", runs[1])
    assert (told.returncode, told.stderr.partition(":")[0]) == (6, "error journal.chain")


@pytest.mark.parametrize(
    ("kind", "exit_code", "code"),
    [
        ("missing", 2, "store.missing"),
        ("empty", 2, "store.missing"),
        ("garbage", 6, "store.corrupt"),
        ("foreign", 2, "store.foreign"),
        ("newer", 2, "store.newer"),
    ],
)
def test_a_file_that_is_no_store_of_ours_is_named_and_left_alone(shop: Shop, kind: str, exit_code: int, code: str) -> None:
    if kind == "empty":
        shop.store.touch()
    elif kind == "garbage":
        shop.store.write_bytes(b"no database at all" * 500)
    elif kind != "missing":
        db = apsw.Connection(str(shop.store))
        db.execute("CREATE TABLE theirs (x)")
        if kind == "newer":
            db.execute(f"PRAGMA application_id = {0x51444B31}")
            db.execute("PRAGMA user_version = 99")
        db.close()
    before = shop.store.read_bytes() if shop.store.exists() else None
    shown = shop.read("runs", "ls", "--json")
    assert (shown.returncode, error_of(shown), shown.stdout) == (exit_code, code, "")
    cancelled = shop.read("runs", "cancel", "run_1")
    assert (cancelled.returncode, error_of(cancelled)) == (exit_code, code)
    assert (shop.store.read_bytes() if shop.store.exists() else None) == before
    if kind not in ("missing", "empty"):
        ran = shop("run", "greet")
        assert (ran.returncode, error_of(ran)) == (exit_code, code)
        assert shop.read("doctor").returncode == 1
        assert shop.store.read_bytes() == before
