"""What goes over the wire: request and answer bodies. The OpenAPI document is made of exactly these structs.

Times are microseconds since 1970, UTC (``_us``); money is micro-dollars (``_microusd``). Requests refuse unknown fields.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from quarterdeck.app.oversight import Doubt
from quarterdeck.core.contract import EnvelopeBudget
from quarterdeck.core.identity import Grant
from quarterdeck.core.labels import Labels
from quarterdeck.core.overrides import Change
from quarterdeck.core.vocabulary import AdmissionAnswer, Autonomy, CancelMode, Mode, OnBudget, Risk, Status
from quarterdeck.server.forms import Shown, Strict


class Run(Shown, frozen=True, kw_only=True):
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


class Output(Shown, frozen=True, kw_only=True):
    """What a run said at its end; ``partial`` if a limit was reached before it was done.

    ``value`` is what a workflow returned, ``text`` the same as text; ``message`` says why a run failed.
    """

    text: str
    partial: bool
    message: str
    value: object


class Progress(Shown, frozen=True, kw_only=True):
    """How far a run said it is: so much ``done``, of ``total`` where that is known; ``call`` is empty for what a workflow says of itself.

    ``note`` is empty for whoever may not read contents.
    """

    call: str
    done: int
    total: int | None
    note: str
    at_us: int


class RunDetail(Run, frozen=True, kw_only=True):
    """One run in full. ``result`` is there once it has ended, for whoever may read contents.

    ``admission`` is how it was admitted, with its code: it could ``start``, had to ``wait``, or was sent ``elsewhere`` than the
    ``requested_route``.
    """

    mode: Mode
    autonomy: Autonomy
    risk: Risk
    limits: dict[str, object]
    versions: dict[str, object]
    deadline_at_us: int | None
    requested_route: str
    admission: AdmissionAnswer
    admission_code: str
    turn: int
    effects: dict[str, int]
    spent: dict[str, int]
    open_effects: tuple[str, ...]
    unknown_effects: tuple[str, ...]
    approvals: dict[str, str]
    progress: Progress | None
    result: Output | None


class Runs(Shown, frozen=True, kw_only=True):
    """A page of runs, newest first; ``next`` is the cursor of the following page, ``null`` on the last."""

    runs: tuple[Run, ...]
    next: str | None


class Because(Strict, frozen=True, kw_only=True):
    """Why; recorded, with who asked."""

    reason: str = ""


class Cancel(Strict, frozen=True, kw_only=True):
    """Why a run is stopped; kept in its journal. ``mode`` says what becomes of what is under way."""

    reason: str = ""
    mode: CancelMode = CancelMode.COMPENSATE


class Interrupt(Strict, frozen=True, kw_only=True):
    """What a run is told, before whatever it was about to do. The same ``token`` again is the same interrupt."""

    payload: object = None
    token: str | None = None


class Escalate(Strict, frozen=True, kw_only=True):
    """Why a run becomes the concern of its route's next owner."""

    reason: str = ""


class Escalated(Shown, frozen=True, kw_only=True):
    """Whose concern the run is now."""

    run_id: str
    owner: str


class RaiseBudget(Strict, frozen=True, kw_only=True):
    """Limits of one run that are other ones from now on; those that are not named stay. The same ``token`` again is the same order."""

    budget: EnvelopeBudget
    reason: str = ""
    token: str | None = None


class ForkRequest(Strict, frozen=True, kw_only=True):
    """Where a fork goes on: the step that is done anew, or, with ``edited``, has this ``result``; perhaps on another ``route``."""

    step: str
    edited: bool = False
    result: object = None
    route: str | None = None


class DifferenceBody(Shown, frozen=True, kw_only=True):
    """One thing that would be otherwise now: what is recorded at ``seq``, and what would happen."""

    seq: int
    kind: Literal["step", "ruling", "end"]
    call: str
    recorded: str
    now: str


class ReplayBody(Shown, frozen=True, kw_only=True):
    """What an offline replay found: steps executed again, decisions judged again, and the differences."""

    run_id: str
    same: bool
    steps: int
    decisions: int
    differences: tuple[DifferenceBody, ...]


class Signal(Strict, frozen=True, kw_only=True):
    """A message to a run, by name."""

    name: str
    payload: object = None


class Resume(Strict, frozen=True, kw_only=True):
    """Why a run goes on; ``done``: what it was stuck with was done, or undone, by hand."""

    reason: str = ""
    done: bool = False


