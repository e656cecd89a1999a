"""Performing the steps of a workflow that are no tool calls: functions and models."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.canonical import strictly
from quarterdeck.core.errors import QuarterdeckError, Refused, Unavailable, UsageError
from quarterdeck.core.judge import revoked
from quarterdeck.core.loop import Wait
from quarterdeck.core.retry import RetryPolicy, is_transient, next_delay_s
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling
from quarterdeck.engine.asking import decided, later
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.performing import cost_microusd, perform_model
from quarterdeck.engine.sequencer import Happening
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.engine.workflows.context import STEP_RETRY
from quarterdeck.engine.workflows.strands import Step
from quarterdeck.gate.proposals import propose_model_call
from quarterdeck.ports.model import Message, ModelRequest
from quarterdeck.ports.tools import ToolFailure
from quarterdeck.resilience.contained import Contained, Strayed
from quarterdeck.resilience.dependency import Dependency, Permit
from quarterdeck.resilience.eager import TimedOut, within
from quarterdeck.resilience.failures import classify_by_type

MAX_RESULT = 1_048_576
"""The longest result of a step, in bytes of JSON."""

_encoder = msgspec.json.Encoder(order="deterministic")


async def perform_function(held: Held, call: str, step: Step) -> tuple[ev.StepClosed, bytes]:
    """Call a step's function until it succeeds or its retries are used up; how that ended. Revocations stop further attempts."""
    services, options = held.services, step.options
    policy: RetryPolicy = options.get("retry", STEP_RETRY)
    attempt = 0
    while True:
        attempt += 1
        try:
            result = await _call(options, float(options.get("timeout_s", 30.0)))
            encoded = _result(step, result)
        except Exception as error:  # the one broad except of steps
            delay_s = None
            if _may_pass(policy, error):
                delay_s = next_delay_s(policy, attempt, int.from_bytes(services.entropy.token(4), "big") / 2**32, None)
            if delay_s is None:
                return _ended(held, call, attempt, error)
            await services.clock.sleep(delay_s)
            held.sequencer.read_inbox()
            code = revoked(
                ProposalKind.RETRIEVAL,
                step.name,
                held.state,
                services.gate.controls,
                services.clock.now_us(),
                undoes=held.undoes(call),
            )
            if code is not None:
                return _closed(held, call, ReceiptStatus.FAILED, code, attempt), b"{}"
        else:
            return _closed(held, call, ReceiptStatus.SUCCEEDED, "", attempt), encoded


async def _call(options: Any, timeout_s: float) -> object:
    function, arguments, named = options["function"], options["arguments"], options["named"]

    async def called() -> object:
        if inspect.iscoroutinefunction(function):
            return await function(*arguments, **named)
        found = await asyncio.to_thread(_returned, function, arguments, named)
        return await found if inspect.isawaitable(found) else found

    return await within(Contained(called()), timeout_s)


def _returned(function: Any, arguments: Any, named: Any) -> object:
    try:
        return function(*arguments, **named)
    except (StopIteration, GeneratorExit) as stray:  # no future carries them to whoever waits
        raise RuntimeError(f"the function raised {type(stray).__name__}") from stray


