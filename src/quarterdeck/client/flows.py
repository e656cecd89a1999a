"""What takes more than one request: trying again, turning pages, deciding for what was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Never, TypeVar

import msgspec

from quarterdeck.client import calls
from quarterdeck.client.calls import Call
from quarterdeck.client.errors import ClientError, Unreachable
from quarterdeck.client.retrying import PASSING, Retry, Trouble, retry_after_of
from quarterdeck.client.shapes import Approval, ApprovalPage, Post, PostPage, Problem, RunPage, RunSummary
from quarterdeck.client.wire import Answer, Flow, Lost, Outcome, Pause, Send, Show

T = TypeVar("T")
Page = TypeVar("Page")
Row = TypeVar("Row")


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """How a client asks: how long it waits for an answer, how long for a word on a stream, and when it asks again."""

    timeout_s: float
    silence_s: float
    retry: Retry


class Failure(msgspec.Struct, frozen=True):
    """What is wrong with an outcome, and whether trying again can help."""

    error: ClientError
    passing: bool


def attempted(call: Call[T], manners: Manners) -> Flow[Never, T]:
    """Send a request until it is answered, or cannot be, or patience ends. Every call of this client is safe to repeat."""
    trouble, doubt = Trouble(manners.retry), False
    while True:
        told = yield Send(call.request, manners.timeout_s + call.wait_s)
        outcome = told.outcome
        if isinstance(outcome, Answer) and 200 <= outcome.status < 300:
            return _read(call, outcome)
        failure = failure_of(outcome, writes=call.request.writes, doubt=doubt)
        doubt = failure.error.maybe_done
        pause_s = trouble.pause_s(told, failure.error.retry_after_s) if failure.passing else None
        if pause_s is None:
            raise failure.error
        yield Pause(pause_s)


def _read(call: Call[T], answer: Answer) -> T:
    try:
        return call.read(answer)
    except ClientError as error:
        error.maybe_done = call.request.writes
        raise


def failure_of(outcome: Outcome, *, writes: bool = False, doubt: bool = False) -> Failure:
    """The error that an outcome is. ``doubt``: an earlier attempt may have been carried out."""
    if isinstance(outcome, Lost):
        maybe_done = doubt or (writes and outcome.sent)
        kind = Unreachable if outcome.passing else ClientError
        return Failure(kind(outcome.code, outcome.detail, maybe_done=maybe_done), outcome.passing)
    if not isinstance(outcome, Answer):
        raise TypeError(f"{type(outcome).__name__} is no answer")
    status = outcome.status
    if 300 <= status < 400:
        said = "the server sends requests elsewhere, which is not followed with a key; give the address that it means"
        return Failure(ClientError("client.redirect", said, status=status, maybe_done=doubt), False)
    problem = _problem(outcome)
    waits = [wait for wait in (retry_after_of(outcome), problem.retry_after_s) if wait is not None]
    error = ClientError(
        problem.code,
        problem.detail,
        status=status,
        retry_after_s=max(waits, default=None),
        info=problem.info,
        maybe_done=doubt or (writes and status >= 500),
    )
    return Failure(error, status in PASSING)


def _problem(answer: Answer) -> Problem:
    if answer.headers.get("content-type", "").partition(";")[0].strip() == "application/problem+json":
        try:
            return msgspec.json.decode(answer.body, type=Problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    said = f"status {answer.status} without a problem document; something between here and the server has answered"
    return Problem(code="client.status", detail=said)


def listed_runs(limit: int | None, manners: Manners, **filters: str | None) -> Flow[RunSummary, None]:
    """Runs, page by page."""

    def page(cursor: str | None, size: int) -> Call[RunPage]:
        return calls.runs(cursor, size, **filters)

    return _listed(page, lambda found: (found.runs, found.next), limit, manners)


def listed_approvals(limit: int | None, manners: Manners, **filters: str | None) -> Flow[Approval, None]:
    """Approvals, page by page."""

    def page(cursor: str | None, size: int) -> Call[ApprovalPage]:
        return calls.approvals(cursor, size, **filters)

    return _listed(page, lambda found: (found.approvals, found.next), limit, manners)


def listed_letters(limit: int | None, manners: Manners, **filters: str | None) -> Flow[RunSummary, None]:
    """Dead letters, page by page."""

    def page(cursor: str | None, size: int) -> Call[RunPage]:
        return calls.dead_letters(cursor, size, **filters)

    return _listed(page, lambda found: (found.runs, found.next), limit, manners)


def listed_messages(limit: int | None, manners: Manners, **filters: str | None) -> Flow[Post, None]:
    """Messages of the outbox, page by page."""

    def page(cursor: str | None, size: int) -> Call[PostPage]:
        return calls.messages(cursor, size, **filters)

    return _listed(page, lambda found: (found.messages, found.next), limit, manners)


def _listed(
    page: Callable[[str | None, int], Call[Page]],
    parts: Callable[[Page], tuple[Sequence[Row], str | None]],
    limit: int | None,
    manners: Manners,
) -> Flow[Row, None]:
    left, cursor = limit, None
    while left is None or left > 0:
        found = yield from attempted(page(cursor, calls.PAGE if left is None else min(left, calls.PAGE)), manners)
        rows, following = parts(found)
        for row in rows[:left]:
            yield Show(row)
        left = None if left is None else left - len(rows)
        if following is None:
            return
        if following == cursor:
            raise ClientError("client.answer", "the list goes round in circles; is the server of another version?")
        cursor = following


def decided(
    approval: str | Approval,
    *,
    approve: bool,
    reason: str,
    digest: str | None,
    manners: Manners,
    instead: Mapping[str, object] | None = None,
) -> Flow[Never, Approval]:
    """Decide an approval for exactly one digest: the one given, the one of the approval given, or the one that is read now."""
    name = approval if isinstance(approval, str) else approval.approval
    seen = digest if isinstance(approval, str) else digest or approval.digest
    if seen is None:
        seen = (yield from attempted(calls.approval(name), manners)).digest
    try:
        return (yield from attempted(calls.decide(name, approve=approve, reason=reason, digest=seen, instead=instead), manners))
    except ClientError as error:
        if not (error.code == "approval.decided" and error.maybe_done):
            raise
        refused = error
    # An earlier attempt got no answer, and somebody has decided: we, if what stands there is what was said.
    found = yield from attempted(calls.approval(name), manners)
    status = {None: "approved" if approve else "rejected", "edit": "edited", "respond": "answered"}
    wanted = (status[None if instead is None else str(instead["decision"])], reason, seen)
    if (found.status, found.reason, found.digest) != wanted:
        raise refused
    return found
