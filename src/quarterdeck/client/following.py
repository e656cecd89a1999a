"""Following a run: its events once each, in order, over any number of broken connections.

The cursor is the journal's sequence of the last event that was shown. A connection that ends, breaks, falls silent or is closed by a
stopping server is opened again after it (``Last-Event-ID``). An event at or before the cursor is dropped, one that leaves a gap is not
believed: the connection is opened again, and if the gap stays there, that is an error. ``stream.gap`` is shown, and moves the cursor to
where the server says that it goes on.
"""

from __future__ import annotations

from typing import Never, TypeVar

import msgspec

from quarterdeck.client import calls
from quarterdeck.client.errors import ClientError, Unreachable
from quarterdeck.client.flows import Failure, Manners, attempted, failure_of
from quarterdeck.client.retrying import Trouble
from quarterdeck.client.shapes import Event, RunDetail, RunResult
from quarterdeck.client.sse import Message, Parser
from quarterdeck.client.wire import NOTHING, Answer, Chunk, Course, Ended, Flow, Lost, Open, Opened, Pause, Read, Show, Shut, Told

T = TypeVar("T")

SLACK_S = 1.0
"""How much longer than its time-out a wait for a result may take on a stream."""
LEAST_S = 0.001
"""The shortest time-out of a request, where hardly any time is left."""
SHORT_S = 1.0
"""A connection that ends sooner, without a word, counts as one that failed."""
_LAST = "run.finished"


class _Data(msgspec.Struct):
    seq: int
    kind: str
    at_us: int
    body: dict[str, object]
    content: object = None


class _Link:
    """What one connection has shown of itself: a farewell, a word at all, an event too far ahead."""

    def __init__(self) -> None:
        self.closing: ClientError | None = None
        self.heard = False
        self.torn: int | None = None


class Following:
    """One reader of one run. ``live``: goes on until the run has ended; otherwise it ends at the present."""

    def __init__(
        self,
        run_id: str,
        after: int,
        manners: Manners,
        *,
        content: bool | None = None,
        live: bool = True,
        until_s: float | None = None,
    ) -> None:
        if not 0 <= after < 2**53:
            raise ClientError("client.cursor", "after is the sequence of an event, a whole number from 0")
        self._run_id = run_id
        self._after = after
        self._manners = manners
        self._content = content
        self._live = live
        self._until_s = until_s
        self._trouble = Trouble(manners.retry)
        self._finished = False
        self._link = _Link()
        self._patience_s = manners.silence_s

    def events(self) -> Flow[Event, float]:
        """Every event after the cursor, past and future, and deltas as they come; at the end the time."""
        now_s = (yield Pause(0.0)).began_s
        while True:
            self._patience_s = self._bounded(self._manners.silence_s, now_s)
            timeout_s = self._bounded(self._manners.timeout_s, now_s)
            request = calls.events(self._run_id, self._after, live=self._live, content=self._content)
            told = yield Open(request, timeout_s, self._patience_s)
            now_s = told.ended_s
            if isinstance(told.outcome, Answer) and told.outcome.status == 204:
                return now_s
            if isinstance(told.outcome, Opened):
                last = yield from self._read(told)
                if last is None:
                    return now_s
                told, now_s = last, last.ended_s
                failure = self._ending(told)
            else:
                failure = failure_of(told.outcome)
            if self._is_late(now_s):
                raise TimeoutError(f"run {self._run_id} has not ended in time")
            pause_s = self._trouble.pause_s(told, failure.error.retry_after_s) if failure.passing else None
            if pause_s is None:
                raise failure.error
            yield Pause(pause_s if self._until_s is None else min(pause_s, self._until_s - now_s))

    def _read(self, opened: Told) -> Flow[Event, Told | None]:
        """Show what one connection gives; what ended it, or ``None`` if all is said."""
        if isinstance(opened.outcome, Opened):
            kind = opened.outcome.headers.get("content-type", "").partition(";")[0].strip().casefold()
            if kind != "text/event-stream":
                yield Shut()
                raise ClientError("client.answer", "the server does not answer with an event stream", status=200)
        parser = Parser()
        link = self._link = _Link()
        while True:
            told = yield Read()
            if not isinstance(told.outcome, Chunk):
                whole = isinstance(told.outcome, Ended) and not parser.unfinished and link.closing is None
                if whole and (self._finished or not self._live):
                    return None
                if link.heard or told.ended_s - opened.began_s >= SHORT_S:
                    self._trouble.over()
                return told
            for message in parser.feed(told.outcome.data):
                event = self._taken(message)
                if event is not None:
                    yield Show(event)
            link.heard = link.heard or link.closing is None
            if link.torn is not None or self._is_late(told.ended_s) or self._is_too_patient(told.ended_s):
                yield Shut()
                if link.torn is None:
                    self._trouble.over()
                return told

    def _taken(self, message: Message) -> Event | None:
        """A message as the event that is shown; ``None`` for what is known already or concerns the stream alone."""
        if message.id is None:
            body = _decoded(message.data, dict[str, object])
            if message.event == "stream.closing":
                self._link.closing = Unreachable(
                    str(body.get("code", "client.broken")), str(body.get("detail", "the server closes"))
                )
                return None
            if message.event == "stream.gap":
                after = body.get("resumes_after")
                if isinstance(after, bool) or not isinstance(after, int) or after < 0:
                    raise ClientError("client.stream", "a gap without the place where the stream goes on")
                self._after, self._finished = after, False
            return Event(0, message.event, None, body)
        data = _decoded(message.data, _Data)
        if message.id != str(data.seq):
            raise ClientError("client.stream", "an event whose id is not its sequence")
        if data.seq <= self._after or self._link.torn is not None:
            return None
        if data.seq > self._after + 1:
            self._link.torn = data.seq
            return None
        self._after, self._finished = data.seq, data.kind == _LAST
        self._trouble.over()
        return Event(data.seq, data.kind, data.at_us, data.body, data.content)

    def _ending(self, told: Told) -> Failure:
        """Why a connection has ended before all was said."""
        if self._link.torn is not None:
            said = f"events between {self._after} and {self._link.torn} are missing, and stay away"
            return Failure(ClientError("client.stream", said), True)
        if self._link.closing is not None:
            return Failure(self._link.closing, True)
        if isinstance(told.outcome, Lost):
            return failure_of(told.outcome)
        return Failure(Unreachable("client.broken", "the stream ended before its run"), True)

    def _bounded(self, seconds: float, now_s: float) -> float:
        if self._until_s is None:
            return seconds
        return max(LEAST_S, min(seconds, self._until_s - now_s))

    def _is_late(self, now_s: float) -> bool:
        return self._until_s is not None and now_s >= self._until_s

    def _is_too_patient(self, now_s: float) -> bool:
        """Whether the next read could outlast the time that is left; a read's patience is set when its connection is opened."""
        return self._until_s is not None and self._until_s - now_s + SLACK_S < self._patience_s


