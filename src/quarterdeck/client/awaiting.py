"""The awaiting client, for asyncio. Its twin is :mod:`quarterdeck.client.blocking`; a test compares the two."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from quarterdeck.client import calls, flows, moment
from quarterdeck.client.calls import Budget
from quarterdeck.client.desk import Desk
from quarterdeck.client.following import Following, awaited
from quarterdeck.client.retrying import Retry
from quarterdeck.client.shapes import (
    Account,
    Approval,
    ApprovalDetail,
    AuditPage,
    Dependency,
    Doubts,
    Escalated,
    Event,
    Health,
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
from quarterdeck.client.transport import Awaiting


class AsyncClient:
    """A server's verbs, awaited. Use it in an ``async with`` statement, or :meth:`close` it; it belongs to one event loop.

    ``url`` is the server's root, https beyond this machine unless ``insecure``; ``key`` what it knows the caller by, or a function that
    gives it. Each attempt is answered within ``timeout_s``; ``retry`` says for how long there are further ones. A stream that says
    nothing for ``silence_s``, not even that it is alive, is opened again. ``tls`` replaces the usual trust in certificates.

    Every verb raises :class:`~quarterdeck.client.errors.ClientError`.

    >>> AsyncClient("http://127.0.0.1:8321", "qd_secret")
    AsyncClient('http://127.0.0.1:8321')
    """

    def __init__(
        self,
        url: str,
        key: str | Callable[[], str] | None = None,
        *,
        timeout_s: float = 30.0,
        silence_s: float = 45.0,
        retry: Retry | None = None,
        insecure: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._desk = Desk(url, key, timeout_s=timeout_s, silence_s=silence_s, retry=retry, insecure=insecure, tls=tls)
        self._wire = Awaiting(self._desk.to)

    def __repr__(self) -> str:
        return f"AsyncClient({self._desk.to.root!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._wire.close()

    async def submit(
        self,
        intent: str,
        payload: object = None,
        *,
        tenant: str | None = None,
        user: str | None = None,
        budget: Budget | None = None,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        thread_id: str | None = None,
        ordering_key: str | None = None,
        priority: str | None = None,
        mode: str | None = None,
        labels: Mapping[str, str] | None = None,
        wait_s: float | None = None,
    ) -> AsyncRun:
        """Ask for a run; when this returns, it is a committed row, and will end. It is one run however often the request is sent: all
        attempts carry one idempotency key, by default a new one. With ``wait_s`` the server waits so long for its end (``run.last``).

        ``labels`` say of the payload what the route does not: ``{"integrity": "untrusted"}`` that somebody else wrote it,
        ``{"confidentiality": "sensitive"}`` (or ``internal``, ``secret``) that it is not for everybody.
        """
        flow = self._desk.submit(
            intent,
            payload,
            tenant=tenant,
            user=user,
            budget=budget,
            idempotency_key=idempotency_key,
            correlation_id=correlation_id,
            thread_id=thread_id,
            ordering_key=ordering_key,
            priority=priority,
            mode=mode,
            labels=labels,
            wait_s=wait_s,
        )
        made = await self._wire.do(flow)
        return AsyncRun(self._desk, self._wire, made.run.run_id, last=made.run, existing=made.existing)

    def run(self, run_id: str) -> AsyncRun:
        """A handle on a run. Nothing is asked; a run that does not exist shows itself with the first verb."""
        return AsyncRun(self._desk, self._wire, run_id)

    def runs(
        self,
        *,
        status: str | None = None,
        route: str | None = None,
        tenant: str | None = None,
        correlation_id: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[RunSummary, None]:
        """Runs, newest first, at most ``limit``; pages are fetched as they are needed."""
        filters = {"status": status, "route": route, "tenant": tenant, "correlation_id": correlation_id}
        return self._wire.each(flows.listed_runs(limit, self._desk.manners, **filters))

    async def interrupt(self, run_id: str, payload: object = None, *, token: str | None = None) -> RunDetail:
        """Tell a run something that goes before whatever it was about to do, also while it waits. With a ``token`` of its own, the same
        message twice is one.
        """
        return await self._wire.do(self._desk.ask(calls.interrupt(run_id, payload, token or moment.new_key())))

    async def escalate(self, run_id: str, reason: str = "") -> Escalated:
        """Make a run the concern of the next owner that its route names."""
        return await self._wire.do(self._desk.ask(calls.escalate(run_id, reason)))

    async def raise_budget(self, run_id: str, budget: Budget, *, reason: str = "", token: str | None = None) -> RunDetail:
        """Set limits of a run anew, those that ``budget`` names; one that waits at a limit goes on."""
        return await self._wire.do(self._desk.ask(calls.raise_budget(run_id, budget, reason, token or moment.new_key())))

    async def raise_account(
        self, account: str, budget: Budget, *, model_calls: int | None = None, reason: str = ""
    ) -> RaisedAccount:
        """Set limits of a shared account anew, those that are named; runs that rest for it go on. (Of one run: :meth:`raise_budget`.)"""
        return await self._wire.do(self._desk.ask(calls.raise_account(account, budget, model_calls, reason)))

    async def fork(
        self,
        run_id: str,
        step: str,
        *,
        edited: bool = False,
        result: object = None,
        route: str | None = None,
        idempotency_key: str | None = None,
    ) -> RunDetail:
        """A new run that goes on where this one was at a step: it is done anew or, ``edited``, has this ``result``."""
        key = idempotency_key or moment.new_key()
        return await self._wire.do(self._desk.ask(calls.fork(run_id, step, key, edited=edited, result=result, route=route)))

    async def replay(self, run_id: str) -> Replay:
        """Execute a run again offline, under what is in force now; nothing is done."""
        return await self._wire.do(self._desk.ask(calls.replay(run_id)))

    async def cancel(self, run_id: str, reason: str = "", *, mode: str = "compensate") -> RunSummary:
        """Stop a run; when this returns, no further intent of it commits. Harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.cancel(run_id, reason, mode)))

    async def resolve(
        self, run_id: str, call: str, *, done: bool, result: object = None, retry: bool = False, reason: str = ""
    ) -> RunSummary:
        """Say how an unknown effect ended, after a person has looked. Where an answer was lost and the run has gone on, the repetition
        is refused, and the error has ``maybe_done``.
        """
        return await self._wire.do(
            self._desk.ask(calls.resolve(run_id, call, done=done, result=result, retry=retry, reason=reason))
        )

    async def signal(self, run_id: str, name: str, payload: object = None, *, idempotency_key: str | None = None) -> RunSummary:
        """Send a run a message. It is one message however often the request is sent: all attempts carry one key, by default a new one."""
        key = moment.new_key() if idempotency_key is None else idempotency_key
        return await self._wire.do(self._desk.ask(calls.signal(run_id, name, payload, key)))

    async def pause(self, run_id: str, reason: str = "") -> RunSummary:
        """Let a run begin nothing new, until it is resumed. Harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.pause(run_id, reason, moment.new_key())))

    async def resume(self, run_id: str, reason: str = "", *, done: bool = False) -> RunSummary:
        """Let a run go on that was paused, or is stuck (``done``: what it was stuck with was done, or undone, by hand)."""
        return await self._wire.do(self._desk.ask(calls.resume(run_id, reason, moment.new_key(), done=done)))

    async def keys(self) -> list[KeyInfo]:
        """The API keys that this caller manages, never their texts."""
        return await self._wire.do(self._desk.ask(calls.keys()))

    async def make_key(
        self, subject: str, grants: Sequence[tuple[str, str]], *, label: str = "made over HTTP", lifetime_s: int | None = None
    ) -> MadeKey:
        """Make an API key with these grants, each a role and a tenant (``*``: all). Its text is in this answer and nowhere else, so it is
        asked for once: where the answer is lost, the list shows a key that nobody has; revoke it.
        """
        return await self._wire.do(self._desk.once(calls.make_key(subject, grants, label, lifetime_s)))

    async def revoke_key(self, prefix: str, reason: str = "") -> KeyInfo:
        """End an API key for ever; a second time changes nothing."""
        return await self._wire.do(self._desk.ask(calls.revoke_key(prefix, reason)))

    def approvals(
        self, *, status: str = "pending", tenant: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Approval, None]:
        """Approvals, the nearest deadline first, at most ``limit``; ``status="all"`` for every one."""
        return self._wire.each(flows.listed_approvals(limit, self._desk.manners, status=status, tenant=tenant))

    async def approval(self, approval: str) -> ApprovalDetail:
        """One approval, with what would be executed."""
        return await self._wire.do(self._desk.ask(calls.approval(approval)))

    async def approve(self, approval: str | Approval, *, digest: str | None = None, reason: str = "") -> Approval:
        """Approve exactly one action: that of ``digest``, or of the approval that is given; by its name alone, what is read now."""
        flow = flows.decided(approval, approve=True, reason=reason, digest=digest, manners=self._desk.manners)
        return await self._wire.do(flow)

    async def reject(self, approval: str | Approval, *, reason: str, digest: str | None = None) -> Approval:
        """Reject exactly one action, by the same rule; the reason is told to the model."""
        flow = flows.decided(approval, approve=False, reason=reason, digest=digest, manners=self._desk.manners)
        return await self._wire.do(flow)

    async def edit(
        self, approval: str | Approval, arguments: dict[str, object], *, reason: str = "", digest: str | None = None
    ) -> Approval:
        """Want other arguments, by the same rule: what was shown is not done, the other action is a new proposal of whoever asks here."""
        said = {"decision": "edit", "arguments": arguments}
        flow = flows.decided(approval, approve=False, reason=reason, digest=digest, manners=self._desk.manners, instead=said)
        return await self._wire.do(flow)

    async def respond(self, approval: str | Approval, text: str, *, digest: str | None = None) -> Approval:
        """Say something to the program instead of the action, by the same rule."""
        said = {"decision": "respond", "text": text}
        flow = flows.decided(approval, approve=False, reason="", digest=digest, manners=self._desk.manners, instead=said)
        return await self._wire.do(flow)

    async def effects(self) -> Doubts:
        """Effects of which nobody knows whether they happened."""
        return await self._wire.do(self._desk.ask(calls.effects()))

    async def mark(self, run_id: str, call: str, *, reason: str, wrong: bool = True) -> RunSummary:
        """Say of a decision that it was wrong; nothing else is changed."""
        return await self._wire.do(self._desk.ask(calls.mark(run_id, call, reason=reason, wrong=wrong)))

    async def oversight(self) -> Oversight:
        """How often people changed decisions."""
        return await self._wire.do(self._desk.ask(calls.oversight()))

    async def tools(self) -> list[Tool]:
        """Every tool's manifest."""
        return await self._wire.do(self._desk.ask(calls.tools()))

    async def routes(self, tenant: str | None = None) -> list[Route]:
        """The route table, as it is in effect: for ``tenant``, else for the caller's only one or one without terms of its own."""
        return await self._wire.do(self._desk.ask(calls.routes(tenant)))

    async def budgets(self) -> list[Account]:
        """Shared accounts."""
        return await self._wire.do(self._desk.ask(calls.budgets()))

    async def policies(self) -> Policies:
        """The policy set in force."""
        return await self._wire.do(self._desk.ask(calls.policies()))

    async def switches(self) -> Switches:
        """The switches that are set."""
        return await self._wire.do(self._desk.ask(calls.switches()))

    async def switch(
        self,
        name: str,
        *,
        on: bool = True,
        reason: str,
        tenant: str = "",
        route: str = "",
        expires_in_s: int | None = None,
        expected_version: int | None = None,
        preview: bool = False,
    ) -> Switches:
        """Set or clear a switch, in a tenant or a route or everywhere; when this returns, no intent that it covers commits any more."""
        call = calls.switch(
            name,
            on=on,
            reason=reason,
            tenant=tenant,
            route=route,
            expires_in_s=expires_in_s,
            expected_version=expected_version,
            preview=preview,
        )
        return await self._wire.do(self._desk.ask(call))

    async def audit(self, after: int = 0, limit: int = 50, *, action: str = "", target: str = "") -> AuditPage:
        """What operators did, the oldest first: a page behind a row."""
        return await self._wire.do(self._desk.ask(calls.audit(after, limit, action=action, target=target)))

    async def change_dependency(
        self, name: str, change: Mapping[str, object] | None, *, for_s: float = 3_600.0, reason: str = ""
    ) -> list[Dependency]:
        """Change the policy of a model or tool in every process for so long; ``None`` ends a change."""
        return await self._wire.do(self._desk.ask(calls.change_dependency(name, change, for_s=for_s, reason=reason)))

    async def workers(self) -> list[Worker]:
        """Every worker of the server's store."""
        return await self._wire.do(self._desk.ask(calls.workers()))

    async def requeue(self, run_id: str, reason: str = "") -> RunSummary:
        """Ask for what a failed run was asked for, once more, as a new run; requeueing again gives the same one."""
        return await self._wire.do(self._desk.ask(calls.requeue(run_id, reason)))

    async def drop(self, run_id: str, reason: str) -> RunSummary:
        """Let a dead letter go: it is no longer listed; its record stays."""
        return await self._wire.do(self._desk.ask(calls.drop(run_id, reason)))

    def dead_letters(
        self, *, route: str | None = None, tenant: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[RunSummary, None]:
        """Runs that could not be done and about which nobody has decided, newest first, at most ``limit``."""
        return self._wire.each(flows.listed_letters(limit, self._desk.manners, route=route, tenant=tenant))

    def messages(
        self,
        *,
        status: str | None = None,
        topic: str | None = None,
        run: str | None = None,
        tenant: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Post, None]:
        """Messages of the outbox, newest first, at most ``limit``; without their contents."""
        filters = {"status": status, "topic": topic, "run": run, "tenant": tenant}
        return self._wire.each(flows.listed_messages(limit, self._desk.manners, **filters))

    async def message(self, message: str, *, content: bool | None = None) -> PostDetail:
        """One message, with its contents for who may read them."""
        return await self._wire.do(self._desk.ask(calls.message(message, content=content)))

    async def requeue_message(self, message: str, reason: str = "") -> Post:
        """Deliver a dead message once more, from the beginning; what stands behind it follows. Harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.decide_message(message, "requeue", reason)))

    async def drop_message(self, message: str, reason: str = "") -> Post:
        """Give a dead message up; what stands behind it leaves. Harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.decide_message(message, "drop", reason)))

    async def dependencies(self) -> list[Dependency]:
        """How each model and tool is doing in the process that answers."""
        return await self._wire.do(self._desk.ask(calls.dependencies()))

    async def health(self) -> Health:
        """How the process that answers is doing; asked once, not repeated."""
        return await self._wire.do(self._desk.health())


