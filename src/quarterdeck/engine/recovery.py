"""After a crash: what the new holder does about intents that have no receipt.

By effect class, and never by guessing: a read is performed again; an idempotent effect again, under the same key; one that can be
reconciled is asked about; any other is unknown and waits for a person. Unless the store proves that every earlier owner has stopped,
the time within which the former owner may still act is waited out first. Revocations are looked at again; approvals are not consumed
again, because an approval belongs to the effect, not to the attempt.
"""

from __future__ import annotations

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Refused, Unavailable
from quarterdeck.core.judge import revoked
from quarterdeck.core.loop import Wait
from quarterdeck.core.state import OpenEffect
from quarterdeck.core.vocabulary import EffectClass, ProposalKind, ReceiptStatus, StopReason
from quarterdeck.engine.held import Held, Rest
from quarterdeck.engine.performing import ONCE, Receipt, ask, not_done, perform_tool, unknown
from quarterdeck.engine.settling import settle
from quarterdeck.gate.proposals import Catalogue
from quarterdeck.ports.tools import Tool, Transaction

GRACE_US = 250_000
"""Waited on top of the perform-by time, for clocks that differ a little."""


async def recover(held: Held, calls: tuple[str, ...]) -> Rest | None:
    """Close every open intent of an earlier holder. A ``Rest``: the run waits until the former owner can no longer act."""
    state, services = held.state, held.services
    if not services.journal.quiesced:
        latest_us = max(state.open[call].perform_by_us for call in calls) + GRACE_US
        if services.clock.now_us() < latest_us:
            return Rest(Wait(StopReason.BLOCKED, "effect.open", tuple(f"effect:{call}" for call in calls), latest_us))
        held.sequencer.read_inbox()
    for call in calls:
        effect = state.open.get(call)
        if effect is not None:
            await _close(held, effect)
    await held.sequencer.flush()
    return None


async def abandon(held: Held, code: str) -> None:
    """Close every open intent of an earlier holder and perform none again: what may have been done is unknown, and shown as that."""
    state, services = held.state, held.services
    for effect in list(state.open.values()):
        tool = None if effect.model else _tool(services.gate.catalogue, effect.name)
        if effect.model:
            _interrupted(held, effect)
        elif tool is not None and effect.effect is EffectClass.READ:
            held.note(*not_done(services, effect.call, tool, code))
        else:
            held.note(*unknown(services, effect.call, tool))
    await held.sequencer.flush()


def _interrupted(held: Held, effect: OpenEffect) -> None:
    """The receipt of a model call that nobody waits for any more: it is billed at its worst case."""
    worst = held.state.reserves.get(effect.call, {})
    closed = ev.ModelClosed(
        held.services.clock.now_us(),
        effect.call,
        ReceiptStatus.FAILED,
        "model.interrupted",
        effect.name,
        worst.get("tokens", 0),
        0,
        worst.get("cost_microusd", 0),
    )
    held.note(closed, b'{"text":"","calls":[]}')


async def _close(held: Held, effect: OpenEffect) -> None:
    services, state = held.services, held.state
    now_us = services.clock.now_us()
    if effect.model:
        _interrupted(held, effect)
        return
    tool = _tool(services.gate.catalogue, effect.name)
    if tool is None:
        held.note(*unknown(services, effect.call, None))
        return
    undoes = held.undoes(effect.call)
    code = revoked(ProposalKind.TOOL, effect.name, state, services.gate.controls, now_us, undoes=undoes) or _forbidden(
        held, effect
    )
    repeatable = effect.effect is EffectClass.READ or (
        effect.idempotent and services.clock.boottime_s() < held.repeats_until_s(tool.spec, effect.opened_at_us)
    )
    nothing = tool.spec.transactional and effect.idempotent  # without a receipt it has done nothing
    if code is None and repeatable:
        await _again(held, effect, tool, doubted=not (effect.effect is EffectClass.READ or nothing))
    elif effect.reconcilable:
        await _reconcile(held, effect, tool, code)
    elif effect.effect is EffectClass.READ or nothing:
        held.note(*not_done(services, effect.call, tool, str(code)))
    else:
        held.note(*unknown(services, effect.call, tool))


