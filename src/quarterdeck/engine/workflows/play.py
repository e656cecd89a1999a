"""One execution of a workflow: it is asked for steps, compares those that are recorded, and tells what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import strictly
from quarterdeck.core.contract import NAME
from quarterdeck.core.errors import UsageError
from quarterdeck.core.progress import Report
from quarterdeck.core.state import RunState
from quarterdeck.core.steps import MARKERS, StepKind, step_digest
from quarterdeck.core.vocabulary import ReceiptStatus, Status
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.engine.workflows.errors import Denied, Diverged, Interrupted, StepFailed
from quarterdeck.engine.workflows.recording import Arrival, Recording, value_of
from quarterdeck.engine.workflows.strands import Step, Strand, Strands

if TYPE_CHECKING:
    from quarterdeck.core.specs import ToolSpec

MAX_ARGUMENTS = 1_048_576
"""The longest arguments of one step, in bytes of JSON."""
MAX_UNHEEDED = 1_000
"""How many steps a workflow may ask for after a cancel, beside those that undo, before it is ended."""

_encoder = msgspec.json.Encoder(order="deterministic")
_payloads: msgspec.json.Decoder[ModelPayload] = msgspec.json.Decoder(ModelPayload)

Body = Callable[["Play"], Coroutine[object, object, object]]
"""Makes the coroutine of a workflow, for one execution."""


class Play:
    """Executes a workflow against its recording, and beyond it.

    ``note`` records a step that is asked for the first time. While ``recording.proposals`` holds any, the workflow is being replayed:
    what it asks for must be exactly the next one of them.
    """

    def __init__(
        self,
        state: RunState,
        recording: Recording,
        note: Callable[[ev.StepProposed, bytes], None],
        now_us: Callable[[], int],
        tools: Callable[[str], ToolSpec | None],
        compensations: Mapping[str, str],
        names: Mapping[object, str],
        report: Callable[[Report], None] | None = None,
    ) -> None:
        self.state = state
        self.recording = recording
        self.tools = tools
        self.compensations = compensations
        self.names = names
        self.told_us = state.begun_at_us or state.contract.admitted_at_us
        self.cancelled: ev.CancelRequested | None = None
        self.diverged: Diverged | None = None
        self.unheeded = 0
        self.drawn = 0
        self.interrupts: list[object] = []
        self._note = note
        self._report = report
        self._now_us = now_us
        self._named: set[str] = set()
        self._patches: dict[str, bool] = {}
        self.strands = Strands(self._issue)

    @property
    def replaying(self) -> bool:
        """Whether something is recorded that the workflow has not asked for again, or was not told again."""
        return bool(self.recording.proposals)

    @property
    def waiting(self) -> dict[str, tuple[Strand, Step]]:
        """The steps without an answer, by call key, in the order in which they were asked for."""
        return self.strands.waiting

    @property
    def ended(self) -> bool:
        """Whether the function has returned or raised."""
        return self.strands.main.done

    def begin(self, body: Body) -> None:
        """Execute the function until it is quiet."""
        self.interrupts = list(self.recording.unasked)
        generation = self.state.generation
        self.strands.start(body(self), f"g{generation}/" if generation else "")
        self._run()

    def tell(self, arrival: Arrival) -> None:
        """Deliver the next answer, and run until it is quiet again."""
        event, payload = arrival
        self.told_us = max(self.told_us, event.at_us)
        if isinstance(event, ev.CancelRequested):
            self.cancelled = self.cancelled or event
            return
        if isinstance(event, ev.RunInterrupted):
            self.interrupts.append(value_of(payload))
            return
        call: str = event.call  # type: ignore[union-attr]
        found = self.waiting.get(call)
        if found is None:
            self.diverged = Diverged(f"the answer to {call}", "no such step" if not self.ended else "the end of the workflow")
            return
        value, error = _answer(event, payload, found[1])
        self.strands.deliver(call, value, error)
        self._run()

    def require_all(self) -> None:
        """Everything recorded was delivered: whatever is recorded must have been asked for again by now."""
        if self.recording.proposals and self.diverged is None:
            missing = self.recording.proposals[0]
            self.diverged = Diverged(_shown(missing), "the end of the workflow" if self.ended else "nothing")

    def close(self) -> None:
        """Let go of the execution; what is recorded stays."""
        self.strands.close()

    def mark(self, kind: StepKind, name: str, arguments: object) -> None:
        """Record a step that nobody waits for."""
        self._issue(self._strand(), Step(kind, name, arguments))

    def report(self, said: Report) -> None:
        """Tell how far the workflow is; nothing while it is being replayed, because that was told."""
        if self._report is not None and not self.replaying:
            self._report(said)

    def patched(self, name: str) -> bool:
        """Whether this execution takes the new way: recorded as taken, or the workflow has not come further than here before."""
        known = self._patches.get(name)
        if known is None:
            following = self.recording.proposals[0] if self.recording.proposals else None
            known = following is None or (following.step is StepKind.PATCH and following.name == name)
            self._patches[name] = known
            if known:
                self.mark(StepKind.PATCH, name, None)
        return known

    def draw(self) -> bytes:
        """32 bytes that look random, the same in every execution, different for each run and each draw."""
        self.drawn += 1
        seed = self.state.source or self.seed
        words = f"{seed}\n{self.drawn}"
        return bytes.fromhex(step_digest(StepKind.EMIT, "draw", words.encode()))

    @property
    def seed(self) -> str:
        """What this run draws its numbers from, where it does not draw them from another run's."""
        contract, generation = self.state.contract, self.state.generation
        return f"{contract.run_id}\n{contract.trace_id}" + (f"\n{generation}" if generation else "")

    def owner(self, call: str) -> str:
        """The run whose step this is: this one's, or of a fork's source."""
        return self.state.inherited.get(call, self.state.contract.run_id)

    def _strand(self) -> Strand:
        if self.strands.current is None:
            raise UsageError("workflow.outside", "a context can be used only while its workflow is executed")
        return self.strands.current

    def strand(self) -> Strand:
        """The branch that is being executed."""
        return self._strand()

    def _run(self) -> None:
        if self.diverged is None:
            try:
                self.strands.run()
            except Diverged as diverged:
                self.diverged = diverged

    def _issue(self, strand: Strand, step: Step) -> str:
        """Compare a step with the recorded one, or record it; its call key."""
        payload = _encoded(step.arguments)
        call = self._key(strand, step)
        digest = step_digest(step.kind, step.name, payload)
        proposals = self.recording.proposals
        if proposals:
            recorded = proposals[0]
            if (recorded.call, recorded.step, recorded.digest, recorded.undoes) != (call, step.kind, digest, step.undoes):
                raise Diverged(_shown(recorded), f"{step.kind} {step.name} as {call}, digest {digest[:12]}")
            proposals.popleft()
            return call
        if self.cancelled is not None and not step.undoes and step.kind not in MARKERS:
            self.unheeded += 1
            if self.unheeded > MAX_UNHEEDED:
                raise UsageError("workflow.unheeded", "the run was cancelled, and goes on asking for steps")
        due_us = None if step.due_s is None else self._now_us() + int(step.due_s * 1e6)
        self._note(ev.StepProposed(self._now_us(), call, step.kind, step.name, digest, due_us, step.undoes), payload)
        return call

    def _key(self, strand: Strand, step: Step) -> str:
        if step.key is None:
            call = strand.place()
        else:
            call = f"{strand.scope}{step.key}"
            if not NAME.match(step.key) or step.key[0].isdigit() or "/" in step.key:
                said = f"{step.key[:40]!r} cannot name a step; begin with a letter and use letters, digits and _.:@+-"
                raise UsageError("workflow.key_invalid", said)
            if call in self._named:
                raise UsageError("workflow.key_twice", f"a step is called {call!r} already; give this one another key")
            self._named.add(call)
        if len(call) > 100:
            raise UsageError(
                "workflow.too_deep", "branches within branches make a key of more than 100 characters; make it flatter"
            )
        return call