class AsyncRun:
    """One run at a server. ``last`` is what was seen of it last, ``existing`` whether an earlier request under its key had made it."""

    def __init__(self, desk: Desk, wire: Awaiting, run_id: str, *, last: RunDetail | None = None, existing: bool = True) -> None:
        self.id = run_id
        self.last = last
        self.existing = existing
        self._desk = desk
        self._wire = wire

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r})"

    async def show(self, *, content: bool | None = None) -> RunDetail:
        """The run as it stands. Contents are shown to who may read them, left out with ``False``, insisted on with ``True``."""
        self.last = await self._wire.do(self._desk.ask(calls.show(self.id, content=content)))
        return self.last

    async def result(self, timeout_s: float | None = None) -> RunResult:
        """How the run ended; waits for it. Raises ``TimeoutError`` after ``timeout_s``, or up to a second later; the run goes on."""
        return await self._wire.do(awaited(self.id, self.last, timeout_s, self._desk.manners))

    async def events(self, *, content: bool = False) -> list[Event]:
        """The journal so far."""
        reader = Following(self.id, 0, self._desk.manners, content=content, live=False)
        return [event async for event in self._wire.each(reader.events()) if event.durable]

    def follow(self, after: int = 0, *, content: bool | None = None) -> AsyncGenerator[Event, None]:
        """Every event after ``after``, past and future, once each and in order, whatever breaks; deltas as they come; ends with the run.

        Deltas and ``stream.gap`` have ``seq`` 0; a delta that is lost with its connection does not come again, the model's whole
        answer does. Whoever stops early lets go of the connection (``contextlib.aclosing``).
        """
        return self._wire.each(Following(self.id, after, self._desk.manners, content=content).events())

    async def cancel(self, reason: str = "") -> RunSummary:
        """Stop the run; harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.cancel(self.id, reason)))

    async def resolve(self, call: str, *, done: bool, result: object = None) -> RunSummary:
        """Say how an unknown effect ended; see :meth:`AsyncClient.resolve`."""
        return await self._wire.do(self._desk.ask(calls.resolve(self.id, call, done=done, result=result)))

    async def signal(self, name: str, payload: object = None, *, idempotency_key: str | None = None) -> RunSummary:
        """Send the run a message; see :meth:`AsyncClient.signal`."""
        key = moment.new_key() if idempotency_key is None else idempotency_key
        return await self._wire.do(self._desk.ask(calls.signal(self.id, name, payload, key)))

    async def pause(self, reason: str = "") -> RunSummary:
        """Let the run begin nothing new, until it is resumed. Harmless when repeated."""
        return await self._wire.do(self._desk.ask(calls.pause(self.id, reason, moment.new_key())))

    async def resume(self, reason: str = "", *, done: bool = False) -> RunSummary:
        """Let the run go on; see :meth:`AsyncClient.resume`."""
        return await self._wire.do(self._desk.ask(calls.resume(self.id, reason, moment.new_key(), done=done)))
