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
NAMES = (
    *(
        "runs",
        "approvals",
        "effects",
        "dlq",
        "switches",
        "policies",
        "policy",
        "outbox",
        "journal",
        "keys",
        "dependency",
        "account",
        "audit",
        "decisions",
    ),
)
GROUPS = {"quarterdeck", *(f"quarterdeck {name}" for name in NAMES)}
DEPENDENCY: dict[str, tuple[str, ...]] = {
    "dependency change": ("tool:refund", "--slots", "3", "--for", "5m"),
    "dependency restore": ("tool:refund",),
}
ELSEWHERE = {
    *("quarterdeck serve", "quarterdeck dev", "quarterdeck worker", "quarterdeck dependencies", "quarterdeck completion"),
    *("quarterdeck outbox show", "quarterdeck outbox requeue", "quarterdeck outbox drop", "quarterdeck policy declare"),
}
"""The first three run until they are told to stop: test_serving, tests/fleet; the next needs a server: test_places; the next prints a
script; the others need messages: test_cli_outbox; or PostgreSQL: tests/fleet/test_rules."""


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


def arguments_of(greet: dict, parcel: dict, support: dict, second: dict, approval: str, other: str) -> dict[str, tuple[str, ...]]:
    """Every command that a store answers, with arguments that it takes, in an order that makes sense."""
    return {
        **DEPENDENCY,
        "runs ls": (),
        "runs show": (support["run_id"], "--content"),
        "runs events": (greet["run_id"], "--after", "1"),
        "approvals ls": ("--status", "all"),
        "approvals show": (approval,),
        "approvals approve": (approval, "--by", "bob"),
        "approvals reject": (other, "--by", "bob", "--reason", "no"),
        "effects ls": (),
        "effects show": (parcel["run_id"], parcel["waiting_on"][0].partition(":")[2]),
        "oversight": (),
        "journal proof": (greet["run_id"],),
        "effects resolve": (parcel["run_id"], parcel["waiting_on"][0].partition(":")[2], "--not-done", "--by", "bob"),
        "runs signal": (second["run_id"], "news", "--input", "7"),
        "runs pause": (second["run_id"], "--reason", "x"),
        "runs resume": (second["run_id"], "--reason", "x"),
        "runs interrupt": (parcel["run_id"], "--input", '"hear"'),
        "runs escalate": (parcel["run_id"],),
        "runs budget": (parcel["run_id"], "--budget-turns", "20"),
        "account raise": ("all", "--budget-tokens", "9000000"),
        "runs fork": (greet["run_id"], "m0"),
        "runs replay": (greet["run_id"],),
        "runs diff": (greet["run_id"], greet["run_id"]),
        "runs cancel": (parcel["run_id"],),
        "dlq ls": (),
        "dlq show": (greet["run_id"],),
        "dlq requeue": ("--all",),
        "dlq drop": ("--all", "--reason", "test"),
        "workers": (),
        "budgets": (),
        "switches set": ("disable_tool:refund", "--reason", "test"),
        "switches preview": ("disable_tool:refund",),
        "switches ls": (),
        "switches prove": ("disable_tool:refund",),
        "switches clear": ("disable_tool:refund", "--reason", "test"),
        "switches history": (),
        "decisions mark": (support["run_id"], approval.rpartition("_")[2], "--reason", "no", "--by", "bob"),
        "policies show": (),
        "policy check": (),
        "policy test": ("cases.json",),
        "policy backtest": ("candidate.cedar",),
        "keys create": ("ops", "--role", "operator@default"),
        "keys ls": (),
        "audit ls": (),
        "audit verify": (),
        "audit export": (),
        "journal verify": (),
        "journal erase": (greet["run_id"],),
        "journal erasures": (),
        "outbox ls": (),
        "routes": (),
        "tools": (),
        "doctor": (),
    }


def test_every_command_speaks_json(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    asked = {intent: json.loads(shop("run", intent, "--json").stdout) for intent in ("greet", "support", "parcel")}
    second = json.loads(shop("run", "support", "--json").stdout)
    support, parcel, greet = asked["support"], asked["parcel"], asked["greet"]
    approval, other = (result["waiting_on"][0].partition(":")[2] for result in (support, second))
    commands = arguments_of(greet, parcel, support, second, approval, other)
    (tmp_path / "cases.json").write_text("[]")
    (tmp_path / "candidate.cedar").write_text("permit(principal, action, resource);")
    leaves = {path for path, _ in helps()} - GROUPS - ELSEWHERE
    beside = {"run", "keys revoke", "journal prove", "check", "approvals edit", "approvals respond"}
    beside |= {"effects done", "effects not-done", "effects retry"}
    assert {f"quarterdeck {name}" for name in {*commands, *beside}} == leaves
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
    proof = switched.pop("proof")
    assert switched == {"switch": "disable_tool:refund", "on": True, "version": switched["version"], "covers": covers}
    assert (proof["version"], proof["runs"], proof["in_flight"]) == (switched["version"], 2, 0)
    assert told["switches ls"][0]["switches"] == ["disable_tool:refund"]
    assert told["switches ls"][0]["details"][0]["reason"] == "test"
    assert told["switches prove"][0]["covered_intents_after"] == 0
    assert [row["action"] for row in told["switches history"][0]["history"]] == ["switch.set", "switch.cleared"]
    done = [row["action"] for row in told["audit ls"][0]["rows"]]
    orders = ["dependency.changed", "dependency.restored", "approval.approved", "approval.rejected", "effect.resolved"]
    orders += [f"run.{name}" for name in ("signal", "pause", "resume", "interrupt", "escalate", "budget")]
    orders += ["account.limited", "run.fork", "run.cancel"]
    orders += ["switch.set", "switch.reached"]
    assert done[2:] == [*orders, "switch.cleared", "decision.marked", "key.made"]
    assert (cleared["on"], cleared["version"]) == (False, switched["version"] + 1)
    assert [tool["name"] for tool in told["tools"][0]["tools"]] == ["find_order", "refund", "ship"]
    assert told["tools"][0]["tools"][1]["input_schema"]["type"] == "object"
    assert {route["intent"] for route in told["routes"][0]["routes"]} == {"greet", "support", "parcel"}
    assert told["journal verify"][0]["runs"] == 5
