"""From tools to one schema, and from constrained text back to a reply."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.models.structured import Unreadable, answer_deltas, proposal_schema, read, reply_name
from quarterdeck.ports.model import ModelReply, ToolCall, ToolDeclaration, Usage

USAGE = Usage(3, 4)


def tool(name: str, parameters: dict[str, object]) -> ToolDeclaration:
    return ToolDeclaration(name, "", msgspec.json.encode(parameters))


LOOK = tool("look", {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]})


def reading(text: str, *tools: ToolDeclaration, cut: bool = False) -> ModelReply:
    return read(text, tools or (LOOK,), cut=cut, call_id="c0-0", usage=USAGE, model="m")


def arguments_schema(parameters: dict[str, object]) -> dict[str, object]:
    schema = json.loads(proposal_schema((tool("t", parameters),)))
    found: dict[str, object] = schema["anyOf"][0]["properties"]["arguments"]
    return found


def test_one_branch_for_each_tool_and_one_for_the_answer() -> None:
    schema = json.loads(proposal_schema((LOOK, tool("find", {"type": "object"}))))
    assert [branch["properties"]["tool"]["const"] for branch in schema["anyOf"]] == ["look", "find", "reply"]
    assert all(branch["additionalProperties"] is False for branch in schema["anyOf"])


def test_a_tool_called_reply_does_not_shadow_the_answer() -> None:
    mine = tool("reply", {"type": "object"})
    assert reply_name((mine,)) == "reply_"
    assert reading('{"tool":"reply","arguments":{}}', mine).calls == (ToolCall("c0-0", "reply", "{}"),)
    assert reading('{"tool":"reply_","arguments":{"text":"hi"}}', mine).text == "hi"


def test_what_an_engine_might_not_understand_is_left_out() -> None:
    reduced = arguments_schema(
        {
            "title": "T",
            "type": "object",
            "properties": {
                "a": {"type": "string", "pattern": "^(?=x)", "description": "d"},
                "b": {"type": "string", "format": "hostname-ish", "default": "z"},
                "c": {"oneOf": [{"type": "integer", "multipleOf": 2}, {"not": {}, "type": "null"}]},
                "d": {"type": "string", "pattern": "^[A-Z]$"},
            },
            "patternProperties": {"^x": {}},
            "required": ["a"],
        }
    )
    assert reduced == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "a": {"type": "string", "maxLength": 200},
            "b": {"type": "string", "maxLength": 200},
            "c": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "d": {"type": "string", "pattern": "^[A-Z]$"},
        },
        "required": ["a"],
    }


def test_text_and_lists_are_bounded_but_never_below_what_the_tool_demands() -> None:
    reduced = arguments_schema(
        {
            "type": "object",
            "properties": {
                "short": {"type": "string", "maxLength": 5},
                "long": {"type": "string", "minLength": 500},
                "null": {"type": ["string", "null"]},
                "list": {"type": "array", "items": {"type": "string"}},
                "many": {"type": "array", "minItems": 20},
            },
        }
    )["properties"]
    assert reduced == {
        "short": {"type": "string", "maxLength": 5},
        "long": {"type": "string", "minLength": 500, "maxLength": 500},
        "null": {"type": ["string", "null"], "maxLength": 200},
        "list": {"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": 8},
        "many": {"type": "array", "minItems": 20, "maxItems": 20},
    }


def test_definitions_of_several_tools_do_not_collide() -> None:
    def with_definition(kind: str) -> dict[str, object]:
        return {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": kind}}}

    schema = json.loads(proposal_schema((tool("a", with_definition("integer")), tool("b", with_definition("boolean")))))
    for branch, kind in zip(schema["anyOf"], ("integer", "boolean"), strict=False):
        reference = branch["properties"]["arguments"]["properties"]["x"]["$ref"]
        assert schema["$defs"][reference.removeprefix("#/$defs/")] == {"type": kind}


def test_arguments_leave_word_for_word() -> None:
    reply = reading('{"tool":"look","arguments":{"id": 7,  "id": 8}}')
    assert reply == ModelReply("", (ToolCall("c0-0", "look", '{"id": 7,  "id": 8}'),), USAGE, "calls", "m")


def test_a_cut_proposal_is_given_on_as_far_as_it_goes() -> None:
    assert reading('{"tool":"look","arguments":{"id":', cut=True).calls == (ToolCall("c0-0", "look", '{"id":'),)
    assert reading('{"tool":"look","arguments":{"id":', cut=True).finish == "length"
    answer = reading('{"tool":"reply","arguments":{"text":"half \\"of\\" it \\u00', cut=True)
    assert (answer.text, answer.finish) == ('half "of" it ', "length")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think that I should look.",
        "[]",
        '{"tool":"look"}',
        '{"tool":"other","arguments":{}}',
        '{"tool":"look","arguments":{},"more":1}',
        '{"tool":7,"arguments":{}}',
        '{"tool":"reply","arguments":{}}',
        '{"tool":"look","arguments":{}} and more',
        '{"tool":"look","arguments":',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        reading(text)


@given(st.text(max_size=60), st.lists(st.integers(1, 9), max_size=40), st.booleans())
def test_streamed_text_is_the_text(text: str, cuts: list[int], ascii_only: bool) -> None:
    whole = json.dumps({"tool": "reply", "arguments": {"text": text}}, ensure_ascii=ascii_only)
    deltas: list[str] = []
    sink = answer_deltas((LOOK,), deltas.append)
    rest = whole
    for size in [*cuts, len(whole)]:
        sink(rest[:size])
        rest = rest[size:]
    assert "".join(deltas) == text == reading(whole).text


def test_calls_stream_nothing() -> None:
    deltas: list[str] = []
    answer_deltas((LOOK,), deltas.append)('{"tool":"look","arguments":{"text":"x"}}')
    assert deltas == []
