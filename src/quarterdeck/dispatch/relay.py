"""The relay: takes messages out of the outbox and sees to it that they arrive, lane by lane.

It takes the first message of every lane that is due, under a lease that is longer than an attempt may last, delivers it, and says how that
ended. Whatever stops it in between, the lease runs out and the message is taken again, by this relay or another: at least once, and
never two of one lane at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from quarterdeck.core.commit import SettlePost, Taken, TakenPost, TakePosts
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.core.retry import next_delay_s
from quarterdeck.ports.clock import Clock, Entropy
from quarterdeck.ports.outbox import DeliveryFailed, Message, Topic
from quarterdeck.ports.store import Insights, Journal

AT_ONCE = 64
"""Messages that one relay delivers side by side."""
LEASE_MARGIN_S = 30.0
"""How much longer a lane is held than an attempt may last."""
POLL_S = 0.5
"""How often it is looked whether something is due."""
UNDECLARED_S = 60.0
"""How long a message rests whose topic nobody here delivers; another process may."""
STUBBORN_S = 2.0
"""How long an attempt that was cut off may take to notice."""
RESENDS = 5
"""How often the end of an attempt is told to the store; then the message is delivered once more."""

_log = logging.getLogger(__name__)


class Relay:
    """Delivers until it is stopped. Any number of them, in any number of processes, may run on one store."""

    def __init__(self, journal: Journal, insights: Insights, clock: Clock, entropy: Entropy, topics: Mapping[str, Topic]) -> None:
        self._journal = journal
        self._insights = insights
        self._clock = clock
        self._entropy = entropy
        self._topics = topics
        self._lease_us = int((max([topic.timeout_s for topic in topics.values()], default=0.0) + LEASE_MARGIN_S) * 1e6)
        self._wanted = asyncio.Event()
        self._active: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._wanted.set()
        self._task = asyncio.get_running_loop().create_task(self._relay_for_ever(), name="quarterdeck-relay")

    def hint(self) -> None:
        """Something may be due; sloppy, cheap, harmless when wrong."""
        self._wanted.set()

    async def stop(self, drain_s: float) -> None:
        """Take nothing more, give attempts under way ``drain_s`` to end; what is cut off is taken again when its lease has run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._active and drain_s > 0:
            await asyncio.wait(self._active, timeout=drain_s)
        for task in self._active:
            task.cancel()
        if self._active:
            await asyncio.wait(self._active, timeout=STUBBORN_S)

    async def _relay_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                while len(self._active) < AT_ONCE and self._insights.posts_due(self._clock.now_us()):
                    if not await self._take():
                        break
            except QuarterdeckError as error:
                if error.code not in ("store.unknown", "store.unreachable"):
                    _log.error("the relay stops: %s", error)
                    return

    async def _take(self) -> bool:
        taken = await self._journal.submit(TakePosts(AT_ONCE - len(self._active), self._clock.now_us(), self._lease_us))
        if not isinstance(taken, Taken) or not taken.posts:
            return False
        for post in taken.posts:
            task = asyncio.get_running_loop().create_task(self._see_to(post), name=post.message)
            self._active.add(task)
            task.add_done_callback(self._done)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("message %s: its end could not be recorded: %s", task.get_name(), error)
        self._wanted.set()

    async def _see_to(self, post: TakenPost) -> None:
        settled = await self._attempt(post)
        for attempt in range(RESENDS):
            try:
                await self._journal.submit(settled)
            except Unavailable as error:
                if error.code != "store.unknown" or attempt + 1 == RESENDS:
                    raise
            else:
                return

    async def _attempt(self, post: TakenPost) -> SettlePost:
        """Deliver once; how it ended, as the store is to be told."""
        topic = self._topics.get(post.topic)
        if topic is None:
            due_us = self._clock.now_us() + int(UNDECLARED_S * 1e6)
            return SettlePost(post.number, post.lane, post.ticket, "again", self._clock.now_us(), due_us, "outbox.topic_unknown")
        if post.attempts > topic.retry.max_attempts:
            ended = DeliveryFailed("outbox.unsettled", "whoever attempted it did not say how that ended", transient=False)
            return self._failed(post, topic, ended)
        message = Message(
            post.message, post.topic, post.key, post.tenant, post.run_id, post.body, post.headers, post.attempts, post.at_us
        )
        try:
            async with asyncio.timeout(topic.timeout_s):
                await topic.deliverer.deliver(message)
        except DeliveryFailed as failed:
            return self._failed(post, topic, failed)
        except TimeoutError:
            return self._failed(post, topic, DeliveryFailed("outbox.timeout", "no answer in time"))
        except Exception as error:  # the one broad except of the relay
            _log.warning("message %s was not delivered: %s", post.message, type(error).__name__)
            return self._failed(post, topic, DeliveryFailed("outbox.failed", type(error).__name__))
        return SettlePost(post.number, post.lane, post.ticket, "delivered", self._clock.now_us())

    def _failed(self, post: TakenPost, topic: Topic, failed: DeliveryFailed) -> SettlePost:
        now_us = self._clock.now_us()
        delay_s = None
        if failed.transient:
            luck = int.from_bytes(self._entropy.token(4), "big") / 2**32
            delay_s = next_delay_s(topic.retry, post.attempts, luck, failed.retry_after_s)
        if delay_s is None:
            _log.error("message %s is dead after %d attempts: %s", post.message, post.attempts, failed.code)
            return SettlePost(post.number, post.lane, post.ticket, "dead", now_us, 0, failed.code)
        return SettlePost(post.number, post.lane, post.ticket, "again", now_us, now_us + int(delay_s * 1e6), failed.code)
