"""What a server answers. Fields that a newer server adds are ignored; times are microseconds since 1970, money is micro-dollars."""

from __future__ import annotations

import msgspec

TERMINAL = frozenset({"succeeded", "failed", "refused", "cancelled"})
"""The statuses of a run that has ended."""


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    pass


class RunSummary(_Shown, frozen=True, kw_only=True):
    """One run as lists show it. ``user`` is on whose behalf it acts; ``seq`` the sequence of its newest event."""

    run_id: str
    status: str
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

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL


class Output(_Shown, frozen=True, kw_only=True):
    """What a run said at its end; ``partial`` if a limit was reached before it was done.

    ``value`` is what a workflow returned, ``text`` the same as text; ``message`` says why a run failed.
    """

    text: str
    partial: bool
    message: str = ""
    value: object = None


class Progress(_Shown, frozen=True, kw_only=True):
    """How far a run said it is: so much ``done``, of ``total`` where that is known; ``call`` is empty for what a workflow says of itself.

    ``note`` is empty for whoever may not read contents.
    """

    call: str
    done: int
    total: int | None
    note: str = ""
    at_us: int


class RunDetail(RunSummary, frozen=True, kw_only=True):
    """One run in full. ``result`` is there once it has ended, for whoever may read contents.

    ``admission`` (``start``, ``wait``, ``elsewhere``) is how it was admitted, with its code; ``requested_route`` what was asked for.
    """

    mode: str
    autonomy: str
    risk: str
    limits: dict[str, object]
    versions: dict[str, object]
    deadline_at_us: int | None
    requested_route: str = ""
    admission: str = "start"
    admission_code: str = ""
    turn: int
    effects: dict[str, int]
    spent: dict[str, int]
    open_effects: tuple[str, ...]
    unknown_effects: tuple[str, ...]
    approvals: dict[str, str]
    progress: Progress | None = None
    result: Output | None


class Escalated(msgspec.Struct, frozen=True):
    """Whose concern a run is now."""

    run_id: str
    owner: str


class Difference(msgspec.Struct, frozen=True):
    """One thing that an offline replay found otherwise: ``recorded`` at ``seq``, and what would happen ``now``.

    ``kind`` is ``step``, ``ruling`` or ``end``.
    """

    seq: int
    kind: str
    call: str
    recorded: str
    now: str


class Replay(msgspec.Struct, frozen=True):
    """What an offline replay found: steps executed again, decisions judged again, and the differences."""

    run_id: str
    same: bool
    steps: int
    decisions: int
    differences: tuple[Difference, ...] = ()


class RunResult(msgspec.Struct, frozen=True):
    """How a run stands: its status, stop reason and code, what it said, what its effects came to, what it cost.

    ``str(result)`` is the text; ``ok`` whether it succeeded; ``done`` whether it has ended. ``value`` is what a workflow returned;
    ``message`` says why a run failed, for people. All three are empty for whoever may not read contents.
    """

    run_id: str
    status: str
    reason: str
    code: str
    text: str
    partial: bool
    effects: dict[str, int]
    spent: dict[str, int]
    waiting_on: tuple[str, ...] = ()
    message: str = ""
    value: object = None

    @property
    def ok(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "succeeded"

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, run: RunDetail) -> RunResult:
        """The result part of a run."""
        said = run.result or Output(text="", partial=run.reason == "partial")
        return cls(
            run.run_id,
            run.status,
            run.reason,
            run.code,
            said.text,
            said.partial,
            run.effects,
            run.spent,
            run.waiting_on,
            said.message,
            said.value,
        )


class Event(msgspec.Struct, frozen=True):
    """One event of a run. ``seq`` is its place in the journal, 0 for what has none: ``model.delta`` and ``stream.gap``.

    ``content`` is its payload, where that is shown. ``text`` is what a ``model.delta`` adds.
    """

    seq: int
    kind: str
    at_us: int | None
    body: dict[str, object]
    content: object = None

    @property
    def durable(self) -> bool:
        """Whether it is in the journal."""
        return self.seq > 0

    @property
    def text(self) -> str:
        """What a delta adds to the model's text; empty for everything else."""
        said = self.body.get("text") if self.kind == "model.delta" else ""
        return said if isinstance(said, str) else ""


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
    """One approval with what would be executed; ``shown_text`` are the very bytes that the digest covers, ``None`` if not shown."""

    shown: object
    shown_text: str | None


class Tool(_Shown, frozen=True, kw_only=True):
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


class Route(_Shown, frozen=True, kw_only=True):
    """One row of the route table, as it is in effect; ``terms`` names the tenants for which something is otherwise."""

    intent: str
    agent: str
    model: str
    owner: str
    task_class: str
    risk: str
    autonomy: str
    modes: tuple[str, ...]
    tenants: tuple[str, ...]
    tools: tuple[str, ...]
    limits: dict[str, object]
    priority: str
    approval_timeout_s: int
    paging: str = ""
    refusal: str = ""
    fallback: str | None = None
    on_budget: str = "degrade"
    latency_ms: int | None = None
    payload: dict[str, str] | None = None
    escalation: tuple[str, ...] = ()
    at_limit: str = "stop"
    retention_s: int = 400 * 86_400
    escalate_after_s: int | None = None
    on_denial: str = "tell"
    on_expiry: str = "tell"
    quorum: int = 1
    terms: tuple[str, ...] = ()


