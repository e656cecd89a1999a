"""What was done is undone, newest first, if what it was done for does not come about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from quarterdeck.core.steps import StepKind
from quarterdeck.engine.workflows.errors import Denied, Diverged, StepFailed
from quarterdeck.engine.workflows.play import Play
from quarterdeck.engine.workflows.strands import Step


class Undoing(msgspec.Struct, frozen=True):
    """One registered compensation: the step that undoes, and the call that is undone."""

    kind: StepKind
    name: str
    arguments: object
    undoes: str
    options: dict[str, Any] = {}
    automatic: bool = False


class Saga:
    """A block whose completed steps are undone, each once, newest first, if it is left by an error, a denial or a cancel.

    Tools that declare ``compensate=`` need nothing more. Undoing is made of steps like any other, so a crash in the middle of it goes
    on where it was. It is not stopped by a cancel, a deadline or the run's own limits. What cannot be undone is not passed over: the
    run waits for a person (``compensation.stuck``), and tries again when it is resumed. A saga inside another hands what it has done
    to the outer one when it is left in peace.
    """

    def __init__(self, play: Play) -> None:
        self._play = play
        self._done: list[Undoing] = []
        self._place = ""
        self._registered = 0

    def compensate(self, compensation: str | Callable[..., object], /, *arguments: object, **named: object) -> None:
        """Undo what was done just now by this tool, or by this function (which must be harmless to repeat).

        It takes the place of what the tool that was called last declares itself.
        """
        tool = compensation if isinstance(compensation, str) else self._play.names.get(compensation)
        self._registered += 1
        last = self._done.pop().undoes if self._done and self._done[-1].automatic else f"{self._place}.{self._registered}"
        if tool is not None:
            self.remember(StepKind.TOOL, tool, named, last)
            return
        options = {"function": compensation, "arguments": arguments, "named": named}
        name = getattr(compensation, "__qualname__", type(compensation).__name__)[-120:]
        self.remember(StepKind.FUNCTION, name, [arguments, named] if named else [arguments], last, options)

    def remember(
        self,
        kind: StepKind,
        name: str,
        arguments: object,
        undoes: str,
        options: dict[str, Any] | None = None,
        *,
        automatic: bool = False,
    ) -> None:
        """Register what undoes one completed step."""
        self._done.append(Undoing(kind, name, arguments, undoes, options or {}, automatic))

    async def __aenter__(self) -> Saga:
        strand = self._play.strand()
        self._place = strand.place()
        strand.sagas.append(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (GeneratorExit, Diverged)):
            return  # this execution ends here; the run does not
        sagas = self._play.strand().sagas
        sagas.remove(self)
        if error is None:
            if sagas:
                sagas[-1]._done.extend(self._done)
            return
        cancelled = self._play.cancelled
        if cancelled is not None and not cancelled.compensate:
            return
        while self._done:
            await self._undo(self._done.pop())

    async def _undo(self, what: Undoing) -> None:
        while True:
            try:
                await Step(what.kind, what.name, what.arguments, undoes=what.undoes, options=what.options)
            except (StepFailed, Denied, asyncio.CancelledError) as failed:
                code = getattr(failed, "code", "run.cancelled")
                told = await Step(StepKind.STUCK, what.name, {"undoes": what.undoes, "code": code}, undoes=what.undoes)
                if told == "done":
                    return
            else:
                return
