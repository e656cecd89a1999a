"""Performing what was allowed, and making receipts of how it ended.

Effects are known, never guessed: an attempt that was cut off (time-out, lost connection) on a tool that is neither a read nor able
to say what happened ends as ``unknown``. A failure that the tool reports itself is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import NamedTuple

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import strictly
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.retry import ErrorClass, Failure, class_of_status
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.engine.pulse import Pulse
from quarterdeck.engine.services import Services
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.ports.model import Model, ModelFailure, ModelReply, ModelRequest, Price, Usage
from quarterdeck.ports.tools import Tool, ToolContext, ToolFailure, Transaction
from quarterdeck.resilience.contained import Strayed
from quarterdeck.resilience.dependency import Dependency, Permit
from quarterdeck.resilience.eager import CutOff, Reins
from quarterdeck.resilience.failures import CallFailed, classify_by_type

MAX_CALLS = 64
"""The most calls of one model message; a message with more is not a bounded proposal."""
MAX_TEXT = 1_048_576
"""The longest model message with all its calls, in characters; even wholly escaped it fits into one event."""
MAX_CAUSES = 8
"""How far the causes of an error are followed when it is classified."""

_AMBIGUOUS = frozenset({ErrorClass.TIMEOUT, ErrorClass.CONNECTION, ErrorClass.SERVER})
"""After these it may have been done all the same."""
_MODEL_CLASSES = {
    "model.timeout": ErrorClass.TIMEOUT,
    "model.unreachable": ErrorClass.CONNECTION,
    "model.rate_limited": ErrorClass.RATE_LIMITED,
    "model.server_error": ErrorClass.SERVER,
    "model.authentication": ErrorClass.AUTHENTICATION,
}

_encoder = msgspec.json.Encoder()


class Revoked(Exception):
    """An attempt must not start: what allowed it was revoked, or its time has passed. ``code`` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Receipt = tuple[ev.ToolClosed, bytes]


