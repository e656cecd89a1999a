"""Who goes first: priority classes with ageing. Pure.

Ready runs are begun in the order of one number, the time from which they count as waiting. A priority class moves that number: an
interactive run counts as waiting for longer than it does, a batch run for less. So the urgent goes first under load, and nothing
waits for ever: once a run has waited ``AGEING_US`` longer than another, one class does not matter between them any more.

>>> ready_from_us("interactive", 5_000_000_000) < ready_from_us("standard", 4_000_000_000)
True
>>> ready_from_us("batch", 1_000_000_000) < ready_from_us("standard", 5_000_000_000)
True
"""

from __future__ import annotations

from quarterdeck.core.vocabulary import Priority

AGEING_US = 3_600_000_000
"""How much longer a run has to have waited to go before one of the next more urgent class."""

URGENCY: tuple[Priority, ...] = tuple(Priority)
"""Every class, the most urgent first."""

_AHEAD_US: dict[str, int] = {
    str(priority): (place - URGENCY.index(Priority.STANDARD)) * AGEING_US for place, priority in enumerate(URGENCY)
}


def ready_from_us(priority: str, at_us: int) -> int:
    """From when a run that becomes ready at ``at_us`` counts as waiting. A word that is no class counts as ``standard``."""
    return at_us + _AHEAD_US.get(priority, 0)


def less_urgent(one: Priority, other: Priority) -> Priority:
    """The one of the two that goes later."""
    return max(one, other, key=URGENCY.index)
