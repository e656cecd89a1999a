"""The page about the command line is complete, every command has its help, and every --json is JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarterdeck.cli.outcome import MEANINGS, OF_STATUS, Exit
from quarterdeck.cli.reference import helps, reference
from quarterdeck.core.errors import OUTCOMES
from quarterdeck.core.vocabulary import Status
from tests.doors.cli_shop import Shop

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
NAMES = ("runs", "approvals", "effects", "switches", "policies", "journal", "keys")
GROUPS = {"quarterdeck", *(f"quarterdeck {name}" for name in NAMES)}
ELSEWHERE = {"quarterdeck serve", "quarterdeck dev", "quarterdeck dependencies", "quarterdeck completion"}
"""The first two run until they are told to stop: test_serving; the third needs a server: test_places; the last prints a script."""


def test_the_page_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert PAGE.read_text("utf-8") == reference(), "renew it: python -m quarterdeck.cli.reference > docs/cli.md"


def test_every_exit_code_has_a_meaning() -> None:
    assert MEANINGS.keys() == {int(code) for code in Exit} | {outcome.exit_code for outcome in OUTCOMES.values()}
    assert OF_STATUS.keys() == set(Status)


def test_every_command_explains_itself(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    commands = list(helps())
    assert len(commands) == len({path for path, _ in commands}) > 15
    for path, text in commands:
        told = shop.read(*path.split()[1:], "--help")
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.startswith(f"Usage: {path} ")
        if path not in GROUPS | {"quarterdeck completion"}:
            assert "--json" in text, path
    assert shop.read("--version").stdout.startswith("quarterdeck ")


def test_every_command_speaks_json(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    asked = {intent: json.loads(shop("run", intent, "--json").stdout) for intent in ("greet", "support", "parcel")}
    second = json.loads(shop("run", "support", "--json").stdout)
    support, parcel, greet = asked["support"], asked["parcel"], asked["greet"]
    approval, other = (result["waiting_on"][0].partition(":")[2] for result in (support, second))
    commands: dict[str, tuple[str, ...]] = {
        "runs ls": (),
        "runs show": (support["run_id"], "--content"),
        "runs events": (greet["run_id"], "--after", "1"),
        "approvals ls": ("--status", "all"),
        "approvals show": (approval,),
        "approvals approve": (approval, "--by", "bob"),
        "approvals reject": (other, "--by", "bob", "--reason", "no"),
        "effects resolve": (parcel["run_id"], parcel["waiting_on"][0].partition(":")[2], "--not-done", "--by", "bob"),
        "runs cancel": (parcel["run_id"],),
        "budgets": (),
        "switches set": ("disable_tool:refund", "--reason", "test"),
        "switches ls": (),
        "switches clear": ("disable_tool:refund", "--reason", "test"),
        "policies show": (),
        "keys create": ("ops", "--role", "operator@default"),
        "keys ls": (),
        "journal verify": (),
        "journal erase": (greet["run_id"],),
        "routes": (),
        "tools": (),
        "doctor": (),
    }
    leaves = {path for path, _ in helps()} - GROUPS - ELSEWHERE
    assert {f"quarterdeck {name}" for name in commands} | {"quarterdeck run", "quarterdeck keys revoke"} == leaves
    told = {}
    for name, arguments in commands.items():
        ended = shop.read(*name.split(), *arguments, "--json")
        assert ended.returncode == 0, (name, ended.stderr)
        told[name] = [json.loads(line) for line in ended.stdout.splitlines()]
        assert ended.stderr == ""
    revoked = shop.json("keys", "revoke", told["keys create"][0]["prefix"])
    assert revoked["status"] == "revoked"
    assert [event["seq"] for event in told["runs events"]] == list(range(2, len(told["runs events"]) + 2))
    assert [row["status"] for row in told["runs ls"][0]["runs"]] == ["waiting", "waiting", "waiting", "succeeded"]
    shown = told["approvals show"][0]
    assert json.loads(shown["shown_text"]) == shown["shown"]
    assert shown["shown"]["arguments"] == {"cents": 500, "order_id": "plum-order"}
    covers = {"routes": ["support"], "tools": ["refund"], "tenants": ["*"], "runs": 2, "more": False, "doubt": ""}
    [switched], [cleared] = told["switches set"], told["switches clear"]
    assert switched == {"switch": "disable_tool:refund", "on": True, "version": switched["version"], "covers": covers}
    assert told["switches ls"] == [{"version": switched["version"], "switches": ["disable_tool:refund"]}]
    assert (cleared["on"], cleared["version"]) == (False, switched["version"] + 1)
    assert [tool["name"] for tool in told["tools"][0]["tools"]] == ["find_order", "refund", "ship"]
    assert told["tools"][0]["tools"][1]["input_schema"]["type"] == "object"
    assert {route["intent"] for route in told["routes"][0]["routes"]} == {"greet", "support", "parcel"}
    assert told["journal verify"][0]["runs"] == 4
