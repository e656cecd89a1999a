"""The file of a store as a place: read beside its owner or without one, visited with orders. What is declared comes from the deck."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from quarterdeck.app import switching
from quarterdeck.app.auditing import actions
from quarterdeck.app.budgets import Budget
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.app.orders import approval_of
from quarterdeck.app.oversight import doubts
from quarterdeck.app.oversight import oversight as overseen
from quarterdeck.app.views import row_of, run_view
from quarterdeck.app.workers import worker_views
from quarterdeck.cli import orders
from quarterdeck.cli.following import stored_until_end
from quarterdeck.cli.places import shaping
from quarterdeck.cli.places.verbs import Asked, Ended, Page, PostFilter, Record, RunFilter, SwitchOrder, Watching
from quarterdeck.cli.printing import note
from quarterdeck.cli.settings import Settings
from quarterdeck.cli.storefile import driver, incarnation_of, reading
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
    RunSummary,
    Switches,
    Tool,
    Worker,
)
from quarterdeck.core.admission import serves
from quarterdeck.core.canonical import Json
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import Grant
from quarterdeck.core.overrides import Change, changed
from quarterdeck.core.vocabulary import CancelMode
from quarterdeck.ports.store import Insights

Row = TypeVar("Row")
Shown = TypeVar("Shown")

OPERATOR = "operator"
"""Who cancels, where nobody is named."""


class Stored:
    """A store's file and, where something is declared rather than stored, a deck."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._path = chosen.store

    @property
    def driven(self) -> bool:
        """Whether some process drives the runs of the store."""
        return driver(self._path) is not None

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
            ordering_key=asked.ordering_key,
            mode=asked.mode,
            source="untrusted" if asked.untrusted else "trusted",
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

    def cancel(self, run_id: str, *, by: str | None, reason: str, mode: CancelMode = CancelMode.COMPENSATE) -> RunSummary:
        """Stop a run."""
        orders.cancel(self._path, run_id, by=by or OPERATOR, reason=reason, mode=mode)
        return self._summary(run_id)

    def signal(self, run_id: str, name: str, payload: Json, *, by: str | None, key: str | None) -> RunSummary:
        """Send a run a message."""
        orders.signal(self._path, run_id, name, payload, by=by or OPERATOR, token=key or _token())
        return self._summary(run_id)

    def pause(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a run begin nothing new."""
        orders.pause(self._path, run_id, by=by or OPERATOR, reason=reason, token=_token())
        return self._summary(run_id)

    def resume(self, run_id: str, *, by: str | None, reason: str, done: bool) -> RunSummary:
        """Let a run go on."""
        orders.resume(self._path, run_id, by=by or OPERATOR, reason=reason, done=done, token=_token())
        return self._summary(run_id)

    def keys(self) -> Sequence[KeyInfo]:
        """The store's API keys."""
        from quarterdeck.server.identity import LOCAL_OPERATOR, list_keys

        with reading(self._path) as insights:
            return [shaping.key(each) for each in list_keys(insights, SystemClock(), by=LOCAL_OPERATOR)]

    def make_key(self, subject: str, grants: Sequence[Grant], label: str, lifetime_s: int | None) -> MadeKey:
        """Make an API key, in the name of who can write the store's file."""
        from quarterdeck.server.identity import LOCAL_OPERATOR, KeyRequest, create_key

        apply, request = orders.visiting(self._path), KeyRequest(subject, label, tuple(grants), lifetime_s)
        with reading(self._path) as insights:
            making = create_key(apply, insights, SystemClock(), SystemEntropy(), request=request, by=LOCAL_OPERATOR)
            return shaping.made_key(asyncio.run(making))

    def revoke_key(self, prefix: str, reason: str) -> KeyInfo:
        """End an API key, in the same name."""
        from quarterdeck.server.identity import LOCAL_OPERATOR, revoke_key

        apply = orders.visiting(self._path)
        with reading(self._path) as insights:
            ending = revoke_key(apply, insights, SystemClock(), prefix=prefix, by=LOCAL_OPERATOR, reason=reason)
            return shaping.key(asyncio.run(ending))

    def interrupt(self, run_id: str, payload: Json, *, by: str | None, trusted: bool, token: str | None) -> RunSummary:
        """Tell a run something."""
        orders.interrupt(self._path, run_id, payload, by=by or OPERATOR, trusted=trusted, token=token)
        return self._summary(run_id)

    def escalate(self, run_id: str, *, by: str | None, reason: str) -> str:
        """Make a run the concern of the next owner that the deck's route names."""
        with reading(self._path) as insights:
            route = self._chosen.deck().routes.get(row_of(insights, run_id).route)
        owners = route.escalation if route is not None else ()
        return orders.escalate(self._path, run_id, owners, by=by or OPERATOR, reason=reason)

    def raise_budget(self, run_id: str, budget: Budget, *, by: str | None, reason: str) -> RunSummary:
        """Set limits of a run anew."""
        orders.raise_budget(self._path, run_id, budget.limits(), by=by or OPERATOR, reason=reason, token=None)
        return self._summary(run_id)

    def fork(self, run_id: str, step: str, *, by: str | None, edited: bool, result: Json, route: str | None) -> RunSummary:
        """A new run that goes on where this one was at a step, under the deck's code."""
        from quarterdeck.app.beside import fork_beside
        from quarterdeck.app.forking import Fork

        wanted = Fork(step, edited, result, route)
        deck, apply = self._chosen.deck(), orders.visiting(self._path)
        with reading(self._path) as insights:
            work = fork_beside(deck, apply, insights, run_id, wanted, by=by or OPERATOR, incarnation=incarnation_of(self._path))
            made = asyncio.run(work)
        return self._summary(made)

    def replay(self, run_id: str) -> Replay:
        """Execute a run again offline, under the deck's code and policies."""
        from quarterdeck.app.beside import replay_beside

        with reading(self._path) as insights:
            found = replay_beside(self._chosen.deck(), insights, run_id, incarnation_of(self._path))
        return msgspec.convert({**msgspec.to_builtins(found), "same": found.same}, Replay)

    def resolve(
        self, run_id: str, call: str, *, done: bool, by: str | None, result: Json, retry: bool = False, reason: str = ""
    ) -> RunSummary:
        """Say how an unknown effect ended."""
        orders.resolve(self._path, run_id, call, done=done, by=_named(by), result=result, retry=retry, reason=reason)
        return self._summary(run_id)

    def effects(self) -> Sequence[Doubt]:
        """Effects in doubt."""
        with reading(self._path) as insights:
            return [msgspec.convert(msgspec.structs.asdict(one), Doubt) for one in doubts(insights)]

    def mark(self, run_id: str, call: str, *, by: str | None, reason: str, wrong: bool) -> RunSummary:
        """Say of a decision that it was wrong."""
        orders.mark(self._path, run_id, call, by=_named(by), reason=reason, wrong=wrong)
        return self._summary(run_id)

    def oversight(self) -> Oversight:
        """How often people changed decisions."""
        with reading(self._path) as insights:
            return msgspec.convert(msgspec.structs.asdict(overseen(insights)), Oversight)

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

    def edit(self, name: str, arguments: Json, *, by: str | None, reason: str, digest: str | None) -> Approval:
        """Want other arguments."""
        orders.edit(self._path, name, arguments, by=_named(by), reason=reason, digest=digest)
        return self.approval_summary(name)

    def respond(self, name: str, text: str, *, by: str | None, digest: str | None) -> Approval:
        """Say something instead of the action."""
        orders.respond(self._path, name, text, by=_named(by), digest=digest)
        return self.approval_summary(name)

    def approval_summary(self, name: str) -> Approval:
        """One approval without its contents."""
        with reading(self._path) as insights:
            return shaping.approval(approval_of(insights, name))

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        with reading(self._path) as insights:
            return [shaping.account(row) for row in insights.accounts()]

    def raise_account(self, account: str, budget: Budget, *, by: str | None, reason: str) -> RaisedAccount:
        """Set limits of a shared account anew."""
        woken = orders.raise_account(self._path, account, budget.limits(), by=by or OPERATOR, reason=reason)
        return RaisedAccount(budgets=tuple([row for row in self.budgets() if row.account == account]), woken=woken)

    def routes(self, tenant: str | None = None) -> Sequence[Route]:
        """The deck's routes, as they are in effect for a tenant."""
        from quarterdeck.app.wiring import check_deck

        deck = self._chosen.deck()
        check_deck(deck)
        found = [deck.routes[name] for name in sorted(deck.routes)]
        return [shaping.route(deck, route, tenant) for route in found if tenant is None or serves(route, tenant)]

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
        if isinstance(self._path, str) or self._path.exists():
            with reading(self._path) as insights:
                stored = _fact(insights, "policy")[1]
            if stored and stored != version:
                note(f"the store has another set in force, version {stored}; this one comes with the next runtime of this deck")
        return Policies(version=version, policies=dict(deck.policies or default_policies()))

    def switches(self) -> Switches:
        """The switches that are set."""
        with reading(self._path) as insights:
            return shaping.switches(*switching.stored(insights), SystemClock().now_us())

    def switch(self, order: SwitchOrder) -> Switches:
        """Set or clear a switch."""
        done = orders.switch(self._path, order, by=order.by or OPERATOR)
        found = self.switches()
        return msgspec.structs.replace(found, proof=shaping.switch_proof(done))

    def audit(self, after: int, limit: int, *, action: str, target: str) -> AuditPage:
        """What operators did."""
        with reading(self._path) as insights:
            rows = list(islice(actions(insights, after=after, action=action, target=target), limit + 1))
        shown = tuple([shaping.audit_row(seq, said) for seq, said in rows[:limit]])
        return AuditPage(rows=shown, next=shown[-1].seq if len(rows) > limit else None)

    def change_dependency(self, name: str, change: Change | None, *, for_s: float, by: str | None, reason: str) -> None:
        """Change the policy of a model or tool of the deck for so long, or end a change."""
        declared = self._chosen.deck().dependencies.get(name)
        if declared is None:
            raise UsageError("dependency.unknown", f"the deck has no dependency {name[:80]!r}; write model:NAME or tool:NAME")
        if change is not None:
            changed(declared, change)
        orders.change_dependency(self._path, name, change, for_s=for_s, by=by or OPERATOR, reason=reason)

    def workers(self) -> Sequence[Worker]:
        """Every runtime that may hold runs."""
        with reading(self._path) as insights:
            return [shaping.worker(view) for view in worker_views(insights)]

    def dead_letters(self, route: str | None, tenant: str | None, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs that could not be done and about which nobody has decided, newest first."""
        tenants = None if tenant is None else [tenant]

        with reading(self._path) as insights:

            def read(before: str | None, limit: int) -> Sequence[RunSummary]:
                found = insights.dead_letters(tenants=tenants, route=route, before=before, limit=limit)
                return [shaping.summary(row) for row in found]

            return _page(read, lambda row: row.run_id, cursor, limit)

    def requeue(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Ask for a failed run once more; the new run."""
        return self._summary(orders.requeue(self._path, self._chosen.deck(), run_id, by=by or OPERATOR, reason=reason))

    def drop(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a dead letter go."""
        orders.drop(self._path, run_id, by=by or OPERATOR, reason=reason)
        return self._summary(run_id)

    def messages(self, which: PostFilter, cursor: str | None, limit: int) -> Page[Post]:
        """Messages of the outbox, newest first."""
        tenants = None if which.tenant is None else [which.tenant]

        with reading(self._path) as insights:

            def read(before: str | None, limit: int) -> Sequence[Post]:
                found = insights.posts(
                    status=which.status, topic=which.topic, run_id=which.run, tenants=tenants, before=before, limit=limit
                )
                return [shaping.post(row) for row in found]

            return _page(read, lambda row: row.message, cursor, limit)

    def message(self, name: str, *, content: bool) -> PostDetail:
        """One message."""
        with reading(self._path) as insights:
            row = insights.post(name)
        if row is None:
            raise UsageError("outbox.unknown", f"no message is called {name[:160]!r}; `quarterdeck outbox ls` lists them")
        return shaping.post_detail(row, content=content)

    def decide_message(self, name: str, action: str, *, by: str | None, reason: str) -> Post:
        """``requeue`` or ``drop`` a dead message."""
        orders.decide_post(self._path, name, action, by=by or OPERATOR, reason=reason)
        return self.message(name, content=False)

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


def _token() -> str:
    return SystemEntropy().token(8).hex()


def _named(by: str | None) -> str:
    if by is None:
        raise UsageError("by.missing", "say who answers with --by NAME; it is recorded")
    return by