def _result(step: Step, result: object) -> bytes:
    try:
        encoded = strictly(_encoder, result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ToolFailure("step.result", f"{step.name} returned what is no JSON: {str(error)[:200]}") from None
    if len(encoded) > MAX_RESULT:
        raise ToolFailure("step.result", f"{step.name} returned more than {MAX_RESULT} bytes; return less")
    return encoded


def _may_pass(policy: RetryPolicy, error: BaseException) -> bool:
    if isinstance(error, ToolFailure):
        return error.transient
    if isinstance(error, QuarterdeckError) or not isinstance(error, Exception):
        return isinstance(error, Unavailable)
    return is_transient(policy, classify_by_type(error).error_class)


def _ended(held: Held, call: str, attempts: int, error: BaseException) -> tuple[ev.StepClosed, bytes]:
    code = error.code if isinstance(error, (ToolFailure, QuarterdeckError)) else "step.failed"
    if isinstance(error, TimeoutError):
        code = "step.timeout"
    ended_by = error.__cause__ if isinstance(error, (Strayed, TimedOut)) else error
    message = error.message if isinstance(error, (ToolFailure, QuarterdeckError)) else type(ended_by).__name__
    shown = _encoder.encode({"error": code, "message": message[:2_000]})
    return _closed(held, call, ReceiptStatus.FAILED, code, attempts), shown


def _closed(held: Held, call: str, status: ReceiptStatus, code: str, attempts: int) -> ev.StepClosed:
    return ev.StepClosed(held.services.clock.now_us(), call, status, code, attempts)


class Asked:
    """One model call of a workflow: its request, its worst case and its proposal."""

    def __init__(self, held: Held, call: str, step: Step) -> None:
        services, contract = held.services, held.state.contract
        self.call = call
        name = held.model_name(step.name)
        self.model = services.models[name]
        self.dependency = services.model_dependencies[name]
        said: Any = step.arguments
        messages = tuple([Message(item["role"], item.get("content", "")) for item in said["messages"]])
        key = f"{contract.run_id}:{call}"
        self.request = ModelRequest(messages, (), int(said["max_output_tokens"]), key, self.dependency.policy.timeout_s, 0)
        self.worst = self.model.worst_case(self.request)
        reserve = {"model_calls": 1, "tokens": self.worst.input_tokens + self.worst.output_tokens}
        cost = cost_microusd(self.model.price, self.worst)
        if cost:
            reserve["cost_microusd"] = cost
        self.proposal = propose_model_call(contract, call, name, _encoder.encode(said), reserve)


async def ask(held: Held, call: str, step: Step) -> tuple[Asked, Permit, float] | Rest | None:
    """Take one model call through the gate and commit its intent: what may be performed then.

    ``None``: it was denied, and that is noted. A ``Rest``: not now, for lack of capacity or of room in a shared account.
    """
    if step.name not in held.services.models:
        raise UsageError(
            "workflow.model_unknown", f"no model is called {step.name!r}; name one with deck.model({step.name!r}, …)"
        )
    exhausted: str | None = None
    while True:
        if (drained := held.drained()) is not None:
            return drained
        exact = held.exact
        asked = Asked(held, call, step)
        judged_by = held.services.gate.versions
        answer = held.services.gate.judge(asked.proposal, held.state, held.standing, exhausted=exhausted, exact=exact)
        event = decided(held, asked.proposal, answer.decision)
        if answer.decision.ruling is not Ruling.ALLOW:
            held.note(event if event.ruling is Ruling.DENY else msgspec.structs.replace(event, ruling=Ruling.DENY))
            return None
        permit = await _capacity(held, asked)
        if isinstance(permit, Rest):
            return permit
        if permit is None:
            held.note(msgspec.structs.replace(event, ruling=Ruling.DENY, reasons=("deadline.exceeded",), reserve={}))
            return None
        refused, until_s = await _commit(held, asked, event, answer.leases, permit, judged_by)
        if refused is None:
            return asked, permit, until_s
        if refused.startswith("account:"):
            account = refused.partition(":")[2]
            if exact and (rest := held.crowded(account, answer.leases)) is not None:
                return rest
            exhausted, held.exact = (account if exact else None), True


async def _capacity(held: Held, asked: Asked) -> Permit | Rest | None:
    try:
        return asked.dependency.try_acquire() or await asked.dependency.acquire(held.deadline_s(asked.call))
    except Unavailable as busy:
        wait: Wait = later(held, asked.proposal.name, busy)
        return Rest(wait)
    except Refused:
        return None


async def _commit(
    held: Held, asked: Asked, event: ev.GateDecided, leases: tuple[ev.Move, ...], permit: Permit, judged_by: dict[str, int]
) -> tuple[str | None, float]:
    perform_by_us, until_s = held.window()
    now_us = held.services.clock.now_us()
    request = asked.request
    opened = ev.ModelOpened(
        now_us, asked.call, asked.proposal.name, request.idempotency_key, perform_by_us, request.max_output_tokens
    )
    happenings: list[Happening] = [(event, None), (opened, None)]
    if leases:
        happenings.insert(0, (ev.BudgetMoved(now_us, leases), None))
    refused = None
    committed = False
    try:
        refused = await held.sequencer.commit(happenings, facts=judged_by, charges=held.charges(leases))
        committed = refused is None
    finally:
        if not committed:
            asked.dependency.release(permit)
    if refused is None:
        return None, until_s
    return (f"account:{refused.detail}" if refused.guard == "account" else refused.guard), until_s


async def perform_ask(held: Held, asked: Asked, permit: Permit, until_s: float) -> tuple[ev.ModelClosed, bytes]:
    """Perform a model call whose intent is durable. What it proposes beside its text is left out: a workflow calls its own tools."""
    dependency: Dependency = asked.dependency
    before = held.guard(ProposalKind.MODEL, asked.proposal.name, until_s)
    closed, reply = await perform_model(
        held.services,
        held.run_id,
        asked.call,
        asked.model,
        dependency,
        permit,
        asked.request,
        asked.worst,
        before,
        held.deadline_s(asked.call),
        held.reins(asked.call, model=True),
    )
    return msgspec.structs.replace(closed, calls=()), _encoder.encode(ModelPayload(reply.text))
