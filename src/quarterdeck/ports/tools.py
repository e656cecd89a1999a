"""The seam to tools: how a tool's code is fitted, performed, asked and undone.

A tool is code behind a manifest (:class:`~quarterdeck.core.specs.ToolSpec`). The gate has decided before ``perform`` is called,
the intent is durable, and the idempotency key is stable across attempts, restarts and owners.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from quarterdeck.core.canonical import strictly
from quarterdeck.core.commit import Scalar, Statement
from quarterdeck.core.errors import UsageError
from quarterdeck.core.progress import Report, report
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import ReceiptStatus

_encoder = msgspec.json.Encoder()


class Secret(Protocol):
    """A handle on one secret, for the duration of one call."""

    def reveal(self) -> str:
        """The value, read at this moment."""
        ...


class Publication(msgspec.Struct, frozen=True):
    """A message that a tool wants to leave: its topic, its key, its body as bytes, headers for who gets it."""

    topic: str
    key: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Transaction:
    """What a transactional tool asks for while it is performed; committed with its receipt, or not at all."""

    __slots__ = ("_topics", "posts", "writes")

    def __init__(self, topics: Collection[str] = ()) -> None:
        self._topics = topics
        self.writes: list[Statement] = []
        self.posts: list[Publication] = []

    def fresh(self) -> Transaction:
        """An empty one, for one attempt."""
        return Transaction(self._topics)

    def adopt(self, attempt: Transaction) -> None:
        """The attempt has succeeded: what it asked for counts, and nothing else."""
        self.writes, self.posts = attempt.writes, attempt.posts

    def publish(self, post: Publication) -> None:
        """Ask for a message; raises :class:`UsageError` (``outbox.topic_unknown``) for a topic that nobody delivers."""
        if post.topic not in self._topics:
            there_are = ", ".join(sorted(self._topics)) or "none"
            raise UsageError(
                "outbox.topic_unknown",
                f"no topic is called {post.topic[:80]!r}; declare it with deck.outbox; there are: {there_are}",
            )
        self.posts.append(post)


class ToolContext(msgspec.Struct, frozen=True, gc=False):
    """What a tool is told about the step it performs. ``idempotency_key`` is the same for every attempt of the same step.

    ``actor`` is the person on whose behalf the run acts; ``service`` the agent's own identity, under which the tool should act: the
    runtime never holds a person's credentials. ``secrets`` are those that the tool's manifest names. A tool that takes long, and declares
    ``heartbeat_timeout``, calls :meth:`heartbeat`.
    """

    run_id: str
    call: str
    tenant: str
    actor: str
    idempotency_key: str
    service: str = ""
    secrets: Mapping[str, Secret] = {}
    transaction: Transaction | None = None
    beat: Callable[[], None] | None = None
    report: Callable[[Report], None] | None = None

    def heartbeat(self) -> None:
        """Give a sign of life. A tool that has declared ``heartbeat_timeout`` and gives none for so long is abandoned.

        From any thread; for a tool that has declared none it does nothing.
        """
        if self.beat is not None:
            self.beat()

    def progress(self, done: int, total: int | None = None, note: str = "") -> None:
        """Tell whoever follows the run how far this call is: so much is done, of ``total`` where you know it. A sign of life as well.

        From any thread, as often as you like: the newest report replaces those before it, and is written down at most every
        :data:`~quarterdeck.core.progress.EVERY_S` seconds. ``note`` is a sentence for people, at most
        :data:`~quarterdeck.core.progress.MAX_NOTE` characters of it. Raises :class:`UsageError` (``progress.invalid``).
        """
        said = report(done, total, note)
        self.heartbeat()
        if self.report is not None:
            self.report(said)

    def execute(self, sql: str, *values: Scalar, rows: int | None = None) -> None:
        """Ask for a statement on your own tables in the store's database, in one transaction with this call's receipt.

        Parameters are ``$1``, ``$2`` …; with ``rows``, the call fails (``tool.statement``) unless it changes exactly so many. Nothing is
        executed before the tool has returned. Only for tools that are declared ``transactional`` (else ``tool.not_transactional``).
        """
        self._open().writes.append(Statement(sql, values, rows))

    def publish(self, topic: str, body: object, *, key: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Ask for a message to leave once this call's receipt is durable: JSON, or bytes as they are.

        Messages with one ``key`` leave in order; without one, those of one run do.
        """
        encoded = body if isinstance(body, bytes) else strictly(_encoder, body)
        self._open().publish(Publication(topic, key, encoded, headers))

    def _open(self) -> Transaction:
        if self.transaction is None:
            raise UsageError(
                "tool.not_transactional", "declare the tool with transactional=True, so that this commits with its receipt"
            )
        return self.transaction


class ToolFailure(Exception):
    """A tool says that it failed, and how: raise it from a tool for a failure that the model may see.

    ``transient``: the same call may succeed later. ``done``: whether the effect may have happened all the same (``None``: not known,
    the effect then counts as unknown unless the tool is a read or can be reconciled).
    """

    def __init__(self, code: str, message: str, *, transient: bool = False, done: bool | None = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.transient = transient
        self.done = done


class Finding(msgspec.Struct, frozen=True):
    """What a reconcile function found out: the effect ``succeeded`` (with its result), ``failed`` (it did not happen), or ``unknown``."""

    status: ReceiptStatus
    result: object = None


@runtime_checkable
class Exclusive(Protocol):
    """A tool whose spec says ``exclusive``."""

    def exclusive_key(self, arguments: bytes) -> str:
        """The key of what a call with these canonical arguments works on."""
        ...


class Tool(Protocol):
    """One tool. Implementations check untrusted arguments themselves; they never see what did not fit."""

    @property
    def spec(self) -> ToolSpec:
        """The manifest."""
        ...

    def fit(self, arguments: bytes) -> str:
        """Why these canonical arguments do not fit the schema, in one sentence for the model; empty if they do."""
        ...

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Perform once and return the result as JSON. Raises whatever the tool raises; never retries."""
        ...

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Find out whether the effect under this idempotency key happened; only for tools whose spec says so."""
        ...
