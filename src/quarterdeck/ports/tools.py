"""The seam to tools: how a tool's code is fitted, performed, asked and undone.

A tool is code behind a manifest (:class:`~quarterdeck.core.specs.ToolSpec`). The gate has decided before ``perform`` is called,
the intent is durable, and the idempotency key is stable across attempts, restarts and owners.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import ReceiptStatus


class ToolContext(msgspec.Struct, frozen=True, gc=False):
    """What a tool is told about the step it performs. ``idempotency_key`` is the same for every attempt of the same step.

    ``actor`` is the person on whose behalf the run acts; ``service`` the agent's own identity, under which the tool should act: the
    runtime never holds a person's credentials.
    """

    run_id: str
    call: str
    tenant: str
    actor: str
    idempotency_key: str
    service: str = ""


class ToolFailure(Exception):
    """A tool says that it failed, and how: raise it from a tool for a failure that the model may see.

    ``transient``: the same call may succeed later. ``done``: whether the effect may have happened all the same (``None``: not known,
    the effect then counts as unknown unless the tool is a read or can be reconciled).
    """

    def __init__(self, code: str, message: str, *, transient: bool = False, done: bool | None = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.transient = transient
        self.done = done


class Finding(msgspec.Struct, frozen=True):
    """What a reconcile function found out: the effect ``succeeded`` (with its result), ``failed`` (it did not happen), or ``unknown``."""

    status: ReceiptStatus
    result: object = None


class Tool(Protocol):
    """One tool. Implementations check untrusted arguments themselves; they never see what did not fit."""

    @property
    def spec(self) -> ToolSpec:
        """The manifest."""
        ...

    def fit(self, arguments: bytes) -> str:
        """Why these canonical arguments do not fit the schema, in one sentence for the model; empty if they do."""
        ...

    async def perform(self, arguments: bytes, context: ToolContext) -> bytes:
        """Perform once and return the result as JSON. Raises whatever the tool raises; never retries."""
        ...

    async def reconcile(self, arguments: bytes, context: ToolContext) -> Finding:
        """Find out whether the effect under this idempotency key happened; only for tools whose spec says so."""
        ...
