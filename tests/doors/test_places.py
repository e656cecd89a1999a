"""Commands at a server and at its store: real processes, the same answers, the same errors, streams that outlive a restart."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import quarterdeck.cli.places.served
from quarterdeck.cli.places.served import translated
from quarterdeck.client import ClientError, Unreachable
from quarterdeck.core.errors import OUTCOMES
from quarterdeck.core.specs import RouteSpec
from quarterdeck.server.problems import STATUS
from tests.docs.codes import ERRORS, search, sources
from tests.doors.cli_shop import Shop, error_of


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@contextmanager
def serving(shop: Shop, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str, str | None]]:
    """A serving process, its address, and the key that it made, if it did."""
    process = shop.start("serve", "--port", str(port), "--json")
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield process, said["url"], said["key"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def served(shop: Shop) -> Iterator[str]:
    """A server of the shop, as admin; its address. The key is in a file."""
    with serving(shop) as (_, url, key):
        write_key(shop, key)
        yield url


def write_key(shop: Shop, key: str | None) -> None:
    file = shop.folder / "key"
    file.touch(mode=0o600)
    file.write_text(f"{key}\n")


def at(url: str) -> tuple[str, ...]:
    return ("--server", url, "--key-file", "key")


def both(shop: Shop, url: str, *command: str) -> list[dict]:
    """What a reading command prints with --json, once at the server, once at its store."""
    shown = []
    for place in (at(url), ("--store", "quarterdeck.db")):
        ended = shop.read(*command, *place, "--json")
        assert (ended.returncode, ended.stderr) == (0, ""), (command, place, ended.stderr)
        shown.append([json.loads(line) for line in ended.stdout.splitlines()])
    assert shown[0] == shown[1], command
    return shown[0]


def test_every_reading_command_says_the_same_at_a_server_and_at_its_store(shop: Shop, served: str) -> None:
    ended = {
        intent: json.loads(shop.read("run", intent, "--input", '"plum-note"', *at(served), "--json").stdout)
        for intent in ("greet", "support", "parcel")
    }
    assert {intent: one["status"] for intent, one in ended.items()} == {
        "greet": "succeeded",
        "support": "waiting",
        "parcel": "waiting",
    }
    assert "plum-reply" in ended["greet"]["text"]
    for command in (
        ("runs", "ls"),
        ("runs", "ls", "--status", "waiting", "--route", "support", "--tenant", "default"),
        ("runs", "ls", "--tenant", "nobody"),
        ("approvals", "ls"),
        ("approvals", "ls", "--status", "all", "--tenant", "default", "--limit", "1"),
        ("approvals", "show", f"ap_{ended['support']['run_id']}_t1.0"),
        ("budgets",),
        ("switches", "ls"),
    ):
        both(shop, served, *command)
    for one in ended.values():
        for content in ((), ("--content",)):
            [shown] = both(shop, served, "runs", "show", one["run_id"], *content)
            assert shown["contract"]["run_id"] == one["run_id"]
            assert shown.get("input") == ("plum-note" if content else None)
            assert len(both(shop, served, "runs", "events", one["run_id"], *content)) == shown["seq"]
        assert both(shop, served, "runs", "events", one["run_id"], "--after", "2")[0]["seq"] == 3
        gap, first, *_ = both(shop, served, "runs", "events", one["run_id"], "--after", "999")
        assert (gap["kind"], first["seq"]) == ("stream.gap", 1)
    followed = both(shop, served, "runs", "events", ended["greet"]["run_id"], "--follow")
    assert followed[-1]["kind"] == "run.finished"
    [found] = both(shop, served, "runs", "ls", "--correlation", ended["greet"]["run_id"])
    assert [row["run_id"] for row in found["runs"]] == [ended["greet"]["run_id"]]
    for command in (("routes",), ("tools",), ("policies", "show")):
        assert shop.json(*command, *at(served)) == shop.json(*command), command
    dependencies = shop.json("dependencies", *at(served))["dependencies"]
    assert {one["name"] for one in dependencies} >= {"model:greet", "model:support", "tool:refund"}


def test_lists_go_on_at_the_cursor(shop: Shop, served: str) -> None:
    asked = [json.loads(shop.read("run", "support", *at(served), "--json").stdout)["run_id"] for _ in range(3)]
    for place in (at(served), ("--store", "quarterdeck.db")):
        for command, rows, name in (("runs", "runs", "run_id"), ("approvals", "approvals", "run_id")):
            first = shop.json(command, "ls", "--limit", "2", *place)
            second = shop.json(command, "ls", "--limit", "2", "--cursor", first["next"], *place)
            seen = [row[name] for row in (*first[rows], *second[rows])]
            assert (sorted(seen), len(first[rows]), second["next"]) == (sorted(asked), 2, None)
        assert f"--cursor {first['next']}" in shop.read("approvals", "ls", "--limit", "2", *place).stderr
        wrong = shop.read("runs", "ls", "--cursor", "run_0", *place)
        assert (wrong.returncode, error_of(wrong)) == (2, "cursor.unknown")


def test_orders_at_a_server_are_recorded_under_the_name_of_the_key(shop: Shop, served: str) -> None:
    def ask(route: str, user: str = "ann") -> dict:
        return json.loads(shop.read("run", route, "--user", user, *at(served), "--json").stdout)

    first, second, parcel = ask("support"), ask("support"), ask("parcel")
    approval, other = (one["waiting_on"][0].partition(":")[2] for one in (first, second))
    own = shop.read("approvals", "approve", approval, *at(served))
    assert (own.returncode, error_of(own)) == (3, "approval.self"), "the key has submitted the run"
    made = shop.json("keys", "create", "bob", "--role", "approver", "--role", "operator")
    write_key(shop, made["key"])

    named = shop.read("approvals", "approve", approval, "--by", "carol", *at(served))
    assert (named.returncode, error_of(named)) == (2, "by.server")
    differs = shop.read("approvals", "approve", approval, "--digest", "0" * 64, *at(served))
    assert (differs.returncode, error_of(differs)) == (3, "approval.digest_differs")
    assert shop.paid() == []
    approved = shop.json("approvals", "approve", approval, "--reason", "known", *at(served))
    assert (approved["status"], approved["decided_by"]) == ("approved", "bob")
    followed = shop.read("runs", "events", first["run_id"], "--follow", "--json", *at(served))
    assert json.loads(followed.stdout.splitlines()[-1])["kind"] == "run.finished"
    assert len(shop.paid()) == 1
    rejected = shop.read("approvals", "reject", other, "--reason", "no", *at(served))
    assert rejected.stdout == f"{other} is rejected by bob\n"
    call = parcel["waiting_on"][0].partition(":")[2]
    assert shop.json("effects", "resolve", parcel["run_id"], call, "--not-done", *at(served))["run_id"] == parcel["run_id"]
    assert shop.json("runs", "cancel", first["run_id"], *at(served))["status"] == "succeeded"

    for place in (at(served), ("--store", "quarterdeck.db")):
        by = () if "--server" in place else ("--by", "bob")
        for command, exit_code, code in (
            (("runs", "show", "run_0"), 2, "run.unknown"),
            (("runs", "events", "run_0"), 2, "run.unknown"),
            (("approvals", "show", "ap_0"), 2, "approval.unknown"),
            (("approvals", "reject", approval, "--reason", "late", *by), 3, "approval.decided"),
            (("effects", "resolve", first["run_id"], "t9.9", "--done", *by), 3, "run.ended"),
        ):
            told = shop.read(*command, *place)
            assert (told.returncode, error_of(told)) == (exit_code, code), (command, place, told.stderr)
    shown = shop.read("run", "greet", *at(served))
    assert (shown.returncode, error_of(shown)) == (3, "auth.forbidden"), "an approver cannot submit"


def test_a_switch_says_what_it_covers_and_reaches_a_server_either_way(shop: Shop, served: str) -> None:
    run = json.loads(shop.read("run", "support", *at(served), "--json").stdout)
    for place in (at(served), ("--store", "quarterdeck.db")):
        preview = shop.json("switches", "set", "disable_tool:refund", "--preview", *place)
        assert preview["on"] is False
        switched = shop.json("switches", "set", "disable_tool:refund", "--reason", "test", *place)
        covers = {"routes": ["support"], "tools": ["refund"], "tenants": ["*"], "runs": 1, "more": False, "doubt": ""}
        assert (switched["on"], switched["covers"], preview["covers"]) == (True, covers, covers)
        assert switched["version"] == preview["version"] + 1
        again = shop.json("switches", "set", "disable_tool:refund", "--reason", "test", *place)
        assert again["version"] == switched["version"]
        cleared = shop.json("switches", "clear", "disable_tool:refund", "--reason", "test", *place)
        assert (cleared["on"], cleared["version"]) == (False, switched["version"] + 1)
        mistyped = shop.read("switches", "set", "stop_route:suport", "--preview", *place)
        assert "there is no route called 'suport' here; did you mean 'support'?" in mistyped.stderr
    covered = {
        "freeze": (1, ["greet", "parcel", "support"], ["find_order", "refund", "ship"], ["*"]),
        "stop_route:support": (1, ["support"], [], ["*"]),
        "stop_route:greet": (0, ["greet"], [], ["*"]),
        "force_approval:ship": (0, ["parcel"], ["ship"], ["*"]),
        "deny_tenant:acme": (0, ["greet", "parcel", "support"], [], ["acme"]),
        "deny_tenant:default": (1, ["greet", "parcel", "support"], [], ["default"]),
    }
    for switch, expected in covered.items():
        covers = shop.json("switches", "set", switch, "--preview", *at(served))["covers"]
        assert tuple(covers[name] for name in ("runs", "routes", "tools", "tenants")) == expected, switch
    assert (
        "stop_route:greet is set: version"
        in shop.read("switches", "set", "stop_route:greet", "--reason", "x", *at(served)).stdout
    )
    for place in (at(served), ("--store", "quarterdeck.db")):
        refused = shop.read("run", "greet", *place)
        assert (refused.returncode, error_of(refused)) == (3, "switch.route_stopped"), place
    assert run["status"] == "waiting"


def test_a_stream_that_is_followed_survives_a_restart_of_its_server(shop: Shop) -> None:
    with serving(shop) as (process, url, key):
        write_key(shop, key)
        follower = shop.start("run", "support", "--user", "ann", "--follow", "--json", *at(url))
        try:
            seen = until(follower, "run.waiting")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            assert follower.poll() is None
            with serving(shop, int(url.rpartition(":")[2])):
                [pending] = shop.json("approvals", "ls")["approvals"]
                assert shop.read("approvals", "approve", pending["approval"], "--by", "bob").returncode == 0
                out, err = follower.communicate(timeout=60)
        finally:
            if follower.poll() is None:
                follower.kill()
                follower.communicate()
    assert follower.returncode == 0, err
    *rest, result = [json.loads(line) for line in out.splitlines()]
    events = [*seen, *rest]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[-1]["kind"], result["status"]) == ("run.finished", "succeeded")
    assert len(shop.paid()) == 1


def until(process: subprocess.Popen[str], kind: str) -> list[dict]:
    """The events that a following process prints, up to the first of this kind."""
    seen: list[dict] = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1].get("kind") == kind:
            return seen
    raise AssertionError(f"the process ended without {kind}")


def test_a_run_at_a_server_is_watched_for_as_long_as_is_wanted(shop: Shop, served: str) -> None:
    timed = shop.read("run", "support", "--follow", "--timeout", "300ms", "--json", *at(served))
    assert timed.returncode == 13
    follower = shop.start("run", "support", "--follow", "--json", *at(served))
    until(follower, "run.waiting")
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=30)
    assert (follower.returncode, json.loads(out.splitlines()[-1])["status"]) == (130, "waiting")
    assert "goes on in the runtime that is up" in err
    twice = [
        json.loads(shop.read("run", "greet", "--idempotency-key", "k1", "--json", *at(served)).stdout)["run_id"] for _ in range(2)
    ]
    assert twice[0] == twice[1]
    differs = shop.read("run", "greet", "--input", "1", "--idempotency-key", "k1", *at(served))
    assert (differs.returncode, error_of(differs)) == (2, "idempotency.body_differs")
    for place in (at(served), ()):
        mistyped = shop.read("run", "suport", *place)
        assert (mistyped.returncode, error_of(mistyped)) == (2, "route.unknown")
        assert "did you mean 'support'?" in mistyped.stderr


def test_without_a_server_or_with_a_wrong_key_a_command_says_so(shop: Shop, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarterdeck.cli.places.served, "ASK_FOR_S", 0.2)
    write_key(shop, "qd_nobody_knows_this_key")
    wrong = shop.read("runs", "ls", *at(served))
    assert wrong.returncode == 3
    assert error_of(wrong).startswith("auth.")
    assert "nobody_knows" not in wrong.stderr
    none = shop.read("runs", "ls", "--server", served)
    assert (none.returncode, error_of(none)) == (3, "auth.missing")
    assert "QUARTERDECK_KEY" in none.stderr
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for command in (("runs", "ls"), ("runs", "cancel", "run_0"), ("run", "greet"), ("runs", "events", "run_0")):
            told = shop.read(*command, "--server", gone, "--json")
            assert (told.returncode, error_of(told)) == (4, "client.unreachable"), told.stderr
            assert json.loads(told.stderr).keys() == {"code", "message", "detail"}


def test_the_server_comes_from_flags_variables_or_the_file(shop: Shop, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = (shop.folder / "key").read_text().strip()
    monkeypatch.setenv("QUARTERDECK_KEY", key)
    monkeypatch.setenv("QUARTERDECK_SERVER", served)
    assert shop.json("dependencies")["dependencies"] is not None
    assert shop.json("runs", "ls", "--store", "quarterdeck.db")["runs"] == []
    monkeypatch.setenv("QUARTERDECK_STORE", "quarterdeck.db")
    told = shop.read("runs", "ls")
    assert (told.returncode, error_of(told)) == (2, "config.place")
    assert shop.read("journal", "verify").returncode == 0, "what needs the file does not ask for a server"
    monkeypatch.delenv("QUARTERDECK_SERVER")
    monkeypatch.delenv("QUARTERDECK_STORE")
    (shop.folder / "quarterdeck.toml").write_text(f'[quarterdeck]\napp = "shop:deck"\nserver = "{served}"\n')
    assert shop.json("dependencies")["dependencies"] is not None
    (shop.folder / "key").chmod(0o644)
    monkeypatch.delenv("QUARTERDECK_KEY")
    shown = shop.read("runs", "ls", "--key-file", "key")
    assert shown.returncode == 0
    assert "can be read by others" in shown.stderr
    assert key not in shown.stderr
    by_mistake = shop.read("runs", "ls", "--key-file", key)
    assert error_of(by_mistake) == "config.key"
    assert key not in by_mistake.stderr


def test_every_code_ends_a_command_alike_wherever_it_comes_from() -> None:
    """A code that a server sends with a status of its own has the exit code of its class."""
    classes = search(sources()).classes
    named = {
        code: kinds for code, kinds in classes.items() if code in STATUS and len(kinds) == 1 and not code.startswith("http.")
    }
    assert {"approval.decided", "run.ended", "effect.not_unknown"} <= named.keys()
    exits = {kind.__name__: outcome.exit_code for kind, outcome in OUTCOMES.items()}
    for code, [kind] in named.items():
        assert kind in ERRORS
        assert OUTCOMES[type(translated(ClientError(code, "", status=STATUS[code])))].exit_code == exits[kind], code
    for kind, outcome in OUTCOMES.items():
        if outcome.http_status != 409:
            assert type(translated(ClientError("x.y", "", status=outcome.http_status))) is kind
    assert OUTCOMES[type(translated(Unreachable("client.broken", "")))].exit_code == 4
    assert OUTCOMES[type(translated(ClientError("server.fault", "", status=500)))].exit_code == 4


def test_a_shell_completes_commands_and_options(shop: Shop) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = shop.read("completion", shell)
        assert script.returncode == 0
        assert "_QUARTERDECK_COMPLETE" in script.stdout
    shop.env |= {"_QUARTERDECK_COMPLETE": "complete_bash", "COMP_WORDS": "quarterdeck switches c", "COMP_CWORD": "2"}
    assert shop().stdout.split() == ["clear"]


def test_a_mistyped_command_or_option_is_met_with_what_may_be_meant(shop: Shop) -> None:
    assert "'runs'" in shop.read("rnus").stderr
    assert "--status" in shop.read("runs", "ls", "--stauts", "x").stderr


def test_progress_is_shown_at_a_terminal_only(shop: Shop) -> None:
    assert shop("run", "greet").returncode == 0
    quiet = shop("journal", "verify")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    ours, theirs = pty.openpty()
    process = shop.start("journal", "verify", stderr=theirs)
    os.close(theirs)
    out, _ = process.communicate(timeout=30)
    shown = os.read(ours, 1_000).decode()
    os.close(ours)
    assert shown.startswith("\r1 runs checked")
    assert shown.endswith("\r\x1b[K")
    assert out.startswith("1 runs checked")


def test_a_route_is_shown_with_every_field_and_a_run_that_goes_elsewhere_says_so(shop: Shop, served: str) -> None:
    for place in (at(served), ()):
        row = shop.json("routes", "greet", *place)
        assert set(RouteSpec.__struct_fields__) <= set(row), place
        shown = shop.read("routes", "greet", *place).stdout
        assert [name for name in row if not shown.replace("  ", "\n").count(name.replace("_", " "))] == [], place
        mistyped = shop.read("routes", "gret", *place)
        assert (mistyped.returncode, error_of(mistyped)) == (2, "route.unknown")
        assert "did you mean 'greet'?" in mistyped.stderr
    assert shop.read("switches", "set", "stop_route:parcel", "--reason", "x", *at(served)).returncode == 0
    for place in (at(served), ("--store", "quarterdeck.db")):
        moved = shop.read("run", "parcel", *place)
        assert "it goes by route greet instead of parcel: switch.route_stopped" in moved.stderr, place
        run = moved.stdout.split()[0]
        assert "elsewhere, switch.route_stopped, instead of parcel" in shop.read("runs", "show", run, *place).stdout


def test_runs_are_paused_resumed_and_told_and_keys_made_at_a_server_and_at_its_store(shop: Shop, served: str) -> None:
    for place, by in ((at(served), "admin"), (("--store", "quarterdeck.db"), "operator")):
        run = json.loads(shop.read("run", "support", *at(served), "--json").stdout)["run_id"]
        for order in (("pause", run, "--reason", "x"), ("signal", run, "news", "--input", "7"), ("resume", run)):
            told = shop.read("runs", *order, *place)
            assert (told.returncode, run in told.stdout) == (0, True), told.stderr
        events = [json.loads(line) for line in shop.read("runs", "events", run, "--json", *at(served)).stdout.splitlines()]
        assert {event["body"]["by"] for event in events if event["kind"] in ("run.paused", "signal.received")} <= {by}
        made = shop.json("keys", "create", "bob", "--role", "viewer@acme", *place)
        listed = both(shop, served, "keys", "ls")[0]
        assert made["prefix"] in {key["prefix"] for key in listed} and made["key"] not in str(listed)
        ended = shop.json("keys", "revoke", made["prefix"], "--reason", "x", *place)
        assert (ended["status"], ended["prefix"]) == ("revoked", made["prefix"])
    wrong = shop.read("runs", "pause", "run_0", *at(served))
    assert (wrong.returncode, error_of(wrong)) == (2, "run.unknown")
    named = shop.read("runs", "pause", run, "--by", "carol", *at(served))
    assert (named.returncode, error_of(named)) == (2, "by.server")


def test_messages_and_shared_accounts_are_the_same_at_a_server_and_at_its_store(shop: Shop, served: str) -> None:
    assert both(shop, served, "outbox", "ls", "--status", "dead") == [{"messages": [], "next": None}]
    for place in (at(served), ("--store", "quarterdeck.db")):
        assert error_of(shop.read("outbox", "show", "nothing", *place)) == "outbox.unknown"
        assert error_of(shop.read("outbox", "requeue", "nothing", *place)) == "outbox.unknown"
        raised = shop.json("account", "raise", "all", "--budget-usd", "12.50", "--reason", "a busy week", *place)
        assert {row["dimension"]: row["limit"] for row in raised["budgets"]}["cost_microusd"] == 12_500_000
        mistyped = shop.read("account", "raise", "route:gret", "--budget-tokens", "5", *place)
        assert (mistyped.returncode, error_of(mistyped)) == (2, "account.unknown")
        assert error_of(shop.read("account", "raise", "all", *place)) == "budget.nothing"
