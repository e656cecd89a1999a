"""API keys at a door: found by prefix, compared by hash, remembered for a second."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from quarterdeck.core.apikeys import matches, prefix_of
from quarterdeck.core.errors import Unauthenticated, Unavailable, UsageError
from quarterdeck.core.identity import Principal
from quarterdeck.core.limits import RatePolicy, TokenBucket
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Insights, KeyRow
from quarterdeck.server.identity.bearer import credential, malformed

FRESH_S = 1.0
"""How long a key's row is remembered, so how late a revocation can reach a process that did not make it itself."""
MAX_ROWS = 4_096
"""How many prefixes are remembered."""
UNKNOWN_PER_S = 50.0
"""How many lookups of prefixes that were never good a process makes per second, after twice as many at once."""

_NOBODY = bytes(32)


class _Entry(NamedTuple):
    row: KeyRow | None
    read_at_s: float


class KeyCache:
    """Remembers rows by prefix: what a store said, and when. It never holds a key, so a hit proves nothing by itself.

    Prefixes without a row are remembered apart from those with one, so that guessing cannot push out keys that are in use.
    """

    def __init__(self, fresh_s: float = FRESH_S, size: int = MAX_ROWS) -> None:
        if not (0.0 <= fresh_s <= FRESH_S and 1 <= size <= MAX_ROWS):
            raise UsageError("auth.cache", f"a revocation must arrive within {FRESH_S} s: fresh_s 0-{FRESH_S}, 1-{MAX_ROWS} rows")
        self._fresh_s = fresh_s
        self._size = size
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, _Entry] = OrderedDict()

    def fresh(self, prefix: str, now_s: float) -> _Entry | None:
        """What is remembered of a prefix, unless it is too old to rely on."""
        entry = self._known.get(prefix) or self._unknown.get(prefix)
        return entry if entry is not None and 0.0 <= now_s - entry.read_at_s < self._fresh_s else None

    def was_known(self, prefix: str) -> bool:
        """Whether this prefix had a row when it was last read, however long ago."""
        return prefix in self._known

    def remember(self, prefix: str, row: KeyRow | None, now_s: float) -> None:
        """Keep what a store said; what was read longest ago makes room."""
        self.forget(prefix)
        entries = self._unknown if row is None else self._known
        entries[prefix] = _Entry(row, now_s)
        if len(entries) > self._size:
            entries.popitem(last=False)

    def forget(self, prefix: str) -> None:
        """Read this prefix anew the next time; for whoever revokes a key in this process."""
        self._known.pop(prefix, None)
        self._unknown.pop(prefix, None)


class KeyAuthenticator:
    """Knows the holders of API keys.

    A text that is no whole key costs no lookup. Each prefix is read at most once per :data:`FRESH_S`, and prefixes that never had a
    key are limited together, so that guessing cannot load the store; keys in use are not held up by it. An unknown prefix and a
    wrong secret take the same path, one lookup, one hash and one comparison, and get the same answer. That a key has expired or was
    revoked is told only to who sends all of it.
    """

    def __init__(self, insights: Insights, clock: Clock, cache: KeyCache | None = None) -> None:
        self._insights = insights
        self._clock = clock
        self._cache = cache if cache is not None else KeyCache()
        policy = RatePolicy(rate_per_s=UNKNOWN_PER_S, burst=int(2 * UNKNOWN_PER_S), max_wait_s=0.0)
        self._unknown = TokenBucket(policy, clock.boottime_s())

    async def authenticate(self, authorization: str | None) -> Principal:
        """The holder of the key; raises :class:`Unauthenticated`, or :class:`Unavailable` (``auth.too_many``) under guessing."""
        key = credential(authorization)
        prefix = prefix_of(key)
        if prefix is None:
            raise malformed()
        row = self._row(prefix)
        is_key = matches(key, row.digest if row is not None else _NOBODY)
        if row is None or not is_key:
            raise Unauthenticated("auth.unknown_key", "this key is not known here; ask whoever manages keys for one")
        if row.revoked_at_us is not None:
            raise Unauthenticated("auth.revoked", "this key was revoked; ask whoever manages keys for another")
        if row.expires_at_us is not None and row.expires_at_us <= self._clock.now_us():
            raise Unauthenticated("auth.expired", "this key or token has expired; get another")
        return Principal(row.subject, "key", row.grants)

    def _row(self, prefix: str) -> KeyRow | None:
        now_s = self._clock.boottime_s()
        entry = self._cache.fresh(prefix, now_s)
        if entry is not None:
            return entry.row
        if not self._cache.was_known(prefix):
            wait_s = self._unknown.try_take(now_s)
            if wait_s:
                raise Unavailable(
                    "auth.too_many", "too many unknown keys are being tried; try again shortly", retry_after_s=wait_s
                )
        row = self._insights.key(prefix)
        if row is not None and not self._cache.was_known(prefix):
            self._unknown.give_back()  # only lookups that find nobody are counted
        self._cache.remember(prefix, row, now_s)
        return row
