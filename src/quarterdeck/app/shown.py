"""What is stored and declared, as the fields that doors show: the one place where a row becomes a body.

Pure, and in plain values: a server makes its bodies of them, the command line the shapes that servers answer with, so that both say
the same of the same row. Contents come in only where the caller of a function says so; who may see them, the doors know.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from quarterdeck.app.routing import EVERY_ROUTE, TermsTable, in_force, terms_for
from quarterdeck.app.views import ProgressView, RunResult, RunView
from quarterdeck.core.admission import STARTED, serves
from quarterdeck.core.specs import AgentSpec, RouteSpec, ToolSpec
from quarterdeck.core.vocabulary import AdmissionAnswer
from quarterdeck.core.windows import outlook
from quarterdeck.ports.store import AccountRow, ApprovalRow, PostRow, RunRow
from quarterdeck.resilience.dependency import DependencyView

Fields = dict[str, object]


def run(row: RunRow) -> Fields:
    """One run as lists show it."""
    return {**msgspec.structs.asdict(row), "user": row.actor}


def run_in_full(view: RunView, *, content: bool) -> Fields:
    """One run in full; its reply only once it has ended, and with ``content``."""
    contract, result = view.contract, view.result
    return {
        **run(view.row),
        **{name: contract[name] for name in ("mode", "autonomy", "risk", "limits")},
        "versions": contract["version_set"],
        "deadline_at_us": contract.get("deadline_at_us"),
        "requested_route": contract.get("requested") or contract["route"],
        "admission": contract.get("answer", AdmissionAnswer.START),
        "admission_code": contract.get("admission", STARTED),
        "turn": view.turn,
        "effects": result.effects,
        "spent": result.spent,
        "open_effects": view.open_effects,
        "unknown_effects": view.unknown_effects,
        "approvals": view.approvals,
        "progress": None if view.progress is None else _reported(view.progress, content=content),
        "result": _output(result) if content and result.done else None,
    }


def _output(result: RunResult) -> Fields:
    return {"text": result.text, "partial": result.partial, "message": result.message, "value": result.value}


def _reported(told: ProgressView, *, content: bool) -> Fields:
    return {**msgspec.structs.asdict(told), "note": told.note if content else ""}


def approval(row: ApprovalRow) -> Fields:
    """One approval without its contents."""
    return {name: value for name, value in msgspec.structs.asdict(row).items() if name != "shown"}


def approval_in_full(row: ApprovalRow, *, content: bool) -> Fields:
    """One approval with what would be executed, unless that was erased, or is not for this reader."""
    text = row.shown.decode() if content and row.shown else None
    return {**approval(row), "shown": None if text is None else msgspec.json.decode(text), "shown_text": text}


def account(row: AccountRow, now_us: int) -> Fields:
    """One shared account in one dimension, how it stands, and when it will be used up at the present rate."""
    seen = outlook(row.account, row.limit, row.committed, row.reserved, now_us)
    return {**msgspec.structs.asdict(row), **msgspec.structs.asdict(seen)}


def post(row: PostRow) -> Fields:
    """One message of the outbox without its contents."""
    told = msgspec.structs.asdict(row)
    return {name: value for name, value in told.items() if name not in ("number", "headers", "body")} | {"bytes": len(row.body)}


def post_in_full(row: PostRow, *, content: bool) -> Fields:
    """One message with its contents, unless that is not for this reader."""
    body = row.body.decode("utf-8", "replace") if content else None
    return {**post(row), "headers": dict(row.headers) if content else None, "body": body}


def tool(spec: ToolSpec) -> Fields:
    """One tool's manifest."""
    built = msgspec.structs.asdict(spec)
    return {**built, "input_schema": msgspec.json.decode(spec.input_schema), "schema_hash": spec.schema_hash}


def route(spec: RouteSpec, agents: Mapping[str, AgentSpec], terms: TermsTable, tenant: str | None = None) -> Fields:
    """One row of the route table, as it is in effect: what admission would give a run, of ``tenant`` or of one without terms of its own.

    ``terms`` in the row names the tenants that have some here.
    """
    agent = agents[spec.agent]
    effective = in_force(spec, agent, () if tenant is None else terms_for(terms, tenant, spec.intent))
    otherwise = sorted({who for who, where in terms if where in (EVERY_ROUTE, spec.intent) and serves(spec, who)})
    return {
        **msgspec.structs.asdict(spec),
        "model": agent.model,
        "risk": effective.risk,
        "autonomy": effective.autonomy,
        "tools": effective.tools,
        "limits": msgspec.to_builtins(effective.limits),
        "terms": otherwise,
    }


def dependency(view: DependencyView) -> Fields:
    """How one model or tool is doing."""
    figures = view.figures
    return {
        "name": view.name,
        "state": view.breaker.state.value,
        "calls": figures.total,
        "success": figures.success,
        "timeout": figures.timeout,
        "error": figures.error,
        "rejected": figures.rejected_by_breaker + figures.rejected_by_bulkhead + figures.rejected_by_rate,
        "attempts": figures.attempts,
        "retries": figures.retry,
        "in_flight": figures.in_flight,
        "queued": figures.queued,
        "retry_after_s": view.breaker.retry_after_s,
        "hint": view.hint,
        "timeout_s": view.policy.timeout_s,
        "attempt_limit": view.policy.retry.max_attempts,
        "slots": view.policy.concurrency.slots,
        "rate_per_s": None if view.policy.rate is None else view.policy.rate.rate_per_s,
        "retry_tokens": view.retry_tokens,
        "changed_until_us": None if view.override is None else view.override.until_us,
        "changed_by": "" if view.override is None else view.override.by,
    }
