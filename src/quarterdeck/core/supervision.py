"""When to start a dead process again, when to give up, and when a run is to blame for the deaths of whoever drives it.

The rules are those of Erlang's supervisors, in their plainest form (``one_for_one``): each child is started again by itself, after a
pause that grows with its own quick deaths; more than ``restarts`` of all children together within ``within_s`` are too many, and then
the supervisor ends everything and says so, because starting again does not help. Pure: time is an argument.

>>> rules = Intensity(restarts=2, within_s=10.0)
>>> first = after_death((), 1.0, rules)
>>> first.again_in_s, after_death(first.history, 20.0, rules).history
(0.1, (20.0,))
>>> after_death((1.0, 2.0), 3.0, rules).again_in_s is None
True
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quarterdeck.core.errors import UsageError

POISON_DEATHS = 3
"""So many owners may die with a run that makes no progress; then the run is a dead letter."""
PAUSE_S = 0.1
"""The pause before the first restart; it doubles with each quick death of the same child."""
PAUSE_CAP_S = 5.0
"""The longest pause before a restart."""


class Intensity(msgspec.Struct, frozen=True):
    """How many restarts within how many seconds are still worth it; raises :class:`UsageError` (``supervisor.intensity``)."""

    restarts: int = 10
    within_s: float = 60.0

    def __post_init__(self) -> None:
        if self.restarts < 0 or not 0 < self.within_s < 1e9:
            raise UsageError("supervisor.intensity", "restarts are 0 or more, within a positive number of seconds")


class Verdict(msgspec.Struct, frozen=True):
    """What to do after a death: start again ``again_in_s`` from now, or, if that is ``None``, give up. ``history`` goes on."""

    history: tuple[float, ...]
    again_in_s: float | None


def after_death(history: Sequence[float], now_s: float, rules: Intensity, quick: int = 0) -> Verdict:
    """What to do about a child that has died at ``now_s``. ``history`` are the earlier deaths of all children, ``quick`` how often
    in a row this very child has died soon after its start.
    """
    recent = (*[at_s for at_s in history if now_s - at_s < rules.within_s], now_s)
    if len(recent) > rules.restarts:
        return Verdict(recent, None)
    return Verdict(recent, min(PAUSE_CAP_S, PAUSE_S * 2.0 ** min(quick, 16)))


def is_hung(now_s: float, heard_s: float, patience_s: float) -> bool:
    """Whether a child that lives, and was last heard of at ``heard_s``, has to be taken for hung.

    >>> is_hung(40.0, 5.0, 30.0), is_hung(20.0, 5.0, 30.0)
    (True, False)
    """
    return now_s - heard_s > patience_s


def is_poison(deaths: Sequence[int], progress: int, limit: int = POISON_DEATHS) -> bool:
    """Whether a run kills whoever drives it: ``limit`` owners died since its newest progress.

    ``deaths`` are the sequences at which its journal ended each time, ``progress`` that of its newest event that was progress.

    >>> is_poison((4, 5, 5), 3), is_poison((4, 5, 5), 5), is_poison((4, 5), 3)
    (True, False, False)
    """
    return sum([seq > progress for seq in deaths]) >= limit
