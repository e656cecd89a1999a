"""Small, valid values to begin a test with: a contract, an admission, a receipt.

>>> admission("r1").new.tenant
'acme'
"""

from __future__ import annotations

import hashlib

import msgspec

from quarterdeck.core.commit import Charge, Commit, Key, NewRun, record
from quarterdeck.core.contract import Limits, RunContract, VersionSet
from quarterdeck.core.events import RunAdmitted
from quarterdeck.core.vocabulary import Autonomy, Mode, Risk

T0_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, when every sample happens."""
DAY_US = 86_400_000_000
"""One day, in microseconds."""


def contract(run_id: str = "r1", **changes: object) -> RunContract:
    """A contract that allows much; ``changes`` replace its fields."""
    sample = RunContract(
        run_id=run_id,
        trace_id="t" * 32,
        request_id="q1",
        correlation_id="c1",
        tenant="acme",
        actor="ada",
        route="support",
        agent="helpdesk",
        goal="answer",
        autonomy=Autonomy.BOUNDED_AUTONOMOUS,
        risk=Risk.LOW,
        mode=Mode.ASYNC_JOB,
        version_set=VersionSet("model-1", "p1", "y1", "s1", "h1"),
        limits=Limits(),
        budget_policy_version="b1",
        policy_version="y1",
        allowed_tools=("lookup", "refund"),
        admitted_at_us=T0_US,
    )
    return msgspec.structs.replace(sample, **changes)


def salt(run_id: str) -> bytes:
    """A salt that differs from run to run, and not from test to test."""
    return hashlib.sha256(run_id.encode()).digest()


def admission(
    run_id: str,
    *,
    at_us: int = T0_US,
    tenant: str = "acme",
    route: str = "support",
    key: str | None = None,
    body: str = "digest-1",
    incarnation: int = 1,
    charges: tuple[Charge, ...] = (),
    facts: dict[str, int] | None = None,
    ordering_key: str | None = None,
) -> Commit:
    """The commit that creates a run, perhaps under an idempotency ``key`` for a request whose digest is ``body``."""
    described = contract(run_id, tenant=tenant, route=route, admitted_at_us=at_us)
    event = RunAdmitted(at_us=at_us, contract=described, tokens=3)
    return Commit(
        run_id,
        seq=0,
        epoch=0,
        incarnation=incarnation,
        records=(record(event, b'{"text":"please"}'),),
        at_us=at_us,
        facts=facts,
        charges=charges,
        new=NewRun(tenant, route, "helpdesk", "ada", at_us, salt(run_id), correlation_id="c1", ordering_key=ordering_key),
        key=Key(tenant, key, body, at_us + DAY_US) if key is not None else None,
    )
