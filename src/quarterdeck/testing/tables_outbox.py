"""The outbox of the store in memory: messages in the order of their commits, and the lanes that they wait in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from quarterdeck.core.commit import Applied, DecidePost, Refused, SettlePost, Taken, TakenPost, TakePosts
from quarterdeck.core.outbox import Post, PostStatus
from quarterdeck.ports.store import PostRow

OPEN = frozenset({PostStatus.QUEUED, PostStatus.DEAD})
"""The states of messages that have not left."""


@dataclass(slots=True)
class Lane:
    """One lane of which something has not left; ``due_us`` is ``None`` while a dead message stops it."""

    due_us: int | None
    until_us: int = 0
    ticket: int = 0


class Outbox:
    """All messages of one store."""

    def __init__(self) -> None:
        self.rows: dict[int, PostRow] = {}
        self.lanes: dict[str, Lane] = {}
        self._lane_of: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._last = 0

    def has(self, posts: Sequence[Post]) -> bool:
        """Whether one of these is there already."""
        return any(post.message in self._numbers for post in posts)

    def put(self, run_id: str, tenant: str, posts: Sequence[Post], at_us: int) -> None:
        """Record the messages of a commit."""
        for post in posts:
            self._last += 1
            row = PostRow(
                self._last,
                post.message,
                run_id,
                tenant,
                post.topic,
                post.key,
                "queued",
                0,
                "",
                at_us,
                "",
                "",
                post.headers,
                post.body,
            )
            self.rows[self._last] = row
            self._lane_of[self._last] = post.lane
            self._numbers[post.message] = self._last
            self.lanes.setdefault(post.lane, Lane(at_us))

    def take(self, op: TakePosts) -> Taken:
        """The first message of each lane that is due."""
        due = [name for name, lane in self.lanes.items() if self._is_due(lane, op.now_us)]
        due.sort(key=lambda name: self.lanes[name].due_us or 0)
        return Taken(tuple(self._taken(due[: op.limit], op)))

    def _taken(self, lanes: Sequence[str], op: TakePosts) -> Iterator[TakenPost]:
        for name in lanes:
            lane = self.lanes[name]
            row = self._first(name)
            if row is None:
                del self.lanes[name]
            elif row.status == PostStatus.DEAD:
                lane.due_us, lane.until_us = None, 0
            else:
                row = self._change(row, attempts=row.attempts + 1)
                lane.until_us = op.now_us + op.lease_us
                lane.ticket += 1
                place = (row.number, name, lane.ticket, row.attempts, row.run_id, row.tenant)
                yield TakenPost(*place, row.topic, row.key, row.message, row.body, row.headers, row.at_us)

    def settle(self, op: SettlePost) -> Applied | Refused:
        """How an attempt ended."""
        row, lane = self.rows.get(op.number), self.lanes.get(op.lane)
        if row is None:
            return Refused("post", "gone")
        if row.status == op.outcome:
            return Applied(row.number)
        if row.status != PostStatus.QUEUED or lane is None or not self._is_held(lane, op.ticket):
            return Refused("post", row.status)
        self._change(row, status=PostStatus.QUEUED.value if op.outcome == "again" else op.outcome, code=op.code)
        lane.until_us = 0
        lane.due_us = None if op.outcome == "dead" else op.due_us if op.outcome == "again" else op.at_us
        return Applied(row.number)

    def decide(self, op: DecidePost) -> Applied | Refused:
        """A person's answer to a dead message."""
        number = self._numbers.get(op.message)
        if number is None:
            return Refused("post", "unknown")
        row = self.rows[number]
        wanted = PostStatus.QUEUED if op.action == "requeue" else PostStatus.DROPPED
        if row.status == wanted:
            return Applied(number)
        if row.status != PostStatus.DEAD:
            return Refused("post", row.status)
        self._change(row, status=wanted.value, attempts=0, code="", decided_by=op.by, reason=op.reason)
        self._wake(number, op.at_us)
        return Applied(number)

    def withdraw(self, run_id: str) -> None:
        """What a cancelled run has put and nobody has begun to deliver does not leave."""
        for row in list(self.rows.values()):
            if row.run_id == run_id and row.status == PostStatus.QUEUED and not row.attempts:
                self._change(row, status=PostStatus.WITHDRAWN.value)

    def erase(self, run_id: str, at_us: int) -> None:
        """Destroy the messages of a run."""
        for row in list(self.rows.values()):
            if row.run_id == run_id:
                status = PostStatus.WITHDRAWN.value if row.status in OPEN else row.status
                self._change(row, status=status, body=b"", headers=())
                self._wake(row.number, at_us)

    def remove(self, run_id: str) -> None:
        """Forget the messages of a run."""
        for row in [row for row in self.rows.values() if row.run_id == run_id]:
            del self.rows[row.number], self._lane_of[row.number], self._numbers[row.message]

    def is_open(self, run_id: str) -> bool:
        """Whether a message of a run has not left."""
        return any(row.run_id == run_id and row.status in OPEN for row in self.rows.values())

    def is_due(self, now_us: int) -> bool:
        """Whether a lane is due."""
        return any(self._is_due(lane, now_us) for lane in self.lanes.values())

    def free_all(self) -> None:
        """Every relay is gone."""
        for lane in self.lanes.values():
            lane.until_us = 0

    def find(self, message: str) -> PostRow | None:
        """One message."""
        number = self._numbers.get(message)
        return self.rows[number] if number is not None else None

    def _is_due(self, lane: Lane, now_us: int) -> bool:
        return lane.due_us is not None and lane.due_us <= now_us and lane.until_us <= now_us

    def _is_held(self, lane: Lane, ticket: int) -> bool:
        return lane.ticket == ticket

    def _first(self, lane: str) -> PostRow | None:
        rows = (row for number, row in self.rows.items() if self._lane_of[number] == lane and row.status in OPEN)
        return next(rows, None)

    def _change(self, row: PostRow, **changes: object) -> PostRow:
        changed = msgspec.structs.replace(row, **changes)
        self.rows[row.number] = changed
        return changed

    def _wake(self, number: int, at_us: int) -> None:
        lane = self.lanes.get(self._lane_of[number])
        if lane is not None and lane.due_us is None:
            lane.due_us = at_us