def _encoded(arguments: object) -> bytes:
    try:
        payload = strictly(_encoder, arguments)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        said = f"the arguments of a step have no JSON form ({str(error)[:200]}); pass plain values"
        raise UsageError("workflow.arguments", said) from None
    if len(payload) > MAX_ARGUMENTS:
        raise UsageError("workflow.arguments", f"the arguments of a step are longer than {MAX_ARGUMENTS} bytes; pass less")
    return payload


def _shown(recorded: ev.StepProposed) -> str:
    return f"{recorded.step} {recorded.name} as {recorded.call}, digest {recorded.digest[:12]}"


def _answer(event: ev.Event, payload: bytes | None, step: Step) -> tuple[object, BaseException | None]:
    """What a step's answer is to the workflow: a value or an error."""
    match event:
        case ev.GateDecided():
            detail = value_of(payload) if payload is not None else ""
            return None, refused(event.reasons[0] if event.reasons else "policy.denied", step, str(detail or ""))
        case ev.ModelClosed() if event.status is ReceiptStatus.SUCCEEDED:
            value_of(payload)
            return _payloads.decode(payload or b"").text, None
        case ev.ModelClosed():
            return None, _failed(event.code, step, "")
        case ev.ChildEnded():
            return _child(event, payload, step)
        case ev.StepInherited():
            return _answer(ev.decode(event.answer.encode()), payload, step)
        case ev.StepClosed() | ev.ToolClosed() | ev.EffectResolved():
            value = value_of(payload)
            if event.status is ReceiptStatus.SUCCEEDED:
                return value, None
            code = "tool.failed" if isinstance(event, ev.EffectResolved) else event.code
            told = value if isinstance(value, dict) else {}
            if code == "run.interrupted":
                return None, Interrupted(told.get("interrupt"))
            return None, _failed(code, step, str(told.get("message", "")))
        case _:
            raise TypeError(f"{type(event).__name__} answers no step")


def refused(code: str, step: Step, detail: str = "") -> BaseException:
    """The error of a step that was not allowed; a cancel is what it is everywhere in Python."""
    if code == "run.cancelled":
        return asyncio.CancelledError("the run was cancelled")
    return Denied(code, f"{step.kind} {step.name} was denied{': ' if detail else ''}{detail[:500]}")


def _failed(code: str, step: Step, message: str) -> BaseException:
    if code in ("run.cancelled", "deadline.exceeded"):
        return refused(code, step)
    return StepFailed(code, f"{step.kind} {step.name} failed{': ' if message else ''}{message[:500]}")


def _child(event: ev.ChildEnded, payload: bytes | None, step: Step) -> tuple[object, BaseException | None]:
    output = value_of(payload)
    told = output if isinstance(output, dict) else {}
    if event.status is Status.SUCCEEDED:
        return told.get("value", told.get("text", "")), None
    return None, StepFailed(
        "child.failed", f"{step.name} ended as {event.status}: {event.code}", status=event.status, ended=event.code
    )
