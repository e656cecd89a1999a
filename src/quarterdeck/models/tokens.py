"""How many tokens a request holds: an upper bound to reserve by, and a guess to plan by.

A token of the usual byte-level vocabularies is at least one byte, so the bytes of a request bound its tokens, whatever the
vocabulary. Endpoints add a little of their own: role markers for each message and call, and a preamble of a few hundred tokens
once there are tools. The bound is about four times what English text is billed; a reservation returns what was not used.
"""

from __future__ import annotations

from quarterdeck.ports.model import Message, ModelRequest, ToolDeclaration

MESSAGE_OVERHEAD_TOKENS = 16
"""Role markers and separators around one message, one call or one declaration; known templates need 3 to 8."""

TOOLS_PREAMBLE_TOKENS = 512
"""What templates say once when there are tools; the longest known one is about 350."""


def estimate(text: str) -> int:
    """The rule of thumb of four characters to a token, rounded up. For planning and fakes, never for a reservation.

    >>> estimate("Where is my parcel?")
    5
    """
    return (len(text) + 3) // 4


def input_bound(request: ModelRequest) -> int:
    """No tokenizer makes more tokens of this request's input. Linear in its length; about a microsecond per message.

    >>> input_bound(ModelRequest((Message("user", "hello"),), (), 100))
    21
    """
    return sum([message_bound(message) for message in request.messages]) + tools_bound(request.tools)


def message_bound(message: Message) -> int:
    """The bound of one message with its calls."""
    total = _size(message.content) + len(message.call_id) + MESSAGE_OVERHEAD_TOKENS
    for call in message.calls:
        total += _size(call.call_id) + _size(call.tool) + _size(call.arguments) + MESSAGE_OVERHEAD_TOKENS
    return total


def tools_bound(tools: tuple[ToolDeclaration, ...]) -> int:
    """The bound of all declarations of a request; zero without any."""
    if not tools:
        return 0
    return TOOLS_PREAMBLE_TOKENS + sum(
        [_size(t.name) + _size(t.description) + len(t.parameters) + MESSAGE_OVERHEAD_TOKENS for t in tools]
    )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