async def _reconcile(held: Held, effect: OpenEffect, tool: Tool, code: str | None) -> None:
    arguments = _arguments(held, effect)
    receipt: Receipt = await ask(
        held.services, effect.call, tool, arguments, held.context(effect.call, effect.key), ONCE, code or "effect.not_done"
    )
    if receipt[0].status is ReceiptStatus.FAILED and code is None:
        await _again(held, effect, tool, doubted=False)
    else:
        held.note(*receipt)


async def _again(held: Held, effect: OpenEffect, tool: Tool, *, doubted: bool) -> None:
    """Perform an open effect once more, under its old key; the reopening is durable, and guarded, before anything happens.

    ``doubted``: the former holder may have done it; then only a success settles it.
    """
    services = held.services
    dependency = services.tool_dependencies[effect.name]
    await held.sequencer.flush()  # a wait for capacity may be long; what is known already must not wait with it
    try:
        permit = dependency.try_acquire() or await dependency.acquire(held.deadline_s(effect.call))
    except (Unavailable, Refused) as busy:
        held.note(*_given_up(held, effect, tool, busy.code, doubted=doubted))
        return
    until_s = None
    try:
        until_s = await _reopen(held, effect, tool, doubted=doubted)
    finally:
        if until_s is None:
            dependency.release(permit)
    if until_s is None:
        return
    until_s = min(until_s, held.repeats_until_s(tool.spec, effect.opened_at_us)) if doubted else until_s
    known_at_us = services.clock.now_us()  # by now nothing of it was done, where there is no doubt: its key counts from here

    def repeats() -> float:
        return held.repeats_until_s(tool.spec, effect.opened_at_us if doubted else known_at_us)

    before = held.guard(ProposalKind.TOOL, effect.name, until_s, repeats=repeats, undoes=held.undoes(effect.call))
    held.sequencer.performing.add(effect.call)
    asked = Transaction(services.topics) if tool.spec.transactional else None
    context = held.context(effect.call, effect.key, asked)
    closed, result = await perform_tool(
        services,
        effect.call,
        tool,
        dependency,
        permit,
        _arguments(held, effect),
        context,
        before,
        held.deadline_s(effect.call),
        doubted=doubted,
        reins=held.reins(effect.call, model=False),
    )
    await settle(held, tool, closed, result, asked)


async def _reopen(held: Held, effect: OpenEffect, tool: Tool, *, doubted: bool) -> float | None:
    """Commit that an open effect is about to be performed again: until when, or ``None`` if it has been settled instead."""
    services = held.services
    while True:
        if effect.call not in held.state.open:
            return None  # a late receipt came first
        now_us = services.clock.now_us()
        undoes = held.undoes(effect.call)
        code = revoked(ProposalKind.TOOL, effect.name, held.state, services.gate.controls, now_us, undoes=undoes)
        if code is not None:
            held.note(*_given_up(held, effect, tool, code, doubted=doubted))
            return None
        perform_by_us, until_s = held.window()
        if await held.sequencer.commit(((ev.EffectReopened(now_us, effect.call, perform_by_us), None),)) is None:
            return until_s


def _forbidden(held: Held, effect: OpenEffect) -> str | None:
    """Why the policy in force, or the tool as it is today, does not let this very effect happen any more; else ``None``."""
    proposal = held.services.gate.catalogue.propose(
        held.state.contract, effect.call, effect.name, held.transcript.raw(effect.call), 1
    )
    if proposal.digest != effect.digest:
        return "effect.changed"
    return held.services.gate.forbidden(proposal, held.state, held.standing, held.transcript.origins)


def _given_up(held: Held, effect: OpenEffect, tool: Tool, code: str, *, doubted: bool) -> Receipt:
    if doubted:
        return unknown(held.services, effect.call, tool)
    return not_done(held.services, effect.call, tool, code)


def _tool(catalogue: Catalogue, name: str) -> Tool | None:
    return catalogue.tool(name) if catalogue.spec(name) is not None else None


def _arguments(held: Held, effect: OpenEffect) -> bytes:
    """The canonical arguments of an open effect, from the model's message that proposed it."""
    catalogue = held.services.gate.catalogue
    return catalogue.propose(held.state.contract, effect.call, effect.name, held.transcript.raw(effect.call), 1).arguments
