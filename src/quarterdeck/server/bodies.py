"""What goes over the wire: request and answer bodies. The OpenAPI document is made of exactly these structs.

Times are microseconds since 1970, UTC (``_us``); money is micro-dollars (``_microusd``). Requests refuse unknown fields.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from quarterdeck.core.vocabulary import Autonomy, Mode, Risk, Status

Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000, description="The most rows of this page.")]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Run(_Shown, frozen=True, kw_only=True):
    """One run as lists show it. ``user`` is on whose behalf it acts; ``seq`` the sequence of its newest event."""

    run_id: str
    status: Status
    reason: str
    code: str
    tenant: str
    user: str
    route: str
    agent: str
    priority: str
    correlation_id: str
    thread_id: str | None
    parent_run_id: str | None
    seq: int
    waiting_on: tuple[str, ...]
    wake_at_us: int | None
    admitted_at_us: int
    updated_at_us: int


class Output(_Shown, frozen=True, kw_only=True):
    """What a run said at its end; ``partial`` if a limit was reached before it was done."""

    text: str
    partial: bool


class RunDetail(Run, frozen=True, kw_only=True):
    """One run in full. ``result`` is there once it has ended, for whoever may read contents."""

    mode: Mode
    autonomy: Autonomy
    risk: Risk
    limits: dict[str, object]
    versions: dict[str, object]
    deadline_at_us: int | None
    turn: int
    effects: dict[str, int]
    spent: dict[str, int]
    open_effects: tuple[str, ...]
    unknown_effects: tuple[str, ...]
    approvals: dict[str, str]
    result: Output | None


class Runs(_Shown, frozen=True, kw_only=True):
    """A page of runs, newest first; ``next`` is the cursor of the following page, ``null`` on the last."""

    runs: tuple[Run, ...]
    next: str | None


class Cancel(_Strict, frozen=True, kw_only=True):
    """Why a run is stopped; kept in its journal."""

    reason: str = ""


class Resolve(_Strict, frozen=True, kw_only=True):
    """How an unknown effect ended, after a person has looked: whether it was done, and with what result."""

    call: str
    done: bool
    result: object = None


class Approval(_Shown, frozen=True, kw_only=True):
    """One approval without its contents. ``digest`` is what an answer has to name."""

    approval: str
    run_id: str
    tenant: str
    call: str
    tool: str
    digest: str
    requested_by: str
    expires_at_us: int
    status: str
    decided_by: str
    reason: str
    consumed: bool


class ApprovalDetail(Approval, frozen=True, kw_only=True):
    """One approval with what would be executed; ``shown_text`` are the very bytes that the digest covers, ``null`` if erased."""

    shown: object
    shown_text: str | None


class Approvals(_Shown, frozen=True, kw_only=True):
    """A page of approvals, the nearest deadline first."""

    approvals: tuple[Approval, ...]
    next: str | None


class Decide(_Strict, frozen=True, kw_only=True):
    """A person's answer. A rejection needs a reason."""

    decision: Literal["approve", "reject"]
    reason: str = ""


class ToolBody(_Shown, frozen=True, kw_only=True):
    """One tool's manifest."""

    name: str
    description: str
    effect: str
    input_schema: object
    schema_hash: str
    idempotent: bool
    idempotent_for_s: int
    reconcilable: bool
    compensable: bool
    timeout_s: float
    permissions: tuple[str, ...]
    sandbox: str
    cost_microusd: int
    evidence: tuple[str, ...]
    integrity: str
    confidentiality: str


class Tools(_Shown, frozen=True, kw_only=True):
    """Every tool of the deck."""

    tools: tuple[ToolBody, ...]


class RouteBody(_Shown, frozen=True, kw_only=True):
    """One row of the route table, with what its agent says where it is silent."""

    intent: str
    agent: str
    model: str
    owner: str
    task_class: str
    risk: Risk
    autonomy: Autonomy
    modes: tuple[Mode, ...]
    tenants: tuple[str, ...]
    tools: tuple[str, ...]
    limits: dict[str, object]
    priority: str
    approval_timeout_s: int


class Routes(_Shown, frozen=True, kw_only=True):
    """The route table, as far as the caller's tenants are served."""

    routes: tuple[RouteBody, ...]


class BudgetBody(_Shown, frozen=True, kw_only=True):
    """One shared account in one dimension."""

    account: str
    dimension: str
    limit: int | None
    committed: int
    reserved: int


class Budgets(_Shown, frozen=True, kw_only=True):
    """Shared accounts; those of a tenant for who may read there, the others for who may read everywhere."""

    budgets: tuple[BudgetBody, ...]


class Policies(_Shown, frozen=True, kw_only=True):
    """The policy set in force: its version, and its texts by name."""

    version: str
    policies: dict[str, str]


class Switches(_Shown, frozen=True, kw_only=True):
    """The switches that are set, and the version that decisions are judged by."""

    version: int
    switches: tuple[str, ...]


class SetSwitch(_Strict, frozen=True, kw_only=True):
    """Set (``on``) or clear a switch such as ``disable_tool:refund``, ``stop_route:x`` or ``freeze``; say why."""

    name: str
    on: bool
    reason: str


class DependencyBody(_Shown, frozen=True, kw_only=True):
    """How one model or tool is doing in this process, and what to check first."""

    name: str
    state: str
    calls: int
    success: int
    timeout: int
    error: int
    rejected: int
    attempts: int
    retries: int
    in_flight: int
    queued: int
    retry_after_s: float
    hint: str


class DependencyList(_Shown, frozen=True, kw_only=True):
    """Every dependency by name."""

    dependencies: tuple[DependencyBody, ...]


class TaskRequest(_Strict, frozen=True, kw_only=True):
    """A task in plain words."""

    task: str
    user_id: str | None = None
    idempotency_key: str | None = None


class Task(_Shown, frozen=True, kw_only=True):
    """A run in the words of the task interface."""

    task_id: str
    status: Literal["pending", "running", "complete", "failed"]
    result: str | None = None
    error: str | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None


class Health(_Shown, frozen=True, kw_only=True):
    """Whether the process serves, and how many runs have not ended."""

    status: str
    tasks_in_flight: int


class Probe(_Shown, frozen=True, kw_only=True):
    """A probe's answer; ``code`` says why not."""

    status: Literal["ok", "starting", "busy", "stopping", "failed"]
    code: str = ""


class RunsQuery(_Strict, frozen=True, kw_only=True):
    """Which runs."""

    status: Status | None = None
    route: str | None = None
    tenant: str | None = None
    correlation_id: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class RunQuery(_Strict, frozen=True, kw_only=True):
    """``content=false`` leaves contents out, ``true`` insists on them; by default they are shown to who may read them."""

    content: bool | None = None


class EventsQuery(_Strict, frozen=True, kw_only=True):
    """From where (``after``: a sequence), whether to go on with what comes, and with which contents."""

    after: str | None = None
    follow: bool = True
    content: bool | None = None


class ApprovalsQuery(_Strict, frozen=True, kw_only=True):
    """Which approvals; ``status=all`` for every one."""

    status: Literal["pending", "approved", "rejected", "expired", "withdrawn", "all"] = "pending"
    tenant: str | None = None
    cursor: str | None = None
    limit: Limit = 50


class NoQuery(_Strict, frozen=True, kw_only=True):
    """No parameters."""
