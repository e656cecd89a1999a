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

from quarterdeck.cli.places.verbs import Asked, Ended, Page, Record, RunFilter, Watching
from quarterdeck.cli.printing import note
from quarterdeck.client import Budget, Client, ClientError, Retry, Unreachable, calls
from quarterdeck.client.flows import Manners
from quarterdeck.client.following import Following
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    ApprovalPage,
    Dependency,
    Event,
    Policies,
    Route,
    RunPage,
    RunResult,
    RunSummary,
    Switches,
    Tool,
)
from quarterdeck.core.canonical import Json
from quarterdeck.core.errors import Corrupt, QuarterdeckError, Refused, Unauthenticated, Unavailable, UsageError

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
        asked.budget.envelope()  # the same refusals as anywhere
        budget = asked.budget
        sent = Budget(
            turns=budget.turns,
            tools=budget.tools,
            tokens=budget.tokens,
            context=budget.context,
            deadline=budget.deadline,
            usd=None if budget.usd is None else str(budget.usd),
        )
        run = self._ask(
            lambda: self._client.submit(
                asked.intent,
                asked.payload,
                tenant=asked.tenant,
                user=asked.user,
                budget=sent,
                idempotency_key=asked.idempotency_key,
                correlation_id=asked.correlation_id,
                mode=asked.mode,
                wait_s=0.0,
            )
        )
        note(f"run {run.id} {'exists already under this key' if run.existing else 'is admitted'}; the server drives it")
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

    def cancel(self, run_id: str, *, by: str | None, reason: str) -> RunSummary:
        """Stop a run."""
        _unnamed(by)
        return self._ask(lambda: self._client.cancel(run_id, reason))

    def resolve(self, run_id: str, call: str, *, done: bool, by: str | None, result: Json) -> RunSummary:
        """Say how an unknown effect ended."""
        _unnamed(by)
        return self._ask(lambda: self._client.resolve(run_id, call, done=done, result=result))

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

    def budgets(self) -> Sequence[Account]:
        """Shared accounts."""
        return self._ask(self._client.budgets)

    def routes(self) -> Sequence[Route]:
        """The route table."""
        return self._ask(self._client.routes)

    def tools(self) -> Sequence[Tool]:
        """Every tool's manifest."""
        return self._ask(self._client.tools)

    def policies(self) -> Policies:
        """The policy set in force."""
        return self._ask(self._client.policies)

    def switches(self) -> Switches:
        """The switches that are set."""
        return self._ask(self._client.switches)

    def switch(self, name: str, *, on: bool, reason: str) -> Switches:
        """Set or clear a switch."""
        return self._ask(lambda: self._client.switch(name, on=on, reason=reason))

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


def _unnamed(by: str | None) -> None:
    if by is not None:
        raise UsageError("by.server", "a server records who the key stands for; leave --by out")
