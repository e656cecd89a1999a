"""A server as a place: every verb goes through :mod:`quarterdeck.client`, and its errors come out in the classes of this side.

A stable code means the same at every place, so it ends a command with the same exit code: what HTTP has folded into one status is
unfolded again here, by code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from quarterdeck.app.budgets import Budget as AppBudget
from quarterdeck.cli.places.verbs import Asked, Ended, Page, PostFilter, Record, RunFilter, SwitchOrder, Watching
from quarterdeck.cli.printing import note, note_admission
from quarterdeck.client import Budget, Client, ClientError, Retry, Unreachable, calls
from quarterdeck.client.flows import Manners
from quarterdeck.client.following import Following
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    ApprovalPage,
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
    PostPage,
    RaisedAccount,
    Replay,
    Route,
    RunPage,
    RunResult,
    RunSummary,
    Switches,
    Tool,
    Worker,
)
from quarterdeck.core.canonical import Json
from quarterdeck.core.errors import Corrupt, QuarterdeckError, Refused, Unauthenticated, Unavailable, UsageError
from quarterdeck.core.identity import Grant
from quarterdeck.core.overrides import Change
from quarterdeck.core.vocabulary import CancelMode

T = TypeVar("T")

ASK_FOR_S = 5.0
"""How long a command tries again before it says that the server cannot be reached."""
FOLLOW_FOR_S = 120.0
"""The same for a stream that has given something: long enough for a server to be started again."""

_CONFLICTS: dict[str, type[QuarterdeckError]] = {
    "effect.not_unknown": UsageError,
    "admission.run": UsageError,
}
"""What a 409 means where it is not that an earlier answer stands."""
_OF_STATUS: dict[int, type[QuarterdeckError]] = {
    401: Unauthenticated,
    403: Refused,
    408: Unavailable,
    410: Refused,
    412: Refused,
    429: Unavailable,
}


def translated(error: ClientError, *, keyed: bool = True) -> QuarterdeckError:
    """What the client raises, in the class that the same code has beside a store.

    >>> type(translated(ClientError("approval.decided", "", status=409))).__name__
    'Refused'
    >>> type(translated(Unreachable("client.unreachable", ""))).__name__
    'Unavailable'
    """
    said = error.detail
    if error.maybe_done:
        said = f"{said}; it may have been done all the same, so look before you repeat it"
    if error.status == 401 and not keyed:
        said = f"{said}; the key comes from QUARTERDECK_KEY or --key-file"
    kind = _kind(error)
    if kind is Unavailable:
        return Unavailable(error.code, said, error.retry_after_s or 1.0, **error.info)
    return kind(error.code, said, **error.info)


def _kind(error: ClientError) -> type[QuarterdeckError]:
    status = error.status
    if isinstance(error, Unreachable):
        return Unavailable
    if status == 409:
        return _CONFLICTS.get(error.code, Refused)
    if status == 500 and error.code not in ("server.fault", "client.status"):
        return Corrupt
    return _OF_STATUS.get(status, Unavailable if status >= 500 else UsageError)


@contextmanager
def serving(url: str, key: str | None) -> Iterator[Served]:
    """A server, until its connections are closed."""
    try:
        client = _Paging(url, key, retry=Retry(for_s=ASK_FOR_S))
    except ClientError as error:
        raise translated(error) from None
    with client:
        yield Served(client, keyed=key is not None)


class _Paging(Client):
    """A client that also gives single pages of lists, and reads events from and up to a point."""

    def runs_page(self, cursor: str | None, limit: int, which: RunFilter) -> RunPage:
        return self._wire.do(self._desk.ask(calls.runs(cursor, limit, **msgspec.structs.asdict(which))))

    def approvals_page(self, cursor: str | None, limit: int, *, status: str, tenant: str | None) -> ApprovalPage:
        return self._wire.do(self._desk.ask(calls.approvals(cursor, limit, status=status, tenant=tenant)))

    def letters_page(self, cursor: str | None, limit: int, *, route: str | None, tenant: str | None) -> RunPage:
        return self._wire.do(self._desk.ask(calls.dead_letters(cursor, limit, route=route, tenant=tenant)))

    def messages_page(self, cursor: str | None, limit: int, which: PostFilter) -> PostPage:
        filters = {"status": which.status, "topic": which.topic, "run": which.run, "tenant": which.tenant}
        return self._wire.do(self._desk.ask(calls.messages(cursor, limit, **filters)))

    def read(
        self, run_id: str, after: int = 0, *, live: bool = True, content: bool | None = None, until_s: float | None = None
    ) -> Iterator[Event]:
        manners = self._desk.manners
        patient = Manners(timeout_s=manners.timeout_s, silence_s=manners.silence_s, retry=Retry(for_s=FOLLOW_FOR_S))
        reader = Following(run_id, after, patient if live else manners, content=content, live=live, until_s=until_s)
        return self._wire.each(reader.events())


class Served:
    """A server that is asked in the name of who the key stands for."""

    def __init__(self, client: _Paging, *, keyed: bool) -> None:
        self._client = client
        self._keyed = keyed

    @property
    def driven(self) -> bool:
        """A server that answers has a runtime."""
        return True

    def run(self, asked: Asked, watching: Watching) -> Ended:
        """Ask the server for it, and watch it there."""
        sent = _sent(asked.budget)
        run = self._ask(
            lambda: self._client.submit(
                asked.intent,
                asked.payload,
                tenant=asked.tenant,
                user=asked.user,
                budget=sent,
                idempotency_key=asked.idempotency_key,
                correlation_id=asked.correlation_id,
                ordering_key=asked.ordering_key,
                mode=asked.mode,
                labels={"integrity": "untrusted"} if asked.untrusted else None,
                wait_s=0.0,
            )
        )
        note(f"run {run.id} {'exists already under this key' if run.existing else 'is admitted'}; the server drives it")
        note_admission(self._ask(lambda: run.show(content=False)))
        interrupted = False
        try:
            self._watch(run.id, watching)
        except KeyboardInterrupt:
            interrupted = True
        watching.printer.break_line()
        return Ended(RunResult.of(self._ask(run.show)), interrupted)

    def _watch(self, run_id: str, watching: Watching) -> None:
        until_s = None if watching.timeout_s is None else time.monotonic() + watching.timeout_s
        content = watching.printer.wanted if watching.follow else False
        try:
            for event in self._each(lambda: self._client.read(run_id, content=content, until_s=until_s)):
                if watching.follow:
                    watching.printer.print(event)
                elif event.kind == "run.waiting" and self._rests(run_id):
                    return
        except TimeoutError:
            return

    def _rests(self, run_id: str) -> bool:
        """Whether it waits still: of a run that was there already, the event may be an old one."""
        run = self._ask(self._client.run(run_id).show)
        return run.done or run.status == "waiting"

    def runs(self, which: RunFilter, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs, newest first."""
        page = self._ask(lambda: self._client.runs_page(cursor, limit, which))
        return Page(page.runs, page.next)

    def show(self, run_id: str, *, content: bool) -> Record:
        """One run; its contract and input are in its first event."""
        run = self._ask(lambda: self._client.run(run_id).show(content=content))
        first = next(self._each(lambda: self._client.read(run_id, content=content, live=False)))
        return Record(run, msgspec.convert(first.body["contract"], dict[str, object]), first.content)

    def events(self, run_id: str, after: int, *, follow: bool, content: bool) -> Iterator[Event]:
        """Its events, over any number of broken connections."""
        return self._each(lambda: self._client.read(run_id, after, live=follow, content=content))

    def cancel(self, run_id: str, *, by: str | None, reason: str, mode: CancelMode = CancelMode.COMPENSATE) -> RunSummary:
        """Stop a run."""
        _unnamed(by)
        return self._ask(lambda: self._client.cancel(run_id, reason, mode=mode.value))

    def interrupt(self, run_id: str, payload: Json, *, by: str | None, trusted: bool, token: str | None) -> RunSummary:
        """Tell a run something. Whether it is trusted, the server knows by the key."""
        _unnamed(by)
        if trusted:
            raise UsageError("by.server", "a server knows by the key whether its holder may steer runs; leave --trusted out")
        return self._ask(lambda: self._client.interrupt(run_id, payload, token=token))

    def escalate(self, run_id: str, *, by: str | None, reason: str) -> str:
        """Make a run the concern of its next owner."""
        _unnamed(by)
        return self._ask(lambda: self._client.escalate(run_id, reason)).owner

    def raise_budget(self, run_id: str, budget: AppBudget, *, by: str | None, reason: str) -> RunSummary:
        """Set limits of a run anew."""
        _unnamed(by)
        return self._ask(lambda: self._client.raise_budget(run_id, _sent(budget), reason=reason))

    def fork(self, run_id: str, step: str, *, by: str | None, edited: bool, result: Json, route: str | None) -> RunSummary:
        """A new run that goes on where this one was at a step."""
        _unnamed(by)
        return self._ask(lambda: self._client.fork(run_id, step, edited=edited, result=result, route=route))

    def replay(self, run_id: str) -> Replay:
        """Execute a run again in the server, offline."""
        return self._ask(lambda: self._client.replay(run_id))

    def signal(self, run_id: str, name: str, payload: Json, *, by: str | None, key: str | None) -> RunSummary:
        """Send a run a message."""
        _unnamed(by)
        return self._ask(lambda: self._client.signal(run_id, name, payload, idempotency_key=key))

    def pause(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a run begin nothing new."""
        _unnamed(by)
        return self._ask(lambda: self._client.pause(run_id, reason))

    def resume(self, run_id: str, *, by: str | None, reason: str, done: bool) -> RunSummary:
        """Let a run go on."""
        _unnamed(by)
        return self._ask(lambda: self._client.resume(run_id, reason, done=done))

    def keys(self) -> Sequence[KeyInfo]:
        """The keys that the own key manages."""
        return self._ask(self._client.keys)

    def make_key(self, subject: str, grants: Sequence[Grant], label: str, lifetime_s: int | None) -> MadeKey:
        """Make a key there."""
        given = [(grant.role.value, grant.tenant) for grant in grants]
        return self._ask(lambda: self._client.make_key(subject, given, label=label, lifetime_s=lifetime_s))

    def revoke_key(self, prefix: str, reason: str) -> KeyInfo:
        """End a key there."""
        return self._ask(lambda: self._client.revoke_key(prefix, reason))

    def resolve(
        self, run_id: str, call: str, *, done: bool, by: str | None, result: Json, retry: bool = False, reason: str = ""
    ) -> RunSummary:
        """Say how an unknown effect ended."""
        _unnamed(by)
        return self._ask(lambda: self._client.resolve(run_id, call, done=done, result=result, retry=retry, reason=reason))

    def effects(self) -> Sequence[Doubt]:
        """Effects in doubt."""
        return self._ask(self._client.effects).effects

    def mark(self, run_id: str, call: str, *, by: str | None, reason: str, wrong: bool) -> RunSummary:
        """Say of a decision that it was wrong."""
        _unnamed(by)
        return self._ask(lambda: self._client.mark(run_id, call, reason=reason, wrong=wrong))

    def oversight(self) -> Oversight:
        """How often people changed decisions."""
        return self._ask(self._client.oversight)

    def approvals(self, status: str, tenant: str | None, cursor: str | None, limit: int) -> Page[Approval]:
        """Approvals, the nearest deadline first."""
        page = self._ask(lambda: self._client.approvals_page(cursor, limit, status=status, tenant=tenant))
        return Page(page.approvals, page.next)

    def approval(self, name: str) -> ApprovalDetail:
        """One approval."""
        return self._ask(lambda: self._client.approval(name))

    def decide(self, name: str, *, approve: bool, by: str | None, reason: str, digest: str | None) -> Approval:
        """Answer one approval."""
        _unnamed(by)
        if approve:
            return self._ask(lambda: self._client.approve(name, digest=digest, reason=reason))
        return self._ask(lambda: self._client.reject(name, digest=digest, reason=reason))

    def edit(self, name: str, arguments: Json, *, by: str | None, reason: str, digest: str | None) -> Approval:
        """Want other arguments."""
        _unnamed(by)
        if not isinstance(arguments, dict):
            raise UsageError("approval.arguments", "other arguments are an object, as the approval shows them")
        return self._ask(lambda: self._client.edit(name, dict(arguments), digest=digest, reason=reason))

    def respond(self, name: str, text: str, *, by: str | None, digest: str | None) -> Approval:
        """Say something instead of the action."""
        _unnamed(by)
        return self._ask(lambda: self._client.respond(name, text, digest=digest))

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        return self._ask(self._client.budgets)

    def raise_account(self, account: str, budget: AppBudget, *, by: str | None, reason: str) -> RaisedAccount:
        """Set limits of a shared account anew."""
        _unnamed(by)
        usd = None if budget.usd is None else str(budget.usd)
        sent = Budget(tools=budget.tools, tokens=budget.tokens, usd=usd)
        return self._ask(lambda: self._client.raise_account(account, sent, model_calls=budget.model_calls, reason=reason))

    def routes(self, tenant: str | None = None) -> Sequence[Route]:
        """The route table, as it is in effect for a tenant."""
        return self._ask(lambda: self._client.routes(tenant))

    def tools(self) -> Sequence[Tool]:
        """Every tool's manifest."""
        return self._ask(self._client.tools)

    def policies(self) -> Policies:
        """The policy set in force."""
        return self._ask(self._client.policies)

    def switches(self) -> Switches:
        """The switches that are set."""
        return self._ask(self._client.switches)

    def switch(self, order: SwitchOrder) -> Switches:
        """Set or clear a switch."""
        _unnamed(order.by)
        return self._ask(
            lambda: self._client.switch(
                order.name,
                on=order.on,
                reason=order.reason,
                tenant=order.tenant,
                route=order.route,
                expires_in_s=order.expires_in_s,
                expected_version=order.expected,
            )
        )

    def audit(self, after: int, limit: int, *, action: str, target: str) -> AuditPage:
        """What operators did."""
        return self._ask(lambda: self._client.audit(after, limit, action=action, target=target))

    def change_dependency(self, name: str, change: Change | None, *, for_s: float, by: str | None, reason: str) -> None:
        """Change the policy of a model or tool for so long, or end a change."""
        _unnamed(by)
        said = None if change is None else msgspec.to_builtins(change)
        self._ask(lambda: self._client.change_dependency(name, said, for_s=for_s, reason=reason))

    def workers(self) -> Sequence[Worker]:
        """Every worker of the server's store."""
        return self._ask(self._client.workers)

    def dead_letters(self, route: str | None, tenant: str | None, cursor: str | None, limit: int) -> Page[RunSummary]:
        """Runs that could not be done and about which nobody has decided, newest first."""
        page = self._ask(lambda: self._client.letters_page(cursor, limit, route=route, tenant=tenant))
        return Page(page.runs, page.next)

    def requeue(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Ask for a failed run once more; the new run."""
        _unnamed(by)
        return self._ask(lambda: self._client.requeue(run_id, reason))

    def drop(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Let a dead letter go."""
        _unnamed(by)
        return self._ask(lambda: self._client.drop(run_id, reason))

    def messages(self, which: PostFilter, cursor: str | None, limit: int) -> Page[Post]:
        """Messages of the outbox, newest first."""
        page = self._ask(lambda: self._client.messages_page(cursor, limit, which))
        return Page(page.messages, page.next)

    def message(self, name: str, *, content: bool) -> PostDetail:
        """One message."""
        return self._ask(lambda: self._client.message(name, content=content))

    def decide_message(self, name: str, action: str, *, by: str | None, reason: str) -> Post:
        """``requeue`` or ``drop`` a dead message."""
        _unnamed(by)
        decide = self._client.requeue_message if action == "requeue" else self._client.drop_message
        return self._ask(lambda: decide(name, reason))

    def dependencies(self) -> Sequence[Dependency]:
        """How each model and tool is doing in the process that answers."""
        return self._ask(self._client.dependencies)

    def _ask(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except ClientError as error:
            raise translated(error, keyed=self._keyed) from None

    def _each(self, begin: Callable[[], Iterator[T]]) -> Iterator[T]:
        try:
            yield from begin()
        except ClientError as error:
            raise translated(error, keyed=self._keyed) from None


def _sent(budget: AppBudget) -> Budget:
    """A budget as a client sends it, with the same refusals as anywhere."""
    budget.envelope()
    return Budget(
        turns=budget.turns,
        tools=budget.tools,
        tokens=budget.tokens,
        context=budget.context,
        deadline=budget.deadline,
        usd=None if budget.usd is None else str(budget.usd),
    )


def _unnamed(by: str | None) -> None:
    if by is not None:
        raise UsageError("by.server", "a server records who the key stands for; leave --by out")
