"""The client for other processes: ``Client(url, key)`` and ``AsyncClient(url, key)``, with the verbs of a runtime in this process.

It stands alone: it imports nothing of Quarterdeck, needs ``httpx2`` and ``msgspec`` only, and knows the server by what goes over the wire.

**Rooms within.** Everything that decides is pure and written once. :mod:`~quarterdeck.client.wire` has requests and what became of them
as data, :mod:`~quarterdeck.client.sse` turns bytes into messages, :mod:`~quarterdeck.client.retrying` says when to ask again,
:mod:`~quarterdeck.client.calls` what each verb sends and how its answer is read, :mod:`~quarterdeck.client.flows` and
:mod:`~quarterdeck.client.following` what takes several calls. These are generators that say what they need next.
:mod:`~quarterdeck.client.transport` performs it, once blocking and once not; :mod:`~quarterdeck.client.blocking` and
:mod:`~quarterdeck.client.awaiting` are the names that users see.

**Promises.**

* Whatever is asked for twice happens once: a run is asked for under one idempotency key however often the request is sent, a decision
  under the digest that was read. What may have happened although no answer came is said (``ClientError.maybe_done``).
* :meth:`Run.follow` gives every event of the journal once, in order, over any number of broken connections.
* Every wait is bounded: an attempt by ``timeout_s``, all attempts of a call by ``Retry.for_s``, a silent stream by ``silence_s``.
* The key goes to the given address and nowhere else: no redirects, no proxies of the environment, no plain HTTP beyond this machine.
  It is in no ``repr``, no log line and no error.

**It must never** repeat what is not safe to repeat, guess where a cursor is lost, or import another room.
"""

from __future__ import annotations

from quarterdeck.client.awaiting import AsyncClient, AsyncRun
from quarterdeck.client.blocking import Client, Run
from quarterdeck.client.calls import Budget
from quarterdeck.client.errors import ClientError, Unreachable
from quarterdeck.client.retrying import Retry
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    Dependency,
    Event,
    Grant,
    Health,
    KeyInfo,
    MadeKey,
    Policies,
    Post,
    PostDetail,
    Progress,
    Route,
    RunDetail,
    RunResult,
    RunSummary,
    Switches,
    Tool,
)

__all__ = [
    "Account",
    "Approval",
    "ApprovalDetail",
    "AsyncClient",
    "AsyncRun",
    "Budget",
    "Client",
    "ClientError",
    "Dependency",
    "Event",
    "Grant",
    "Health",
    "KeyInfo",
    "MadeKey",
    "Policies",
    "Post",
    "PostDetail",
    "Progress",
    "Retry",
    "Route",
    "Run",
    "RunDetail",
    "RunResult",
    "RunSummary",
    "Switches",
    "Tool",
    "Unreachable",
]
