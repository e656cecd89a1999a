"""Making a receipt durable, alone or in one transaction with what a transactional tool has asked for.

A transactional tool does nothing by itself: it names statements and messages, and they are committed with its receipt, under every guard of
an intent. So a run that was cancelled meanwhile has done nothing, a crash before the commit has done nothing, and after it all is done.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core import events as ev
from quarterdeck.core.judge import revoked
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus
from quarterdeck.engine.held import Held
from quarterdeck.ports.tools import Publication, Tool, Transaction

_encoder = msgspec.json.Encoder()


async def settle(held: Held, tool: Tool, closed: ev.ToolClosed, result: bytes, asked: Transaction | None) -> None:
    """Take in a receipt: noted for the next commit, unless something has to be committed with it."""
    if asked is None or closed.status is not ReceiptStatus.SUCCEEDED or not (asked.writes or asked.posts):
        held.receive(closed, result)
        return
    held.reports.settle(closed.call)
    posts = tuple([_post(held, closed.call, place, post) for place, post in enumerate(asked.posts)])
    while True:
        refused = await held.sequencer.commit(((closed, result),), outbox=posts, writes=tuple(asked.writes))
        if refused is None:
            held.received(closed, result)
            return
        if refused.guard == "statement":
            held.receive(*_undone(closed, "tool.statement", refused.detail))
            return
        code = revoked(
            ProposalKind.TOOL,
            tool.spec.name,
            held.state,
            held.services.gate.controls,
            held.services.clock.now_us(),
            undoes=held.undoes(closed.call),
        )
        if code is not None:
            held.receive(*_undone(closed, code, ""))
            return


def _post(held: Held, call: str, place: int, post: Publication) -> Post:
    contract = held.state.contract
    lane = lane_of(contract.tenant, post.topic, post.key or contract.run_id)
    return Post(f"{contract.run_id}:{call}:{place}", lane, post.topic, post.key, post.body, post.headers)


def _undone(closed: ev.ToolClosed, code: str, message: str) -> tuple[ev.ToolClosed, bytes]:
    """The receipt of a call whose transaction was refused: it is known that nothing of it happened."""
    shown = _encoder.encode({"error": code, "message": message} if message else {"error": code})
    failed = msgspec.structs.replace(closed, status=ReceiptStatus.FAILED, code=code, tokens=-(-len(shown) // 4), labels=None)
    return failed, shown
