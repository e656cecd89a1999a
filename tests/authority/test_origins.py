"""Which values are trusted: what stands in trusted text, and nothing that only resembles it."""

from __future__ import annotations

import base64
import sys
from decimal import Decimal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.carrying import Carried
from quarterdeck.core.errors import UsageError
from quarterdeck.core.events import RunForked
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.origins import MAX_MARKS, Origins, Source, checked_pattern
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.engine.transcript import Transcript
from quarterdeck.tools.manifest import manifest_spec

UNTRUSTED = Labels(Integrity.UNTRUSTED)
REQUEST = (
    "Hi! Pay $1,200.50 (or 30 EUR) to alice@Example.com, 'Bob Stone' and Carol's team; IBAN GB29 NWBK 6016 1331 9268 19. "
    "See https://News.example/A/b and #general, file notes/todo.md, ticket T-17, by 2026-03-01."
)


@pytest.mark.parametrize(
    "value",
    [
        "alice@example.com",
        "alice@EXAMPLE.com",
        "Bob Stone",
        "Carol",
        "GB29NWBK60161331926819",
        "GB29 NWBK 6016 1331 9268 19",
        "https://news.example/A/b",
        "general",
        "#general",
        "notes/todo.md",
        "T-17",
        1200.5,
        "1200.50",
        30,
        ["alice@example.com", "Bob Stone"],
        "alice@example.com; Bob Stone",
        {"to": ["Carol"]},
        None,
        True,
        "",
    ],
)
def test_what_stands_in_the_request_is_trusted(value: object) -> None:
    origins = Origins()
    origins.ask(REQUEST)
    assert origins.holds(value)


@pytest.mark.parametrize(
    "value",
    [
        "eve@evil.example",
        "ALICE@example.com",
        "alice@example.co",
        "xalice@example.com",
        "alice@example.com.evil.example",
        "\u0430lice@example.com",
        "ali\u200bce@example.com",
        "\uff41lice@example.com",
        "alice%40example.com",
        "alice&#64;example.com",
        "GB29NWBK60161331926810",
        "https://news.example",
        "https://news.example/A/b?leak=1",
        "https://news.example.evil.example/A/b",
        "https://news.example/a/B",
        "notes/../todo.md",
        "*",
        "*.md",
        1200,
        1,
        2026,
        ["alice@example.com", "eve@evil.example"],
        "alice@example.com, eve@evil.example",
        "alice",
        "bob stone",
    ],
)
def test_what_only_resembles_it_is_not(value: object) -> None:
    origins = Origins()
    origins.ask(REQUEST)
    assert not origins.holds(value)


WORDS = st.from_regex(r"[a-z]{3,8}@[a-z]{3,8}\.(com|org)", fullmatch=True)


@given(WORDS, st.sampled_from(["b64", "hex", "percent", "html", "upper", "zero", "wide", "cyrillic", "split", "reverse"]))
def test_no_disguise_of_a_value_makes_it_trusted(value: str, disguise: str) -> None:
    shown = {
        "b64": base64.b64encode(value.encode()).decode(),
        "hex": value.encode().hex(),
        "percent": quote(value, safe=""),
        "html": value.replace("@", "&#64;"),
        "upper": value.upper(),
        "zero": value[:2] + "\u200b" + value[2:],
        "wide": chr(ord(value[0]) + 0xFEE0) + value[1:],
        "cyrillic": value.replace(value[0], {"a": "\u0430", "e": "\u0435", "o": "\u043e"}.get(value[0], "\u0456"), 1),
        "split": value[:3] + " " + value[3:],
        "reverse": value[::-1],
    }[disguise]
    plain, hidden = Origins(), Origins()
    plain.ask(f"write to {value} please")
    hidden.ask(f"write to {shown} please")
    assert plain.holds(value) and not plain.holds(shown)
    if shown != value:
        assert not hidden.holds(value)


@given(st.text(max_size=40), st.text(max_size=40))
def test_trust_never_raises_and_a_whole_text_is_trusted(text: str, other: str) -> None:
    origins = Origins()
    origins.trust(text)
    assert origins.holds(text)
    origins.holds(other)


def test_the_marks_are_bounded_and_what_does_not_fit_is_not_trusted() -> None:
    origins = Origins()
    for number in range(200):
        origins.trust(" ".join(f"w{number}x{place}" for place in range(200)))
    assert len(origins._marks) <= MAX_MARKS
    assert sys.getsizeof(origins._marks) < 4_000_000
    assert origins.holds("w0x0") and not origins.holds("w199x199")


