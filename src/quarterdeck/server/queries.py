"""What requests may ask in their query string: filters, cursors, choices. Unknown names are refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from quarterdeck.core.outbox import PostStatus
from quarterdeck.core.vocabulary import Status
from quarterdeck.server.forms import Strict

Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000, description="The most rows of this page.")]


class AuditQuery(Strict, frozen=True, kw_only=True):
    """Which rows: behind ``after``, with this beginning of action or target, of one tenant."""

    after: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0
    action: str = ""
    target: str = ""
    tenant: str | None = None
    limit: Limit = 50


class DeadLettersQuery(Strict, frozen=True, kw_only=True):
    """Which dead letters."""

    route: str | None = None
    tenant: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class OutboxQuery(Strict, frozen=True, kw_only=True):
    """Which messages."""

    status: PostStatus | None = None
    topic: str | None = None
    run: str | None = None
    tenant: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class RunsQuery(Strict, frozen=True, kw_only=True):
    """Which runs."""

    status: Status | None = None
    route: str | None = None
    tenant: str | None = None
    correlation_id: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class RunQuery(Strict, frozen=True, kw_only=True):
    """``content=false`` leaves contents out, ``true`` insists on them; by default they are shown to who may read them."""

    content: bool | None = None


class EventsQuery(Strict, frozen=True, kw_only=True):
    """From where (``after``: a sequence), whether to go on with what comes, and with which contents."""

    after: str | None = None
    follow: bool = True
    content: bool | None = None


class ApprovalsQuery(Strict, frozen=True, kw_only=True):
    """Which approvals; ``status=all`` for every one."""

    status: Literal["pending", "approved", "rejected", "edited", "answered", "expired", "withdrawn", "all"] = "pending"
    tenant: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class NoQuery(Strict, frozen=True, kw_only=True):
    """No parameters."""


class RoutesQuery(Strict, frozen=True, kw_only=True):
    """For which tenant; by default the caller's only one, else for a tenant without terms of its own."""

    tenant: str | None = None


class EffectsQuery(Strict, frozen=True, kw_only=True):
    """Which effects in doubt."""

    tenant: str | None = None
    limit: Limit = 200


class OversightQuery(Strict, frozen=True, kw_only=True):
    """Of which tenant; by default of all that the caller may read."""

    tenant: str | None = None
