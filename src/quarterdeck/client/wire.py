"""Requests, and what became of them, as data; and the language in which a flow says what it needs next.

A *flow* is a generator. It yields a command (send this, read on, pause, show an item to the caller) and is told the outcome, with the
time at which it began and ended and a random number, so that flows need no clock and no luck of their own. A transport performs the
commands; tests can tell a flow whatever they like.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Generic, TypeAlias, TypeVar, cast

import msgspec

Item = TypeVar("Item")
Shown_co = TypeVar("Shown_co", covariant=True)
Result = TypeVar("Result")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request without its address and credentials. ``path`` is percent-encoded already."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    @property
    def writes(self) -> bool:
        """Whether it can change something."""
        return self.method != "GET"


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. Header names are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes


class Opened(msgspec.Struct, frozen=True):
    """The head of an answer whose body is read piece by piece."""

    headers: dict[str, str]


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a body."""

    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """A body ended as it should."""


class Lost(msgspec.Struct, frozen=True):
    """No answer, or not all of it. ``sent``: the server may have received the request; ``passing``: trying again can help."""

    code: str
    detail: str
    sent: bool
    passing: bool = True


class Nothing(msgspec.Struct, frozen=True):
    """The outcome of what has none."""


Outcome: TypeAlias = Answer | Opened | Chunk | Ended | Lost | Nothing


class Told(msgspec.Struct, frozen=True):
    """What became of a command, when (monotonic seconds), and a number in [0, 1)."""

    outcome: Outcome
    began_s: float
    ended_s: float
    luck: float


class Send(msgspec.Struct, frozen=True):
    """Send a request and read the whole answer within ``timeout_s``."""

    request: Request
    timeout_s: float


class Open(msgspec.Struct, frozen=True):
    """Send a request; a 200 is :class:`Opened`, anything else a whole :class:`Answer`. ``silence_s`` bounds each later read."""

    request: Request
    timeout_s: float
    silence_s: float


class Read(msgspec.Struct, frozen=True):
    """Read on in what was opened."""


class Shut(msgspec.Struct, frozen=True):
    """Let go of what was opened."""


class Pause(msgspec.Struct, frozen=True):
    """Let some time pass."""

    seconds: float


class Show(msgspec.Struct, Generic[Shown_co], frozen=True):
    """Give an item to whoever iterates."""

    item: Shown_co


Act: TypeAlias = Send | Open | Read | Shut | Pause
"""What a transport performs."""
Flow: TypeAlias = Generator[Act | Show[Item], Told, Result]
"""Gives items to whoever iterates, and a result at its end."""

NOTHING = Told(Nothing(), 0.0, 0.0, 0.0)


class Course(Generic[Item, Result]):
    """A flow under way: ``command`` is what it needs next, ``None`` at its end; then there is a ``result``."""

    def __init__(self, flow: Flow[Item, Result]) -> None:
        self._flow = flow
        self._result: Result | None = None
        self.command: Act | Show[Item] | None = None
        self._go(None)

    @property
    def result(self) -> Result:
        """What the flow came to."""
        if self.command is not None:
            raise RuntimeError("the flow has not ended")
        return cast(Result, self._result)

    def tell(self, told: Told) -> None:
        """Tell the flow what became of its command; raises what the flow raises."""
        self._go(told)

    def close(self) -> None:
        """Give up."""
        self._flow.close()

    def _go(self, told: Told | None) -> None:
        try:
            self.command = next(self._flow) if told is None else self._flow.send(told)
        except StopIteration as end:
            self.command, self._result = None, end.value
