"""Interrupt, escalate, fork, replay and diff, from the command line: beside a store, and through a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from quarterdeck.cli.outcome import run_command

APP = '''
from quarterdeck import Context, Quarterdeck
from quarterdeck.testing import ScriptedModel

deck = Quarterdeck("steered")

@deck.tool(effect="irreversible")
async def pay(to: str) -> str:
    """Pay somebody."""
    return f"paid {to}"

def talk(said):
    if any(one.role == "user" and "stop" in one.content for one in said):
        return "I stop"
    return [("pay", {"to": "bob"})] if said[-1].role != "tool" else "done"

clerk = deck.agent("clerk", model=ScriptedModel(talk), tools=[pay], autonomy="executes_after_approval")
deck.route("pay", clerk, owner="desk", escalation=["lead"])

async def quote(city: str) -> int:
    return len(city)

@deck.workflow("trip")
async def trip(ctx: Context, city: str) -> int:
    first = await ctx.step(quote, city, key="quote")
    return first + await ctx.step(quote, city, key="again")
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "steered.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("QUARTERDECK_APP", "steered:deck")
    monkeypatch.setenv("QUARTERDECK_STORE", "sqlite:///a.db")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    assert run_command([*arguments, "--json"]) == code
    return msgspec.json.decode(capsys.readouterr().out.strip().splitlines()[-1], type=dict[str, object])


def test_a_waiting_run_is_told_and_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(told(capsys, "run", "pay", "--input", '"go"', code=13)["run_id"])
    assert told(capsys, "runs", "escalate", run)["owner"] == "lead"
    told(capsys, "runs", "interrupt", run, "--input", '"stop now"', "--by", "ada")
    from steered import deck  # type: ignore[import-not-found]

    async def on() -> str:
        async with deck.start("a.db") as runtime:
            return str(await runtime.handle(run).result(30))

    assert asyncio.run(on()) == "I stop"
    kinds = [msgspec.json.decode(line)["kind"] for line in _lines(capsys, "runs", "events", run)]
    assert "run.interrupted" in kinds


def _lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run_command([*arguments, "--json"]) == 0
    return capsys.readouterr().out.strip().splitlines()


def test_a_fork_a_replay_and_a_diff(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(told(capsys, "run", "trip", "--input", '{"city": "Rome"}')["run_id"])
    assert told(capsys, "runs", "replay", run)["same"] is True
    made = str(told(capsys, "runs", "fork", run, "quote", "--result", "5")["run_id"])
    from steered import deck

    async def on() -> str:
        async with deck.start("a.db") as runtime:
            return str(await runtime.handle(made).result(30))

    assert asyncio.run(on()) == "9"
    found = told(capsys, "runs", "diff", run, made, code=1)
    assert found["first"] == 0
    assert told(capsys, "runs", "diff", run, run)["first"] is None
    assert run_command(["runs", "diff", run, made]) == 1
    assert "the first difference: quote" in capsys.readouterr().out
    (here / "steered.py").write_text(APP.replace('key="again"', 'key="other"'))
    __import__("sys").modules.pop("steered")
    found = told(capsys, "runs", "replay", run, code=1)
    assert [(one["kind"], one["call"]) for one in found["differences"]] == [("step", "again")]  # type: ignore[union-attr,index]


def test_a_step_that_is_not_there_is_said_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(told(capsys, "run", "trip", "--input", '{"city": "Rome"}')["run_id"])
    assert run_command(["runs", "fork", run, "nowhere"]) == 2
    assert "fork.step" in capsys.readouterr().err
