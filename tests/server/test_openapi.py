"""The description says what the door does: complete, well-formed, its examples accepted, its answers as declared."""

from __future__ import annotations

import json

import msgspec
import pytest

from quarterdeck.core.errors import OUTCOMES, Refused, Unauthenticated, UsageError
from quarterdeck.server import bodies, problems, reference
from quarterdeck.server.openapi import document, statuses
from quarterdeck.server.settings import Settings
from quarterdeck.server.table import TABLE
from tests.docs import codes, pages
from tests.server.stage import House

SPEC = json.loads(document())
GUIDE = pages.text("docs/guide/http.md")


def test_every_operation_is_described_once() -> None:
    described = {(verb.upper(), path): each for path, verbs in SPEC["paths"].items() for verb, each in verbs.items()}
    assert described.keys() == {(row.verb, row.path) for row in TABLE}
    names = [each["operationId"] for each in described.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere() -> None:
    text = document().decode()
    named = {part.partition('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}
    assert named <= SPEC["components"]["schemas"].keys()


@pytest.mark.parametrize("row", [row for row in TABLE if row.request is not None], ids=lambda row: row.name)
def test_every_example_is_accepted(row) -> None:
    assert row.example is not None
    msgspec.convert(row.example, row.request)


@pytest.mark.parametrize("row", [row for row in TABLE if row.request is not None], ids=lambda row: row.name)
def test_every_request_refuses_unknown_fields(row) -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(row.example | {"colour": "red"}, row.request)


def test_every_status_of_the_problems_is_one_that_there_is() -> None:
    assert set(problems.STATUS.values()) <= set(range(400, 600))
    for row in TABLE:
        assert all(400 <= status < 600 for status in statuses(row))


def test_a_problem_is_described_under_the_status_that_it_is_sent_with() -> None:
    kinds = {kind.__name__: kind for kind in OUTCOMES}
    raised = codes.search(codes.sources()).classes
    differ = {}
    for row in TABLE:
        described = {code: status for status, named in statuses(row).items() for code in named}
        for code in row.codes:
            sent = {problems.status_of(kinds[name](code, "")) for name in raised.get(code, ())}
            if sent and code in described and described[code] not in sent:
                differ[code] = (described[code], sent)
    assert differ == {}


def test_a_status_is_looked_up_by_code_then_family_then_class() -> None:
    assert problems.status_of(UsageError("json.too_large", "")) == 413
    assert problems.status_of(UsageError("json.new", "")) == 400
    assert problems.status_of(Unauthenticated("auth.missing", "")) == 401
    for kind, outcome in OUTCOMES.items():
        assert problems.status_of(kind("nothing.known", "")) == outcome.http_status

    class Narrower(Refused):
        pass

    assert problems.status_of(Narrower("nothing.known", "")) == 403


def test_no_problem_shows_more_than_small_values() -> None:
    problem = problems.problem_of(UsageError("x.y", "said", count=1, name="n", inner={"secret": 1}, error=ValueError("secret")))
    assert problem.info == {"count": 1, "name": "n"}


async def test_it_is_served_as_it_is_made(house: House) -> None:
    async with house.client(None) as client:
        answer = await client.get("/openapi.json")
    assert answer.content == document()
    assert answer.json()["openapi"] == "3.1.0"


def test_the_reference_is_what_the_description_says() -> None:
    written = pages.text("docs/reference/http.md")
    assert written == reference.page(), "renew it: python -m quarterdeck.server.reference > docs/reference/http.md"
    for row in TABLE:
        assert f"### `{row.verb} {row.path}`" in written
        assert all(f"`{code}`" in written for code in row.codes), row.name


def test_the_guide_lists_every_operation_with_its_right() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in pages.rows(pages.section(GUIDE, "Operations"))}
    assert rows == {f"{row.verb} {row.path}": "–" if row.action is None else row.action.value for row in TABLE}


def test_the_guide_lists_every_setting_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in pages.rows(pages.section(GUIDE, "Settings"))}
    assert rows == {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields_of(Settings())}


def test_the_guide_lists_every_status_of_its_own() -> None:
    rows = {row[0].strip("`"): int(row[1]) for row in pages.rows(pages.section(GUIDE, "Problems"))}
    assert rows == dict(problems.STATUS)


def fields_of(settings: Settings) -> list[tuple[str, object]]:
    return [(name, getattr(settings, name)) for name in settings.__struct_fields__]


def test_shown_bodies_hide_no_unknown_defaults() -> None:
    kinds = [kind for kind in vars(bodies).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    assert len({kind.__name__ for kind in kinds}) == len(kinds) > 20
