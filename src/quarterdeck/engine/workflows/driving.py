"""Drives one workflow, from claim to rest: deliver what has arrived, begin what was asked for, wait, again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import strictly
from quarterdeck.core.carrying import carried
from quarterdeck.core.commit import MAX_RECORD
from quarterdeck.core.errors import Corrupt, QuarterdeckError, UsageError
from quarterdeck.core.fold import RESULT
from quarterdeck.core.judge import revoked
from quarterdeck.core.loop import Finish, Wait
from quarterdeck.core.steps import StepKind
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling, Status, StopReason
from quarterdeck.engine.acting import Allowed, act, perform
from quarterdeck.engine.asking import decided
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.recovery import recover
from quarterdeck.engine.reports import OWN
from quarterdeck.engine.workflows import performing, waiting
from quarterdeck.engine.workflows.children import delegate, look_after
from quarterdeck.engine.workflows.diverged import part, stop_started
from quarterdeck.engine.workflows.errors import Continued, Denied
from quarterdeck.engine.workflows.play import Play
from quarterdeck.engine.workflows.program import WorkflowProgram
from quarterdeck.engine.workflows.recording import Recording
from quarterdeck.engine.workflows.strands import Step, foreign
from quarterdeck.gate.proposals import propose_reply
from quarterdeck.resilience.dependency import Permit
from quarterdeck.resilience.failures import said

BREATH = 256
"""Answers that are delivered at once; after so many, other runs have their turn."""
LOOK_S = 1.0
"""How often a run that performs something looks whether anything else has come for it."""

Resting = Callable[[Held, Rest], Awaitable[bool]]
"""Commits that a run waits or has ended; false if something new came first."""

_encoder = msgspec.json.Encoder(order="deterministic")


class WorkflowOutput(msgspec.Struct, frozen=True, omit_defaults=True):
    """The payload of a workflow's ``run.finished``: what it returned, as a value and as text, or why it did not."""

    text: str = ""
    message: str = ""
    value: msgspec.Raw = msgspec.Raw(b"null")


async def drive_workflow(held: Held, resting: Resting) -> bool:
    """Drive a workflow until it waits or ends; or, if this process stops, to where nothing is being performed: then false."""
    recording, program = held.transcript, held.program
    if not isinstance(recording, Recording) or not isinstance(program, WorkflowProgram):
        raise TypeError(f"run {held.run_id} is no workflow")
    driver = _Driver(held, recording, program)
    try:
        while True:
            rest = await driver.round()
            if driver.gave_way:
                await held.sequencer.flush()
                return False
            if rest is not None and await resting(held, rest):
                return True
    finally:
        await driver.leave()