def cost_microusd(price: Price, usage: Usage) -> int:
    """What a model call costs, rounded up to a whole micro-dollar.

    >>> cost_microusd(Price(150_000, 600_000), Usage(1_000, 10))
    156
    """
    total = usage.input_tokens * price.input_microusd_per_mtok + usage.output_tokens * price.output_microusd_per_mtok
    return -(-total // 1_000_000)


def _classify_model(error: Exception) -> Failure:
    """Only what was certainly not billed (``started`` is false then) is retried in place. Everything else, the runtime's own
    time-out too, the loop proposes anew, with a new reservation."""
    if isinstance(error, ModelFailure):
        if error.usage is not None:
            return Failure(ErrorClass.DECLARED_PERMANENT)
        if error.transient:
            known = _MODEL_CLASSES.get(error.code, ErrorClass.DECLARED_TRANSIENT)
            return Failure(known, error.retry_after_s, started=False)
        return Failure(_MODEL_CLASSES.get(error.code, ErrorClass.CLIENT))
    return classify_by_type(error)


async def perform_model(
    services: Services,
    run_id: str,
    call: str,
    model: Model,
    dependency: Dependency,
    permit: Permit,
    request: ModelRequest,
    worst: Usage,
    before_attempt: Callable[[], None],
    deadline_s: float,
    reins: Reins | None = None,
    *,
    quiet: bool = False,
) -> tuple[ev.ModelClosed, ModelPayload]:
    """Call a model under its dependency's policy; how it ended, with what was billed. Never raises for the model's failures.

    ``quiet``: what it writes is not shown to whoever follows the run.
    """
    hub = services.hub

    def emit(text: str) -> None:
        if not quiet:
            hub.delta(run_id, text)

    def attempt(_number: int, _timeout_s: float) -> Coroutine[object, object, ModelReply]:
        return model.propose(request, emit)

    now = services.clock.now_us
    try:
        reply, attempts = await dependency.run(
            attempt,
            classify=_classify_model,
            may_retry=False,
            deadline_s=deadline_s,
            before_attempt=before_attempt,
            permit=permit,
            reins=reins,
        )
    except CutOff as cut:
        return _cut(now(), call, model, worst, cut.code, permit.attempts), ModelPayload("")
    except CallFailed as failed:
        usage = _billed(failed, worst)
        code = failed.error.code if isinstance(failed.error, ModelFailure) else f"model.{failed.failure.error_class}"
        closed = ev.ModelClosed(
            now(),
            call,
            ReceiptStatus.FAILED,
            code,
            model.name,
            usage.input_tokens,
            usage.output_tokens,
            cost_microusd(model.price, usage),
            failed.attempts,
        )
        return closed, ModelPayload("")
    except (Revoked, QuarterdeckError) as stopped:
        return ev.ModelClosed(now(), call, ReceiptStatus.FAILED, stopped.code, model.name), ModelPayload("")
    return _closed(now(), call, model, reply, worst, attempts)


def _cut(now_us: int, call: str, model: Model, worst: Usage, code: str, attempts: int) -> ev.ModelClosed:
    """A call that was ended while the model wrote: the provider may bill all of it, so it settles at its worst case."""
    cost = cost_microusd(model.price, worst)
    tokens = (worst.input_tokens, worst.output_tokens)
    return ev.ModelClosed(now_us, call, ReceiptStatus.FAILED, code, model.name, *tokens, cost, max(1, attempts))


def _billed(failed: CallFailed, worst: Usage) -> Usage:
    """What a failed call is settled at: what the provider said, nothing if it billed nothing, else the worst case."""
    error = failed.error
    if isinstance(error, ModelFailure):
        if error.usage is None:
            return Usage()
        return error.usage if error.usage.known else worst
    return worst if failed.failure.started else Usage()


def _closed(
    now_us: int, call: str, model: Model, reply: ModelReply, worst: Usage, attempts: int
) -> tuple[ev.ModelClosed, ModelPayload]:
    usage = reply.usage if reply.usage.known else worst
    calls, text, name = reply.calls, reply.text, reply.model
    code = _unusable(reply)
    status = ReceiptStatus.FAILED if code else ReceiptStatus.SUCCEEDED
    if code:
        calls, text, name = (), "", model.name
    turn = call[1:].partition("r")[0]
    planned = tuple([ev.Planned(f"t{turn}.{index}", item.call_id[:128], item.tool[:128]) for index, item in enumerate(calls)])
    size = len(text) + sum(len(item.arguments) + len(item.tool) for item in calls)
    closed = ev.ModelClosed(
        now_us,
        call,
        status,
        code,
        name,
        usage.input_tokens,
        usage.output_tokens,
        cost_microusd(model.price, usage),
        attempts,
        -(-size // 4),
        reply.finish,
        planned,
        bool(text.strip()),
    )
    return closed, ModelPayload(text, calls)


def _classify_tool(error: Exception) -> Failure:
    if isinstance(error, ToolFailure):
        return Failure(ErrorClass.DECLARED_TRANSIENT if error.transient else ErrorClass.DECLARED_PERMANENT)
    if isinstance(error, QuarterdeckError):
        return Failure(ErrorClass.INVALID)
    found = _by_answer(error) or classify_by_type(error)
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if found.error_class is not ErrorClass.UNKNOWN or not isinstance(cause, Exception):
            break
        # Client libraries wrap time-outs and lost connections in errors of their own, which are no kin of the built-in ones.
        cause = cause.__cause__ or cause.__context__
        found = (_by_answer(cause) or classify_by_type(cause)) if isinstance(cause, Exception) else found
    return found


def _by_answer(error: Exception) -> Failure | None:
    """The class of an error that carries an HTTP answer, as those of the usual client libraries do (``error.response.status_code``)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if not isinstance(status, int) or status < 400:
        return None
    found = class_of_status(status)
    return Failure(found, started=found is not ErrorClass.RATE_LIMITED)


def _unusable(reply: ModelReply) -> str:
    """Why a message cannot be taken at all, as a code; empty if its calls can be judged one by one.

    Lone surrogates come out of JSON escapes that a model wrote; no store, log or provider takes them.
    """
    size = len(reply.text) + sum([len(item.arguments) + len(item.tool) + len(item.call_id) for item in reply.calls])
    if len(reply.calls) > MAX_CALLS or size > MAX_TEXT:
        return "model.unbounded"
    try:
        reply.text.encode()
        reply.model.encode()
        for item in reply.calls:
            item.arguments.encode()
            item.tool.encode()
            item.call_id.encode()
    except UnicodeEncodeError:
        return "model.garbled"
    return ""


class Tries(NamedTuple):
    """Attempts that were made, and those of them that reached the tool and so may have cost something."""

    made: int
    charged: int


ONCE = Tries(1, 1)
"""One attempt, which reached the tool."""


class _Doubt:
    """Which attempts of one call may have done it: all that were made but those that ended in a definite failure.

    Every attempt counts, not only the last: a lost answer is not made good by a later attempt that was turned away. An error that
    says nothing of itself (any exception of the tool's own) is believed to be a failure only where nobody can be ``asked``.
    """

    __slots__ = ("_asked", "_before", "_definite", "_permit", "_unstarted")

    def __init__(self, permit: Permit, before: bool, asked: bool) -> None:
        self._permit = permit
        self._before = before
        self._asked = asked
        self._definite = 0
        self._unstarted = 0

    def classify(self, error: Exception) -> Failure:
        """The class of an attempt's error; time-outs of the runtime itself do not come here, and stay in doubt."""
        failure = _classify_tool(error)
        self._unstarted += not failure.started
        if isinstance(error, ToolFailure):
            self._definite += error.done is False
        else:
            vague = failure.error_class in _AMBIGUOUS or (self._asked and failure.error_class is ErrorClass.UNKNOWN)
            self._definite += not (failure.started and vague)
        return failure

    @property
    def left(self) -> bool:
        """Whether some attempt may have done it."""
        return self._before or self._permit.attempts > self._definite

    @property
    def tries(self) -> Tries:
        """The attempts so far; the reservation covers those that reached the tool, not the refused connections between."""
        return Tries(self._permit.attempts, self._permit.attempts - self._unstarted)


async def perform_tool(
    services: Services,
    call: str,
    tool: Tool,
    dependency: Dependency,
    permit: Permit,
    arguments: bytes,
    context: ToolContext,
    before_attempt: Callable[[], None],
    deadline_s: float,
    *,
    doubted: bool = False,
    reins: Reins | None = None,
) -> Receipt:
    """Call a tool under its dependency's policy; its receipt and the JSON that the model may see. Never raises for its failures.

    ``doubted``: an earlier holder may have done it already, so that a failure now does not mean that it was not done.
    """
    spec = tool.spec
    doubt = _Doubt(permit, doubted, spec.reconcilable)

    def attempt(_number: int, _timeout_s: float) -> Coroutine[object, object, bytes]:
        if spec.heartbeat_timeout_s is None:
            return _once(tool, arguments, context)
        pulse = Pulse(spec.name, context.run_id, spec.heartbeat_timeout_s)
        return services.pulses.watch(pulse, _once(tool, arguments, msgspec.structs.replace(context, beat=pulse.beat)))

    try:
        result, _ = await dependency.run(
            attempt,
            classify=doubt.classify,
            may_retry=spec.repeatable,
            deadline_s=deadline_s,
            before_attempt=before_attempt,
            permit=permit,
            reins=reins,
        )
    except CallFailed as failed:
        return await _failed(services, call, tool, arguments, context, failed, doubt)
    except (Revoked, CutOff, QuarterdeckError) as stopped:
        if not doubt.left or spec.effect is EffectClass.READ or spec.transactional:
            return _receipt(services, call, tool, ReceiptStatus.FAILED, stopped.code, doubt.tries)
        if spec.reconcilable:
            return await ask(services, call, tool, arguments, context, doubt.tries, stopped.code)
        return _receipt(services, call, tool, ReceiptStatus.UNKNOWN, stopped.code, doubt.tries)
    return succeeded(services, call, tool, result, doubt.tries), result


def _once(tool: Tool, arguments: bytes, context: ToolContext) -> Coroutine[object, object, bytes]:
    """One attempt of a tool."""
    asked = context.transaction
    return tool.perform(arguments, context) if asked is None else _whole(tool, arguments, context, asked)


async def _whole(tool: Tool, arguments: bytes, context: ToolContext, asked: Transaction) -> bytes:
    """One attempt of a transactional tool: what it asks for counts only if it succeeds, however long an earlier one goes on in a thread."""
    own = asked.fresh()
    result = await tool.perform(arguments, msgspec.structs.replace(context, transaction=own))
    asked.adopt(own)
    return result


async def _failed(
    services: Services, call: str, tool: Tool, arguments: bytes, context: ToolContext, failed: CallFailed, doubt: _Doubt
) -> Receipt:
    error, spec = failed.error, tool.spec
    code = (
        error.code
        if isinstance(error, (ToolFailure, QuarterdeckError))
        else f"tool.{_CODES.get(failed.failure.error_class, 'failed')}"
    )
    # Only what a tool says on purpose is passed on: the text of any other error may hold what the tool was trusted with.
    ended_by = error.__cause__ if isinstance(error, Strayed) else error
    message = error.message if isinstance(error, ToolFailure) else type(ended_by).__name__
    if spec.effect is EffectClass.READ or spec.transactional or not doubt.left:
        return _receipt(services, call, tool, ReceiptStatus.FAILED, code, doubt.tries, message)
    if spec.reconcilable:
        return await ask(services, call, tool, arguments, context, doubt.tries, code)
    return _receipt(services, call, tool, ReceiptStatus.UNKNOWN, "effect.unknown", doubt.tries, message)


_CODES = {ErrorClass.TIMEOUT: "timeout", ErrorClass.CONNECTION: "unreachable"}


async def ask(
    services: Services, call: str, tool: Tool, arguments: bytes, context: ToolContext, tries: Tries, code: str
) -> Receipt:
    """Ask a tool's reconcile function how an effect ended, and make the receipt of its answer."""
    dependency = services.tool_dependencies[tool.spec.name]

    async def attempt(_number: int, _timeout_s: float) -> Receipt:
        finding = await tool.reconcile(arguments, context)
        if finding.status is ReceiptStatus.SUCCEEDED:
            result = strictly(_encoder, finding.result)
            return succeeded(services, call, tool, result, tries), result
        found = code if finding.status is ReceiptStatus.FAILED else "effect.unknown"
        return _receipt(services, call, tool, finding.status, found, tries, "asked afterwards")

    try:
        receipt, _ = await dependency.run(attempt, classify=_classify_tool)
    except (CallFailed, QuarterdeckError) as error:
        return _receipt(
            services,
            call,
            tool,
            ReceiptStatus.UNKNOWN,
            "effect.unknown",
            tries,
            f"could not be asked: {error}"[:500],
        )
    return receipt


def succeeded(services: Services, call: str, tool: Tool, result: bytes, tries: Tries) -> ev.ToolClosed:
    """The receipt of a tool call that worked."""
    spec = tool.spec
    return ev.ToolClosed(
        services.clock.now_us(),
        call,
        ReceiptStatus.SUCCEEDED,
        "",
        spec.cost_microusd * tries.charged,
        tries.made,
        -(-len(result) // 4),
        spec.labels,
    )


def stale_receipt(services: Services, call: str, tool: Tool, result: bytes, attempts: int) -> Receipt:
    """The receipt of a read that is answered with its last good answer."""
    cost = tool.spec.cost_microusd * attempts
    size = -(-len(result) // 4)
    now_us = services.clock.now_us()
    closed = ev.ToolClosed(now_us, call, ReceiptStatus.SUCCEEDED, "degraded.stale", cost, attempts, size, tool.spec.labels)
    return closed, result


def not_done(services: Services, call: str, tool: Tool, code: str) -> Receipt:
    """The receipt of an effect that is known not to have happened, and will not be tried again."""
    return _receipt(services, call, tool, ReceiptStatus.FAILED, code, ONCE)


def _receipt(
    services: Services, call: str, tool: Tool, status: ReceiptStatus, code: str, tries: Tries, message: str = ""
) -> Receipt:
    shown = _encoder.encode({"error": code, "message": message} if message else {"error": code})
    closed = ev.ToolClosed(
        services.clock.now_us(),
        call,
        status,
        code,
        tool.spec.cost_microusd * tries.charged,
        max(1, tries.made),
        -(-len(shown) // 4),
        tool.spec.labels if message else None,
    )
    return closed, shown


def unknown(services: Services, call: str, tool: Tool | None) -> Receipt:
    """The receipt of an effect that nobody can tell the end of: it waits for a person."""
    shown = _encoder.encode({"error": "effect.unknown", "message": "it may or may not have happened; a person is asked"})
    cost = tool.spec.cost_microusd if tool is not None else 0
    return ev.ToolClosed(services.clock.now_us(), call, ReceiptStatus.UNKNOWN, "effect.unknown", cost), shown
