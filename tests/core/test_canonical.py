"""Canonical JSON is RFC 8785 to the byte, and nothing ambiguous gets in."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from quarterdeck.core.canonical import MAX_BYTES, MAX_DEPTH, MAX_INTEGER, Json, canonical, digest, parse
from quarterdeck.core.errors import UsageError

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def readable(value: Json) -> bool:
    """Whether a value's own canonical form may come in again: no NUL, no number that is only exact as a float."""
    if isinstance(value, str):
        return "\x00" not in value
    if isinstance(value, float):
        return not MAX_INTEGER < abs(value) < 1e21
    if isinstance(value, dict):
        return all(readable(key) and readable(item) for key, item in value.items())
    return not isinstance(value, list) or all(map(readable, value))


storable = values.filter(readable)


def same(one: object, two: object) -> bool:
    """Equal as JSON values: an integral float and its integer are one number, a boolean is none."""
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@given(values)
@example({"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "ö": 7})
@example({"a\x7f": "\x00\x1f\x7f\x80\u2028\u2029", "/": '\\"'})
@example([1e21, 1e-7, -0.0, 0.0, 5e-324, 1.7976931348623157e308, 333333333.33333329, 9007199254740991])
@example({"\uff5e": 1, "\U00010000": 2})
def test_canonical_equals_the_reference(value: Json) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(storable)
def test_what_was_canonical_is_read_back_and_stays_canonical(value: Json) -> None:
    data = canonical(value)
    again = parse(data)
    assert same(again, json.loads(json.dumps(value)))
    assert canonical(again) == data
    assert canonical(parse(data.decode())) == data


@given(storable, st.integers(0, 4))
def test_spelling_does_not_matter(value: Json, indent: int) -> None:
    spelled = json.dumps(value, indent=indent, ensure_ascii=indent % 2 == 0)
    assert canonical(parse(spelled)) == canonical(value)


@given(st.dictionaries(text, st.integers(-9, 9), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, int], chance: object) -> None:
    keys = list(value)
    chance.shuffle(keys)  # type: ignore[attr-defined]
    assert canonical({key: value[key] for key in keys}) == canonical(value)


def code(source: str | bytes, **limits: int) -> str:
    with pytest.raises(UsageError) as caught:
        parse(source, **limits)
    return caught.value.code


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(nested(MAX_DEPTH + 1), "json.too_deep", id="depth-of-arrays"),
        pytest.param(nested(MAX_DEPTH + 1, '{"a":', "}"), "json.too_deep", id="depth-of-objects"),
        pytest.param("[" * 100_000, "json.too_deep", id="depth-unclosed"),
        pytest.param('{"a":"\\"",' + '"b":' + nested(MAX_DEPTH) + "}", "json.too_deep", id="depth-behind-a-quote"),
        pytest.param("[" + "9" * 5_000 + "]", "json.number", id="digits"),
        pytest.param("9" * 100_000, "json.number", id="very-many-digits"),
        pytest.param("-" + "9" * 17, "json.number", id="digits-negative"),
        pytest.param(str(MAX_INTEGER + 1), "json.number", id="integer"),
        pytest.param(str(-MAX_INTEGER - 1), "json.number", id="integer-negative"),
        pytest.param("1e16", "json.number", id="integer-by-exponent"),
        pytest.param("-9007199254740992.0", "json.number", id="integer-by-point"),
        pytest.param("1e999", "json.number", id="overflow"),
        pytest.param("-1e999", "json.number", id="overflow-negative"),
        pytest.param("[Infinity]", "json.number", id="infinity"),
        pytest.param("-Infinity", "json.number", id="minus-infinity"),
        pytest.param('{"a": NaN}', "json.number", id="nan"),
        pytest.param('{"a": 1, "b": 2, "a": 1}', "json.duplicate_key", id="duplicate"),
        pytest.param('{"a": 1, "\\u0061": 2}', "json.duplicate_key", id="duplicate-by-escape"),
        pytest.param('[{"x": {"a": 1, "a": 2}}]', "json.duplicate_key", id="duplicate-inside"),
        pytest.param('"\\ud800"', "json.encoding", id="lone-surrogate-escaped"),
        pytest.param('{"\\udfff": 1}', "json.encoding", id="lone-surrogate-in-a-key"),
        pytest.param('"\\udc00\\ud800"', "json.encoding", id="surrogates-reversed"),
        pytest.param('"\ud800"', "json.encoding", id="lone-surrogate"),
        pytest.param(b'"\xed\xa0\x80"', "json.encoding", id="surrogate-in-utf-8"),
        pytest.param(b'"\xff"', "json.encoding", id="not-utf-8"),
        pytest.param(b'"\xc0\x80"', "json.encoding", id="overlong-nul"),
        pytest.param('"a\\u0000b"', "json.nul", id="nul-escaped"),
        pytest.param('{"\\u0000": 1}', "json.nul", id="nul-in-a-key"),
        pytest.param('["\x00"]', "json.invalid", id="nul"),
        pytest.param('"' + "a" * MAX_BYTES + '"', "json.too_large", id="size"),
        pytest.param(b'"' + b"a" * MAX_BYTES + b'"', "json.too_large", id="size-of-bytes"),
        pytest.param('"' + "€" * (MAX_BYTES // 3) + '"', "json.too_large", id="size-in-bytes-not-characters"),
        pytest.param("", "json.invalid", id="nothing"),
        pytest.param("{} {}", "json.invalid", id="two-values"),
        pytest.param("{'a': 1}", "json.invalid", id="quotes"),
        pytest.param('{"a": 1,}', "json.invalid", id="comma"),
        pytest.param('"line\nbreak"', "json.invalid", id="control-character"),
        pytest.param("\ufeff1", "json.invalid", id="byte-order-mark"),
        pytest.param("01", "json.invalid", id="leading-zero"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(source: str | bytes, expected: str) -> None:
    assert code(source) == expected


@pytest.mark.parametrize(
    ("source", "value"),
    [
        pytest.param(nested(3), [[[1]]], id="depth"),
        pytest.param(f'"{"[" * 500}"', "[" * 500, id="brackets-in-a-string"),
        pytest.param(str(MAX_INTEGER), MAX_INTEGER, id="integer"),
        pytest.param('"\\ud83d\\ude00"', "\U0001f600", id="surrogate-pair"),
        pytest.param(b'"\xe2\x82\xac"', "€", id="utf-8"),
        pytest.param("1.5", 1.5, id="float"),
        pytest.param("1e21", 1e21, id="large-float"),
        pytest.param(' {"a" : [ ] } ', {"a": []}, id="space"),
    ],
)
def test_what_is_plain_is_read(source: str | bytes, value: Json) -> None:
    assert parse(source) == value


def test_limits_are_exact() -> None:
    deepest: Json = parse(nested(MAX_DEPTH))
    assert canonical(deepest) == nested(MAX_DEPTH).encode()
    assert len(str(parse('"' + "a" * (MAX_BYTES - 2) + '"'))) == MAX_BYTES - 2
    assert code("[[1]]", max_depth=1) == "json.too_deep"
    assert code('"abc"', max_bytes=4) == "json.too_large"


@given(st.binary(max_size=60) | st.text(st.characters(), max_size=60))
def test_any_input_is_read_or_refused(source: str | bytes) -> None:
    try:
        value = parse(source)
    except UsageError as error:
        assert error.code.startswith("json.")
        return
    data = canonical(value)
    assert data == rfc8785.dumps(value)  # type: ignore[arg-type]
    assert canonical(parse(data)) == data


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**53, {1: 2}, {"a": object}, "\ud800", {"\ud800": 1}, b"bytes", [{"a": {1, 2}}]],
    ids=repr,
)
def test_what_is_not_json_has_no_canonical_form(value: object) -> None:
    with pytest.raises(UsageError) as caught:
        canonical(value)
    assert caught.value.code in {"json.unrepresentable", "json.encoding"}


def test_a_digest_depends_on_prefix_and_payload() -> None:
    seen = {digest(prefix, payload) for prefix in ("a\n", "b\n") for payload in (b"", b"1", b"2")}
    assert len(seen) == 6
    assert digest("a\n", b"1") == digest("a\n", b"1")
    assert all(len(value) == 64 for value in seen)