class Account(_Shown, frozen=True, kw_only=True):
    """One shared account in one dimension; ``exhausted_in_s`` is when it is used up at the present rate."""

    account: str
    dimension: str
    limit: int | None
    committed: int
    reserved: int
    standing: str = "open"
    exhausted_in_s: int | None = None


class Policies(_Shown, frozen=True, kw_only=True):
    """The policy set in force: its version, and its texts by name."""

    version: str
    policies: dict[str, str]


class Switches(_Shown, frozen=True, kw_only=True):
    """The switches that are set, and the version that decisions are judged by."""

    version: int
    switches: tuple[str, ...]
    details: tuple[SwitchDetail, ...] = ()
    proof: SwitchProof | None = None


class SwitchDetail(_Shown, frozen=True, kw_only=True):
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


class SwitchProof(_Shown, frozen=True, kw_only=True):
    """From ``version`` on, durable at ``at_us``, no intent commits that was judged without this change; and what that reaches."""

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


class AuditRow(_Shown, frozen=True, kw_only=True):
    """One action of an operator."""

    seq: int
    action: str
    by: str
    target: str
    at_us: int
    reason: str
    tenant: str
    detail: object


class AuditPage(_Shown, frozen=True, kw_only=True):
    """A page of the audit log, the oldest first; ``next`` is what ``after`` of the following page is."""

    rows: tuple[AuditRow, ...]
    next: int | None


class Dependency(_Shown, frozen=True, kw_only=True):
    """How one model or tool is doing in the process that answered, and what to check first."""

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
    timeout_s: float = 0.0
    attempt_limit: int = 0
    slots: int = 0
    rate_per_s: float | None = None
    retry_tokens: float = 0.0
    changed_until_us: int | None = None
    changed_by: str = ""


class Grant(msgspec.Struct, frozen=True):
    """One role in one tenant; ``*`` is every tenant."""

    tenant: str
    role: str


class KeyInfo(_Shown, frozen=True, kw_only=True):
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


class MadeKey(KeyInfo, frozen=True, kw_only=True):
    """A key that was just made. ``key`` is its text: nothing shows it again, and printing this does not."""

    key: str

    def __repr__(self) -> str:
        return f"MadeKey({self.prefix!r}, {self.subject!r})"


class Worker(_Shown, frozen=True, kw_only=True):
    """One runtime that may hold runs: its lease, its code, the runs it holds, when it was heard of. ``lost``: its lease is over."""

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


class WorkerList(_Shown, frozen=True, kw_only=True):
    """Every worker."""

    workers: tuple[Worker, ...]


class Health(_Shown, frozen=True, kw_only=True):
    """Whether the process serves, and how many runs have not ended."""

    status: str
    tasks_in_flight: int


class Problem(_Shown, frozen=True, kw_only=True):
    """An error as servers send it (RFC 9457)."""

    code: str
    detail: str = ""
    info: dict[str, object] = {}
    retry_after_s: float | None = None


class RunPage(_Shown, frozen=True, kw_only=True):
    """A page of runs, newest first."""

    runs: tuple[RunSummary, ...]
    next: str | None


class ApprovalPage(_Shown, frozen=True, kw_only=True):
    """A page of approvals, the nearest deadline first."""

    approvals: tuple[Approval, ...]
    next: str | None


class Post(_Shown, frozen=True, kw_only=True):
    """One message of the outbox, without its contents."""

    message: str
    run_id: str
    tenant: str
    topic: str
    key: str
    status: str
    attempts: int
    code: str
    at_us: int
    decided_by: str
    reason: str
    bytes: int


class PostDetail(Post, frozen=True, kw_only=True):
    """One message with its contents, for whoever may read them."""

    headers: dict[str, str] | None
    body: str | None


class PostPage(_Shown, frozen=True, kw_only=True):
    """A page of messages, newest first."""

    messages: tuple[Post, ...]
    next: str | None


class RaisedAccount(_Shown, frozen=True, kw_only=True):
    """A shared account with its new limits, and how many runs that rested for it go on."""

    budgets: tuple[Account, ...]
    woken: int


class ToolList(_Shown, frozen=True, kw_only=True):
    """Every tool."""

    tools: tuple[Tool, ...]


class RouteList(_Shown, frozen=True, kw_only=True):
    """Every route."""

    routes: tuple[Route, ...]


class AccountList(_Shown, frozen=True, kw_only=True):
    """Every shared account."""

    budgets: tuple[Account, ...]


class KeyList(_Shown, frozen=True, kw_only=True):
    """The keys that the caller manages."""

    keys: tuple[KeyInfo, ...]


class DependencyList(_Shown, frozen=True, kw_only=True):
    """Every dependency."""

    dependencies: tuple[Dependency, ...]


class Doubt(_Shown, frozen=True, kw_only=True):
    """An effect of which nobody knows whether it happened; ``key`` is what the tool was given."""

    run_id: str
    tenant: str
    route: str
    call: str
    tool: str
    digest: str
    key: str
    since_us: int


class Doubts(_Shown, frozen=True, kw_only=True):
    """Effects in doubt, the newest run first."""

    effects: tuple[Doubt, ...]


class Oversight(_Shown, frozen=True, kw_only=True):
    """How often people changed decisions, over the newest runs; rates are per decision, ``None`` where there was none."""

    runs: int
    decisions: int
    allowed: int
    denied: int
    asked: int
    overridden: int
    false_allows: int
    effects_failed: int
    effects_unknown: int
    contradicted: int
    override_rate: float | None
    false_allow_rate: float | None
