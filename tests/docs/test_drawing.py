"""The drawing is of this house: rooms, invariants, suites, figures and words are those of the code."""

from __future__ import annotations

import ast
import re
import tomllib
from enum import StrEnum

import pytest

import quarterdeck
from quarterdeck.core import identity, labels, vocabulary
from quarterdeck.testing.conformance import CHECKS
from tests.docs import pages

ARCHITECTURE = pages.text("docs/architecture.md")
PROOF = pages.text("docs/proof.md")
GLOSSARY = pages.text("docs/glossary.md")
INVARIANTS = [f"I{number}" for number in range(1, 21)]
STATES = ("kept", "partly", "not yet")


def literals(folder: str, *calls: str) -> set[str]:
    """The first argument of every call of these names below a folder; ``*`` for each part that is filled in at run time."""
    found = set()
    for path in sorted((pages.ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in calls and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.add(first.value)
                elif isinstance(first, ast.JoinedStr):
                    found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in first.values))
    return found


def suites() -> set[str]:
    return literals("proof", "Suite", "_suite", "suite_of")


def matches(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".+"), name) is not None


def test_every_room_is_drawn_and_every_drawn_room_is_there() -> None:
    drawn = [row[0].strip("`") for row in pages.rows(pages.section(ARCHITECTURE, "The house"))]
    there = {path.parent.name for path in pages.PACKAGE.glob("*/__init__.py")}
    assert sorted(drawn) == sorted(there)


def test_the_import_order_is_the_one_that_the_build_keeps() -> None:
    contracts = tomllib.loads(pages.text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    order = " → ".join(layers)
    assert order in ARCHITECTURE
    assert order.replace("\n", " ") in " ".join(pages.text("docs/adr/0003-house-layout.md").split())


def test_the_append_contract_has_ten_points_that_the_conformance_suite_knows() -> None:
    rows = {row[0]: row for row in pages.rows(pages.section(ARCHITECTURE, "The append contract"))}
    assert list(rows) == [str(number) for number in range(1, 11)]
    checked = {str(check.point) for check in CHECKS}
    assert {number for number, row in rows.items() if "`tests/conformance" in row[3]} == checked


def test_every_invariant_has_its_row() -> None:
    rows = pages.rows(pages.section(ARCHITECTURE, "Invariants"))
    assert [row[0] for row in rows] == INVARIANTS
    for number, _, state, kept_by, shown_by in rows:
        assert state.startswith(STATES), number
        assert (state == "not yet") == (kept_by == shown_by == "–"), number


def test_what_conformance_shows_is_said_to_be_shown_by_it() -> None:
    shown = {row[0] for row in pages.rows(pages.section(ARCHITECTURE, "Invariants")) if "`tests/conformance" in row[4]}
    of_checks = {invariant for check in CHECKS for invariant in check.invariants}
    assert shown <= of_checks


def test_what_the_simulator_watches_is_said() -> None:
    sentence = re.search(r"simulator\.py`\) watches (.+?) at once", ARCHITECTURE)
    assert sentence
    said: set[str] = set()
    for part in sentence[1].replace(" and ", ", ").split(", "):
        first, _, last = part.partition("–")
        numbers = [int(end.strip("I")) for end in (first, last or first)]
        said.update(f"I{number}" for number in range(numbers[0], numbers[1] + 1))
    testing = pages.PACKAGE / "testing"
    watched: set[str] = set()
    for name in ("oracle.py", "verdict.py", "watchedventures.py", "letters.py"):
        watched.update(re.findall(r'"(I\d+)"', (testing / name).read_text(encoding="utf-8")))
    assert said == watched


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/proof.md"])
def test_suites_that_are_named_exist(name: str) -> None:
    known = suites()
    named = set(re.findall(r"--only ([\w-]+)", pages.text(name))) - {"gate"}
    if name == "docs/architecture.md":
        columns = [
            *pages.rows(pages.section(ARCHITECTURE, "Invariants")),
            *pages.rows(pages.section(ARCHITECTURE, "The append contract")),
        ]
        named = {span for row in columns for span in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", row[-1])}
        assert named
    assert named - known == set()


def test_every_suite_has_a_row_in_the_tables_of_proof() -> None:
    rows = {row[0].strip("`") for row in pages.rows(pages.section(PROOF, "make proof"))}
    assert rows == suites(), "docs/proof.md has one row per suite of proof/"


def test_every_figure_has_a_row_in_the_tables_of_proof() -> None:
    rows = {row[0].strip("`") for row in pages.rows(pages.section(PROOF, "make bench"))}
    figures = literals("benchmarks", "Figure")
    assert figures
    assert {pattern for pattern in figures if not any(matches(pattern, row) for row in rows)} == set()
    assert {row for row in rows if not any(matches(pattern, row) for pattern in figures)} == set()


def test_every_public_name_is_in_the_glossary() -> None:
    terms = set(pages.spans(GLOSSARY))
    assert set(quarterdeck.__all__) - terms == set()


def test_every_closed_word_is_in_the_glossary() -> None:
    terms = set(pages.spans(GLOSSARY))
    kinds = [kind for room in (vocabulary, labels, identity) for kind in vars(room).values() if isinstance(kind, type)]
    words = {word.value for kind in kinds if issubclass(kind, StrEnum) for word in kind}
    assert len(words) > 30
    assert words - terms == set()


def test_every_word_is_explained_once() -> None:
    words = [row[0] for row in pages.rows(GLOSSARY)]
    assert len(words) == len(set(words))


def test_every_decision_is_in_the_index() -> None:
    listed = set(pages.links(pages.text("docs/adr/README.md")))
    there = {path.name for path in (pages.ROOT / "docs" / "adr").glob("0*.md")}
    assert listed == there


def test_every_direct_dependency_is_in_the_decision_about_libraries() -> None:
    project = tomllib.loads(pages.text("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["local"]]
    decision = pages.text("docs/adr/0006-libraries.md")
    assert [name for name in (re.split(r"[><=;]", each)[0] for each in wanted) if name not in decision] == []
