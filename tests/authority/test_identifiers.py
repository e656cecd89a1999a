"""Identifiers of what a caller named, and which actions a caller asked for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errands import Deed, Errand, nouns
from quarterdeck.core.identifiers import MAX_IDENTIFIERS, Given, Identifiers
from quarterdeck.core.labels import Integrity, Labels
from quarterdeck.core.origins import MAX_WAITING, Origins, Source
from quarterdeck.core.records import named, records
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus

UNTRUSTED = Labels(Integrity.UNTRUSTED)
LIST = Source("list_files", EffectClass.READ, reaches=False)
FILES = [{"id": 4, "name": "plan.txt"}, {"id": 13, "name": "pay.txt"}]


def read(request: str, result: object, source: Source = LIST, asked: str = "{}") -> Origins:
    origins = Origins()
    origins.ask(request)
    origins.received(ReceiptStatus.SUCCEEDED, UNTRUSTED, msgspec.json.encode(result), asked, source)
    return origins


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("delete file 13", True),
        ("delete files 4, 7 and 13", True),
        ("delete #13", True),
        ("delete the one with id 13", True),
        ("delete number 13", True),
        ("what happened on June 13?", False),
        ("the 13 files", False),
        ("at 13:00 or 13.5 or 2013", False),
        ("ticket 13", False),
        ("file. 13", False),
        ("file 113", False),
        ("file 13-4", False),
    ],
)
def test_a_short_number_is_an_identifier_only_where_it_is_called_one(text: str, fits: bool) -> None:
    known = Identifiers()
    known.asked(text)
    assert (known.fits(13, "file_id", "delete_file") is not None) is fits
    assert known.fits("13 ", "file_id", "delete_file") is None


def test_the_identifier_of_what_the_caller_named_fits_what_it_is_about() -> None:
    origins = read("Delete plan.txt", FILES)
    assert origins.identifies(4, "file_id", "delete_file") is Given.NAMED
    assert origins.identifies("4", "id", "move_file") is Given.NAMED
    assert origins.identifies(13, "file_id", "delete_file") is None
    assert origins.identifies(4, "user_id", "ban_user") is None
    assert not origins.holds(4) and not origins.holds("plan.txt, pay.txt")


@pytest.mark.parametrize(
    ("result", "source", "asked"),
    [
        ([*FILES, {"id": 5, "name": "PLAN.txt"}], LIST, "{}"),
        ({"id": 1, "name": "x", "inside": FILES}, LIST, "{}"),
        (msgspec.json.encode(FILES).decode(), LIST, "{}"),
        (FILES, Source("get_page", EffectClass.READ, reaches=True), "{}"),
        (FILES, LIST, '{"text":"eve says plan.txt is 4"}'),
        (FILES, LIST, "{"),
        ([{"id": 4, "name": "plan.txt" + "x" * 200}], LIST, "{}"),
        ([{"id": "eve@evil.example", "name": "plan.txt"}], LIST, "{}"),
        ([{"owner": 4, "name": "plan.txt"}], LIST, "{}"),
        ([*FILES, {"name": "x" * MAX_WAITING}], LIST, "{}"),
    ],
)
def test_doubtful_records_identify_nothing(result: object, source: Source, asked: str) -> None:
    origins = read("Delete plan.txt", result, source, asked)
    assert origins.identifies(4, "file_id", "delete_file") is None
    assert origins.identifies("eve@evil.example", "file_id", "delete_file") is None


def test_the_only_record_that_a_search_for_the_callers_words_finds_is_meant() -> None:
    search = Source("search_files", EffectClass.READ, reaches=False)
    one = [{"id": 9, "name": "groceries-2026.txt"}]
    asked = '{"query":"grocery list"}'
    assert read("Add milk to my grocery list", one, search, asked).identifies(9, "file_id", "append_file")
    assert read("Add milk to my list", one, search, asked).identifies(9, "file_id", "append_file") is None
    assert read("Add milk to my grocery list", [*one, FILES[0]], search, asked).identifies(9, "file_id", "append_file") is None


def test_a_system_identifies_what_the_run_itself_made_but_not_what_it_was_told() -> None:
    make = Source("create_file", EffectClass.WRITE)
    origins = read("Make a file", {"id": 26, "name": "x"}, make, '{"name":"x"}')
    assert origins.identifies(26, "file_id", "share_file") is Given.TOLD
    assert read("Make a file", {"id": 26}, make, '{"name":"26"}').identifies(26, "file_id", "share_file") is None
    assert read("Make a file", [{"id": 26}], make, '{"name":"x"}').identifies(26, "file_id", "share_file") is None


def test_amounts_of_a_named_party_unless_the_caller_said_one() -> None:
    rows = [{"sender": "Acme", "amount": 12.5}, {"sender": "Eve", "amount": 99}]
    source = Source("list_payments", EffectClass.READ, reaches=False)
    assert read("Return to Acme what they sent", rows, source).owes(12.5)
    assert not read("Return to Acme what they sent", rows, source).owes(99)
    assert not read("Return to Acme 5 of what they sent", rows, source).owes(12.5)


def test_a_later_wish_names_nothing_that_was_read_before() -> None:
    origins = read("Look around", FILES)
    origins.ask("Delete plan.txt")
    assert origins.identifies(4, "file_id", "delete_file") is None


def test_identifiers_are_bounded() -> None:
    known = Identifiers()
    for number in range(MAX_IDENTIFIERS + 10):
        known.learn(100_000 + number, nouns("file_id"), Given.TOLD)
    assert known.fits(100_000, "file_id", "x") and not known.fits(100_000 + MAX_IDENTIFIERS + 1, "file_id", "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "amount", "x_id", ""]), inner, max_size=4)
    ),
)


@given(json_values)
def test_nothing_that_a_source_says_raises(value: object) -> None:
    list(records(value))
    assert set(named(value, lambda name: False, asked=False)) == set()
    assert read("Delete plan.txt", value).identifies(4, "file_id", "delete_file") is None


@pytest.mark.parametrize(
    ("text", "tool", "asks"),
    [
        ("Please cancel my appointment", "cancel_event", True),
        ("I cancelled it, now remove the event", "cancel_event", True),
        ("Remove Bob", "cancel_event", False),
        ("Refund Acme", "send_money", True),
        ("Email Bob", "send_message", True),
        ("Summarise my email", "send_message", False),
        ("Tell me the price", "send_message", False),
        ("Tell Bob the price", "send_message", True),
        ("What does 'please delete all files' mean?", "delete_file", False),
        ("Which hotel is better?", "reserve_hotel", False),
        ("Book a table", "reserve_hotel", False),
        ("Book a hotel", "reserve_hotel", True),
        ("Book a table", "cancel_booking", False),
        ("Buy 100 shares and show me the order", "cancel_order", False),
        ("Cancel the order", "cancel_order", True),
        ("Buy 100 shares", "place_order", True),
        ("Message Bob", "delete_message", False),
        ("Reply to Bob's comment", "delete_comment", False),
        ("Please frobnicate the widget", "frobnicate_widget", True),
        ("Look at the widget", "frobnicate_widget", False),
    ],
)
def test_which_actions_are_asked_for(text: str, tool: str, asks: bool) -> None:
    errand = Errand()
    errand.read(text)
    assert errand.asks(Deed.of(tool)) is asks and errand.understood


def test_words_that_nobody_knows_ask_for_nothing_that_could_be_told() -> None:
    errand = Errand()
    errand.read("Bitte überweise 20 an meinen Vermieter")
    assert not errand.understood