class Resolve(Strict, frozen=True, kw_only=True):
    """How an unknown effect ended, after a person has looked: whether it was done, and with what result. With ``retry`` it was not, and is
    proposed once more.
    """

    call: str
    done: bool
    result: object = None
    retry: bool = False
    reason: str = ""


class Mark(Strict, frozen=True, kw_only=True):
    """A judgement of one decision: that it was ``wrong``, or, to take that back, that it was not; and why."""

    call: str
    reason: str
    wrong: bool = True


class Approval(Shown, frozen=True, kw_only=True):
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


class Approvals(Shown, frozen=True, kw_only=True):
    """A page of approvals, the nearest deadline first."""

    approvals: tuple[Approval, ...]
    next: str | None


class Decide(Strict, frozen=True, kw_only=True):
    """A person's answer. A rejection needs a reason; ``edit`` needs ``arguments``, which are a new proposal; ``respond`` a ``text``."""

    decision: Literal["approve", "reject", "edit", "respond"]
    reason: str = ""
    arguments: dict[str, object] | None = None
    text: str = ""


class ToolBody(Shown, frozen=True, kw_only=True):
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


class Tools(Shown, frozen=True, kw_only=True):
    """Every tool of the deck."""

    tools: tuple[ToolBody, ...]


class RouteBody(Shown, frozen=True, kw_only=True):
    """One row of the route table, as it is in effect: what admission would give a run of the tenant that was asked about, or of one
    without terms of its own. ``terms`` names the tenants for which something is otherwise here.
    """

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
    paging: str
    refusal: str
    fallback: str | None
    on_budget: OnBudget
    latency_ms: int | None
    payload: Labels | None
    escalation: tuple[str, ...]
    at_limit: str
    retention_s: int
    escalate_after_s: int | None
    on_denial: str
    on_expiry: str
    quorum: int
    terms: tuple[str, ...]


class Routes(Shown, frozen=True, kw_only=True):
    """The route table, as far as the caller's tenants are served."""

    routes: tuple[RouteBody, ...]


class BudgetBody(Shown, frozen=True, kw_only=True):
    """One shared account in one dimension. ``standing`` is ``open``, ``near``, ``exhausted`` or ``overdrawn``; ``exhausted_in_s`` is
    when it is used up at the present rate, where that is before its period ends.
    """

    account: str
    dimension: str
    limit: int | None
    committed: int
    reserved: int
    standing: str
    exhausted_in_s: int | None


class Budgets(Shown, frozen=True, kw_only=True):
    """Shared accounts; those of a tenant for who may read there, the others for who may read everywhere."""

    budgets: tuple[BudgetBody, ...]


class AccountBudget(Strict, frozen=True, kw_only=True):
    """What can be limited of a shared account."""

    max_model_calls: int | None = None
    max_tools: int | None = None
    max_tokens: int | None = None
    max_cost_usd: str | None = None


class RaiseAccount(Strict, frozen=True, kw_only=True):
    """Limits of one shared account that are other ones from now on; those that are not named stay."""

    budget: AccountBudget
    reason: str = ""


class RaisedAccount(Shown, frozen=True, kw_only=True):
    """The account as it stands now, and how many runs that rested for it go on."""

    budgets: tuple[BudgetBody, ...]
    woken: int


class Policies(Shown, frozen=True, kw_only=True):
    """The policy set in force: its version, and its texts by name."""

    version: str
    policies: dict[str, str]


class Switches(Shown, frozen=True, kw_only=True):
    """The switches that are set, and the version that decisions are judged by."""

    version: int
    switches: tuple[str, ...]
    details: tuple[SwitchBody, ...] = ()
    proof: SwitchProof | None = None


class SwitchBody(Shown, frozen=True, kw_only=True):
    """One switch that is set: its bounds (empty: everywhere), why, by whom, when, and until when it is in force."""

    key: str
    kind: str
    name: str
    tenant: str
    route: str
    reason: str
    by: str
    at_us: int
    expires_at_us: int | None
    expired: bool


class SwitchProof(Shown, frozen=True, kw_only=True):
    """From ``version`` on, durable at ``at_us``, no intent commits that was judged without this change.

    ``runs`` have not ended and are covered (``more``: at least); ``in_flight`` covered intents were durable before; ``ends`` is where the
    journals of covered runs that were being driven stood: no covered intent is behind that.
    """

    switch: str
    on: bool
    version: int
    at_us: int
    expires_at_us: int | None
    routes: tuple[str, ...] | None
    tools: tuple[str, ...] | None
    runs: int
    more: bool
    in_flight: int
    ends: dict[str, int]


