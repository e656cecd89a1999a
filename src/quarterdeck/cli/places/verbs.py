"""What a command can ask of a place, and the few things that are said to it beside names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from quarterdeck.app.budgets import Budget
from quarterdeck.cli.following import EventPrinter
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    AuditPage,
    Dependency,
    Doubt,
    Event,
    KeyInfo,
    MadeKey,
    Oversight,
    Policies,
    Post,
    PostDetail,
    RaisedAccount,
    Replay,
    Route,
    RunDetail,
    RunResult,
    RunSummary,
    Switches,
    Tool,
    Worker,
)
from quarterdeck.core.canonical import Json
from quarterdeck.core.identity import Grant
from quarterdeck.core.overrides import Change
from quarterdeck.core.vocabulary import CancelMode, Mode

Row = TypeVar("Row")


class Page(msgspec.Struct, Generic[Row], frozen=True):
    """Some rows of a list, and the cursor of what follows, ``None`` at its end."""

    rows: tuple[Row, ...]
    next: str | None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs."""

    status: str | None = None
    route: str | None = None
    tenant: str | None = None
    correlation_id: str | None = None


class Record(msgspec.Struct, frozen=True):
    """One run in full, its contract, and what it was asked (``None`` unless contents were wanted)."""

    run: RunDetail
    contract: dict[str, object]
    input: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PostFilter:
    """Which messages of the outbox."""

    status: str | None = None
    topic: str | None = None
    run: str | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is asked for with; ``None`` leaves it to the place."""

    intent: str
    payload: Json
    budget: Budget
    tenant: str | None = None
    user: str | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    ordering_key: str | None = None
    untrusted: bool = False
    mode: Mode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOrder:
    """A switch to set or to clear: its bounds, its expiry, and the version of the switches that was seen, if that matters."""

    name: str
    on: bool
    reason: str
    tenant: str = ""
    route: str = ""
    expires_in_s: int | None = None
    expected: int | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Watching:
    """How a run is watched: ``follow`` prints its events until it has ended, else it is awaited until it rests."""

    printer: EventPrinter
    follow: bool
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How the run stands when the watching has ended, and whether somebody ended it before the run came to rest."""

    result: RunResult
    interrupted: bool = False


