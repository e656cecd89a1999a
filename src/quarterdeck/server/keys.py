"""API keys over HTTP: list, make, end. Who manages keys, and which rights somebody may hand out, says the room of identity."""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from quarterdeck.server import bodies
from quarterdeck.server.exchange import Exchange, answer
from quarterdeck.server.identity import KeyRequest, create_key, list_keys, revoke_key
from quarterdeck.server.reading import shaped


async def listing(exchange: Exchange) -> Response:
    """The keys that the principal manages, never their texts."""
    found = list_keys(exchange.runtime.insights, exchange.runtime.parts.clock, by=exchange.principal)
    return answer(bodies.Keys(keys=tuple(msgspec.convert(msgspec.structs.asdict(key), bodies.KeyBody) for key in found)))


async def make(exchange: Exchange) -> Response:
    """Make a key; this answer is the only one that ever has its text."""
    wanted = shaped(exchange.body, bodies.MakeKey)
    runtime = exchange.runtime
    request = KeyRequest(wanted.subject, wanted.label, wanted.grants, wanted.lifetime_s)
    made = await create_key(
        runtime.apply, runtime.insights, runtime.parts.clock, runtime.parts.entropy, request=request, by=exchange.principal
    )
    return answer(msgspec.convert({**msgspec.structs.asdict(made.info), "key": made.text}, bodies.MadeKey), 201)


async def revoke(exchange: Exchange) -> Response:
    """End a key for ever; a second time changes nothing."""
    said = shaped({} if exchange.body is None else exchange.body, bodies.Because)
    runtime = exchange.runtime
    ended = await revoke_key(
        runtime.apply,
        runtime.insights,
        runtime.parts.clock,
        prefix=exchange.names["prefix"],
        by=exchange.principal,
        reason=said.reason,
        cache=exchange.stage.keys,
    )
    return answer(msgspec.convert(msgspec.structs.asdict(ended), bodies.KeyBody))
