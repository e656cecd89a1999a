"""Policies before they are in force: checked, tested with cases, and against what was recorded. Through the command line too."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from quarterdeck import Budget, Quarterdeck, UsageError
from quarterdeck.app.policies import Case, backtest, engine_of, read_cases, run_cases
from quarterdeck.store.postgres import open_store
from quarterdeck.testing import ScriptedModel
from tests.doors.cli_shop import Shop

PERMIT = "permit(principal, action, resource);\n"
LARGE = '@reason("refund.large") @outcome("ask") forbid(principal, action in Action::"tool", resource == Tool::"refund") when '


def shop() -> Quarterdeck:
    deck = Quarterdeck("shop")

    @deck.tool(effect="read", source="untrusted", sensitivity="internal")
    async def read_mail() -> str:
        """Read."""
        return "eve"

    @deck.tool(effect="irreversible", cost="0.01")
    async def refund(customer: str, amount: int) -> str:
        """Pay."""
        return "paid"

    turns = [[("refund", {"customer": "ann", "amount": 5})], [("refund", {"customer": "ann", "amount": 70})]]
    mail = [[("read_mail", {})], [("refund", {"customer": "eve", "amount": 1})], "done"]
    deck.agent("clerk", model=ScriptedModel([*turns, "done"]), tools=[refund], budget=Budget(turns=9))
    deck.agent("mails", model=ScriptedModel(mail), tools=[read_mail, refund], budget=Budget(turns=9))  # type: ignore[arg-type]
    deck.policy(PERMIT)
    return deck


async def test_a_backtest_tells_what_would_have_been_decided_otherwise(tmp_path: Path) -> None:
    deck = shop()
    async with deck.start(tmp_path / "s.db") as rt:
        for route in ("clerk", "clerk", "mails"):
            await (await rt.submit(route, "pay")).rest()
        candidate = engine_of(deck, {"c": PERMIT + LARGE + "{ context.args.amount > 50 };"})
        found = backtest(rt.insights, deck, candidate, last=100)
        assert (found.runs, found.unreadable, found.newly) == (3, 0, {"ask": 2})
        assert found.cost_microusd == {"ask": 20_000} and found.amounts == {"ask": {"amount": "140"}}
        assert {(one.name, one.before, one.after, one.reasons) for one in found.changes} == {
            ("refund", "allow", "ask", ("refund.large",))
        }
        crossing = engine_of(deck, {"c": PERMIT + LARGE + "{ context.labels.crossing };"})
        found = backtest(rt.insights, deck, crossing, last=100)
        assert [one.amounts for one in found.changes] == [{"amount": "1"}]
        assert backtest(rt.insights, deck, candidate, last=1).runs == 1
        assert backtest(rt.insights, deck, engine_of(deck), last=100).newly == {}
        stopped = next(row.run_id for row in rt.runs() if row.route == "clerk")
        await rt.erase(stopped)
        assert backtest(rt.insights, deck, candidate, last=100).unreadable == 1


def test_cases_say_what_is_expected_and_what_was_found(tmp_path: Path) -> None:
    deck = shop()
    engine = engine_of(deck, {"c": PERMIT + LARGE + "{ context.args.amount > 50 };"})
    large = Case("large", "clerk", "ask", tool="refund", arguments={"customer": "a", "amount": 51}, reasons=("refund.large",))
    wrong = Case("small", "clerk", "ask", tool="refund", arguments={"customer": "a", "amount": 50})
    reply = Case("reply", "clerk", "allow", action="reply", context={"spent": {"tokens": 9}})
    assert [one.passed for one in run_cases(engine, deck, [large, wrong, reply])] == [True, False, True]


@pytest.mark.parametrize("text", ["{", "[{}]", '[{"name":"x","agent":"a","expect":"deny"}]'])
def test_a_bad_file_of_cases_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_cases(tmp_path / "cases.json")
    assert caught.value.code == "policy.cases"


def test_the_command_line_checks_tests_and_backtests(tmp_path: Path) -> None:
    there = Shop(tmp_path)
    good, bad, cases = tmp_path / "good.cedar", tmp_path / "bad.cedar", tmp_path / "cases.json"
    good.write_text(PERMIT + LARGE + "{ context.args.cents > 100 };")
    bad.write_text(PERMIT + LARGE + "{ context.args.cent > 100 };")
    cases.write_text(
        json.dumps(
            [
                {
                    "name": "large",
                    "agent": "support",
                    "tool": "refund",
                    "arguments": {"order_id": "A", "cents": 500},
                    "expect": "ask",
                }
            ]
        )
    )
    assert there.json("policy", "check")["valid"] and there.json("policy", "check", str(good))["valid"]
    refused = there.read("policy", "check", str(bad), "--json")
    assert refused.returncode == 2 and "cent" in json.loads(refused.stdout)["problems"][0]
    assert there.read("policy", "test", str(cases), "--candidate", str(good)).returncode == 0
    assert there.read("policy", "test", str(cases)).returncode == 1
    there.read("run", "support", "--user", "ann")
    found = there.json("policy", "backtest", str(good), "--last", "5")
    assert found["runs"] == 1 and found["newly"] == {"ask": 1}
    assert "newly ask: 1" in there.read("policy", "backtest", str(good)).stdout


async def test_a_backtest_of_runs_on_postgresql(database: str, tmp_path: Path) -> None:
    """Through the command line, at the store itself: the same findings as on SQLite, and nothing is written."""
    deck = shop()
    async with deck.start(open_store=open_store(database)) as rt:
        for route in ("clerk", "clerk", "mails"):
            await (await rt.submit(route, "pay")).rest()
        before = [(row.run_id, row.seq, row.head) for row in rt.runs()]
    (tmp_path / "candidate.cedar").write_text(PERMIT + LARGE + "{ context.args.amount > 50 };")
    said = conninfo_to_dict(database)
    store = f"postgresql://{said.pop('user')}@/{said.pop('dbname')}?{urlencode(said)}"
    app = "tests.policy.test_trying:deck"
    words = ["policy", "backtest", str(tmp_path / "candidate.cedar"), "--app", app, "--store", store, "--json"]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "quarterdeck.cli", *words], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert (found["runs"], found["unreadable"], found["newly"]) == (3, 0, {"ask": 2})
    assert found["cost_microusd"] == {"ask": 20_000} and found["amounts"] == {"ask": {"amount": "140"}}
    async with deck.start(open_store=open_store(database)) as rt:
        assert [(row.run_id, row.seq, row.head) for row in rt.runs()] == before


def __getattr__(name: str) -> Quarterdeck:
    """The deck, for the command line."""
    if name == "deck":
        return shop()
    raise AttributeError(name)