def receipt(origins: Origins, payload: bytes, labels: Labels | None = None, asked: str | None = "{}", **named: object) -> None:
    origins.received(ReceiptStatus.SUCCEEDED, labels, payload, asked, **named)  # type: ignore[arg-type]


def test_a_trusted_result_is_trusted_and_an_untrusted_one_is_not() -> None:
    origins = Origins()
    receipt(origins, b'[{"mail":"ann@corp.example","n":7}]')
    receipt(origins, b'"eve@evil.example"', UNTRUSTED)
    assert origins.holds("ann@corp.example") and origins.holds(7)
    assert not origins.holds("eve@evil.example") and origins.tainted


def test_a_failure_vouches_for_nothing() -> None:
    origins = Origins()
    origins.received(ReceiptStatus.FAILED, None, b'{"error":"x","message":"eve@evil.example"}', "{}")
    assert not origins.holds("eve@evil.example")


def test_named_fields_of_an_untrusted_result_may_be_trusted() -> None:
    origins = Origins()
    receipt(
        origins, b'[{"id":"m7","body":"m8"}]', UNTRUSTED, source=Source("read_mail", EffectClass.READ, False, frozenset({"id"}))
    )
    assert origins.holds("m7") and not origins.holds("m8")


@pytest.mark.parametrize(
    ("asked", "believed"), [('{"name":"Ann"}', True), ('{"name":"Eve"}', False), (None, False), ("{", False)]
)
def test_once_tainted_a_trusted_source_is_believed_only_about_what_it_was_asked_in_trust(
    asked: str | None, believed: bool
) -> None:
    origins = Origins()
    origins.ask("Who is Ann?")
    receipt(origins, b'"injected"', UNTRUSTED)
    receipt(origins, b'"found@corp.example"', asked=asked)
    assert origins.holds("found@corp.example") is believed


def test_nothing_is_believed_after_something_untrusted_was_written() -> None:
    origins = Origins()
    receipt(origins, b'"injected"', UNTRUSTED)
    receipt(origins, b'"ok"', asked='{"text":"eve@evil.example"}', source=Source("note", EffectClass.WRITE))
    receipt(origins, b'["eve@evil.example"]', asked="{}")
    assert not origins.holds("eve@evil.example")


@pytest.mark.parametrize(
    ("done", "believed"), [((), True), (("find_contact",), True), (("save_note",), False), (("gone",), False)]
)
def test_what_was_written_in_a_history_that_was_cut_may_come_back(done: tuple[str, ...], believed: bool) -> None:
    specs = {
        name: manifest_spec({"name": name, "effect": effect, "source": "trusted"})
        for name, effect in (("find_contact", "read"), ("save_note", "write"))
    }
    transcript = Transcript()
    origins = Origins()
    transcript.watch(origins, specs.get)
    taken = Carried(labels=UNTRUSTED, succeeded_tools=done)
    transcript.trace(RunForked(0, "r1", 9, "h", "ann", carried=taken), b"{}")
    receipt(origins, b'["carol@corp.example"]', source=Source("find_contact", EffectClass.READ))
    assert origins.tainted and origins.holds("carol@corp.example") is believed


def test_no_number_has_the_hash_of_another() -> None:
    origins = Origins()
    origins.ask("pay 20")
    assert origins.holds(20) and origins.holds("20.0")
    near = "2305843029.213693951"
    assert hash(Decimal(near)) == hash(Decimal(20)) and 20 + sys.hash_info.modulus != 20
    for other in (near, 20 + sys.hash_info.modulus, 10**15, 1e300):
        assert not origins.holds(other)


def test_configured_values() -> None:
    origins = Origins(("*@corp.example", "https://api.corp.example/*", "ops"), tainted=True)
    assert origins.holds("anybody@corp.example") and origins.holds("https://api.corp.example/v1") and origins.holds("ops")
    assert not origins.holds("eve@evil.example/x@corp.example")
    assert not origins.holds("https://api.corp.example/../x") and not origins.holds("https://api.corp.example.evil.example/")


@pytest.mark.parametrize("pattern", ["*", "**", "*a*", "https://api*", "*com", "a*b", "x"])
def test_patterns_that_would_cover_too_much_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked_pattern(pattern)
    assert caught.value.code == "label.pattern"


def test_labels_join() -> None:
    assert UNTRUSTED.joined(Labels(confidentiality=Confidentiality.INTERNAL)).sensitive
    assert not UNTRUSTED.sensitive and UNTRUSTED.untrusted
