"""The seam to whoever receives messages: one method, which delivers once or says why not.

A message may be delivered more than once: after a crash, or an answer that was lost. Its name (``message``) is the same each time, so that
the receiver can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from quarterdeck.core.outbox import POST_RETRY
from quarterdeck.core.retry import RetryPolicy


class Message(msgspec.Struct, frozen=True):
    """One message as its deliverer gets it. ``attempt`` counts from 1; ``at_us`` is when it was recorded."""

    message: str
    topic: str
    key: str
    tenant: str
    run_id: str
    body: bytes
    headers: tuple[tuple[str, str], ...]
    attempt: int
    at_us: int

    def json(self) -> object:
        """The body as a value."""
        return msgspec.json.decode(self.body)


class DeliveryFailed(Exception):
    """A message was not delivered. ``transient``: it may be later, not before ``retry_after_s``; else it is dead at once."""

    def __init__(self, code: str, message: str, *, transient: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.transient = transient
        self.retry_after_s = retry_after_s


class Deliverer(Protocol):
    """Delivers the messages of a topic."""

    async def deliver(self, message: Message) -> None:
        """Deliver one message; returning means that it has arrived. Raises :class:`DeliveryFailed`, or anything else, where it has not."""
        ...


@dataclass(frozen=True, slots=True)
class Topic:
    """What a deck says about the messages of one topic: who delivers them, how often, and how long one attempt may take."""

    name: str
    deliverer: Deliverer
    retry: RetryPolicy = POST_RETRY
    timeout_s: float = 30.0
