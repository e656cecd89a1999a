"""What a call says goes out, or it does not go out at all."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.client import Budget, ClientError, calls
from quarterdeck.client.calls import Order


@pytest.mark.parametrize(
    "payload", [float("nan"), float("inf"), "\ud800", object(), {"a": {1, 2, object()}}, b"\xff".decode("latin1")]
)
def test_a_payload_is_sent_as_it_is_or_refused(payload: Any) -> None:
    if payload == "ÿ":
        assert '"ÿ"'.encode() in (calls.submit(Order(intent="x", payload=payload, idempotency_key="k")).request.body or b"")
        return
    with pytest.raises(ClientError) as caught:
        calls.submit(Order(intent="x", payload=payload, idempotency_key="k"))
    assert caught.value.code == "client.body"


@pytest.mark.parametrize(
    ("budget", "fields"),
    [
        (Budget(), {}),
        (Budget(turns=0, deadline=1.5), {"max_steps": 0, "deadline_ms": 1_500}),
        (Budget(deadline="250ms"), {"deadline_ms": 250}),
        (Budget(deadline="0.29s"), {"deadline_ms": 290}),
        (Budget(deadline="7d"), {"deadline_ms": 604_800_000}),
        (Budget(usd=1e-06), {"max_cost_usd": "0.000001"}),
        (Budget(usd="20"), {"max_cost_usd": "20"}),
    ],
)
def test_budgets_as_an_envelope_spells_them(budget: Budget, fields: dict[str, object]) -> None:
    assert budget.fields() == fields


@pytest.mark.parametrize(
    "budget", [Budget(deadline="soon"), Budget(usd="much"), Budget(usd="-1"), Budget(usd="inf"), Budget(usd=1e12)]
)
def test_budgets_that_are_none(budget: Budget) -> None:
    with pytest.raises(ClientError) as caught:
        budget.fields()
    assert caught.value.code == "client.budget"


@pytest.mark.parametrize(
    ("wait_s", "mode", "prefer", "longer_s"),
    [
        (None, None, "respond-async", 0.0),
        (0, "sync", "respond-async", 0.0),
        (2.1, None, "wait=3", 3.0),
        (None, "sync", "wait=60", 60.0),
        (None, "async_job", "respond-async", 0.0),
    ],
)
def test_how_long_an_answer_is_waited_for(wait_s: float | None, mode: str | None, prefer: str, longer_s: float) -> None:
    call = calls.submit(Order(intent="x", idempotency_key="k", wait_s=wait_s, mode=mode))
    assert (dict(call.request.headers)["prefer"], call.wait_s) == (prefer, longer_s)


@pytest.mark.parametrize("digest", ["", "a b", 'a"', "a\n", "é"])
def test_a_digest_cannot_become_another_header(digest: str) -> None:
    with pytest.raises(ClientError) as caught:
        calls.decide("a", approve=True, reason="", digest=digest)
    assert caught.value.code == "client.digest"
