"""Messages that leave with a commit: what a row of the outbox says, and which of them wait for each other.

A message is recorded in the transaction of the state change that it tells of, and delivered afterwards, at least once. Messages of one
tenant, topic and key are a *lane*: one leaves after the other, in the order of their commits, and one that cannot be delivered stops its
lane until a person decides.

>>> lane_of("acme", "orders", "o1") == lane_of("acme", "orders", "o2")
False
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from quarterdeck.core.retry import Jitter, RetryPolicy

POST_RETRY = RetryPolicy(
    max_attempts=12, base_s=1.0, cap_s=600.0, jitter=Jitter.FULL, retry_after_cap_s=600.0, unknown_is_transient=True
)
"""How often a message is attempted before it is dead, by default: with these pauses, over about an hour."""


class PostStatus(StrEnum):
    """Where a message stands. Only ``queued`` ones leave; a ``dead`` one stops its lane."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    DEAD = "dead"
    DROPPED = "dropped"
    WITHDRAWN = "withdrawn"


class Post(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One message to record. ``message`` names it for ever: the same in each attempt, so that whoever gets it twice can tell."""

    message: str
    lane: str
    topic: str
    key: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def lane_of(tenant: str, topic: str, key: str) -> str:
    """The lane of a message; names and keys hold no line breaks."""
    return f"{tenant}\n{topic}\n{key}"