def awaited(run_id: str, known: RunDetail | None, timeout_s: float | None, manners: Manners) -> Flow[Never, RunResult]:
    """How a run ended. Waits on its events, without contents. Raises ``TimeoutError``; the run goes on all the same."""
    if known is not None and known.done:
        return RunResult.of(known)
    now_s = (yield Pause(0.0)).began_s
    until_s = None if timeout_s is None else now_s + calls.checked_seconds("timeout_s", timeout_s)
    run = yield from _looked(run_id, until_s, now_s, manners)
    if not run.done:
        now_s = yield from _unseen(Following(run_id, run.seq, manners, content=False, until_s=until_s).events())
        run = yield from _looked(run_id, until_s, now_s, manners)
    if not run.done:
        raise ClientError("client.answer", "the stream has ended, and the run has not; is the server of another version?")
    return RunResult.of(run)


def _looked(run_id: str, until_s: float | None, now_s: float, manners: Manners) -> Flow[Never, RunDetail]:
    """The run as it stands, tried for no longer than there is time."""
    if until_s is not None:
        left_s = max(0.0, until_s - now_s)
        retry = msgspec.structs.replace(manners.retry, for_s=min(left_s, manners.retry.for_s))
        manners = msgspec.structs.replace(manners, timeout_s=min(manners.timeout_s, left_s + SLACK_S), retry=retry)
    try:
        return (yield from attempted(calls.show(run_id), manners))
    except Unreachable as error:
        if until_s is None:
            raise
        failed = error
    if (yield Pause(0.0)).began_s < until_s:
        raise failed
    raise TimeoutError(f"run {run_id} could not be seen in time: {failed}")


def _unseen(flow: Flow[Event, T]) -> Flow[Never, T]:
    """The same flow, its items dropped."""
    course = Course(flow)
    try:
        while (command := course.command) is not None:
            course.tell(NOTHING if isinstance(command, Show) else (yield command))
    finally:
        course.close()
    return course.result


def _decoded(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ClientError("client.stream", f"an event is not what this client expects ({error})") from None
