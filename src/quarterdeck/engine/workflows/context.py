"""What a workflow is given: the only way in which it acts, waits, asks, or learns anything."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, TypeVar

import msgspec

from quarterdeck.core.contract import Limits
from quarterdeck.core.errors import UsageError
from quarterdeck.core.progress import report
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.core.steps import StepKind
from quarterdeck.engine.workflows.errors import Continued, Denied, StepFailed
from quarterdeck.engine.workflows.play import Play
from quarterdeck.engine.workflows.saga import Saga
from quarterdeck.engine.workflows.strands import Branches, Step

T = TypeVar("T")

STEP_RETRY = RetryPolicy(max_attempts=3, base_s=0.1, cap_s=5.0, unknown_is_transient=True)
"""How often a function is tried that says nothing about its errors: it is a read, so trying again is harmless."""
MODEL_TRIES = 3
"""How often a model call is asked for that may have been billed and gave nothing: each time anew, with a new reservation."""
REPROPOSED = frozenset({"model.timeout", "model.connection", "model.garbled", "model.interrupted", "effect.perform_by"})
"""The failures after which it is."""


CAPACITY = frozenset({"breaker", "bulkhead", "rate"})
"""Families of codes that say that a dependency cannot serve now."""


class Answer(msgspec.Struct, frozen=True):
    """What a person, or the clock, said to :meth:`Context.approve`; true if it is a yes.

    ``outcome`` is ``approved``, ``rejected`` or ``expired``; ``escalated`` whether a second person had to be asked.
    """

    outcome: str
    by: str = ""
    reason: str = ""
    escalated: bool = False

    def __bool__(self) -> bool:
        return self.outcome == "approved"

    def require(self) -> Answer:
        """This answer, if it is a yes; else raises :class:`Denied` (``approval.rejected``, ``approval.expired``)."""
        if not self:
            raise Denied(f"approval.{self.outcome}", f"{self.by or 'nobody'} answered{': ' if self.reason else ''}{self.reason}")
        return self


class Context:
    """One execution of a workflow, as its function sees it.

    Everything is awaited one after the other, or side by side with :meth:`gather`. A step that is denied raises :class:`Denied`, one
    that fails :class:`StepFailed`, one of a cancelled run ``asyncio.CancelledError``; uncaught, they end the run with their code.
    ``key`` names a step, so that steps before it may come and go with the code; a name is used once.
    """

    def __init__(self, play: Play) -> None:
        self._play = play

    @property
    def run_id(self) -> str:
        """The run."""
        return self._play.state.contract.run_id

    @property
    def tenant(self) -> str:
        """On whose behalf it runs."""
        return self._play.state.contract.tenant

    @property
    def user(self) -> str:
        """Who asked for it."""
        return self._play.state.contract.actor

    async def step(
        self,
        function: Callable[..., object],
        /,
        *arguments: object,
        key: str | None = None,
        timeout: str | float = 30.0,  # noqa: ASYNC109 - recorded with the step, not a time-out of the caller
        retry: RetryPolicy = STEP_RETRY,
        **named: object,
    ) -> object:
        """Call an ordinary function, plain or ``async``, once for ever: its JSON result is recorded.

        The function must only read, or compute: after a crash in the middle, it is called again.
        """
        options = {"function": function, "arguments": arguments, "named": named, "timeout_s": _seconds(timeout), "retry": retry}
        name = getattr(function, "__qualname__", type(function).__name__)[-120:]
        return await Step(StepKind.FUNCTION, name, [arguments, named] if named else [arguments], key=key, options=options)

    async def either(self, *tools: str | Callable[..., object], key: str | None = None, **arguments: object) -> object:
        """The answer of the first of these tools that gives one: each is called, as a proposal of its own, where the one before has failed
        or has no capacity. What is denied for another reason is denied.
        """
        for place, tool in enumerate(tools):
            again = key if key is None or not place else f"{key}.or{place}"
            try:
                return await self.tool(tool, key=again, **arguments)
            except (StepFailed, Denied) as error:
                spent = isinstance(error, Denied) and error.code.partition(".")[0] not in CAPACITY
                if spent or place + 1 == len(tools):
                    raise
        raise UsageError("tool.undeclared", "name at least one tool")

    async def tool(self, tool: str | Callable[..., object], /, *, key: str | None = None, **arguments: object) -> object:
        """Call a tool, through the gate. Raises what its receipt says; an effect that nobody knows the end of waits for a person."""
        name = self._name(tool)
        step = Step(StepKind.TOOL, name, arguments, key=key)
        sagas = self._play.strand().sagas
        result = await step
        compensation = self._play.compensations.get(name)
        if sagas and compensation is not None:
            undoing = self._undoing(step.call, arguments, result)
            sagas[-1].remember(StepKind.TOOL, compensation, undoing, step.call, automatic=True)
        return result

    async def model(
        self,
        name: str,
        *messages: str | Mapping[str, str],
        max_output_tokens: int = 800,
        key: str | None = None,
    ) -> str:
        """Ask a model. Messages are texts of the user, or ``{"role": …, "content": …}``; its text is returned."""
        said = [{"role": "user", "content": item} if isinstance(item, str) else dict(item) for item in messages]
        arguments = {"messages": said, "max_output_tokens": max_output_tokens}
        for attempt in range(MODEL_TRIES):
            again = None if key is None else key if not attempt else f"{key}.again{attempt}"
            try:
                return str(await Step(StepKind.MODEL, name, arguments, key=again))
            except StepFailed as failed:
                if failed.code not in REPROPOSED or attempt + 1 == MODEL_TRIES:
                    raise
        raise AssertionError("a model is asked at least once")

    async def agent(self, agent: object, payload: object = None, *, budget: object = None, key: str | None = None) -> object:
        """Delegate to an agent (or any route): a run of its own, within what this run may still consume. Its answer, as text.

        ``budget`` is the share that is set aside for it, by default all that is left of what is limited here; what it does not
        consume comes back.
        """
        return await self._delegate(agent, payload, budget, key)

    async def workflow(
        self,
        workflow: object,
        payload: object = None,
        *,
        budget: object = None,
        key: str | None = None,
        ordering_key: str | None = None,
    ) -> object:
        """Delegate to another workflow: a run of its own. What it returned.

        With an ``ordering_key`` it waits for its turn among the runs of that key on its route. Denied (``ordering.deadlock``) where this
        run, or one that waits for it, has that turn.
        """
        return await self._delegate(workflow, payload, budget, key, ordering_key)

    async def publish(self, topic: str, body: object, *, key: str = "", step: str | None = None) -> str:
        """Let a message leave, once for ever: recorded with the step, delivered at least once by ``deck.outbox(topic)``. Its name.

        Messages of one ``key`` leave in order; without one, those of this run do. It is a call of the tool ``publish.<topic>``, through the
        gate. ``step`` names the step.
        """
        return str(await self.tool(f"publish.{topic}", key=step, body=body, message_key=key))

    async def approve(
        self,
        name: str,
        shown: object = None,
        *,
        timeout: str | float = "24h",  # noqa: ASYNC109 - a durable timer
        on_timeout: str = "deny",
        key: str | None = None,
    ) -> Answer:
        """Ask a person about exactly what is ``shown``; the run waits as rows. Whoever asked for the run cannot answer.

        Nobody answers within ``timeout`` (``"24h"``, or seconds):
        with ``"deny"`` that is a no, with ``"escalate"`` another person is asked once, for as long
        again.
        """
        if on_timeout not in ("deny", "escalate"):
            raise UsageError("approval.on_timeout", f"on_timeout is 'deny' or 'escalate', not {on_timeout!r}")
        options = {"shown": shown, "timeout_s": _seconds(timeout), "escalate": on_timeout == "escalate"}
        arguments = {"shown": shown, "timeout_s": options["timeout_s"], "on_timeout": on_timeout}
        return msgspec.convert(await Step(StepKind.APPROVAL, name, arguments, key=key, options=options), Answer)

    async def sleep(self, seconds: str | float, *, key: str | None = None) -> None:
        """Wait, as a durable timer: never shorter, also across restarts, and as rows only."""
        await Step(StepKind.TIMER, "sleep", {"s": _seconds(seconds)}, key=key, due_s=_seconds(seconds))

    async def signal(
        self,
        name: str,
        *,
        timeout: str | float | None = None,  # noqa: ASYNC109 - a durable timer
        key: str | None = None,
    ) -> object:
        """Wait for a message of this name; its payload. Messages that came earlier are taken first, each once.

        Raises :class:`StepFailed` (``signal.timeout``) after ``timeout``.
        """
        due_s = None if timeout is None else _seconds(timeout)
        return await Step(StepKind.SIGNAL, name, {"timeout_s": due_s}, key=key, due_s=due_s)

    def continue_as_new(self, payload: object = None) -> NoReturn:
        """Begin this workflow anew with ``payload``: the same run, with a fresh history, so that executing it again never costs more
        than one generation. Messages that were not taken go along. Its budget, its effects and its result stay the run's.

        Not inside a saga or a branch (``workflow.continue_place``): what they have open would be forgotten.
        """
        strand = self._play.strand()
        if strand.sagas or strand.parent is not None:
            said = "a workflow begins anew only outside of every saga and branch; leave them first"
            raise UsageError("workflow.continue_place", said)
        raise Continued(payload)

    def interrupts(self) -> list[object]:
        """What the run was told by :meth:`~quarterdeck.app.runtime.Runtime.interrupt` since the last time that this was asked, oldest
        first. The same in every execution. A workflow that is declared with ``interrupts="raise"`` gets what comes while it waits (for
        a timer, a message, a person) as :class:`Interrupted` there.
        """
        told, self._play.interrupts = self._play.interrupts, []
        return told

    async def gather(self, *parts: Awaitable[T], return_exceptions: bool = False) -> list[T]:
        """Await several things side by side; their results, in order. All are waited for, then the first error is raised."""
        branches = await Branches(parts)
        errors = [branch.error for branch in branches if branch.error is not None]  # type: ignore[attr-defined]
        if errors and not return_exceptions:
            raise next((error for error in errors if not isinstance(error, Exception)), errors[0])
        return [branch.result if branch.error is None else branch.error for branch in branches]  # type: ignore[attr-defined]

    def saga(self) -> Saga:
        """``async with ctx.saga() as saga``: if the block is left by an error, what it has done is undone, newest first."""
        return Saga(self._play)

    def now(self) -> float:
        """Seconds since 1970, UTC: when what the workflow was told last has happened. The same in every execution."""
        return self._play.told_us / 1e6

    def random(self) -> float:
        """A number from 0 up to 1, the same in every execution. Not for secrets."""
        return int.from_bytes(self._play.draw()[:7], "big") / 2.0**56

    def uuid(self) -> str:
        """A UUID, the same in every execution, different from every other. Not for secrets."""
        return str(uuid.UUID(bytes=self._play.draw()[:16], version=4))

    def emit(self, name: str, data: object = None) -> None:
        """Record something for whoever follows the run, once."""
        self._play.mark(StepKind.EMIT, name, data)

    def progress(self, done: int, total: int | None = None, note: str = "") -> None:
        """Tell whoever follows the run how far it is; no step, so it may come and go with the code.

        The newest report replaces those before it, so say it as often as you like: it is written down at most every
        :data:`~quarterdeck.core.progress.EVERY_S` seconds. Raises :class:`UsageError` (``progress.invalid``).
        """
        self._play.report(report(done, total, note))

    def patched(self, name: str) -> bool:
        """Whether to take the way that was added under this name: no for a run that went the old way here, yes for every other."""
        return self._play.patched(name)

    def _name(self, tool: str | Callable[..., object]) -> str:
        name = tool if isinstance(tool, str) else self._play.names.get(tool)
        if name is None:
            shown = getattr(tool, "__name__", tool)
            raise UsageError("tool.undeclared", f"{shown} is not a tool of this deck; decorate it with @deck.tool(effect=…)")
        return name

    async def _delegate(
        self, program: object, payload: object, budget: object, key: str | None, ordering_key: str | None = None
    ) -> object:
        name = program if isinstance(program, str) else getattr(program, "name", None) or self._play.names.get(program)
        if not isinstance(name, str):
            raise UsageError(
                "workflow.program", f"{program!r:.80} is no program; pass the name of a route, an agent or a workflow"
            )
        limits = budget.limits() if hasattr(budget, "limits") else Limits()
        return await Step(StepKind.CHILD, name, payload, key=key, options={"limits": limits, "ordering_key": ordering_key})

    def _undoing(self, call: str, arguments: Mapping[str, object], result: object) -> dict[str, object]:
        return {"key": f"{self._play.owner(call)}:{call}", "arguments": dict(arguments), "result": result}


def _seconds(value: str | float) -> float:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if match is None:
            raise UsageError("duration.invalid", f"{value!r} is not a duration; write 250ms, 15s, 5m, 24h or 7d")
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not 0 <= value < 1e9:
        raise UsageError("duration.invalid", f"{value!r} is not a duration in seconds")
    return float(value)


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