class _Driver:
    """One workflow in the hands of one worker. ``tasks`` are the steps that are being performed, by call key."""

    def __init__(self, held: Held, recording: Recording, program: WorkflowProgram) -> None:
        self.held = held
        self.recording = recording
        self.program = program
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.recovered = False
        self.begun = False
        self.gave_way = False
        self.uncertain: set[str] = set()
        clock = held.services.clock
        spec = held.services.gate.catalogue.spec

        def play() -> Play:
            noted, told = held.sequencer.note, held.reports.reporter(OWN)
            return Play(held.state, recording, noted, clock.now_us, spec, program.compensations, program.names, told)

        self._anew = play
        self.play = play()

    async def round(self) -> Rest | None:
        """Deliver, look around, begin, wait: one of them, or a rest."""
        play, recording = self.play, self.recording
        if not self.begun:
            self.begun = True
            play.begin(lambda play: self.program.body(play, recording.input))
        await self._deliver()
        if not recording.arrivals:
            play.require_all()
        if play.diverged is not None:
            return await part(self.held, recording, self.program, play.diverged)
        if play.ended:
            return await self._stop_started() or await self._end()
        if self.held.services.drain.asked:
            if self.tasks:
                await self._wait()
            self.gave_way = not self.tasks
            return None
        if not self.recovered:
            if self.held.state.open and (rest := await recover(self.held, tuple(self.held.state.open))) is not None:
                return rest
            self.recovered = True
        if self.held.sequencer.intending:  # a step commits by itself: what was noted meanwhile is told first
            await self.held.sequencer.certain()
            return None
        await waiting.look(self.held, recording, play.waiting, self.tasks, raises=self.program.raises)
        if recording.arrivals:
            return None
        if self.held.state.paused and not self.held.state.cancelled_by:
            if not self.tasks:
                return Rest(Wait(StopReason.BLOCKED, "run.paused", ("operator",), None))
            await self._wait()
            return None
        rest = await self._begin_steps()
        if recording.arrivals:
            return None
        if self.tasks:
            await self._wait()
            return None
        return rest or Rest(waiting.wait_of(self.held, recording, play.waiting))

    async def leave(self) -> None:
        """Let go: what is being performed is waited for, unless this worker itself is told to stop."""
        task = asyncio.current_task()
        for performed in self.tasks.values():
            if task is not None and task.cancelling():
                performed.cancel()
        if self.tasks:
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        self.play.close()

    async def _deliver(self) -> None:
        told = 0
        while self.recording.arrivals and self.play.diverged is None:
            event, payload = self.recording.arrivals[0]
            if isinstance(event, (ev.ToolClosed, ev.EffectResolved)) and event.call in self.uncertain:
                await self.held.sequencer.flush()  # what could not be had again is durable before the workflow sees it
                self.uncertain.discard(event.call)
            self.recording.arrivals.popleft()
            self.play.tell((event, payload))
            told += 1
            if not told % BREATH:
                loop = asyncio.get_running_loop()
                breath: asyncio.Future[None] = loop.create_future()
                loop.call_soon(breath.set_result, None)
                await breath

    async def _begin_steps(self) -> Rest | None:
        """Begin every step that can begin: through the gate where it is a proposal, and never before its intent is durable."""
        held, state = self.held, self.held.state
        calls: list[str] = []
        functions: list[tuple[str, Step]] = []
        rest: Rest | None = None
        over = waiting.stopped(state, held.services.clock.now_us()) is not None
        for call, (_, step) in list(self.play.waiting.items()):
            mark = state.calls.get(call)
            if mark is None or call in self.tasks:
                continue
            if step.undoes in state.inherited:  # it belongs to the run that this one was forked from
                now_us = held.services.clock.now_us()
                held.note(ev.StepClosed(now_us, call, ReceiptStatus.SUCCEEDED, "effect.inherited"), b"null")
                continue
            if step.kind is StepKind.TOOL and waiting.can_decide(state, mark, call, stopped=over):
                calls.append(call)
            elif step.kind is StepKind.MODEL:
                rest = await self._begin_model(call, step) or rest
            elif step.kind is StepKind.CHILD and not mark.opened and waiting.can_decide(state, mark, call, stopped=over):
                await delegate(held, call, step)
                if call in state.children:
                    await look_after(held, call, step, cancel=False)
            elif step.kind is StepKind.APPROVAL:
                await waiting.request(held, call, step)
            elif step.kind is StepKind.FUNCTION:
                functions.append((call, step))
        if calls and (stopped := await act(held, tuple(calls), self._perform)) is not None:
            for event, payload in stopped.happenings:
                held.note(event, payload)
            rest = stopped if isinstance(stopped.how, Wait) else rest
        if functions:
            await self._begin_functions(functions)
        return Rest(rest.how) if rest is not None else None

    async def _perform(self, held: Held, allowed: list[Allowed], until_s: float) -> None:
        for item in allowed:
            spec, call = item.tool.spec, item.proposal.call
            if not spec.repeatable:
                self.uncertain.add(call)
            self._start(call, perform(held, item, until_s))

    async def _begin_model(self, call: str, step: Step) -> Rest | None:
        try:
            asked = await performing.ask(self.held, call, step)
        except QuarterdeckError as error:
            if not isinstance(error, UsageError):
                raise
            shown = _encoder.encode({"error": error.code, "message": error.message})
            self.held.note(ev.StepClosed(self.held.services.clock.now_us(), call, ReceiptStatus.FAILED, error.code), shown)
            return None
        if isinstance(asked, Rest):
            return asked
        if asked is not None:
            self._start(call, self._model(*asked))
        return None

    async def _model(self, asked: performing.Asked, permit: Permit, until_s: float) -> None:
        self.held.note(*await performing.perform_ask(self.held, asked, permit, until_s))

    async def _begin_functions(self, functions: list[tuple[str, Step]]) -> None:
        """Functions are reads: what is durable before they begin is that they were asked for, under every guard."""
        held = self.held
        while held.sequencer.pending:
            if await held.sequencer.commit(()) is None:
                break
        now_us = held.services.clock.now_us()
        for call, step in functions:
            code = revoked(
                ProposalKind.RETRIEVAL, step.name, held.state, held.services.gate.controls, now_us, undoes=step.undoes != ""
            )
            if code is not None:
                held.note(ev.StepClosed(now_us, call, ReceiptStatus.FAILED, code), b"{}")
            else:
                self._start(call, self._function(call, step))

    async def _function(self, call: str, step: Step) -> None:
        self.held.note(*await performing.perform_function(self.held, call, step))

    def _start(self, call: str, performed: Coroutine[object, object, None]) -> None:
        self.tasks[call] = asyncio.get_running_loop().create_task(performed)

    async def _wait(self) -> None:
        """Until something that is being performed has ended, a timer is due, or it is time to look around."""
        clock = self.held.services.clock
        due_us = waiting.next_due_us(self.recording, self.play.waiting)
        pause_s = LOOK_S if due_us is None else min(LOOK_S, max(0.0, (due_us - clock.now_us()) / 1e6))
        only = len(self.tasks) == len(self.play.waiting)
        if only and len(self.tasks) == 1:  # the commonest case: one step after the other
            ((call, performed),) = self.tasks.items()
            await performed
            del self.tasks[call]
            return
        timer = None if only else asyncio.get_running_loop().create_task(clock.sleep(pause_s))
        awaited = [*self.tasks.values(), *([timer] if timer is not None else [])]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()
        for call, task in list(self.tasks.items()):
            if task.done():
                del self.tasks[call]
                task.result()
        if not only:
            self.held.sequencer.read_inbox()

    async def _stop_started(self) -> Rest | None:
        """In a run that was cancelled, stop what it has started outside, once nothing is being performed."""
        while self.held.state.cancelled_by and self.tasks:
            await self._wait()
        return await stop_started(self.held) if self.held.state.cancelled_by else None

    async def _end(self) -> Rest | None:
        main, state = self.play.strands.main, self.held.state
        if main.error is None:
            return self._returned(main.result)
        error = main.error
        if isinstance(error, Continued) and not state.cancelled_by:
            return await self._continue(error.payload)
        if isinstance(error, RuntimeError) and "no running event loop" in said(error):
            error = foreign("it called for an event loop")
        code = error.code if isinstance(error, QuarterdeckError) else "workflow.failed"
        how = Finish(Status.FAILED, StopReason.FAILED, code)
        if state.cancelled_by:
            how = Finish(Status.CANCELLED, StopReason.CANCELLED, "run.cancelled")
        elif code == "deadline.exceeded":
            how = Finish(Status.FAILED, StopReason.TIMED_OUT, code)
        elif isinstance(error, Denied):
            how = Finish(Status.REFUSED, StopReason.REFUSED, code)
        elif isinstance(error, Corrupt):
            raise error
        told = error.message if isinstance(error, QuarterdeckError) else f"{type(error).__name__}: {said(error)}"
        return Rest(how, (), _encoder.encode(WorkflowOutput(message=told[:2_000])))

    async def _continue(self, payload: object) -> Rest | None:
        """Begin anew, with a fresh history; only once what is noted is durable, so that the state is that of the journal."""
        held, state = self.held, self.held.state
        await held.sequencer.flush()
        try:
            left = self.recording.leaving(payload, self.play.interrupts)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            told = WorkflowOutput(message=f"it would begin anew with what has no JSON form: {str(error)[:200]}")
            return Rest(Finish(Status.FAILED, StopReason.FAILED, "workflow.result"), (), _encoder.encode(told))
        event = ev.RunContinued(held.services.clock.now_us(), state.generation + 1, state.contract, carried(state))
        if await held.sequencer.commit(((event, left),)) is None:
            self.play.close()
            self.play, self.begun = self._anew(), False
        return None  # or something came: it is told first

    def _returned(self, result: object) -> Rest:
        """What the workflow returned is itself a proposal: it leaves only if the gate allows it."""
        held, state = self.held, self.held.state
        try:
            value = strictly(_encoder, result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            told = WorkflowOutput(message=f"it returned what has no JSON form: {str(error)[:200]}")
            return Rest(Finish(Status.FAILED, StopReason.FAILED, "workflow.result"), (), _encoder.encode(told))
        text = result if isinstance(result, str) else "" if result is None else value.decode()
        output = _encoder.encode(WorkflowOutput(text, "", msgspec.Raw(value)))
        if len(output) > MAX_RECORD:
            told = WorkflowOutput(message=f"what it returned takes more than {MAX_RECORD} bytes; return less")
            return Rest(Finish(Status.FAILED, StopReason.FAILED, "workflow.result"), (), _encoder.encode(told))
        if state.cancelled_by:
            return Rest(Finish(Status.CANCELLED, StopReason.CANCELLED, "run.cancelled"), (), output)
        proposal = propose_reply(state.contract, RESULT, text)
        decision = held.services.gate.judge(proposal, state, held.standing).decision
        event = decided(held, proposal, decision)
        if decision.ruling is not Ruling.ALLOW:
            event = msgspec.structs.replace(event, ruling=Ruling.DENY)
            late = decision.reasons[0] == "deadline.exceeded"
            how = (Status.FAILED, StopReason.TIMED_OUT) if late else (Status.REFUSED, StopReason.REFUSED)
            return Rest(Finish(*how, decision.reasons[0]), ((event, None),))
        code = "completed.with_failed_effects" if state.effects.failed else "completed"
        return Rest(Finish(Status.SUCCEEDED, StopReason.COMPLETED, code), ((event, None),), output)
