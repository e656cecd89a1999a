"""The scheduler that workflows run on: coroutines that can wait for steps and for each other, and for nothing else.

There is no clock, no queue of the event loop and no thread in it: the only thing that makes a strand go on is an answer that is
delivered to it. So the same answers in the same order give the same execution.

>>> async def twice(step):
...     return await step + 1
>>> step = Step(StepKind.FUNCTION, "one")
>>> strands = Strands(lambda strand, step: "1")
>>> strands.start(twice(step))
>>> strands.run()
>>> list(strands.waiting), strands.main.done
(['1'], False)
>>> strands.deliver("1", 41, None)
>>> strands.run()
>>> strands.main.result
42
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any

from quarterdeck.core.errors import UsageError
from quarterdeck.core.steps import StepKind
from quarterdeck.engine.workflows.errors import Diverged

MAX_BRANCHES = 1_000
"""The most branches of one ``gather``."""

_log = logging.getLogger(__name__)


class Step:
    """One step that a workflow asks for, when it is awaited: what, by which name, with which arguments.

    ``options`` are what is needed to perform it and does not make it another step: functions, limits, time-outs. ``call`` is its call
    key, once it was asked for.
    """

    __slots__ = ("arguments", "call", "due_s", "key", "kind", "name", "options", "undoes")

    def __init__(
        self,
        kind: StepKind,
        name: str,
        arguments: object = None,
        *,
        key: str | None = None,
        due_s: float | None = None,
        undoes: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.arguments = arguments
        self.key = key
        self.due_s = due_s
        self.undoes = undoes
        self.options: Mapping[str, Any] = options or {}
        self.call = ""

    def __await__(self) -> Generator[Step, object, object]:
        return (yield self)


class Branches:
    """Several things to be awaited side by side."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Awaitable[object]]) -> None:
        self.parts = parts

    def __await__(self) -> Generator[Branches, object, object]:
        return (yield self)


class Strand:
    """One branch of a workflow: a coroutine, its scope (the first part of its steps' keys), and how it ended."""

    __slots__ = ("asked", "coroutine", "done", "error", "open", "parent", "part", "result", "sagas", "scope")

    def __init__(
        self, coroutine: Coroutine[object, object, object], scope: str, parent: Strand | None, part: object = None
    ) -> None:
        self.coroutine = coroutine
        self.part = part
        self.scope = scope
        self.parent = parent
        self.asked = 0
        self.open: list[Strand] = []
        self.sagas: list[Any] = list(parent.sagas) if parent is not None else []
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None

    def place(self) -> str:
        """The key of the next thing that this strand asks for."""
        self.asked += 1
        return f"{self.scope}{self.asked}"


class Strands:
    """All branches of one execution of a workflow. ``issue`` is told of every step, in order, and gives its call key."""

    def __init__(self, issue: Callable[[Strand, Step], str]) -> None:
        self._issue = issue
        self._ready: deque[tuple[Strand, object, BaseException | None]] = deque()
        self.waiting: dict[str, tuple[Strand, Step]] = {}
        self.current: Strand | None = None
        self.main: Strand

    def start(self, coroutine: Coroutine[object, object, object], scope: str = "") -> None:
        """Begin with the function itself; ``scope`` is the first part of all its keys."""
        self.main = Strand(coroutine, scope, None)
        self._ready.append((self.main, None, None))

    def deliver(self, call: str, value: object, error: BaseException | None) -> None:
        """Give the strand that waits for this step its answer."""
        strand, _ = self.waiting.pop(call)
        self._ready.append((strand, value, error))

    def run(self) -> None:
        """Run until every strand waits for something, or has ended. No event loop can be seen from inside."""
        loop = events._get_running_loop()
        events._set_running_loop(None)
        try:
            while self._ready:
                self._advance(*self._ready.popleft())
        finally:
            events._set_running_loop(loop)
            self.current = None

    def close(self) -> None:
        """Let go of every strand, without running anything more of it than it insists on."""
        strands = [strand for strand, _ in self.waiting.values()] + [strand for strand, _, _ in self._ready]
        while strands:
            strand = strands.pop()
            if strand.parent is not None:
                strands.append(strand.parent)
            if not strand.done:
                strand.done = True
                try:
                    strand.coroutine.close()
                    _let_go(strand.part)
                except BaseException as error:  # the one broad except of letting go
                    _log.debug("a workflow did not let go quietly: %r", error)

    def _advance(self, strand: Strand, value: object, error: BaseException | None) -> None:
        self.current = strand
        try:
            asked = strand.coroutine.throw(error) if error is not None else strand.coroutine.send(value)
        except StopIteration as stop:
            self._end(strand, stop.value, None)
        except Diverged:
            raise
        except BaseException as raised:  # the one broad except of the workflow
            self._end(strand, None, raised)
        else:
            self._take(strand, asked)

    def _take(self, strand: Strand, asked: object) -> None:
        try:
            if isinstance(asked, Step):
                asked.call = self._issue(strand, asked)
                self.waiting[asked.call] = (strand, asked)
            elif isinstance(asked, Branches):
                self._branch(strand, asked)
            else:
                raise foreign(f"it awaited {type(asked).__name__}")
        except UsageError as wrong:
            self._ready.append((strand, None, wrong))

    def _branch(self, strand: Strand, asked: Branches) -> None:
        if len(asked.parts) > MAX_BRANCHES:
            for part in asked.parts:
                _let_go(part)
            raise UsageError("workflow.too_many_branches", f"gather takes at most {MAX_BRANCHES} branches; make it several")
        scope = strand.place()
        strand.open = [Strand(_alone(part), f"{scope}.{index}/", strand, part) for index, part in enumerate(asked.parts)]
        if not strand.open:
            self._ready.append((strand, [], None))
        for branch in strand.open:
            self._ready.append((branch, None, None))

    def _end(self, strand: Strand, result: object, error: BaseException | None) -> None:
        strand.done, strand.result, strand.error = True, result, error
        parent = strand.parent
        if parent is not None and all(branch.done for branch in parent.open):
            branches, parent.open = parent.open, []
            self._ready.append((parent, branches, None))


def foreign(what: str) -> UsageError:
    """The error of a workflow that awaits what is not recorded."""
    said = f"{what}; a workflow may await only its context (ctx.step, ctx.sleep, ctx.gather …): move the rest into a step"
    return UsageError("workflow.foreign_await", said)


async def _alone(part: Awaitable[object]) -> object:
    return await part


def _let_go(part: object) -> None:
    """What was handed to ``gather`` and never begun must not be reported as forgotten."""
    if asyncio.iscoroutine(part):
        part.close()
