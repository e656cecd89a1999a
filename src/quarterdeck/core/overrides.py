"""Changes of a dependency's policy while it is in use: by an operator, for a while, for every process.

They are a fact with a version, like switches: whatever was judged under the old ones and is not committed yet is judged again. Each ends by
itself, so that what was set in a night of trouble is not in force for ever. A configuration file says the same things, for good.

>>> policy = changed(DependencyPolicy(), Change(timeout_s=5.0, slots=2))
>>> policy.timeout_s, policy.concurrency.slots, policy.retry.max_attempts
(5.0, 2, 4)
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import UsageError
from quarterdeck.core.limits import RatePolicy

MAX_OVERRIDES = 1_000
"""The most dependencies that are changed at once."""
MAX_OVERRIDE_S = 31 * 86_400
"""The longest time for which a change is in force."""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be otherwise; what is not named stays. ``isolated``: nothing is called at all."""

    timeout_s: float | None = None
    attempts: int | None = None
    slots: int | None = None
    max_queue: int | None = None
    max_wait_s: float | None = None
    rate_per_s: float | None = None
    burst: int | None = None
    failures: int | None = None
    open_s: float | None = None
    retry_tokens: float | None = None
    isolated: bool = False


class Override(msgspec.Struct, frozen=True):
    """A change of one dependency (``model:NAME``, ``tool:NAME``) that is in force until ``until_us``."""

    name: str
    change: Change
    until_us: int
    by: str
    reason: str = ""


def changed(policy: DependencyPolicy, change: Change) -> DependencyPolicy:
    """The policy with a change. Raises :class:`UsageError` for what is out of range, as declaring it would."""

    def merged(part: msgspec.Struct, **fields: object) -> object:
        return msgspec.structs.replace(part, **{name: value for name, value in fields.items() if value is not None})

    rate = policy.rate
    if change.rate_per_s is not None or (rate is not None and change.burst is not None):
        base = rate or RatePolicy(change.rate_per_s or 1.0)
        rate = msgspec.convert(merged(base, rate_per_s=change.rate_per_s, burst=change.burst), RatePolicy)
    if change.attempts is not None and change.attempts < 1:
        raise UsageError("dependency.policy_invalid", f"attempts is at least 1, not {change.attempts}")
    return msgspec.structs.replace(
        policy,
        timeout_s=policy.timeout_s if change.timeout_s is None else change.timeout_s,
        retry=merged(policy.retry, max_attempts=change.attempts),
        concurrency=merged(policy.concurrency, slots=change.slots, max_queue=change.max_queue, max_wait_s=change.max_wait_s),
        breaker=merged(policy.breaker, failures=change.failures, open_s=change.open_s),
        retry_budget=merged(policy.retry_budget, capacity=change.retry_tokens),
        rate=rate,
    )


def parsed(value: str) -> tuple[Override, ...]:
    """The overrides that a stored fact holds."""
    return msgspec.json.decode(value, type=tuple[Override, ...])


def current(overrides: Iterable[Override], now_us: int) -> dict[str, Override]:
    """Those that are in force, by name."""
    return {one.name: one for one in overrides if one.until_us > now_us}