class SetSwitch(Strict, frozen=True, kw_only=True):
    """Set (``on``) or clear a switch such as ``disable_tool:refund``, ``stop_route:x``, ``drain`` or ``freeze``; say why.

    ``tenant`` and ``route`` bound it; it expires after ``expires_in_s``. With ``expected_version`` it is refused if somebody has changed
    the switches since. ``preview`` changes nothing and says what it would reach.
    """

    name: str
    on: bool
    reason: str
    tenant: str = ""
    route: str = ""
    expires_in_s: Annotated[int, msgspec.Meta(ge=1, le=31_536_000)] | None = None
    expected_version: int | None = None
    preview: bool = False


class AuditBody(Shown, frozen=True, kw_only=True):
    """One row of the audit log."""

    seq: int
    action: str
    by: str
    target: str
    at_us: int
    reason: str
    tenant: str
    detail: object


class AuditRows(Shown, frozen=True, kw_only=True):
    """A page of the audit log, the oldest first; ``next`` is what ``after`` of the following page is, ``null`` on the last."""

    rows: tuple[AuditBody, ...]
    next: int | None


class DependencyBody(Shown, frozen=True, kw_only=True):
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
    timeout_s: float
    attempt_limit: int
    slots: int
    rate_per_s: float | None
    retry_tokens: float
    changed_until_us: int | None
    changed_by: str


class ChangeDependency(Strict, frozen=True, kw_only=True):
    """Change the policy of one dependency in every process, for ``for_s`` seconds; with ``end``, end a change."""

    name: str
    change: Change = Change()
    for_s: float = 3_600.0
    end: bool = False
    reason: str = ""


class DependencyList(Shown, frozen=True, kw_only=True):
    """Every dependency by name."""

    dependencies: tuple[DependencyBody, ...]


class KeyBody(Shown, frozen=True, kw_only=True):
    """One API key, without its text. ``status`` is ``active``, ``expired`` or ``revoked``."""

    prefix: str
    status: str
    label: str
    subject: str
    grants: tuple[Grant, ...]
    created_by: str
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    revoked_by: str
    reason: str


class MadeKey(KeyBody, frozen=True, kw_only=True):
    """A key that was just made. ``key`` is its text: nothing shows it again."""

    key: str


class Keys(Shown, frozen=True, kw_only=True):
    """The keys that the caller manages, the oldest first."""

    keys: tuple[KeyBody, ...]


class MakeKey(Strict, frozen=True, kw_only=True):
    """Whom a key stands for, what it may do where, and for how long (``null``: until it is revoked)."""

    subject: str
    grants: tuple[Grant, ...]
    label: str = "made over HTTP"
    lifetime_s: int | None = None


class Worker(Shown, frozen=True, kw_only=True):
    """One runtime that may hold runs of this store. ``status`` is ``ready``, ``draining``, ``failed`` or, once its lease is over, ``lost``;
    ``programs`` is the code that it has, ``null``: any."""

    worker: str
    status: str
    held: int
    active: int
    max_active: int
    version: str
    release: str
    host: str
    pid: int
    programs: tuple[str, ...] | None
    started_at_us: int | None
    beat_at_us: int | None
    lease_until_us: int | None


class Workers(Shown, frozen=True, kw_only=True):
    """Every worker, the oldest first."""

    workers: tuple[Worker, ...]


class Requeue(Strict, frozen=True, kw_only=True):
    """Why a failed run is asked for once more."""

    reason: str = ""


class Drop(Strict, frozen=True, kw_only=True):
    """Why a dead letter is let go."""

    reason: str


class TaskRequest(Strict, frozen=True, kw_only=True):
    """A task in plain words."""

    task: str
    user_id: str | None = None
    idempotency_key: str | None = None


class Task(Shown, frozen=True, kw_only=True):
    """A run in the words of the task interface."""

    task_id: str
    status: Literal["pending", "running", "complete", "failed"]
    result: str | None = None
    error: str | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None


class Health(Shown, frozen=True, kw_only=True):
    """Whether the process serves, and how many runs have not ended."""

    status: str
    tasks_in_flight: int


class Probe(Shown, frozen=True, kw_only=True):
    """A probe's answer; ``code`` says why not."""

    status: Literal["ok", "starting", "busy", "stopping", "failed", "superseded", "unreachable"]
    code: str = ""


class Effects(Shown, frozen=True, kw_only=True):
    """Effects of which nobody knows whether they happened."""

    effects: tuple[Doubt, ...]
