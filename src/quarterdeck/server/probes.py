"""Probes, metrics and the interface's own description: what machines ask about the process."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from quarterdeck.server.bodies import Health, Probe
from quarterdeck.server.exchange import Exchange, Stage, answer


def readiness(stage: Stage) -> Probe:
    """Whether this process can take work now. It reads memory only: what is known of the store from what was asked of it last."""
    runtime = stage.runtime
    if stage.closing.is_set() or runtime.stopping:
        return Probe(status="stopping", code="server.stopping")
    if runtime.failed is not None:
        return Probe(status="failed", code=runtime.failed.code)
    if runtime.superseded:
        return Probe(status="superseded", code="worker.superseded")
    if runtime.unreachable:
        return Probe(status="unreachable", code="store.unreachable")
    if runtime.max_active and runtime.active >= runtime.max_active:
        return Probe(status="busy", code="server.busy")
    return Probe(status="ok")


async def startup(_: Exchange) -> Response:
    """The door is made of a runtime that has started, so whoever gets an answer gets this one."""
    return answer(Probe(status="ok"))


async def live(_: Exchange) -> Response:
    """The event loop goes round. Touches neither store nor runtime, so that a slow disk never restarts the process."""
    return answer(Probe(status="ok"))


async def ready(exchange: Exchange) -> Response:
    """Whether to send work here."""
    probe = readiness(exchange.stage)
    return answer(probe, 200 if probe.status == "ok" else 503)


async def health(exchange: Exchange) -> Response:
    """The task interface's health."""
    stage = exchange.stage
    probe = readiness(stage)
    standing = stage.gauges.standing()
    return answer(Health(status="ok" if probe.status in ("ok", "busy") else probe.status, tasks_in_flight=sum(standing.values())))


async def metrics(exchange: Exchange) -> Response:
    """Everything countable, as Prometheus reads it."""
    return Response(exchange.stage.gauges.page(), headers={"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"})


async def document(exchange: Exchange) -> Response:
    """The OpenAPI description."""
    return Response(exchange.stage.document, headers={"content-type": "application/json"})
