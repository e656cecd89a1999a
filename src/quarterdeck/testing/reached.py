"""*Sometimes* assertions: what a set of simulations must have met for its silence to mean anything.

A simulator proves nothing about what its generator never produced. So the situations that matter are declared here, each simulation
counts those that it met, and a suite in which one was never met fails.

>>> reached = Reached()
>>> reached.sometimes("approval.expired", True)
>>> dict(reached.counts)
{'approval.expired': 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

DECLARED: dict[str, str] = {
    "crash.open.model": "the owner died between the intent of a model call and its receipt",
    "crash.open.read": "… between opened and closed of a read",
    "crash.open.idempotent": "… of an idempotent write",
    "crash.open.reconcilable": "… of an effect that can be asked about",
    "crash.open.other": "… of an effect that nobody can tell the end of",
    "crash.commit.before": "the owner died before a commit was applied",
    "crash.commit.after": "the owner died after a commit was applied, before its answer",
    "crash.tool": "the owner died inside a tool call",
    "crash.model": "the owner died inside a model call",
    "crash.start": "the owner died while it was starting",
    "effect.repeated_under_key": "a provider was asked twice under one key and did it once",
    "effect.asked_done": "a reconcile function said that it happened",
    "effect.asked_not_done": "a reconcile function said that it did not",
    "effect.unknown": "an effect became unknown",
    "effect.resolved_by_person": "a person said how an unknown effect ended",
    "effect.answer_lost": "a tool did it and its answer was lost",
    "effect.late": "an effect happened after its caller had given up",
    "effect.reopened": "an open effect was performed again after a crash",
    "effect.key_expired": "an open intent was older than the provider keeps keys",
    "effect.waited_out": "a new owner waited until the former one could no longer act",
    "effect.perform_by": "an attempt was not made because its time had passed",
    "receipt.late_used": "a receipt of a former owner was folded in",
    "approval.granted": "an approved action was performed",
    "approval.rejected": "an action was rejected",
    "approval.expired": "nobody answered in time",
    "approval.after_crash": "an approval was consumed after the owner that asked for it had died",
    "approval.self_refused": "somebody tried to approve their own action",
    "approval.digest_differs": "an action had changed since it was shown",
    "stale.refused": "a commit under an old epoch was refused",
    "owners.two": "two owners ran at the same time",
    "owner.paused": "an owner was paused for longer than the perform-by window",
    "commit.answer_lost": "a commit was applied, its answer was lost, and the same bytes were sent again",
    "commit.lost": "a commit was lost before it was applied, and sent again",
    "claim.answer_lost": "the answer to a claim was lost",
    "rejudged.control": "a commit was refused because the run's inbox had changed",
    "rejudged.facts": "a commit was refused because a fact had changed",
    "budget.shared": "a shared account could not give a slice",
    "budget.run": "a run's own limit denied something",
    "budget.partial": "a run ended with a useful partial answer",
    "model.degraded": "a run went on with its smaller model",
    "model.billed_failure": "a failed model call was billed",
    "model.hung": "a model call ran into its time-out",
    "calls.partly_denied": "some calls of one message were allowed, some denied",
    "calls.garbage": "arguments that are no JSON were denied",
    "calls.schema": "arguments that do not fit were denied",
    "calls.unknown_tool": "a tool that does not exist was denied",
    "calls.repetition": "a run stopped because it repeated itself",
    "switch.denied": "a switch denied a proposal",
    "admission.refused": "a switch stood against a run that was asked for",
    "switch.stopped_retry": "a switch or a cancel stopped a further attempt",
    "cancel.running": "a run was cancelled while it ran",
    "cancel.waiting": "a run was cancelled while it waited",
    "deadline.passed": "a run's deadline passed",
    "breaker.open": "a breaker was open",
    "bulkhead.waited": "a call waited for a slot",
    "clock.stepped": "the wall clock was set",
    "machine.slept": "the machine slept",
    "admission.repeated": "a request was sent twice under one key",
    "follower.saw": "somebody followed a run live",
    "venture.undone": "a step of a failed saga was undone",
    "venture.stuck": "something could not be undone, and a person let the run go on",
    "venture.told": "a workflow took a message",
    "venture.child": "a workflow's child has ended",
    "letter.repeated": "a message arrived once more, because its answer was lost",
    "letter.dead": "a message was attempted too often, or refused, and stopped its lane until a person decided",
    "letter.dropped": "a person gave a message up",
    "letter.withdrawn": "a message of a cancelled run was withdrawn before anybody had begun to deliver it",
}
"""Every situation by name, with what it means."""


RARE = frozenset(
    {
        *("effect.key_expired", "approval.after_crash", "breaker.open", "approval.digest_differs", "effect.perform_by"),
        *("effect.asked_not_done", "receipt.late_used", "crash.open.reconcilable", "crash.open.other", "calls.repetition"),
        *("clock.stepped", "cancel.waiting", "calls.unknown_tool", "crash.start", "machine.slept", "owner.paused"),
        *("letter.dropped", "letter.withdrawn"),
        *("switch.stopped_retry", "calls.garbage", "calls.schema", "effect.late", "crash.open.read", "crash.open.idempotent"),
    }
)
"""Situations that hundreds of simulations are needed for; the long suite must meet them, a short one may not."""


class Reached:
    """What one simulation, or many, have met."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def sometimes(self, name: str, condition: bool = True) -> None:
        """Count a declared situation if it is here; an undeclared name is an error."""
        if name not in DECLARED:
            raise KeyError(f"{name!r} is not declared in {__name__}.DECLARED")
        if condition:
            self.counts[name] += 1

    def add(self, counts: dict[str, int]) -> None:
        """Add what another simulation has met."""
        self.counts.update(counts)

    @property
    def missing(self) -> list[str]:
        """What is declared and was never met."""
        return [name for name in DECLARED if not self.counts[name]]


def missing(reports: Iterable[dict[str, int]]) -> list[str]:
    """What none of several simulations has met."""
    reached = Reached()
    for counts in reports:
        reached.add(counts)
    return reached.missing
