"""What the command line is told, and what it says to things that are wrong: configuration, input, decks, machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from quarterdeck.cli.printing import ago, safe
from quarterdeck.cli.settings import settings
from quarterdeck.core.errors import UsageError
from tests.doors.cli_shop import Shop, error_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flags_go_before_variables_and_these_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(None, None).app is None
    assert settings(None, None).store == folder / "quarterdeck.db"
    (folder / "quarterdeck.toml").write_text('[quarterdeck]\napp = "a:deck"\nstore = "sqlite:///file.db"\n')
    assert (settings(None, None).app, settings(None, None).store) == ("a:deck", folder / "file.db")
    monkeypatch.setenv("QUARTERDECK_APP", "b:deck")
    monkeypatch.setenv("QUARTERDECK_STORE", "sqlite:////tmp/variable.db")
    assert (settings(None, None).app, settings(None, None).store) == ("b:deck", Path("/tmp/variable.db"))
    chosen = settings("c:deck", "flag.db")
    assert (chosen.app, chosen.store) == ("c:deck", Path("flag.db"))


def test_a_file_can_be_named_in_place_of_the_app_and_its_paths_are_its_own(folder: Path) -> None:
    (folder / "quarterdeck.toml").write_text('[quarterdeck]\napp = "here:deck"\n')
    there = folder / "there"
    there.mkdir()
    (there / "production.toml").write_text('[quarterdeck]\napp = "shop:deck"\nstore = "shop.db"\n')
    chosen = settings("there/production.toml", None)
    assert (chosen.app, chosen.folder, chosen.store) == ("shop:deck", there, there / "shop.db")
    with pytest.raises(UsageError, match=r"config\.missing"):
        settings("nowhere.toml", None)


@pytest.mark.parametrize(
    "text",
    [
        '[quarterdeck]\nap = "shop:deck"\n',
        '[other]\nx = 1\n[quarterdeck]\napp = "shop:deck"\n',
        "[quarterdeck]\nstore = 5\n",
        "[quarterdeck\n",
    ],
)
def test_a_key_that_is_not_known_is_an_error(folder: Path, text: str) -> None:
    (folder / "quarterdeck.toml").write_text(text)
    with pytest.raises(UsageError, match=r"config\.invalid"):
        settings(None, None)


def test_a_store_of_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"store\.unsupported"):
        settings(None, "mysql://somewhere/db")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "greet", "--input", '{"a":1'), "json.invalid"),
        (("run", "greet", "--input", '{"a":1,"a":2}'), "json.duplicate_key"),
        (("run", "greet", "--input", "@nowhere.json"), "input.missing"),
        (("run", "greet", "--budget-deadline", "soon"), "duration.invalid"),
        (("run", "greet", "--budget-usd", "much"), "budget.invalid"),
        (("run", "greet", "--budget-turns", "-1"), "cli.usage"),
        (("run", "greet", "--app", "nowhere_at_all:deck"), "app.missing"),
        (("run", "greet", "--app", "json:loads"), "app.invalid"),
        (("run", "greet", "--app", "json"), "app.invalid"),
        (("run", "greet", "--colour"), "cli.usage"),
        (("run",), "cli.usage"),
        (("fly",), "cli.usage"),
        (("runs", "ls", "--status", "asleep"), "cli.usage"),
        (("approvals", "approve", "ap_1"), "by.missing"),
        (("switches", "set", "disable_tool:refund", "--reason", " "), "reason.missing"),
        (("switches", "set", "disable_tol:refund", "--reason", "x"), "switch.unknown"),
        (("runs", "ls", "--store", "a.db", "--server", "http://127.0.0.1:1"), "config.place"),
        (("routes", "--app", "shop:deck", "--server", "http://127.0.0.1:1"), "config.place"),
        (("runs", "ls", "--server", "http://127.0.0.1:1", "--key-file", "nowhere"), "config.key"),
        (("runs", "ls", "--server", "http://deck.example"), "client.url"),
        (("runs", "cancel", "run_1", "--by", "bob", "--server", "http://127.0.0.1:1"), "by.server"),
        (("dependencies",), "config.server"),
        (("approvals", "reject", "ap_1", "--by", "bob", "--reason", " "), "reason.missing"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_one_line(tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    shop = Shop(tmp_path)
    told = shop.read(*arguments)
    assert (told.returncode, error_of(told), told.stdout) == (2, code, "")
    assert len(told.stderr.splitlines()) == 1
    as_json = shop.read(*arguments, "--json")
    assert (as_json.returncode, as_json.stdout) == (2, "")
    assert json.loads(as_json.stderr).keys() == {"code", "message", "detail"}
    assert json.loads(as_json.stderr)["code"] == code


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    no_route = shop("run", "sing", "--json")
    assert (no_route.returncode, error_of(no_route)) == (2, "route.unknown")
    for command in (("runs", "show"), ("runs", "events"), ("runs", "cancel"), ("journal", "verify"), ("journal", "erase")):
        told = shop.read(*command, "run_0")
        assert (told.returncode, error_of(told)) == (2, "run.unknown"), command
    for command in (("show",), ("approve", "--by", "bob"), ("reject", "--by", "bob", "--reason", "no")):
        told = shop.read("approvals", command[0], "ap_0", *command[1:])
        assert (told.returncode, error_of(told)) == (2, "approval.unknown")
    told = shop.read("effects", "resolve", "run_0", "t0.0", "--done", "--by", "bob")
    assert (told.returncode, error_of(told)) == (2, "run.unknown")
    told = shop.read("runs", "ls", "--cursor", "run_0")
    assert (told.returncode, error_of(told)) == (2, "cursor.unknown")


def test_a_defect_of_the_deck_shows_its_traceback(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (tmp_path / "broken.py").write_text("import nowhere_at_all\n")
    told = shop("run", "greet", "--app", "broken:deck")
    assert told.returncode == 1
    assert "Traceback" in told.stderr
    assert "No module named 'nowhere_at_all'" in told.stderr


def test_doctor_names_what_must_be_repaired(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    well = shop.read("doctor", "--json")
    assert well.returncode == 0, well.stdout
    checks = {check["name"]: check for check in json.loads(well.stdout)["checks"]}
    assert checks.keys() >= {"python", "sqlite", "event loop", "local model", "disk", "store", "app"}
    assert checks["app"]["health"] == "OK"
    (tmp_path / "strict.py").write_text('from shop import deck\ndeck.policy("permit(principal, action, resouce);")\n')
    ill = shop.read("doctor", "--app", "strict:deck")
    assert ill.returncode == 1
    assert "FAIL  app" in ill.stdout
    assert "FAIL app: " in ill.stderr


def test_nothing_that_is_printed_steers_a_terminal() -> None:
    assert safe("a\x1b[2Jb\u202ec\x9b1m") == "a\\x1b[2Jb\\u202ec\\x9b1m"
    assert safe("two\nlines") == "two\\nlines"
    assert safe("two\nlines\r", lines=True) == "two\nlines\\r"


def test_distances_in_time_are_in_one_unit() -> None:
    day_us = 86_400_000_000
    assert [ago(at, day_us * 10) for at in (day_us * 10, day_us * 11 - 1, day_us * 7)] == ["now", "in 24 h", "3 d ago"]


def test_the_environment_of_the_tests_is_not_this_machines() -> None:
    assert not [name for name in os.environ if name.startswith("QUARTERDECK_")]
