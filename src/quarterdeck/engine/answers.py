"""The last good answers of reads that may be answered late: in memory, bounded, for as long as each tool says.

Where such a read fails, or has no capacity, its last good answer to the very same question of the same person is given instead, and the
receipt says so (``degraded.stale``). Nothing here is durable: what was given is in the journal like any other answer.
"""

from __future__ import annotations

from collections import OrderedDict

from quarterdeck.core.contract import RunContract

MAX_ANSWERS = 1_000
"""Answers that are kept; the one that was not used for longest goes first."""
MAX_ANSWER_BYTES = 65_536
"""A longer answer is not kept."""

Question = tuple[str, str, str, bytes]


class Answers:
    """What reads have answered last, by tenant, person, tool and arguments."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Question, tuple[float, bytes]] = OrderedDict()

    def keep(self, contract: RunContract, tool: str, arguments: bytes, answer: bytes, now_s: float) -> None:
        """Remember an answer that was just given."""
        if len(answer) <= MAX_ANSWER_BYTES:
            question = (contract.tenant, contract.actor, tool, arguments)
            self._answers[question] = (now_s, answer)
            self._answers.move_to_end(question)
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)

    def find(self, contract: RunContract, tool: str, arguments: bytes, now_s: float, age_s: float) -> bytes | None:
        """The last good answer, if it is at most ``age_s`` old."""
        found = self._answers.get((contract.tenant, contract.actor, tool, arguments))
        return found[1] if found is not None and now_s - found[0] <= age_s else None
