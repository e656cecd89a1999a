"""Performing what was allowed, and making receipts of how it ended.

Effects are known, never guessed: an attempt that was cut off (time-out, lost connection) on a tool that is neither a read nor able
to say what happened ends as ``unknown``. A failure that the tool reports itself is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.retry import ErrorClass, Failure
from quarterdeck.core.vocabulary import EffectClass, ReceiptStatus
from quarterdeck.engine.services import Services
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.ports.model import Model, ModelFailure, ModelReply, ModelRequest, Price, Usage
from quarterdeck.ports.tools import Tool, ToolContext, ToolFailure
from quarterdeck.resilience.dependency import Dependency, Permit
from quarterdeck.resilience.failures import CallFailed, classify_by_type

MAX_CALLS = 64
"""The most calls of one model message; a message with more is not a bounded proposal."""
MAX_TEXT = 1_048_576
"""The longest model message, in characters."""

_AMBIGUOUS = frozenset({ErrorClass.TIMEOUT, ErrorClass.CONNECTION})
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
    """A failure that may have been billed is not retried in place: the loop proposes it anew, with a new reservation."""
    if isinstance(error, ModelFailure):
        if error.usage is not None:
            return Failure(ErrorClass.DECLARED_PERMANENT)
        if error.transient:
            known = _MODEL_CLASSES.get(error.code, ErrorClass.DECLARED_TRANSIENT)
            return Failure(known, error.retry_after_s)
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
) -> tuple[ev.ModelClosed, ModelPayload]:
    """Call a model under its dependency's policy; how it ended, with what was billed. Never raises for the model's failures."""
    hub = services.hub

    def emit(text: str) -> None:
        hub.delta(run_id, text)

    def attempt(_number: int, _timeout_s: float) -> Coroutine[object, object, ModelReply]:
        return model.propose(request, emit)

    now = services.clock.now_us
    try:
        reply, attempts = await dependency.run(
            attempt,
            classify=_classify_model,
            may_retry=True,
            deadline_s=deadline_s,
            before_attempt=before_attempt,
            permit=permit,
        )
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
    status, code = ReceiptStatus.SUCCEEDED, ""
    calls, text = reply.calls, reply.text
    if len(calls) > MAX_CALLS or len(text) > MAX_TEXT or sum(len(item.arguments) for item in calls) > MAX_TEXT:
        status, code, calls, text = ReceiptStatus.FAILED, "model.unbounded", (), ""
    turn = call[1:].partition("r")[0]
    planned = tuple([ev.Planned(f"t{turn}.{index}", item.call_id[:128], item.tool[:128]) for index, item in enumerate(calls)])
    size = len(text) + sum(len(item.arguments) + len(item.tool) for item in calls)
    closed = ev.ModelClosed(
        now_us,
        call,
        status,
        code,
        reply.model,
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
    return classify_by_type(error)


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
) -> Receipt:
    """Call a tool under its dependency's policy; its receipt and the JSON that the model may see. Never raises for its failures."""
    spec = tool.spec

    def attempt(_number: int, _timeout_s: float) -> Coroutine[object, object, bytes]:
        return tool.perform(arguments, context)

    try:
        result, attempts = await dependency.run(
            attempt,
            classify=_classify_tool,
            may_retry=spec.idempotent or spec.effect is EffectClass.READ,
            deadline_s=deadline_s,
            before_attempt=before_attempt,
            permit=permit,
        )
    except CallFailed as failed:
        return await _failed(services, call, tool, arguments, context, failed)
    except (Revoked, QuarterdeckError) as stopped:
        attempts = permit.attempts
        doubtful = attempts > 0 and spec.effect is not EffectClass.READ
        return _receipt(services, call, tool, ReceiptStatus.UNKNOWN if doubtful else ReceiptStatus.FAILED, stopped.code, attempts)
    return succeeded(services, call, tool, result, attempts), result


async def _failed(
    services: Services, call: str, tool: Tool, arguments: bytes, context: ToolContext, failed: CallFailed
) -> Receipt:
    error, spec = failed.error, tool.spec
    code = (
        error.code
        if isinstance(error, (ToolFailure, QuarterdeckError))
        else f"tool.{_CODES.get(failed.failure.error_class, 'failed')}"
    )
    if isinstance(error, ToolFailure):
        doubtful = error.done is not False
        message = error.message
    else:
        doubtful = failed.failure.started and failed.failure.error_class in _AMBIGUOUS
        message = f"{type(error).__name__}: {error}"[:500]
    if spec.effect is EffectClass.READ or not doubtful:
        return _receipt(services, call, tool, ReceiptStatus.FAILED, code, failed.attempts, message)
    if spec.reconcilable:
        return await ask(services, call, tool, arguments, context, failed.attempts, code)
    return _receipt(services, call, tool, ReceiptStatus.UNKNOWN, "effect.unknown", failed.attempts, message)


_CODES = {ErrorClass.TIMEOUT: "timeout", ErrorClass.CONNECTION: "unreachable"}


async def ask(
    services: Services, call: str, tool: Tool, arguments: bytes, context: ToolContext, attempts: int, code: str
) -> Receipt:
    """Ask a tool's reconcile function how an effect ended, and make the receipt of its answer."""
    dependency = services.tool_dependencies[tool.spec.name]

    async def attempt(_number: int, _timeout_s: float) -> Receipt:
        finding = await tool.reconcile(arguments, context)
        if finding.status is ReceiptStatus.SUCCEEDED:
            result = _encoder.encode(finding.result)
            return succeeded(services, call, tool, result, attempts), result
        found = code if finding.status is ReceiptStatus.FAILED else "effect.unknown"
        return _receipt(services, call, tool, finding.status, found, attempts, "asked afterwards")

    try:
        receipt, _ = await dependency.run(attempt, classify=_classify_tool)
    except (CallFailed, QuarterdeckError) as error:
        return _receipt(
            services,
            call,
            tool,
            ReceiptStatus.UNKNOWN,
            "effect.unknown",
            attempts,
            f"could not be asked: {error}"[:500],
        )
    return receipt


def succeeded(services: Services, call: str, tool: Tool, result: bytes, attempts: int) -> ev.ToolClosed:
    """The receipt of a tool call that worked."""
    spec = tool.spec
    labels = None
    if spec.integrity is not Integrity.TRUSTED or spec.confidentiality is not Confidentiality.PUBLIC:
        labels = Labels(spec.integrity, spec.confidentiality)
    return ev.ToolClosed(
        services.clock.now_us(),
        call,
        ReceiptStatus.SUCCEEDED,
        "",
        spec.cost_microusd * attempts,
        attempts,
        -(-len(result) // 4),
        labels,
    )


def _receipt(
    services: Services, call: str, tool: Tool, status: ReceiptStatus, code: str, attempts: int, message: str = ""
) -> Receipt:
    shown = _encoder.encode({"error": code, "message": message} if message else {"error": code})
    closed = ev.ToolClosed(
        services.clock.now_us(),
        call,
        status,
        code,
        tool.spec.cost_microusd * attempts,
        max(1, attempts),
        -(-len(shown) // 4),
    )
    return closed, shown


def unknown(services: Services, call: str, tool: Tool | None) -> Receipt:
    """The receipt of an effect that nobody can tell the end of: it waits for a person."""
    shown = _encoder.encode({"error": "effect.unknown", "message": "it may or may not have happened; a person is asked"})
    cost = tool.spec.cost_microusd if tool is not None else 0
    return ev.ToolClosed(services.clock.now_us(), call, ReceiptStatus.UNKNOWN, "effect.unknown", cost), shown
