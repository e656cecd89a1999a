"""The working set: which part of the transcript a model sees.

The system prompt and the user's message are always whole; of the history the newest contiguous turns that fit are kept, and a turn
(a model message with all answers to its calls) is never split. Tokens are estimated at four characters each, rounded up; the
estimate is recorded with each message, so that choosing costs only as much as the window is long.

>>> estimate("12345678")
2
>>> first_turn([TurnMark(0, 3, 100), TurnMark(1, 6, 50), TurnMark(2, 9, 40)], fixed=100, budget=200)
1
"""

from __future__ import annotations

from collections.abc import Sequence

from quarterdeck.core.errors import Refused
from quarterdeck.core.state import TurnMark

VERSION = "window/1"
"""The version of this selection; recorded with every run."""


def estimate(text: str) -> int:
    """Tokens of a text, by the rule of thumb of four characters each."""
    return -(-len(text) // 4)


def first_turn(turns: Sequence[TurnMark], *, fixed: int, budget: int) -> int:
    """The index of the oldest turn that is kept. The newest is always kept: a model that did not see what it has just done would do
    it again; where it does not fit, its answers are cut (see :func:`room`).

    ``fixed`` is the size of system prompt and user message, ``budget`` what the context may hold without the output's reserve. Raises
    :class:`Refused` (``context.too_large``) if these two alone exceed it: nothing has been spent then.
    """
    left = budget - fixed
    if left < 0:
        raise Refused(
            "context.too_large",
            f"system prompt and message need {fixed} tokens, {budget} are allowed; shorten them or raise `context`",
        )
    index = len(turns)
    while index and turns[index - 1].tokens <= left:
        index -= 1
        left -= turns[index].tokens
    return min(index, len(turns) - 1) if turns else index


def compaction_due(turns: Sequence[TurnMark], *, fixed: int, budget: int, at: float, keep: int) -> int | None:
    """Before which turn the transcript is to be summarised, if it takes more than ``at`` of what the context may hold; the newest
    ``keep`` turns stay as they are.

    >>> compaction_due([TurnMark(0, 3, 60), TurnMark(1, 6, 50), TurnMark(2, 9, 40)], fixed=20, budget=200, at=0.8, keep=1)
    2
    """
    if len(turns) <= keep or fixed + sum([mark.tokens for mark in turns]) <= at * budget:
        return None
    return turns[-keep].turn


def room(turns: Sequence[TurnMark], *, fixed: int, budget: int) -> int | None:
    """How many tokens the newest turn may take, if it has to be cut to fit; ``None`` if it fits whole.

    >>> room([TurnMark(0, 3, 500)], fixed=100, budget=200)
    100
    """
    left = budget - fixed
    return left if turns and turns[-1].tokens > left else None
