"""A request in the words of the OpenAI chat protocol. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quarterdeck.ports.model import Message, ToolCall, ToolDeclaration

_encoder = msgspec.json.Encoder()


def chat_messages(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The transcript, message by message.

    >>> chat_messages([Message("tool", "shipped", call_id="c0-0")])
    [{'role': 'tool', 'content': 'shipped', 'tool_call_id': 'c0-0'}]
    """
    return [_message(message) for message in messages]


def chat_tools(tools: Sequence[ToolDeclaration]) -> list[dict[str, object]]:
    """The declarations as functions."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": msgspec.json.decode(t.parameters)},
        }
        for t in tools
    ]


def _message(message: Message) -> dict[str, object]:
    match message.role:
        case "tool":
            return {"role": "tool", "content": message.content, "tool_call_id": message.call_id}
        case "assistant" if message.calls:
            calls = [_call(call) for call in message.calls]
            return {"role": "assistant", "content": message.content or None, "tool_calls": calls}
        case role:
            return {"role": role, "content": message.content}


def _call(call: ToolCall) -> dict[str, object]:
    function = {"name": call.tool, "arguments": _arguments(call.arguments)}
    return {"id": call.call_id, "type": "function", "function": function}


def _arguments(raw: str) -> str:
    """What the model wrote, if it is a JSON object; else wrapped, for many endpoints refuse the whole transcript otherwise.

    >>> _arguments('{"id": 7}'), _arguments('{"id": ')
    ('{"id": 7}', '{"malformed":"{\\\\"id\\\\": "}')
    """
    try:
        msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _encoder.encode({"malformed": raw}).decode()
    return raw
