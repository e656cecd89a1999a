"""The parser of event streams: however bytes are cut, the messages are the same, and they are those of another parser."""

from __future__ import annotations

from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.client import ClientError
from quarterdeck.client.sse import Message, Parser

ENDS = st.sampled_from(["\n", "\r", "\r\n"])
VALUES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["data", "event", "id", "retry", "", "dat", "datas", "Data", "unknown"])
FIELDS = st.builds(lambda name, colon, value: name + colon + value, NAMES, st.sampled_from([":", ": ", ":  "]), VALUES)
LINES = st.one_of(FIELDS, st.sampled_from(["data", "event", "id", "retry: 250", ":", ": comment", ""]), VALUES)
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=24).map(lambda pairs: "".join(line + end for line, end in pairs))


def whole(stream: bytes) -> list[Message]:
    return Parser().feed(stream)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in pairwise(places)]


@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cutting_gives_the_same_messages(text: str, cuts: list[int]) -> None:
    stream = text.encode()
    parser = Parser()
    assert [message for piece in pieces(stream, cuts) for message in parser.feed(piece)] == whole(stream)


@given(STREAMS)
def test_byte_by_byte_gives_the_same_messages(text: str) -> None:
    stream, parser = text.encode(), Parser()
    assert [message for byte in stream for message in parser.feed(bytes([byte]))] == whole(stream)


@given(st.lists(st.tuples(st.lists(LINES.filter(bool), max_size=5), VALUES), max_size=6), ENDS)
def test_another_parser_reads_the_same(blocks: list[tuple[list[str], str]], end: str) -> None:
    text = "".join(end.join([*lines, f"data: {value}", "", ""]) for lines, value in blocks)
    response = httpx2.Response(
        200, headers={"content-type": "text/event-stream"}, content=text.encode(), request=httpx2.Request("GET", "http://x")
    )
    theirs = [(each.data, each.event, each.id) for each in httpx2.EventSource(response)]
    ours, last = [], ""
    for message in whole(text.encode()):
        last = message.id if message.id is not None else last
        ours.append((message.data, message.event, last))
    assert ours == [(data, event, id_) for data, event, id_ in theirs]


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        (b"data: one\ndata: two\n\n", [Message("one\ntwo")]),
        (b"data\n\n", [Message("")]),
        (b"data:  two spaces\n\n", [Message(" two spaces")]),
        (b"\xef\xbb\xbfdata: marked\n\n", [Message("marked")]),
        (b"data: x\n\n\xef\xbb\xbfdata: not marked here\n\n", [Message("x")]),
        (b": comment\n\n:\n\n", []),
        (b"event: lonely\nid: 4\n\ndata: x\n\n", [Message("x")]),
        (b"id: 1\ndata: x\n\ndata: y\n\n", [Message("x", id="1"), Message("y")]),
        (b"id: 1\0\ndata: x\n\n", [Message("x")]),
        (b"id\ndata: x\n\n", [Message("x", id="")]),
        (b"retry: 15\ndata: x\n\n", [Message("x", retry_ms=15)]),
        (b"retry: -1\nretry: 1.5\nretry: \xd9\xa3\ndata: x\n\n", [Message("x")]),
        (b"retry: 1234567890\ndata: x\n\n", [Message("x")]),
        (b"data: unfinished\n", []),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", [Message("a"), Message("b"), Message("c")]),
        ("data: \u2028\u0085\x0b\n\n".encode(), [Message("\u2028\u0085\x0b")]),
    ],
)
def test_the_standard(stream: bytes, messages: list[Message]) -> None:
    assert whole(stream) == messages


def test_a_message_that_ends_with_cr_does_not_wait_for_more() -> None:
    parser = Parser()
    assert parser.feed(b"data: x\r\n\r") == [Message("x")]
    assert parser.feed(b"") == []
    assert parser.feed(b"\ndata: y\n\n") == [Message("y")]


def test_what_is_no_utf8_is_an_error_also_at_a_seam() -> None:
    parser = Parser()
    assert parser.feed("data: é".encode()[:-1]) == []
    assert parser.feed("é\n\n".encode()[1:]) == [Message("é")]
    with pytest.raises(ClientError) as caught:
        parser.feed(b"data: \xff\n")
    assert caught.value.code == "client.stream"


def test_lines_and_messages_have_a_largest_size() -> None:
    for size, fits in ((10, True), (11, False)):
        for step in (1, 4, 100):
            parser, line = Parser(max_line_bytes=10), b"data:" + b"x" * (size - 5)
            try:
                for start in range(0, size, step):
                    parser.feed(line[start : start + step])
            except ClientError as error:
                assert (fits, error.code) == (False, "client.stream")
            else:
                assert fits
    parser = Parser(max_message_bytes=20)
    parser.feed(b"data: 1234\n" * 2 + b"\n")
    parser.feed(b": comments are not kept, however many there are\n" * 10)
    with pytest.raises(ClientError):
        parser.feed(b"data: 1234\n" * 3)


def test_it_knows_what_is_unfinished() -> None:
    parser = Parser()
    assert not parser.unfinished
    for piece, unfinished in ((b"da", True), (b"ta: x\n", True), (b"\n", False), (b":", True), (b"\r", False), (b"\n", False)):
        parser.feed(piece)
        assert parser.unfinished is unfinished