class Place(Protocol):
    """Where runs are. Every method raises the errors of :mod:`quarterdeck.core.errors`, with the same codes at every place."""

    @property
    def driven(self) -> bool:
        """Whether a runtime is up that acts on what is ordered; otherwise the next one does."""
        ...

    def run(self, asked: Asked, watching: Watching) -> Ended:
        """Ask for a run and watch it. It goes on whatever happens to this process."""
        ...

    def runs(self, which: RunFilter, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs, newest first."""
        ...

    def show(self, run_id: str, *, content: bool) -> Record:
        """One run."""
        ...

    def events(self, run_id: str, after: int, *, follow: bool, content: bool) -> Iterator[Event]:
        """Its events after a sequence, once each and in order; with ``follow`` until it has ended. A sequence that the journal has not
        reached is answered with ``stream.gap``, and the journal from its beginning.
        """
        ...

    def cancel(self, run_id: str, *, by: str | None, reason: str, mode: CancelMode = CancelMode.COMPENSATE) -> RunSummary:
        """Stop a run; harmless when repeated."""
        ...

    def signal(self, run_id: str, name: str, payload: Json, *, by: str | None, key: str | None) -> RunSummary:
        """Send a run a message; under one ``key`` it is one message."""
        ...

    def pause(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a run begin nothing new; harmless when repeated."""
        ...

    def resume(self, run_id: str, *, by: str | None, reason: str, done: bool) -> RunSummary:
        """Let a run go on that was paused, or is stuck; harmless when repeated."""
        ...

    def keys(self) -> Sequence[KeyInfo]:
        """The API keys, never their texts."""
        ...

    def make_key(self, subject: str, grants: Sequence[Grant], label: str, lifetime_s: int | None) -> MadeKey:
        """Make an API key; its text is here and nowhere else."""
        ...

    def revoke_key(self, prefix: str, reason: str) -> KeyInfo:
        """End an API key for ever; a second time changes nothing."""
        ...

    def interrupt(self, run_id: str, payload: Json, *, by: str | None, trusted: bool, token: str | None) -> RunSummary:
        """Tell a run something that goes before whatever it was about to do."""
        ...

    def escalate(self, run_id: str, *, by: str | None, reason: str) -> str:
        """Make a run the concern of its next owner; who that is."""
        ...

    def raise_budget(self, run_id: str, budget: Budget, *, by: str | None, reason: str) -> RunSummary:
        """Set limits of a run anew."""
        ...

    def fork(self, run_id: str, step: str, *, by: str | None, edited: bool, result: Json, route: str | None) -> RunSummary:
        """A new run that goes on where this one was at a step."""
        ...

    def replay(self, run_id: str) -> Replay:
        """Execute a run again offline."""
        ...

    def resolve(
        self, run_id: str, call: str, *, done: bool, by: str | None, result: Json, retry: bool = False, reason: str = ""
    ) -> RunSummary:
        """Say how an unknown effect ended, or that it was not done and shall be tried once more."""
        ...

    def effects(self) -> Sequence[Doubt]:
        """Effects of which nobody knows whether they happened."""
        ...

    def mark(self, run_id: str, call: str, *, by: str | None, reason: str, wrong: bool) -> RunSummary:
        """Say of a decision that it was wrong."""
        ...

    def oversight(self) -> Oversight:
        """How often people changed decisions."""
        ...

    def approvals(self, status: str, tenant: str | None, cursor: str | None, limit: int) -> Page[Approval]:
        """Approvals, the nearest deadline first; ``all`` is a status."""
        ...

    def approval(self, name: str) -> ApprovalDetail:
        """One approval, with what would be executed."""
        ...

    def decide(self, name: str, *, approve: bool, by: str | None, reason: str, digest: str | None) -> Approval:
        """Answer one approval, for the digest that was seen, else for what is there now."""
        ...

    def edit(self, name: str, arguments: Json, *, by: str | None, reason: str, digest: str | None) -> Approval:
        """Want other arguments: a new proposal."""
        ...

    def respond(self, name: str, text: str, *, by: str | None, digest: str | None) -> Approval:
        """Say something to the program instead of the action."""
        ...

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        ...

    def raise_account(self, account: str, budget: Budget, *, by: str | None, reason: str) -> RaisedAccount:
        """Set limits of a shared account anew; runs that rest for it go on."""
        ...

    def routes(self, tenant: str | None = None) -> Sequence[Route]:
        """The route table, as it is in effect for a tenant."""
        ...

    def tools(self) -> Sequence[Tool]:
        """Every tool's manifest."""
        ...

    def policies(self) -> Policies:
        """The policy set."""
        ...

    def switches(self) -> Switches:
        """The switches that are set."""
        ...

    def switch(self, order: SwitchOrder) -> Switches:
        """Set or clear a switch; when this returns, no intent that it covers commits any more. The answer has the proof."""
        ...

    def audit(self, after: int, limit: int, *, action: str, target: str) -> AuditPage:
        """What operators did, the oldest first."""
        ...

    def change_dependency(self, name: str, change: Change | None, *, for_s: float, by: str | None, reason: str) -> None:
        """Change the policy of a model or tool for so long, or end a change."""
        ...

    def workers(self) -> Sequence[Worker]:
        """Every runtime that may hold runs."""
        ...

    def dead_letters(self, route: str | None, tenant: str | None, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs that could not be done and about which nobody has decided, newest first."""
        ...

    def requeue(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Ask for a failed run once more; the new run."""
        ...

    def drop(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a dead letter go."""
        ...

    def messages(self, which: PostFilter, cursor: str | None, limit: int) -> Page[Post]:
        """Messages of the outbox, newest first."""
        ...

    def message(self, name: str, *, content: bool) -> PostDetail:
        """One message."""
        ...

    def decide_message(self, name: str, action: str, *, by: str | None, reason: str) -> Post:
        """``requeue`` or ``drop`` a dead message."""
        ...

    def dependencies(self) -> Sequence[Dependency]:
        """How each model and tool is doing."""
        ...
