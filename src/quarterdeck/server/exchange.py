"""One request on its way through the door, and what its handler may ask about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from quarterdeck.app.runtime import Runtime
from quarterdeck.core.canonical import Json
from quarterdeck.core.errors import Refused, UsageError
from quarterdeck.core.identity import Action, Principal
from quarterdeck.ports.store import ApprovalRow, RunRow
from quarterdeck.server.callers import Streams
from quarterdeck.server.gauges import Gauges
from quarterdeck.server.identity import KeyCache
from quarterdeck.server.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """What every exchange shares: the runtime behind the door, its settings, its open streams, and whether it is closing.

    ``anonymous``: nobody is authenticated, so nobody's name is known either. ``keys`` is what this process remembers of keys, so that one
    that is revoked here is forgotten at once.
    """

    runtime: Runtime
    settings: Settings
    streams: Streams
    gauges: Gauges
    closing: asyncio.Event
    document: bytes
    anonymous: bool
    keys: KeyCache | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One authenticated request, read and found well-formed. ``action`` is what its route asks the principal's right for."""

    stage: Stage
    request: Request
    principal: Principal
    action: Action | None
    names: dict[str, str]
    query: msgspec.Struct
    body: Json

    @property
    def runtime(self) -> Runtime:
        """The runtime behind the door."""
        return self.stage.runtime

    def asked(self, kind: type[T]) -> T:
        """The query's parameters; their type is that of the route."""
        if not isinstance(self.query, kind):
            raise TypeError(f"the route declares {type(self.query).__name__}, its handler wants {kind.__name__}")
        return self.query

    def tenants(self, wanted: str | None = None) -> frozenset[str] | None:
        """Whose rows a list shows: all (``None``) or those tenants in which the principal has this route's right, perhaps only one."""
        allowed = self.tenants_for(self._required())
        if wanted is None:
            return allowed
        return frozenset({wanted}) if allowed is None or wanted in allowed else frozenset()

    def tenants_for(self, action: Action) -> frozenset[str] | None:
        """In which tenants the principal has a right; ``None``: in all."""
        return self.principal.tenants(action)

    def run(self, run_id: str) -> RunRow:
        """A run of a tenant in which the principal may read; to everybody else it does not exist."""
        row = self.runtime.insights.run(run_id)
        if row is None or not self.sees(Action.RUNS_READ, row.tenant):
            raise UsageError("run.unknown", f"no run is called {run_id[:160]!r}")
        self.require(row.tenant)
        return row

    def approval(self, approval: str) -> ApprovalRow:
        """An approval, by the same rule."""
        row = self.runtime.insights.approval(approval)
        if row is None or not self.sees(Action.APPROVALS_READ, row.tenant):
            raise UsageError("approval.unknown", f"no approval is called {approval[:160]!r}")
        self.require(row.tenant)
        return row

    def require(self, tenant: str) -> None:
        """Raise :class:`Refused` (``auth.forbidden``) unless the principal has this route's right in ``tenant``."""
        action = self._required()
        if not self.principal.may(action, tenant):
            raise forbidden(action)

    def contents(self, tenant: str, wanted: bool | None) -> bool:
        """Whether contents are shown; asking for them without the right is refused, not ignored."""
        may = self.principal.may(Action.CONTENT_READ, tenant)
        if wanted and not may:
            raise forbidden(Action.CONTENT_READ)
        return may and wanted is not False

    def sees(self, reading: Action, tenant: str) -> bool:
        """Whether what belongs to ``tenant`` exists for the principal: it may read there, or has this route's right."""
        return self.principal.may(reading, tenant) or self.principal.may(self._required(), tenant)

    def _required(self) -> Action:
        if self.action is None:
            raise TypeError("a public route has no tenants to ask about")
        return self.action


def forbidden(action: Action) -> Refused:
    """The refusal of who is known, but has no right."""
    return Refused("auth.forbidden", f"this caller has no right to {action.value}; an administrator can grant it")


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; never cached, since it depends on who asks."""
    return Response(
        msgspec.json.encode(value), status, {"content-type": "application/json", "cache-control": "no-store", **(headers or {})}
    )
