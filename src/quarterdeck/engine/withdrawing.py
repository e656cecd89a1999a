"""What a cancelled run has started outside is stopped, through the ``cancel`` hooks of the tools that started it.

A hook is a tool of its own (``NAME.cancel``), which no model and no program can name: it passes the gate, has its own intent and receipt,
and goes on after a crash like any other effect. It is told the arguments, the result and the idempotency key of the call that it stops.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.errors import Corrupt
from quarterdeck.core.specs import CANCEL_SUFFIX
from quarterdeck.core.steps import StepKind, step_digest
from quarterdeck.core.vocabulary import ReceiptStatus
from quarterdeck.engine.held import Held
from quarterdeck.engine.transcript import ModelPayload
from quarterdeck.ports.store import StoredEvent

PAGE = 2_000
"""Events read at once."""

_encoder = msgspec.json.Encoder(order="deterministic")
_payloads: msgspec.json.Decoder[ModelPayload] = msgspec.json.Decoder(ModelPayload)


class Stopped(msgspec.Struct, frozen=True):
    """What a hook is told: the idempotency key and the arguments of the call that is stopped, and its result, if there is one."""

    key: str
    arguments: msgspec.Raw
    result: msgspec.Raw


async def withdraw(held: Held, calls: Iterable[str]) -> None:
    """Ask for the ``cancel`` hook of each of these calls; the gate decides on them next. What has no hook any more is passed over,
    and said so.
    """
    await held.sequencer.flush()  # what they were told and gave back is read from the journal
    wanted = dict.fromkeys(calls)
    arguments, results = _contents(held, wanted)
    now_us = held.services.clock.now_us()
    for call in wanted:
        name = f"{held.state.started[call]}{CANCEL_SUFFIX}"
        told = Stopped(f"{held.run_id}:{call}", _raw(arguments.get(call)), _raw(results.get(call)))
        payload = _encoder.encode(told)
        step = f"{call}.cancel"
        digest = step_digest(StepKind.WITHDRAW, name, payload)
        held.note(ev.StepProposed(now_us, step, StepKind.WITHDRAW, name, digest, undoes=call), payload)


def _contents(held: Held, wanted: dict[str, None]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The arguments and the results of these calls, as they stand in the journal."""
    arguments: dict[str, bytes] = {}
    results: dict[str, bytes] = {}
    for stored in _journal(held):
        event = ev.decode(stored.body)
        match event:
            case ev.ModelClosed() if event.calls and stored.payload is not None:
                for planned, call in zip(event.calls, _payloads.decode(stored.payload).calls, strict=True):
                    if planned.call in wanted:
                        arguments[planned.call] = call.arguments.encode()
            case ev.StepProposed() if event.call in wanted and stored.payload is not None:
                arguments[event.call] = stored.payload
            case ev.ToolClosed() | ev.EffectResolved() if event.call in wanted and stored.payload is not None:
                if event.status is ReceiptStatus.SUCCEEDED:
                    results[event.call] = stored.payload
            case _:
                pass
    return arguments, results


def _journal(held: Held) -> Iterable[StoredEvent]:
    after = 0
    while page := held.services.insights.events(held.run_id, after, PAGE):
        yield from page
        after = page[-1].seq


def _raw(content: bytes | None) -> msgspec.Raw:
    if content is None:
        return msgspec.Raw(b"null")
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise Corrupt("journal.payload", f"the arguments of a call that was performed cannot be read ({error})") from None
    return msgspec.Raw(content)
