"""The route table: every path of the interface, once. The router, the authorisation and the OpenAPI document are read from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.responses import Response

from quarterdeck.core.contract import Envelope
from quarterdeck.core.identity import Action
from quarterdeck.server import approvals, bodies, catalogue, probes, runs, tasks
from quarterdeck.server.exchange import Exchange

Handler = Callable[[Exchange], Awaitable[Response]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. ``action`` is the right that it needs (``None``: public); ``codes`` are the problems of its own.

    ``answers`` maps each success status to its body, ``None`` where there is none or it is no JSON (``media``). ``lasting`` says that the
    caller decides how long the answer takes. ``example`` is a body that is accepted.
    """

    verb: str
    path: str
    name: str
    summary: str
    handler: Handler
    action: Action | None
    answers: dict[int, type[msgspec.Struct] | None]
    query: type[msgspec.Struct] = bodies.NoQuery
    request: type[msgspec.Struct] | None = None
    body_required: bool = True
    headers: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    media: str = "application/json"
    lasting: bool = False
    example: dict[str, object] | None = None


STREAM = "text/event-stream"
_RUN = "/v1/runs/{run_id}"
_APPROVAL = "/v1/approvals/{approval}"
_NO_RUN = ("run.unknown",)

TABLE: tuple[Row, ...] = (
    Row(
        verb="POST",
        path="/v1/runs",
        name="submitRun",
        summary="Ask for a run",
        handler=runs.submit,
        action=Action.RUNS_SUBMIT,
        answers={202: bodies.RunDetail, 200: bodies.RunDetail},
        request=Envelope,
        lasting=True,
        headers=("Idempotency-Key", "Prefer", "traceparent"),
        codes=(
            "route.unknown",
            "route.tenant",
            "route.mode",
            "idempotency.body_differs",
            "admission.run",
            "json.too_large",
            "auth.forbidden",
        ),
        example={"intent": "triage_ticket", "payload": {"ticket": 4711}, "idempotency_key": "ticket-4711"},
    ),
    Row(
        verb="GET",
        path="/v1/runs",
        name="listRuns",
        summary="List runs, newest first",
        handler=runs.listing,
        action=Action.RUNS_READ,
        answers={200: bodies.Runs},
        query=bodies.RunsQuery,
        codes=("cursor.unknown",),
    ),
    Row(
        verb="GET",
        path=_RUN,
        name="getRun",
        summary="Show a run",
        handler=runs.show,
        action=Action.RUNS_READ,
        answers={200: bodies.RunDetail},
        query=bodies.RunQuery,
        codes=_NO_RUN,
    ),
    Row(
        verb="GET",
        path=f"{_RUN}/events",
        name="followRun",
        summary="A run's events, from the journal and live",
        handler=runs.events,
        action=Action.RUNS_READ,
        answers={200: None, 204: None},
        query=bodies.EventsQuery,
        headers=("Last-Event-ID",),
        media=STREAM,
        codes=(*_NO_RUN, "http.streams"),
        lasting=True,
    ),
    Row(
        verb="POST",
        path=f"{_RUN}:cancel",
        name="cancelRun",
        summary="Stop a run",
        handler=runs.cancel,
        action=Action.RUNS_CONTROL,
        answers={202: bodies.Run},
        request=bodies.Cancel,
        body_required=False,
        codes=_NO_RUN,
        example={"reason": "asked by mistake"},
    ),
    Row(
        verb="POST",
        path=f"{_RUN}:resolve",
        name="resolveEffect",
        summary="Say how an unknown effect ended",
        handler=runs.resolve,
        action=Action.RUNS_CONTROL,
        answers={202: bodies.Run},
        request=bodies.Resolve,
        codes=(*_NO_RUN, "effect.not_unknown", "effect.resolved"),
        example={"call": "t0.0", "done": True, "result": {"refund": "R-1"}},
    ),
    Row(
        verb="GET",
        path="/v1/approvals",
        name="listApprovals",
        summary="List approvals, the nearest deadline first",
        handler=approvals.listing,
        action=Action.APPROVALS_READ,
        answers={200: bodies.Approvals},
        query=bodies.ApprovalsQuery,
        codes=("cursor.unknown",),
    ),
    Row(
        verb="GET",
        path=_APPROVAL,
        name="getApproval",
        summary="Show an approval; its ETag is the digest",
        handler=approvals.show,
        action=Action.APPROVALS_READ,
        answers={200: bodies.ApprovalDetail},
        codes=("approval.unknown",),
    ),
    Row(
        verb="POST",
        path=f"{_APPROVAL}:decide",
        name="decideApproval",
        summary="Approve or reject exactly what was seen",
        handler=approvals.decide,
        action=Action.APPROVALS_DECIDE,
        answers={200: bodies.Approval},
        request=bodies.Decide,
        headers=("If-Match",),
        codes=(
            "approval.unknown",
            "approval.decided",
            "approval.expired",
            "approval.digest_differs",
            "approval.self",
            "http.precondition",
        ),
        example={"decision": "approve", "reason": "known customer"},
    ),
    Row(
        verb="GET",
        path="/v1/tools",
        name="listTools",
        summary="Every tool's manifest",
        handler=catalogue.tools,
        action=Action.CONFIG_READ,
        answers={200: bodies.Tools},
    ),
    Row(
        verb="GET",
        path="/v1/routes",
        name="listRoutes",
        summary="The route table",
        handler=catalogue.routes,
        action=Action.CONFIG_READ,
        answers={200: bodies.Routes},
    ),
    Row(
        verb="GET",
        path="/v1/budgets",
        name="listBudgets",
        summary="Shared accounts",
        handler=catalogue.budgets,
        action=Action.CONFIG_READ,
        answers={200: bodies.Budgets},
    ),
    Row(
        verb="GET",
        path="/v1/policies",
        name="getPolicies",
        summary="The policy set in force",
        handler=catalogue.policies,
        action=Action.CONFIG_READ,
        answers={200: bodies.Policies},
    ),
    Row(
        verb="GET",
        path="/v1/switches",
        name="listSwitches",
        summary="The switches that are set",
        handler=catalogue.switches,
        action=Action.CONFIG_READ,
        answers={200: bodies.Switches},
    ),
    Row(
        verb="POST",
        path="/v1/switches",
        name="setSwitch",
        summary="Set or clear a switch",
        handler=catalogue.set_switch,
        action=Action.SWITCHES_SET,
        answers={200: bodies.Switches},
        request=bodies.SetSwitch,
        codes=("switch.unknown", "reason.missing"),
        example={"name": "disable_tool:refund", "on": True, "reason": "incident 12"},
    ),
    Row(
        verb="GET",
        path="/v1/dependencies",
        name="listDependencies",
        summary="How each model and tool is doing",
        handler=catalogue.dependencies,
        action=Action.CONFIG_READ,
        answers={200: bodies.DependencyList},
    ),
    Row(
        verb="POST",
        path="/tasks",
        name="createTask",
        summary="Submit a task",
        handler=tasks.create,
        action=Action.RUNS_SUBMIT,
        answers={202: bodies.Task},
        request=bodies.TaskRequest,
        codes=("route.unknown",),
        example={"task": "What is my balance?"},
    ),
    Row(
        verb="GET",
        path="/tasks/{task_id}",
        name="getTask",
        summary="Poll a task",
        handler=tasks.show,
        action=Action.RUNS_READ,
        answers={200: bodies.Task},
        codes=_NO_RUN,
    ),
    Row(
        verb="GET",
        path="/health",
        name="getHealth",
        summary="The task interface's health",
        handler=probes.health,
        action=None,
        answers={200: bodies.Health},
    ),
    Row(
        verb="GET",
        path="/healthz/startup",
        name="probeStartup",
        summary="Has it started?",
        handler=probes.startup,
        action=None,
        answers={200: bodies.Probe},
    ),
    Row(
        verb="GET",
        path="/healthz/live",
        name="probeLive",
        summary="Does the event loop go round?",
        handler=probes.live,
        action=None,
        answers={200: bodies.Probe},
    ),
    Row(
        verb="GET",
        path="/healthz/ready",
        name="probeReady",
        summary="Can it take work?",
        handler=probes.ready,
        action=None,
        answers={200: bodies.Probe, 503: bodies.Probe},
    ),
    Row(
        verb="GET",
        path="/metrics",
        name="getMetrics",
        summary="Counters and gauges for Prometheus",
        handler=probes.metrics,
        action=Action.METRICS_READ,
        answers={200: None},
        media="text/plain",
    ),
    Row(
        verb="GET",
        path="/openapi.json",
        name="getOpenapi",
        summary="This document",
        handler=probes.document,
        action=None,
        answers={200: None},
    ),
)
"""Every operation, in reading order."""
