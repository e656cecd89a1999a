"""How many at once, and how many per second: a bulkhead and a token bucket. Pure; waiting is left to who drives them.

Both answer without blocking: with a yes, or with what there is to wait for. Both refuse rather than let a queue grow
without bound, because a queue that nobody can drain in time only turns overload into time-outs.

>>> bucket = TokenBucket(RatePolicy(rate_per_s=2.0, burst=1))
>>> bucket.try_take(0.0), bucket.try_take(0.0), bucket.try_take(0.5)
(0.0, 0.5, 0.0)
>>> bulkhead = Bulkhead(BulkheadPolicy(slots=1, max_queue=1))
>>> bulkhead.enter(), bulkhead.enter(), bulkhead.enqueue(), bulkhead.enqueue()
(True, False, 1, None)
>>> bulkhead.leave(), bulkhead.in_flight  # the slot went to ticket 1
(1, 1)
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from quarterdeck.core.errors import UsageError

_EPSILON = 1e-9


class RatePolicy(msgspec.Struct, frozen=True):
    """``rate_per_s`` in the long run, ``burst`` at once after a pause, and at most ``max_wait_s`` of waiting for a
    turn.
    """

    rate_per_s: float
    burst: int = 1
    max_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0.0 < self.rate_per_s < float("inf") and self.burst >= 1 and 0.0 <= self.max_wait_s < float("inf")):
            raise UsageError("rate.policy_invalid", "rate_per_s > 0, burst >= 1 and a finite max_wait_s >= 0 are needed")


class TokenBucket:
    """A token bucket whose level may go below zero: those who may wait reserve their turn, first come, first served."""

    __slots__ = ("_at_s", "_level", "_policy")

    def __init__(self, policy: RatePolicy, now_s: float = 0.0) -> None:
        self._policy = policy
        self._level = float(policy.burst)
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """Tokens there are now; below zero where turns are reserved ahead."""
        gained = max(0.0, now_s - self._at_s) * self._policy.rate_per_s
        return min(float(self._policy.burst), self._level + gained)

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next token, were nobody to ask before; takes nothing."""
        return max(0.0, (1.0 - self.level(now_s)) / self._policy.rate_per_s)

    def try_take(self, now_s: float) -> float:
        """Take a token and return 0, or take nothing and return the seconds until one would be there."""
        level = self.level(now_s)
        if level < 1.0 - _EPSILON:
            return (1.0 - level) / self._policy.rate_per_s
        self._level = level - 1.0
        self._at_s = max(self._at_s, now_s)
        return 0.0

    def reserve(self, now_s: float, max_wait_s: float) -> float | None:
        """Take the next turn and return the seconds to wait for it; ``None``, and nothing taken, where that is too
        long.
        """
        wait_s = self.wait_s(now_s)
        if wait_s > max_wait_s + _EPSILON:
            return None
        self._level = self.level(now_s) - 1.0
        self._at_s = max(self._at_s, now_s)
        return wait_s

    def give_back(self) -> None:
        """Return a token, or a turn, that was not used."""
        self._level = min(float(self._policy.burst), self._level + 1.0)


class BulkheadPolicy(msgspec.Struct, frozen=True):
    """At most ``slots`` attempts at once, at most ``max_queue`` waiting for one, each at most ``max_wait_s``."""

    slots: int = 64
    max_queue: int = 1_024
    max_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if not (1 <= self.slots <= 1_000_000 and 0 <= self.max_queue <= 1_000_000 and 0.0 <= self.max_wait_s < float("inf")):
            raise UsageError("bulkhead.policy_invalid", "1-1000000 slots, 0-1000000 waiting, a finite max_wait_s >= 0")


class Bulkhead:
    """Slots and a first-in-first-out queue of tickets. A slot that is left goes straight to the oldest ticket, so that
    nobody who just arrived can take it first. ``in_flight`` never exceeds ``slots``.
    """

    __slots__ = ("_policy", "_queue", "_tickets", "in_flight")

    def __init__(self, policy: BulkheadPolicy) -> None:
        self._policy = policy
        self._queue: OrderedDict[int, None] = OrderedDict()
        self._tickets = 0
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._queue)

    def enter(self) -> bool:
        """Take a free slot, if there is one; there is none while anybody waits, since a slot that is left is handed on."""
        if self.in_flight >= self._policy.slots:
            return False
        self.in_flight += 1
        return True

    def enqueue(self) -> int | None:
        """A ticket at the end of the queue, or ``None``: the queue is full. Only after :meth:`enter` said no."""
        if len(self._queue) >= self._policy.max_queue:
            return None
        self._tickets += 1
        self._queue[self._tickets] = None
        return self._tickets

    def leave(self) -> int | None:
        """Free a slot. The ticket that holds it from now on is returned, or ``None`` where nobody waited."""
        if self.in_flight < 1:
            raise UsageError("bulkhead.not_entered", "a slot was left that nobody had entered; settle each permit once")
        if self._queue and self.in_flight <= self._policy.slots:
            return self._queue.popitem(last=False)[0]
        self.in_flight -= 1
        return None

    def resize(self, policy: BulkheadPolicy) -> list[int]:
        """Another policy from now on. The tickets that have a slot now, because there are more; where there are fewer, those that are taken
        stay taken until they are left.
        """
        self._policy = policy
        admitted = []
        while self._queue and self.in_flight < policy.slots:
            self.in_flight += 1
            admitted.append(self._queue.popitem(last=False)[0])
        return admitted

    def abandon(self, ticket: int) -> bool:
        """Stop waiting. False where the ticket has a slot by now, which then has to be left."""
        if ticket not in self._queue:
            return False
        del self._queue[ticket]
        return True
