"""A scripted stand-in for the local model: quick and repeatable, for tests and for machines without the model's weights.

It reads the ticket with a few regular expressions, the way a much better model would read it with its head. It is labelled
"scripted" wherever it is shown.
"""

from __future__ import annotations

import re

from quarterdeck.ports.model import Message
from quarterdeck.testing.scripted import ScriptedModel, Turn

LATENCY_S = 0.05

_SENDER = re.compile(r"From: (\S+)")
_ORDER = re.compile(r"\bA\d{4}\b")
_MONEY = re.compile(r"(\d+) dollars", re.IGNORECASE)
_ADDRESS = re.compile(r"(\d+ [A-Z]\w+ [A-Z]\w+, [A-Z]\w+)")


def stand_in() -> ScriptedModel:
    """The model."""
    return ScriptedModel(propose, name="scripted-stand-in", latency_s=LATENCY_S)


def propose(messages: tuple[Message, ...]) -> Turn:
    """Look the order up, then do what the ticket asks for, then say so.

    >>> propose((Message("user", "From: ada@example.com\\nWhere is A1005?"),))
    [('lookup_order', {'order_id': 'A1005'})]
    """
    text = next(message.content for message in messages if message.role == "user")
    turn = sum(message.role == "assistant" for message in messages)
    order, sender = _ORDER.search(text), _SENDER.match(text)
    if turn == 0 and order is not None:
        return [("lookup_order", {"order_id": order[0]})]
    if turn == 0:
        return [("search_policy", {"topic": "returns"})]
    if turn == 1 and order is not None and sender is not None:
        return _action(text, order[0], sender[1])
    return "I have taken care of it."


def _action(text: str, order_id: str, sender: str) -> Turn:
    money, address = _MONEY.search(text), _ADDRESS.search(text)
    if money is not None:
        return [("issue_refund", {"order_id": order_id, "amount_usd": int(money[1]), "customer": sender})]
    if address is not None:
        return [("update_address", {"order_id": order_id, "address": address[1]})]
    return [("send_email", {"to": sender, "text": f"I have looked into order {order_id} for you."})]
