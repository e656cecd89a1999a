"""The runner of the long suites: its account, its exit code, and that each way of failing is one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from proof.__main__ import main, suites
from proof.result import Suite, SuiteResult


def result(*, trials: int = 3, failures: int = 0, caught: int = 2) -> SuiteResult:
    return SuiteResult("made-up", trials, failures, 2, caught, 0.1, {"figure": 1})


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("proof_made_up")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_account_has_the_published_shape(offered: ModuleType, tmp_path: Path) -> None:
    asked: list[bool] = []

    def run(quick: bool) -> SuiteResult:
        asked.append(quick)
        return result()

    offered.SUITES = (Suite("made-up", run),)  # type: ignore[attr-defined]
    out = tmp_path / "build" / "proof.json"
    assert main(["--quick", "--out", str(out)], [offered.__name__]) == 0
    account = msgspec.json.decode(out.read_bytes())
    assert set(account) == {"commit", "suites"}
    assert account["suites"] == [{
        "name": "made-up", "trials": 3, "failures": 0, "mutants_planted": 2, "mutants_caught": 2, "minutes": 0.1,
        "detail": {"figure": 1},
    }]  # fmt: skip
    assert asked == [True]


@pytest.mark.parametrize("bad", [result(failures=1), result(caught=1), result(trials=0)])
def test_a_failure_an_uncaught_bug_and_no_trials_are_failures(offered: ModuleType, tmp_path: Path, bad: SuiteResult) -> None:
    good = Suite("good", lambda _: result())
    offered.SUITES = (Suite("bad", lambda _: bad), good)  # type: ignore[attr-defined]
    assert main(["--out", str(tmp_path / "proof.json")], [offered.__name__]) == 1
    assert main(["--only", "good", "--out", str(tmp_path / "proof.json")], [offered.__name__]) == 0


def test_an_unknown_name_is_no_success(offered: ModuleType, tmp_path: Path) -> None:
    offered.SUITES = (Suite("good", lambda _: result()),)  # type: ignore[attr-defined]
    assert main(["--only", "no-such-suite", "--out", str(tmp_path / "proof.json")], [offered.__name__]) == 2
    assert not (tmp_path / "proof.json").exists()


def test_two_suites_of_one_name_are_refused(offered: ModuleType) -> None:
    offered.SUITES = (Suite("good", lambda _: result()), Suite("good", lambda _: result()))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="good"):
        suites([offered.__name__])


def test_the_storage_suites_are_registered() -> None:
    names = [suite.name for suite in suites(["proof.storage"])]
    assert names == ["sqlite-powercut", "sqlite-ioerr", "sqlite-full-disk", "sqlite-unknown-commit", "sqlite-owner-kill"]
