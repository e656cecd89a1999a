"""What people have decided, compared with what is told of it: rows of approvals, switches, rules and keys that nobody vouches for.

A journal says what was asked and what the run was told; the audit log says who answered, what was switched, which keys were made. Both
are chained. The rows that the runtime reads are not: whoever can write to the database can change one. So each is held against both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from quarterdeck.app.auditing import Finding
from quarterdeck.core import events as ev
from quarterdeck.core.audit import Audit
from quarterdeck.core.controls import switches_of
from quarterdeck.core.overrides import Change
from quarterdeck.core.overrides import parsed as overrides_of
from quarterdeck.core.vocabulary import Ruling
from quarterdeck.ports.store import ApprovalRow, FactRow, KeyRow


@dataclass(slots=True)
class Asked:
    """One approval as the journal of its run tells it.

    ``askers`` is who can have requested it, ``shown`` the digest of what was shown (``None``: erased). ``over``: nobody can answer it any
    more; ``used``: an effect rests on it; ``spare``: it was granted beside the one that an effect rests on.
    """

    run_id: str
    call: str
    digest: str
    expires_at_us: int
    tool: str
    askers: frozenset[str]
    shown: bytes | None
    outcome: str = ""
    by: str = ""
    over: bool = False
    used: bool = False
    spare: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What the audit log says of one approval: how it was answered, by whom, for which digest."""

    how: str
    by: str
    digest: str


@dataclass(slots=True)
class _Reading:
    """How far one journal was read."""

    run_id: str
    actor: str = ""
    asked: dict[str, Asked] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    rests: dict[str, str] = field(default_factory=dict)

    def request(self, event: ev.ApprovalRequested, payload: bytes | None) -> None:
        before = [one for one in self.asked.values() if one.call == event.call and one.outcome == "edited"]
        askers = frozenset([one.by for one in before]) or frozenset([self.actor])
        shown = None if payload is None else hashlib.sha256(payload).digest()
        name = self.names.get(event.call, "")
        self.asked[event.approval] = Asked(self.run_id, event.call, event.digest, event.expires_at_us, name, askers, shown)

    def decide(self, event: ev.ApprovalDecided) -> None:
        one = self.asked.get(event.approval)
        if one is not None and not one.outcome:
            one.outcome, one.by, one.over = event.outcome, event.by, True

    def use(self, call: str) -> None:
        approval = self.rests.pop(call, "")
        for name, one in self.asked.items():
            if approval and one.call == call:
                one.used = one.used or name == approval
                one.spare = one.spare or one.outcome == "approved"

    def end(self, calls: Iterable[str] | None) -> None:
        for one in self.asked.values():
            one.over = one.over or calls is None or one.call in calls


def asked_by(run_id: str, events: Iterable[tuple[ev.Event, bytes | None]]) -> dict[str, Asked]:
    """Every approval that a run's whole journal tells of, by its name."""
    reading = _Reading(run_id)
    for event, payload in events:
        match event:
            case ev.RunAdmitted():
                reading.actor = event.contract.actor
            case ev.GateDecided():
                reading.names[event.call] = event.name
                if event.approval is not None and event.ruling in (Ruling.ALLOW, Ruling.REDACT):
                    reading.rests[event.call] = event.approval
            case ev.StepProposed():
                reading.names[event.call] = event.name
            case ev.ApprovalRequested():
                reading.request(event, payload)
            case ev.ApprovalDecided():
                reading.decide(event)
            case ev.ToolOpened() | ev.ChildOpened():
                reading.use(event.call)
            case ev.RunInterrupted():
                reading.end(event.withdrawn)
            case ev.RunFinished():
                reading.end(None)
            case _:
                pass
    return reading.asked


def answers(told: Iterable[Audit]) -> dict[str, Answer]:
    """What the audit log says of approvals, by name; an approval is answered once, so the first word counts."""
    found: dict[str, Answer] = {}
    for said in told:
        family, _, how = said.action.partition(".")
        if family == "approval":
            detail = msgspec.json.decode(said.detail, type=dict[str, str])
            found.setdefault(detail["approval"], Answer(how, said.by, detail["digest"]))
    return found


def approvals(rows: Iterable[ApprovalRow], asked: Mapping[str, Asked], said: Mapping[str, Answer]) -> list[tuple[str, Finding]]:
    """Where rows of approvals are not what was asked and answered, each with its run."""
    found: list[tuple[str, Finding]] = []
    seen: set[str] = set()
    for row in rows:
        seen.add(row.approval)
        one = asked.get(row.approval)
        if one is None or one.run_id != row.run_id:
            found.append((row.run_id, Finding("approval.unasked", f"approval {row.approval} was never asked by this run")))
            continue
        found += [(row.run_id, wrong) for wrong in (_otherwise(row, one), _unsaid(row, one, said.get(row.approval))) if wrong]
    for name, one in asked.items():
        if name not in seen:
            found.append((one.run_id, Finding("approval.lost", f"approval {name} was asked, and its row is not there")))
    return found


def _otherwise(row: ApprovalRow, one: Asked) -> Finding | None:
    """Whether a row shows, binds or permits something else than was asked."""
    wrong = [name for name in ("call", "digest", "expires_at_us", "tool") if getattr(row, name) != getattr(one, name)]
    if row.requested_by not in one.askers:
        wrong.append("requested_by")
    shown = hashlib.sha256(row.shown).digest() if row.shown else None
    if shown != one.shown:
        wrong.append("shown")
    if wrong:
        return Finding("approval.row", f"approval {row.approval}: {', '.join(wrong)} are not what the run asked")
    if row.consumed != one.used and not (row.consumed and one.spare):
        used = "an effect rests" if one.used else "no effect rests"
        return Finding("approval.used", f"approval {row.approval} has consumed={row.consumed}, and {used} on it")
    return None


