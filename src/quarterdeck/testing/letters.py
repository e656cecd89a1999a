"""The outbox in a simulation: a receiver that fails as receivers do, and what must hold of every message that it gets (I13).

* What arrives was recorded, by a step whose receipt says so, and is what was recorded; each such step has recorded it once.
* Of one lane a message begins to leave only after those before it have left, or were given up by a person.
* Nobody delivers two messages of one lane at a time, unless somebody stood still for longer than the lease of a lane lasts.
* A message of a cancelled run that nobody had begun to deliver does not leave (I9).
* In the end everything has arrived that a person has not dropped and a cancel has not withdrawn, and nothing is said to have that has not.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping

from quarterdeck.core.outbox import PostStatus, lane_of
from quarterdeck.core.retry import Jitter, RetryPolicy
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.ports.outbox import DeliveryFailed, Message
from quarterdeck.ports.store import PostRow
from quarterdeck.testing.processes import Process, current
from quarterdeck.testing.scenario import TOPIC
from quarterdeck.testing.watched import Watched
from quarterdeck.testing.world import World, for_ever

RETRY = RetryPolicy(max_attempts=4, base_s=1.0, cap_s=30.0, jitter=Jitter.FULL, retry_after_cap_s=60.0, unknown_is_transient=True)
"""How often a simulated message is attempted before it is dead."""
TIMEOUT_S = 10.0
"""How long one attempt may take."""
OPEN = frozenset({PostStatus.QUEUED, PostStatus.DEAD})

Violated = Callable[[str, str], None]


class Letterbox:
    """Receives the messages of a simulation and watches how they come. ``rows`` are those of the store, by number."""

    def __init__(self, world: World, violated: Violated, rows: Mapping[int, PostRow]) -> None:
        self._world = world
        self._violated = violated
        self._rows = rows
        self._chance = random.Random(f"letters/{world.scenario.seed}")
        self._under_way: dict[str, tuple[str, Process, int]] = {}
        self.received: Counter[str] = Counter()
        rates = world.scenario.rates
        self._steady = not rates.step_clock and not rates.sleep_machine

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way, or waits for somebody."""
        return all(row.status not in OPEN for row in self._rows.values())

    async def deliver(self, message: Message) -> None:
        """Take one message, under this attempt's drawn fate."""
        process = current()
        if process is None or process.dead:
            await for_ever()
        lane = lane_of(message.tenant, message.topic, message.key or message.run_id)
        self._begins(message, lane, process)
        place = (message.message, process, process.paused)
        self._under_way[lane] = place
        try:
            await self._receive(message)
        finally:
            if self._under_way.get(lane) is place:
                del self._under_way[lane]

    async def _receive(self, message: Message) -> None:
        world, reached = self._world, self._world.reached
        fate = self._chance.random() if world.faulty else 1.0
        if world.dies(world.rates.crash_tool / 2):
            await for_ever()
        if fate < 0.16:
            raise DeliveryFailed("receiver.busy", "later", retry_after_s=5.0 if fate < 0.05 else None)
        if fate < 0.21:
            raise DeliveryFailed("receiver.refuses", "never", transient=False)
        if fate < 0.27:
            await for_ever()
        await world.clock.sleep(self._chance.random() * (TIMEOUT_S * 1.1 if fate < 0.35 else 0.05))
        self.received[message.message] += 1
        reached.sometimes("letter.repeated", self.received[message.message] > 1)
        if world.dies(world.rates.crash_tool / 2):
            await for_ever()
        if fate < 0.45:
            raise ConnectionResetError("the connection was cut")

    def _begins(self, message: Message, lane: str, process: Process) -> None:
        what = f"{message.message} (attempt {message.attempt})"
        row = next((row for row in self._rows.values() if row.message == message.message), None)
        if row is None or row.body != message.body or message.topic != TOPIC:
            self._violated("I13", f"{what} was not recorded")
            return
        if row.status == PostStatus.WITHDRAWN:
            self._violated("I9", f"{what} leaves although it was withdrawn")
        before = [other.message for other in self._lane(lane) if other.number < row.number and other.status in OPEN]
        if before and row.status == PostStatus.QUEUED:
            self._violated("I13", f"{what} leaves before {before}")
        if message.attempt > RETRY.max_attempts:
            self._violated("I13", f"{what} should be dead")
        other = self._under_way.get(lane)
        if other is not None and self._steady and not self._stood_still(other, process):
            self._violated("I13", f"{what} leaves while {other[0]} of its lane is under way")

    def _stood_still(self, other: tuple[str, Process, int], process: Process) -> bool:
        """Whether who delivers the other one is gone, or stood still, or who delivers this one did after having taken it."""
        _, holder, pauses = other
        return holder.dead or holder.frozen or holder.paused != pauses or process.paused > 0

    def _lane(self, lane: str) -> list[PostRow]:
        return [row for row in self._rows.values() if lane_of(row.tenant, row.topic, row.key or row.run_id) == lane]

    def judge(self, runs: Mapping[str, Watched], *, healthy: bool) -> None:
        """The last look. ``healthy``: everything had its time."""
        for row in self._rows.values():
            self._world.reached.sometimes("letter.dropped", row.status == PostStatus.DROPPED)
            self._world.reached.sometimes("letter.withdrawn", row.status == PostStatus.WITHDRAWN)
            if healthy and row.status in OPEN:
                self._violated("I13", f"{row.message} has not left, it is {row.status}: {row.code}")
            if row.status == PostStatus.DELIVERED and not self.received[row.message]:
                self._violated("I13", f"{row.message} is said to have arrived, and has not")
            if row.status == PostStatus.WITHDRAWN and self.received[row.message]:
                self._violated("I9", f"{row.message} is said to be withdrawn, and has arrived")
        recorded = Counter(row.message for row in self._rows.values())
        for watched in runs.values():
            for call, status in watched.ended.items():
                opened = watched.effects.get(call)
                if opened is not None and opened.name == f"publish.{TOPIC}":
                    wanted = int(status is ReceiptStatus.SUCCEEDED)
                    found = recorded.pop(f"{watched.run_id}:{call}:0", 0)
                    if found != wanted:
                        self._violated("I13", f"{watched.run_id}: {call} ended as {status}, and recorded {found} messages")
        if recorded:
            self._violated("I13", f"{sorted(recorded)} were recorded by no step that says so")
