"""Assembling a reply from chunks that compatible endpoints really send, and from ones that nobody should."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.models.deltas import MAX_CALLS, Assembly
from quarterdeck.ports.model import ModelReply, ToolCall, Usage
from tests.models.endpoint import call, chunk, usage


def assembled(*chunks: object, turn: int = 3) -> ModelReply:
    assembly = Assembly("small", turn)
    for one in chunks:
        list(assembly.feed(one))
    return assembly.reply()


def test_calls_without_ids_get_their_place_as_one() -> None:
    reply = assembled(chunk(call(0, "{}", "a")), chunk(call(1, "{}", "b"), "stop"))
    assert reply.calls == (ToolCall("c3-0", "a", "{}"), ToolCall("c3-1", "b", "{}"))
    assert reply.finish == "calls"


def test_a_name_that_is_repeated_in_every_delta_is_one_name() -> None:
    reply = assembled(chunk(call(0, '{"a"', "look", "x")), chunk(call(0, ":1}", "look", "x")))
    assert reply.calls == (ToolCall("x", "look", '{"a":1}'),)


def test_two_ids_under_one_index_are_two_calls() -> None:
    reply = assembled(chunk(call(0, "{}", "a", "x")), chunk(call(0, "[]", "b", "y")))
    assert reply.calls == (ToolCall("x", "a", "{}"), ToolCall("y", "b", "[]"))


def test_deltas_without_an_index_continue_the_latest_call() -> None:
    def piece(arguments: str, **more: object) -> dict[str, object]:
        return chunk({"tool_calls": [{"function": {"arguments": arguments, **more}, **({"id": more["name"]} if more else {})}]})

    reply = assembled(piece("{", name="a"), piece("}"), piece("[", name="b"), piece("]"))
    assert [(one.tool, one.arguments) for one in reply.calls] == [("a", "{}"), ("b", "[]")]


def test_only_the_first_choice_counts() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    assert assembled(chunk({"content": "yes"}, "stop"), other).text == "yes"
    assert assembled(chunk({"content": "yes"}, "stop"), other).finish == "stop"


def test_a_refusal_is_text_and_a_filter_is_told() -> None:
    reply = assembled(chunk({"refusal": "I may not."}), chunk(finish="content_filter"))
    assert (reply.text, reply.finish) == ("I may not.", "filter")


@pytest.mark.parametrize("counts", [usage(-1, 5), usage(5, -9, total=-1), {"usage": {"prompt_tokens": 5}}, {"usage": {}}])
def test_nonsense_counts_are_unknown(counts: dict[str, object]) -> None:
    assert assembled(chunk({"content": "x"}, "stop"), counts).usage == Usage(known=False)


def test_calls_are_limited() -> None:
    with pytest.raises(msgspec.ValidationError):
        assembled(*(chunk(call(index, "{}", "a")) for index in range(MAX_CALLS + 1)))


def test_a_surrogate_pair_split_between_deltas_is_joined_and_a_lone_one_replaced() -> None:
    reply = assembled(chunk({"content": "a\ud83d"}), chunk({"content": "\ude00 \ud800"}), chunk(call(0, '"\udfff"', "a")))
    assert reply.text == "a\U0001f600 \ufffd"
    assert reply.calls[0].arguments == '"\ufffd"'


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "tool_calls", "function", "arguments", "name", "id", "index", "usage"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(_json, max_size=4))
def test_whatever_comes_is_refused_or_can_be_stored(chunks: list[object]) -> None:
    assembly = Assembly("small", 0)
    try:
        for one in chunks:
            for text in assembly.feed(one):
                text.encode()
    except msgspec.ValidationError:
        return
    msgspec.json.encode(assembly.reply())
