"""The catalogues are complete, hold nothing that is gone, and say what the code says."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from quarterdeck.cli.outcome import MEANINGS
from quarterdeck.core import events
from quarterdeck.core.commit import Guard
from tests.docs import codes, generated, limits, pages

CODES = pages.text("docs/reference/codes.md")
EVENTS = pages.text("docs/reference/events.md")
LIMITS = pages.text("docs/reference/limits.md")


def catalogue(page: str) -> dict[str, list[str]]:
    """The rows of a catalogue of codes: code, as, meaning, what to do."""
    return {row[0].strip("`"): row for row in pages.rows(page) if len(row) == 4}


def differences(found: codes.Found, listed: dict[str, list[str]]) -> list[str]:
    """What is wrong with a catalogue."""
    wrong = [f"{code} is composed at run time: list its expansions" for code in sorted(found.unexpanded)]
    wrong += [f"{code} is not in the catalogue" for code in sorted(found.codes - listed.keys())]
    wrong += [f"{code} is in the catalogue, and nowhere in the code" for code in sorted(listed.keys() - found.codes)]
    for code, row in listed.items():
        named = {kind for kind in codes.ERRORS if kind in row[1]}
        raised = found.classes.get(code, set())
        wrong += [f"{code} is raised as {kind}" for kind in sorted(raised - named)]
        wrong += [f"{code} is never raised as {kind}" for kind in sorted(named - raised)]
        wrong += [f"{code} has no {what}" for what, cell in zip(("kind", "meaning", "advice"), row[1:], strict=True) if not cell]
    return wrong


def test_every_code_is_in_the_catalogue_and_every_entry_in_the_code() -> None:
    assert differences(codes.search(codes.sources()), catalogue(CODES)) == []


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        ("raise UsageError('deck.planted', 'no')\n", "deck.planted is not in the catalogue"),
        ("problem = 'schema.planted'\n", "schema.planted is not in the catalogue"),
        ("def f(dimension):\n    return _deny(f'planted.{dimension}')\n", "planted.{} is composed at run time"),
        ("TABLE = {'x': (Corrupt, 'journal.planted', 'no')}\n", "journal.planted is not in the catalogue"),
        ("raise Corrupt('route.unknown', 'no')\n", "route.unknown is raised as Corrupt"),
        ("Finish(status, reason, 'planted')\n", "planted is not in the catalogue"),
    ],
)
def test_a_planted_code_is_found(planted: str, message: str) -> None:
    texts = {**codes.sources(), "gate/planted.py": planted}
    assert any(message in each for each in differences(codes.search(texts), catalogue(CODES)))


def test_a_stale_entry_is_found() -> None:
    texts = {name: text.replace("evidence.missing", "evidence.absent") for name, text in codes.sources().items()}
    wrong = differences(codes.search(texts), catalogue(CODES))
    assert wrong == ["evidence.absent is not in the catalogue", "evidence.missing is in the catalogue, and nowhere in the code"]


def test_the_search_sees_nothing_in_comments_docstrings_events_and_file_names() -> None:
    quiet = '"""Not ``deck.planted``."""\nx = "run.admitted"\ny = "store.db"\nz = "a sentence with deck.planted in it"  # deck.planted\n'
    assert "deck.planted" not in codes.search({"gate/planted.py": quiet + "UsageError('deck.invalid', '')\n"}, ()).codes


def test_guards_that_reach_people_have_a_wildcard() -> None:
    assert {"admission.*", "store.*"} <= catalogue(CODES).keys()
    assert {"run", "poison"} <= set(get_args(Guard))


def test_codes_are_unique() -> None:
    rows = [row[0] for row in pages.rows(CODES) if len(row) == 4]
    assert len(rows) == len(set(rows))


def test_every_event_is_described_field_by_field() -> None:
    titles = [line.removeprefix("## ") for line in EVENTS.splitlines() if line.startswith("## ")]
    assert titles == list(events.KINDS)
    for kind, made in events.KINDS.items():
        named = [row[0].strip("`") for row in pages.rows(pages.section(EVENTS, kind))]
        fields = [field.name for field in msgspec.structs.fields(made) if field.name != "at_us"]
        assert named == fields, kind


def test_every_limit_is_listed_with_its_value() -> None:
    rows = [row for row in pages.rows(LIMITS) if len(row) == 4]
    stated = limits.stated(rows)
    assert len(stated) == len(rows)
    actual = {name: value for name, value in limits.constants().items() if name not in limits.NOT_LIMITS}
    assert stated == actual


def test_no_exception_from_the_limits_is_stale() -> None:
    assert limits.NOT_LIMITS.keys() <= limits.constants().keys()


def test_constants_are_found_however_they_are_declared() -> None:
    assert limits.assigned("MAX_A = 1\nMAX_B: Final = 2\n_MAX_C = 3\nmax_d = 4\n") == ["MAX_A", "MAX_B"]


@pytest.mark.parametrize("name", pages.names())
def test_generated_parts_are_fresh(name: str) -> None:
    assert pages.text(name) == pages.regenerated(pages.text(name), generated.parts()), "run python -m tests.docs.generated"


def test_every_generated_part_is_shown_somewhere() -> None:
    assert {part for name in pages.names() for part in pages.generated(pages.text(name))} == generated.PARTS.keys()


def test_the_command_lines_own_exit_codes_are_where_the_catalogue_sends_readers() -> None:
    page = pages.text("docs/cli.md")
    assert {int(row[0]) for row in pages.rows(pages.section(page, "Exit codes"))} == MEANINGS.keys()
