"""What people know better: effects in doubt, decisions that were changed or found wrong, and the proof of one run's effects.

*False allow*: an allowed decision that a person marks wrong afterwards. *Override rate*: decisions that a person changed (a rejection, an
edit, an answer in place of the action, a mark) per decision on something that acts. *Idempotency conflict*: one key, another body.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from quarterdeck.app.auditing import actions
from quarterdeck.app.views import read_all, row_of, state_of
from quarterdeck.core import events as ev
from quarterdeck.core.errors import UsageError
from quarterdeck.core.vocabulary import ProposalKind, ReceiptStatus, Ruling, Status
from quarterdeck.ports.clock import Clock
from quarterdeck.ports.store import Insights, RunRow
from quarterdeck.store.chain import GENESIS, chained

MAX_RUNS = 5_000
"""The newest runs that the figures of oversight are made of."""
_PAGE = 500


class Doubt(msgspec.Struct, frozen=True):
    """An effect of which nobody knows whether it happened; the run waits for a person. ``key`` is what the tool was given."""

    run_id: str
    tenant: str
    route: str
    call: str
    tool: str
    digest: str
    key: str
    since_us: int


class Oversight(msgspec.Struct, frozen=True):
    """Figures over the newest runs. ``override_rate`` and ``false_allow_rate`` are per decision, ``None`` where there was none."""

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


class Step(msgspec.Struct, frozen=True):
    """One event of a proof: the stored body as text, the digest of its payload and its hash, as hex."""

    seq: int
    body: str
    payload_digest: str | None
    hash: str


class Proof(msgspec.Struct, frozen=True):
    """Every event of one run without contents, and the hash at which its row says that the journal ends."""

    run_id: str
    head: str
    steps: tuple[Step, ...]


class Proven(msgspec.Struct, frozen=True):
    """What a proof shows: how many effects, of which so many ended in a receipt; ``findings`` say what does not hold."""

    events: int
    effects: int
    receipts: int
    findings: tuple[str, ...]


def doubts(insights: Insights, tenants: Collection[str] | None = None) -> Iterator[Doubt]:
    """Every effect in doubt, the newest run first."""
    for row in _rows(insights, Status.WAITING.value, tenants):
        if row.code != "effect.unknown" and not any(on.startswith("effect:") for on in row.waiting_on):
            continue
        stored = read_all(insights, row.run_id)
        unknown = state_of(stored).unknown
        events = [ev.decode(item.body) for item in stored]
        opened = {event.call: event for event in events if isinstance(event, ev.ToolOpened)}
        for call in sorted(unknown & opened.keys()):
            one = opened[call]
            yield Doubt(row.run_id, row.tenant, row.route, call, one.tool, one.digest, one.key, one.at_us)


def oversight(insights: Insights, tenants: Collection[str] | None = None) -> Oversight:
    """The figures of the newest runs."""
    counts = dict.fromkeys(_COUNTED, 0)
    for _ in _overseen(insights, tenants, counts):
        pass
    return _figures(counts)


async def overseen(insights: Insights, clock: Clock, tenants: Collection[str] | None = None) -> Oversight:
    """The same, a page of one journal at a time: whoever else the event loop serves waits for no more than that."""
    counts = dict.fromkeys(_COUNTED, 0)
    for _ in _overseen(insights, tenants, counts):
        await clock.sleep(0.0)
    return _figures(counts)


_COUNTED = (
    "runs",
    "decisions",
    "allowed",
    "denied",
    "asked",
    "overridden",
    "false_allows",
    "effects_failed",
    "effects_unknown",
    "contradicted",
)


def _figures(counts: dict[str, int]) -> Oversight:
    decided = counts["decisions"]
    rates = (None, None) if not decided else (counts["overridden"] / decided, counts["false_allows"] / decided)
    return Oversight(**counts, override_rate=rates[0], false_allow_rate=rates[1])


def _overseen(insights: Insights, tenants: Collection[str] | None, counts: dict[str, int]) -> Iterator[None]:
    """Count the newest runs and what was decided in them; after each page there is a moment for others."""
    marks: dict[tuple[str, str], bool] = {}
    for _, said in actions(insights, action="decision.marked", tenants=tenants):
        detail = msgspec.json.decode(said.detail, type=dict[str, object])
        marks[said.target, str(detail["call"])] = bool(detail["wrong"])
    for row in _rows(insights, None, tenants):
        if counts["runs"] == MAX_RUNS:
            break
        counts["runs"] += 1
        events: list[ev.Event] = []
        while page := insights.events(row.run_id, len(events), _PAGE):
            events += [ev.decode(item.body) for item in page]
            yield
        _count(counts, row.run_id, events, marks)


def _count(counts: dict[str, int], run_id: str, events: list[ev.Event], marks: dict[tuple[str, str], bool]) -> None:
    last: dict[str, ev.GateDecided] = {}
    changed: set[str] = set()
    asked: dict[str, str] = {}
    for event in events:
        match event:
            case ev.GateDecided() if event.proposal in (ProposalKind.TOOL, ProposalKind.DELEGATION):
                if event.ruling is Ruling.ASK:
                    counts["asked"] += 1
                last[event.call] = event
            case ev.ApprovalRequested():
                asked[event.approval] = event.call
            case ev.ApprovalDecided() if event.outcome in ("rejected", "edited", "answered"):
                changed.add(asked.get(event.approval, event.approval))
            case ev.ToolClosed():
                counts["effects_failed"] += event.status is ReceiptStatus.FAILED
                counts["effects_unknown"] += event.status is ReceiptStatus.UNKNOWN
            case ev.EffectContradicted():
                counts["contradicted"] += 1
            case _:
                pass
    wrong = {call for (run, call), said in marks.items() if run == run_id and said}
    counts["decisions"] += len(last)
    counts["allowed"] += sum(event.ruling is Ruling.ALLOW for event in last.values())
    counts["denied"] += sum(event.ruling is Ruling.DENY for event in last.values())
    counts["overridden"] += len((changed | wrong) & last.keys())
    counts["false_allows"] += sum(call in last and last[call].ruling is Ruling.ALLOW for call in wrong)


def proof_of(insights: Insights, run_id: str) -> Proof:
    """Everything that shows, without contents, that each effect of a run was decided before it was intended, and intended as decided."""
    head = row_of(insights, run_id).head
    steps = [
        Step(one.seq, one.body.decode(), None if one.payload_digest is None else one.payload_digest.hex(), one.hash.hex())
        for one in read_all(insights, run_id)
    ]
    return Proof(run_id, head.hex(), tuple(steps))


def prove(proof: Proof) -> Proven:
    """Check a proof, with nothing but itself: the chain holds from the first event to the head; every intent follows an allowing decision
    of the same call under the same digest; every approval that a decision rests on was asked and granted for that digest; every receipt
    closes an intent, once.
    """
    findings: list[str] = []
    previous, allowed, approvals = GENESIS, {}, {}  # type: ignore[var-annotated]
    open_calls: set[str] = set()
    effects = receipts = 0
    for place, step in enumerate(proof.steps, 1):
        body = step.body.encode()
        digest = None if step.payload_digest is None else bytes.fromhex(step.payload_digest)
        previous = chained(previous, step.seq, body, digest)
        if step.seq != place or previous.hex() != step.hash:
            findings.append(f"event {step.seq} was changed, moved, removed or put in")
            break
        match ev.decode(body):
            case ev.GateDecided() as event if event.ruling in (Ruling.ALLOW, Ruling.REDACT):
                if event.approval is not None and approvals.get(event.approval) != ("approved", event.digest):
                    findings.append(f"event {step.seq}: approval {event.approval} was not granted for this digest")
                allowed[event.call] = event.digest
            case ev.GateDecided() as event:
                allowed.pop(event.call, None)
            case ev.ApprovalRequested() as event:
                approvals[event.approval] = ("pending", event.digest)
            case ev.ApprovalDecided() as event if event.approval in approvals:
                approvals[event.approval] = (event.outcome, approvals[event.approval][1])
            case ev.ToolOpened() as event:
                effects += 1
                if allowed.pop(event.call, None) != event.digest:
                    findings.append(f"event {step.seq}: {event.tool} was intended without a decision that allows exactly this")
                open_calls.add(event.call)
            case ev.ToolClosed() as event:
                receipts += 1
                if event.call not in open_calls:
                    findings.append(f"event {step.seq}: a receipt closes nothing that was open")
                open_calls.discard(event.call)
            case _:
                pass
    if not findings and previous.hex() != proof.head:
        findings.append("the journal does not end where its run says")
    return Proven(len(proof.steps), effects, receipts, tuple(findings))


def doubt_of(insights: Insights, run_id: str, call: str) -> Doubt:
    """One effect in doubt; raises :class:`UsageError` (``effect.not_unknown``)."""
    row = row_of(insights, run_id)
    found = next((one for one in doubts(insights, [row.tenant]) if (one.run_id, one.call) == (run_id, call)), None)
    if found is None:
        raise UsageError(
            "effect.not_unknown", f"{call[:40]!r} is no unknown effect of run {run_id}; `quarterdeck effects ls` lists them"
        )
    return found


def _rows(insights: Insights, status: str | None, tenants: Collection[str] | None) -> Iterator[RunRow]:
    before: str | None = None
    while page := insights.runs(status=status, tenants=tenants, before=before, limit=_PAGE):
        yield from page
        before = page[-1].run_id
