"""One JSON Schema for everything that a small model may say, and the way back from its text to a reply.

The schema has one branch for each tool, ``{"tool": <its name>, "arguments": <its parameters>}``, and one for a final answer,
``{"tool": "reply", "arguments": {"text": …}}``. An engine that decodes under it can write nothing else. That guarantees the
form, never the sense; and the gate checks the arguments again under the tool's own schema.

Engines understand only part of JSON Schema, and some drop the whole constraint silently where they meet something else. So only
keywords known to work are kept, patterns with look-around are dropped, and text and lists without a bound get one, or a small
model would fill its whole allowance. :func:`read` accepts nothing that is not of the form above.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec

from quarterdeck.ports.model import ModelReply, ToolCall, ToolDeclaration, Usage

REPLY = "reply"
REPLY_CHARS = 400
TEXT_CHARS = 200
LIST_ITEMS = 8
"""Bounds of what a small model may write where the tool sets none."""

Json = object
_Schema = dict[str, Json]

_KEPT = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minLength", "maxLength", "pattern", "format", "minItems", "maxItems"}
)
_FORMATS = frozenset({"date-time", "date", "time", "email", "ipv4", "ipv6", "uuid"})
_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
_HEAD = re.compile(r'\s*\{\s*"tool"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"arguments"\s*:\s*')
_TEXT = re.compile(r'\{\s*"text"\s*:\s*"((?:[^"\\]|\\.)*)')


class Unreadable(ValueError):
    """The text has not the form that the schema demands."""


class _Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tool: str
    arguments: msgspec.Raw


class _Answer(msgspec.Struct, frozen=True):
    text: str


def reply_name(tools: Sequence[ToolDeclaration]) -> str:
    """What the final answer is called in the schema: ``reply``, or with underscores if a tool is called so."""
    name, names = REPLY, {tool.name for tool in tools}
    while name in names:
        name += "_"
    return name


def proposal_schema(tools: Sequence[ToolDeclaration]) -> bytes:
    """The schema of a proposal, encoded.

    >>> b'"const":"reply"' in proposal_schema(())
    True
    """
    answer = {"type": "object", "properties": {"text": _bounded_text(REPLY_CHARS)}, "required": ["text"]}
    branches, definitions = [], {}
    for at, tool in enumerate(tools):
        parameters = msgspec.json.decode(tool.parameters)
        prefix = f"{at}."
        branches.append(_branch(tool.name, _object(_reduced(parameters, prefix))))
        for name, definition in _mapping(_mapping(parameters).get("$defs")).items():
            definitions[prefix + name] = _reduced(definition, prefix)
    branches.append(_branch(reply_name(tools), answer | {"additionalProperties": False}))
    return msgspec.json.encode({"x-guidance": _COMPACT, "anyOf": branches} | ({"$defs": definitions} if definitions else {}))


def read(text: str, tools: Sequence[ToolDeclaration], *, cut: bool, call_id: str, usage: Usage, model: str) -> ModelReply:
    """The reply that ``text`` is; ``cut`` if the model ran out of tokens. Raises :class:`Unreadable`.

    Arguments are given on word for word. Of a cut proposal what is there is given on, as other models do it.
    """
    try:
        proposal = msgspec.json.decode(text, type=_Proposal)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        head = _HEAD.match(text)
        if not cut or head is None:
            raise Unreadable(f"the text is no proposal: {error}") from None
        name, arguments = _unescaped(head[1]), text[head.end() :]
    else:
        name, arguments = proposal.tool, bytes(proposal.arguments).decode()
    finish: Literal["length", "calls", "stop"]
    if name == reply_name(tools):
        finish = "length" if cut else "stop"
        return ModelReply(_answer_text(arguments, cut), (), usage, finish, model)
    if name not in {tool.name for tool in tools}:
        raise Unreadable("the text names no tool that was offered")
    finish = "length" if cut else "calls"
    return ModelReply("", (ToolCall(call_id, name, arguments),), usage, finish, model)


def answer_deltas(tools: Sequence[ToolDeclaration], emit: Callable[[str], None]) -> Callable[[str], None]:
    """A sink for pieces of a proposal that emits, as they come, the pieces of its text if it is a final answer.

    >>> sink = answer_deltas((), print)
    >>> for piece in ('{"tool":"reply","argu', 'ments":{"text":"All', " is", ' well."}}'):
    ...     sink(piece)
    All
     is
     well.
    """
    name = reply_name(tools)
    written, shown = "", 0

    def sink(piece: str) -> None:
        nonlocal written, shown
        written += piece
        head = _HEAD.match(written)
        if head is None or _unescaped(head[1]) != name:
            return
        text = _partial_text(written[head.end() :])
        if len(text) > shown:
            emit(text[shown:])
            shown = len(text)

    return sink


def _answer_text(arguments: str, cut: bool) -> str:
    try:
        return msgspec.json.decode(arguments, type=_Answer).text
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not cut:
            raise Unreadable("the final answer has no text") from None
    return _partial_text(arguments)


def _partial_text(arguments: str) -> str:
    """The text of an answer that is still being written, without an escape that has only begun."""
    found = _TEXT.match(arguments)
    return _unescaped(found[1]) if found is not None else ""


def _unescaped(inside: str) -> str:
    """The value of what stands between the quotes of a JSON string; shorter if it ends within an escape."""
    for end in range(len(inside), max(len(inside) - 12, -1), -1):
        try:
            return msgspec.json.decode(f'"{inside[:end]}"'.encode("utf-8", "replace"), type=str)
        except msgspec.DecodeError:
            continue
    return ""


def _branch(name: str, arguments: _Schema) -> _Schema:
    return {
        "type": "object",
        "properties": {"tool": {"const": name}, "arguments": arguments},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


def _object(schema: Json) -> _Schema:
    """Parameters are an object, and a closed one unless they say otherwise."""
    mapping = _mapping(schema)
    if "$ref" in mapping:
        return mapping
    return {"type": "object", "additionalProperties": False} | mapping


def _reduced(schema: Json, prefix: str) -> Json:
    """The schema with only the keywords that engines are known to understand, bounded, its references renamed."""
    if not isinstance(schema, dict):
        return schema
    given = _mapping(schema)
    kept: _Schema = {key: value for key, value in given.items() if key in _KEPT}
    if "oneOf" in given:
        kept.setdefault("anyOf", given["oneOf"])
    if isinstance(ref := kept.get("$ref"), str):
        return {"$ref": "#/$defs/" + prefix + ref.removeprefix("#/$defs/")}
    if "properties" in kept:
        kept["properties"] = {name: _reduced(inner, prefix) for name, inner in _mapping(kept["properties"]).items()}
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _reduced(kept[key], prefix)
    if isinstance(several := kept.get("anyOf"), list):
        kept["anyOf"] = [_reduced(inner, prefix) for inner in several]
    _drop_unsupported(kept)
    _bound(kept)
    return kept


def _drop_unsupported(schema: _Schema) -> None:
    if schema.get("format") not in _FORMATS:
        schema.pop("format", None)
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and ("(?" in pattern or re.search(r"\\[1-9bBkpP]", pattern)):
        del schema["pattern"]


def _bound(schema: _Schema) -> None:
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    fixed = {"enum", "const"} & schema.keys()
    if "string" in kinds and not fixed and not {"maxLength", "pattern", "format"} & schema.keys():
        schema["maxLength"] = max(TEXT_CHARS, cast("int", schema.get("minLength", 0)))
    if "array" in kinds and "maxItems" not in schema:
        schema["maxItems"] = max(LIST_ITEMS, cast("int", schema.get("minItems", 0)))


def _bounded_text(limit: int) -> _Schema:
    return {"type": "string", "minLength": 1, "maxLength": limit}


def _mapping(value: Json) -> _Schema:
    return cast("_Schema", value) if isinstance(value, dict) else {}
