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
    Dependency,
    Event,
    Policies,
    Route,
    RunDetail,
    RunResult,
    RunSummary,
    Switches,
    Tool,
)
from quarterdeck.core.canonical import Json
from quarterdeck.core.vocabulary import Mode

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
class Asked:
    """What a run is asked for with; ``None`` leaves it to the place."""

    intent: str
    payload: Json
    budget: Budget
    tenant: str | None = None
    user: str | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    mode: Mode | None = None


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

    def cancel(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Stop a run; harmless when repeated."""
        ...

    def resolve(self, run_id: str, call: str, *, done: bool, by: str | None, result: Json) -> RunSummary:
        """Say how an unknown effect ended."""
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

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        ...

    def routes(self) -> Sequence[Route]:
        """The route table."""
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

    def switch(self, name: str, *, on: bool, reason: str) -> Switches:
        """Set or clear a switch; when this returns, no intent that it covers commits any more."""
        ...

    def dependencies(self) -> Sequence[Dependency]:
        """How each model and tool is doing."""
        ...
