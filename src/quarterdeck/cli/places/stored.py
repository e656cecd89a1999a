"""The file of a store as a place: read beside its owner or without one, visited with orders. What is declared comes from the deck."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from quarterdeck.app.orders import approval_of
from quarterdeck.app.views import row_of, run_view
from quarterdeck.cli import orders
from quarterdeck.cli.following import stored_until_end
from quarterdeck.cli.places import shaping
from quarterdeck.cli.places.verbs import Asked, Ended, Page, Record, RunFilter, Watching
from quarterdeck.cli.printing import note
from quarterdeck.cli.settings import Settings
from quarterdeck.cli.storefile import reading
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    Dependency,
    Event,
    Policies,
    Route,
    RunSummary,
    Switches,
    Tool,
)
from quarterdeck.core.canonical import Json
from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.ports.store import Insights
from quarterdeck.store.sqlite.opening import owner_of

Row = TypeVar("Row")
Shown = TypeVar("Shown")

OPERATOR = "operator"
"""Who cancels, where nobody is named."""
ATTEMPTS = 5
"""How often a switch is set again if another process undoes it in the same moment."""


class Stored:
    """A store's file and, where something is declared rather than stored, a deck."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._path = chosen.store

    @property
    def driven(self) -> bool:
        """Whether a process owns the store."""
        return owner_of(self._path) is not None

    def run(self, asked: Asked, watching: Watching) -> Ended:
        """Drive it in this process if nobody owns the store, else hand it to who does."""
        from quarterdeck.app.admission import envelope_of
        from quarterdeck.cli.running import run

        envelope = envelope_of(
            asked.intent,
            asked.payload,
            tenant=asked.tenant or "default",
            user=asked.user or "anonymous",
            budget=asked.budget,
            idempotency_key=asked.idempotency_key,
            correlation_id=asked.correlation_id,
            mode=asked.mode,
        )
        return run(self._chosen.deck(), self._path, envelope, watching)

    def runs(self, which: RunFilter, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs, newest first."""
        tenants = None if which.tenant is None else [which.tenant]

        with reading(self._path) as insights:

            def read(before: str | None, limit: int) -> Sequence[RunSummary]:
                found = insights.runs(
                    status=which.status,
                    route=which.route,
                    tenants=tenants,
                    correlation=which.correlation_id,
                    before=before,
                    limit=limit,
                )
                return [shaping.summary(row) for row in found]

            return _page(read, lambda row: row.run_id, cursor, limit)

    def show(self, run_id: str, *, content: bool) -> Record:
        """One run."""
        with reading(self._path) as insights:
            run = shaping.detail(run_view(insights, run_id), content=content)
            first = shaping.events(insights.events(run_id, 0, 1), content=content)[0]
        return Record(run, msgspec.convert(first.body["contract"], dict[str, object]), first.content)

    def events(self, run_id: str, after: int, *, follow: bool, content: bool) -> Iterator[Event]:
        """Its events, past and future."""
        with reading(self._path) as insights:
            if after > row_of(insights, run_id).seq:
                yield Event(0, "stream.gap", None, {"asked": str(after), "resumes_after": 0})
                after = 0
            for stored in stored_until_end(insights, run_id, after, follow=follow):
                if stored is not None:
                    yield from shaping.events([stored], content=content)

    def cancel(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Stop a run."""
        orders.cancel(self._path, run_id, by=by or OPERATOR, reason=reason)
        return self._summary(run_id)

    def resolve(self, run_id: str, call: str, *, done: bool, by: str | None, result: Json) -> RunSummary:
        """Say how an unknown effect ended."""
        orders.resolve(self._path, run_id, call, done=done, by=_named(by), result=result)
        return self._summary(run_id)

    def approvals(self, status: str, tenant: str | None, cursor: str | None, limit: int) -> Page[Approval]:
        """Approvals, the nearest deadline first."""
        wanted, tenants = None if status == "all" else status, None if tenant is None else [tenant]

        with reading(self._path) as insights:

            def read(after: str | None, limit: int) -> Sequence[Approval]:
                found = insights.approvals(status=wanted, tenants=tenants, after=after, limit=limit)
                return [shaping.approval(row) for row in found]

            return _page(read, lambda row: row.approval, cursor, limit)

    def approval(self, name: str) -> ApprovalDetail:
        """One approval."""
        with reading(self._path) as insights:
            return shaping.approval_detail(approval_of(insights, name))

    def decide(self, name: str, *, approve: bool, by: str | None, reason: str, digest: str | None) -> Approval:
        """Answer one approval."""
        orders.decide(self._path, name, approve=approve, by=_named(by), reason=reason, digest=digest)
        return self.approval_summary(name)

    def approval_summary(self, name: str) -> Approval:
        """One approval without its contents."""
        with reading(self._path) as insights:
            return shaping.approval(approval_of(insights, name))

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        with reading(self._path) as insights:
            return [shaping.account(row) for row in insights.accounts()]

    def routes(self) -> Sequence[Route]:
        """The deck's routes."""
        from quarterdeck.app.wiring import check_deck

        deck = self._chosen.deck()
        check_deck(deck)
        return [shaping.route(deck, deck.routes[name]) for name in sorted(deck.routes)]

    def tools(self) -> Sequence[Tool]:
        """The deck's tools."""
        deck = self._chosen.deck()
        return [shaping.tool(deck.tools[name].spec) for name in sorted(deck.tools)]

    def policies(self) -> Policies:
        """The deck's policy set; a remark on stderr if the store has another one in force."""
        from quarterdeck.app.wiring import policy_of
        from quarterdeck.policy import default_policies

        deck = self._chosen.deck()
        version = policy_of(deck).version
        if self._path.exists():
            with reading(self._path) as insights:
                stored = _fact(insights, "policy")[1]
            if stored and stored != version:
                note(f"the store has another set in force, version {stored}; this one comes with the next runtime of this deck")
        return Policies(version=version, policies=dict(deck.policies or default_policies()))

    def switches(self) -> Switches:
        """The switches that are set."""
        with reading(self._path) as insights:
            version, value = _fact(insights, "switches")
        return Switches(version=version, switches=msgspec.json.decode(value or "[]", type=tuple[str, ...]))

    def switch(self, name: str, *, on: bool, reason: str) -> Switches:
        """Set or clear a switch. Looked at afterwards, and repeated if another process has changed the switches in the same moment."""
        for _ in range(ATTEMPTS):
            orders.switch(self._path, name, on=on)
            found = self.switches()
            if (name in found.switches) == on:
                return found
        raise Unavailable(
            "switch.contended", f"{name} was changed back by somebody else each time; look at `quarterdeck switches ls`"
        )

    def dependencies(self) -> Sequence[Dependency]:
        """Nobody can tell: raises :class:`UsageError` (``config.server``)."""
        raise UsageError(
            "config.server", "how models and tools are doing, only the process knows that calls them; name it with --server"
        )

    def _summary(self, run_id: str) -> RunSummary:
        with reading(self._path) as insights:
            return shaping.summary(row_of(insights, run_id))


def _page(
    read: Callable[[str | None, int], Sequence[Row]], name: Callable[[Row], str], cursor: str | None, limit: int
) -> Page[Row]:
    """One page; a cursor of a store is the last name of the page before."""
    rows = tuple(read(cursor, limit))
    following = name(rows[-1]) if len(rows) == limit and read(name(rows[-1]), 1) else None
    return Page(rows, following)


def _fact(insights: Insights, name: str) -> tuple[int, str]:
    return next(((row.version, row.value) for row in insights.facts() if row.name == name), (0, ""))


def _named(by: str | None) -> str:
    if by is None:
        raise UsageError("by.missing", "say who answers with --by NAME; it is recorded")
    return by