def _unsaid(row: ApprovalRow, one: Asked, said: Answer | None) -> Finding | None:
    """Whether a row says something else of its answer than the log and the journal do."""
    status = (row.status, row.decided_by)
    if said is not None and (status != (said.how, said.by) or said.digest != row.digest):
        return Finding("approval.answer", f"approval {row.approval} is {row.status}, and the log says {said.how} by {said.by}")
    if said is None and row.decided_by and (one.outcome, one.by) != status:
        return Finding("approval.answer", f"approval {row.approval} is {row.status} by {row.decided_by}, and nobody has said so")
    if said is None and not row.decided_by and row.status not in ("pending", "expired", "withdrawn"):
        return Finding("approval.answer", f"approval {row.approval} is {row.status}, and nobody has said so")
    if (row.status == "pending") == one.over and said is None:
        return Finding("approval.answer", f"approval {row.approval} is {row.status}, and its run knows otherwise")
    if row.status == "pending" and row.reason:
        return Finding("approval.answer", f"approval {row.approval} has a reason and no answer")
    return None


def facts(rows: Iterable[FactRow], told: Sequence[Audit]) -> list[Finding]:
    """Where switches, changed dependencies, the policy or the release in force are not what the audit log says: ``fact.*``."""
    stored = {row.name: row for row in rows}
    found = [*_switches(stored.get("switches"), told), *_dependencies(stored.get("dependencies"), told)]
    for name in ("policy", "release"):
        last = next((said for said in reversed(told) if said.action == f"{name}.activated"), None)
        row = stored.get(name)
        if last is not None and (row is None or row.value != last.target):
            now = "none" if row is None else row.value
            found.append(Finding(f"fact.{name}", f"the {name} in force is {now}, and {last.by} had activated {last.target}"))
    return found


def _standing(told: Sequence[Audit], made: str, undone: str) -> tuple[dict[str, Audit], int]:
    """What was made and not undone, by its target, and when anything of the kind was last said."""
    said: dict[str, Audit] = {}
    last_us = 0
    for one in told:
        if one.action in (made, undone):
            last_us = one.at_us
            said.pop(one.target, None)
            if one.action == made:
                said[one.target] = one
    return said, last_us


def _switches(row: FactRow | None, told: Sequence[Audit]) -> list[Finding]:
    said, last_us = _standing(told, "switch.set", "switch.cleared")
    stored = {} if row is None else {one.key: one for one in switches_of(row.value) if one.at_us}
    found = []
    for key, switch in stored.items():
        known = said.get(key)
        if known is None or (known.reason, _expiry(known)) != (switch.reason, switch.expires_at_us):
            found.append(Finding("fact.switches", f"the switch {key} is set, and the audit log does not say so"))
    for key, one in said.items():
        expires_at_us = _expiry(one)
        over = expires_at_us is not None and expires_at_us <= last_us
        if key not in stored and not over:
            found.append(Finding("fact.switches", f"{one.by} has set the switch {key}, nobody cleared it, and it is not there"))
    return found


def _expiry(said: Audit) -> int | None:
    return msgspec.json.decode(said.detail, type=dict[str, int | None]).get("expires_at_us")


def _dependencies(row: FactRow | None, told: Sequence[Audit]) -> list[Finding]:
    said, last_us = _standing(told, "dependency.changed", "dependency.restored")
    stored = {} if row is None else {one.name: one for one in overrides_of(row.value)}
    found = []
    for name, override in stored.items():
        known = said.get(name)
        if known is None or (known.by, _change(known)) != (override.by, (override.change, override.until_us)):
            found.append(Finding("fact.dependencies", f"{name} is changed, and the audit log does not say so"))
    for name, one in said.items():
        if name not in stored and _change(one)[1] > last_us:
            found.append(Finding("fact.dependencies", f"{one.by} has changed {name}, and the change is not there"))
    return found


class _Changed(msgspec.Struct, frozen=True):
    change: Change
    for_s: float


def _change(said: Audit) -> tuple[Change, int]:
    detail = msgspec.json.decode(said.detail, type=_Changed)
    return detail.change, said.at_us + int(detail.for_s * 1e6)


class _Made(msgspec.Struct, frozen=True):
    subject: str
    grants: tuple[str, ...]
    digest: str = ""


def keys(rows: Iterable[KeyRow], told: Sequence[Audit]) -> list[Finding]:
    """Where API keys are not those that were made and revoked: ``key.unsaid``, ``key.changed``, ``key.lost``."""
    made = {said.target: msgspec.json.decode(said.detail, type=_Made) for said in told if said.action == "key.made"}
    revoked = {said.target for said in told if said.action == "key.revoked"}
    found, seen = [], set()
    for row in rows:
        name = f"key:{row.prefix}"
        seen.add(name)
        one = made.get(name)
        if one is None:
            found.append(Finding("key.unsaid", f"there is a key {row.prefix} of {row.subject}, and nobody has made it"))
            continue
        grants = tuple([f"{grant.role}@{grant.tenant}" for grant in row.grants])
        if (one.subject, one.grants) != (row.subject, grants) or one.digest not in ("", row.digest.hex()):
            found.append(Finding("key.changed", f"key {row.prefix} of {row.subject} is not the one that was made"))
        if (name in revoked) != (row.revoked_at_us is not None):
            how = "is in force again" if name in revoked else "is revoked, and nobody has said so"
            found.append(Finding("key.changed", f"key {row.prefix} of {row.subject} {how}"))
    found += [Finding("key.lost", f"{name} was made, and is not there") for name in made if name not in seen]
    return found
