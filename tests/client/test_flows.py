"""The flows, told what became of each command: no network, no time, no luck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from quarterdeck.client import ClientError, Retry, Unreachable, calls
from quarterdeck.client.calls import Order
from quarterdeck.client.flows import Manners, attempted, decided, listed_runs
from quarterdeck.client.following import Following, awaited
from quarterdeck.client.shapes import Event
from quarterdeck.client.wire import (
    NOTHING,
    Act,
    Answer,
    Chunk,
    Course,
    Ended,
    Flow,
    Lost,
    Nothing,
    Open,
    Opened,
    Outcome,
    Pause,
    Read,
    Send,
    Show,
    Shut,
    Told,
)

MANNERS = Manners(timeout_s=10.0, silence_s=40.0, retry=Retry(for_s=60.0, base_s=1.0, cap_s=8.0))
BROKEN = Lost("client.broken", "cut", sent=True)
SILENT = Lost("client.timeout", "silence", sent=True)
NEVER_SENT = Lost("client.unreachable", "refused", sent=False)
STREAM = Opened({"content-type": "text/event-stream"})
RUN = {
    "run_id": "r",
    "status": "running",
    "reason": "",
    "code": "",
    "tenant": "t",
    "user": "u",
    "route": "x",
    "agent": "a",
    "priority": "p",
    "correlation_id": "c",
    "thread_id": None,
    "parent_run_id": None,
    "seq": 2,
    "waiting_on": [],
    "wake_at_us": None,
    "admitted_at_us": 1,
    "updated_at_us": 1,
    "mode": "sync",
    "autonomy": "a",
    "risk": "low",
    "limits": {},
    "versions": {},
    "deadline_at_us": None,
    "turn": 0,
    "effects": {},
    "spent": {},
    "open_effects": [],
    "unknown_effects": [],
    "approvals": {},
    "result": None,
}


class Stage:
    """Drives a flow by a script of outcomes, on a clock of its own; pauses pass on it."""

    def __init__(self, *script: Outcome | tuple[float, Outcome], luck: float = 0.5) -> None:
        self.script: Iterator[Any] = iter(script)
        self.luck = luck
        self.now_s = 1_000.0
        self.acts: list[Act] = []
        self.shown: list[Any] = []

    def play(self, flow: Flow[Any, Any]) -> Any:
        course = Course(flow)
        while (command := course.command) is not None:
            if isinstance(command, Show):
                self.shown.append(command.item)
                course.tell(NOTHING)
                continue
            self.acts.append(command)
            began_s = self.now_s
            outcome: Outcome = Nothing()
            if isinstance(command, Pause):
                self.now_s += command.seconds
            elif not isinstance(command, Shut):
                said = next(self.script)
                took_s, outcome = said if isinstance(said, tuple) else (0.0, said)
                self.now_s += took_s
            course.tell(Told(outcome, began_s, self.now_s, self.luck))
        return course.result

    @property
    def pauses(self) -> list[float]:
        return [act.seconds for act in self.acts if isinstance(act, Pause) and act.seconds]

    def requests(self, kind: type[Any] = Send) -> list[Any]:
        return [act.request for act in self.acts if isinstance(act, kind)]


def ok(body: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, headers, msgspec.json.encode(body))


def problem(status: int, code: str, **headers: str) -> Answer:
    body = msgspec.json.encode({"code": code, "detail": "a sentence", "status": status, "info": {"n": 1}})
    return Answer(status, {"content-type": "application/problem+json", **headers}, body)


def order() -> calls.Call[calls.Submitted]:
    return calls.submit(Order(intent="x", idempotency_key="k"))


def sse(*events: tuple[int, str]) -> Chunk:
    return Chunk(b"".join(_message(seq, kind) for seq, kind in events))


def _message(seq: int, kind: str) -> bytes:
    data = msgspec.json.encode({"seq": seq, "kind": kind, "at_us": 5, "body": {}, "content": None})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), data)


def following(after: int = 0, **options: Any) -> Flow[Event, float]:
    return Following("r", after, MANNERS, **options).events()


# ---------------------------------------------------------------------------------------------------------------- attempts


def test_each_attempt_sends_the_same_bytes_under_one_key() -> None:
    stage = Stage(BROKEN, NEVER_SENT, problem(503, "http.busy"), problem(429, "http.rate"), ok(RUN, 202))
    assert stage.play(attempted(order(), MANNERS)).run.run_id == "r"
    requests = stage.requests()
    assert len(requests) == 5 and len(set(requests)) == 1
    assert b'"idempotency_key": "k"' in requests[0].body


def test_pauses_grow_to_their_cap_with_full_jitter() -> None:
    failures = [BROKEN] * 6
    for luck, pauses in ((0.5, [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]), (0.0, []), (1.0, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0])):
        stage = Stage(*failures, ok({"status": "ok", "tasks_in_flight": 0}), luck=luck)
        stage.play(attempted(calls.health(), MANNERS))
        assert stage.pauses == pauses


def test_retry_after_is_the_least_pause_whichever_way_it_is_said() -> None:
    date, later = "Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 10:00:09 GMT"
    told = Answer(503, {"content-type": "application/problem+json"}, b'{"code":"x.y","retry_after_s":11}')
    stage = Stage(
        problem(429, "http.rate", **{"retry-after": "7"}),
        Answer(503, {"retry-after": later, "date": date}, b""),
        told,
        problem(429, "http.rate", **{"retry-after": "soon"}),
        ok(RUN),
        luck=0.0,
    )
    stage.play(attempted(order(), MANNERS))
    assert stage.pauses == [7.0, 9.0, 11.0]


def test_attempts_end_with_patience_and_a_longer_wish_is_told_at_once() -> None:
    stage = Stage(*[(25.0, BROKEN)] * 9, luck=0.0)
    with pytest.raises(Unreachable) as caught:
        stage.play(attempted(order(), MANNERS))
    assert (len(stage.requests()), caught.value.code, caught.value.maybe_done) == (3, "client.broken", True)
    stage = Stage(problem(503, "http.busy", **{"retry-after": "61"}))
    with pytest.raises(ClientError) as refused:
        stage.play(attempted(order(), MANNERS))
    assert (refused.value.retry_after_s, refused.value.status, len(stage.requests())) == (61.0, 503, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 421, 422, 428, 431, 501, 505])
def test_what_cannot_pass_is_not_repeated(status: int) -> None:
    stage = Stage(problem(status, "some.code"))
    with pytest.raises(ClientError) as caught:
        stage.play(attempted(order(), MANNERS))
    error = caught.value
    assert (error.code, error.status, error.detail, error.info) == ("some.code", status, "a sentence", {"n": 1})
    assert error.maybe_done is (status >= 500) and not isinstance(error, Unreachable)


@pytest.mark.parametrize(
    ("script", "write", "doubtful"),
    [
        ([NEVER_SENT], True, False),
        ([BROKEN], True, True),
        ([BROKEN], False, False),
        ([problem(500, "server.fault")], True, True),
        ([problem(429, "http.rate")], True, False),
        ([BROKEN, NEVER_SENT], True, True),
        ([BROKEN, problem(404, "run.unknown")], True, True),
    ],
)
def test_it_is_said_what_may_have_been_done(script: list[Outcome], write: bool, doubtful: bool) -> None:
    manners = msgspec.structs.replace(MANNERS, retry=Retry(for_s=0.1 if len(script) > 1 else 0.0, base_s=0.0, cap_s=0.0))
    stage = Stage(*script[:-1], (1.0, script[-1]))
    with pytest.raises(ClientError) as caught:
        stage.play(attempted(calls.cancel("r", "") if write else calls.show("r"), manners))
    assert caught.value.maybe_done is doubtful


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(302, {"location": "http://elsewhere"}, b""), "client.redirect"),
        (Answer(502, {"content-type": "text/html"}, b"<h1>"), "client.status"),
        (Answer(404, {"content-type": "application/problem+json"}, b"{"), "client.status"),
        (Answer(200, {}, b"<h1>"), "client.answer"),
        (Answer(200, {}, b'{"run_id": "r"}'), "client.answer"),
        (Answer(200, {}, b"[" * 5_000), "client.answer"),
        (Answer(200, {}, b'"\xff"'), "client.answer"),
        (Lost("client.tls", "", sent=False, passing=False), "client.tls"),
    ],
)
def test_answers_of_somebody_else(answer: Outcome, code: str) -> None:
    manners = msgspec.structs.replace(MANNERS, retry=Retry(for_s=0.0))
    with pytest.raises(ClientError) as caught:
        Stage(answer).play(attempted(calls.show("r"), manners))
    assert caught.value.code == code


def test_pages_are_turned_to_the_end_and_not_beyond_the_limit() -> None:
    summary = {name: RUN[name] for name in list(RUN)[:17]}
    pages = [ok({"runs": [summary] * 100, "next": "a"}), ok({"runs": [summary] * 30, "next": None})]
    stage = Stage(*pages)
    stage.play(listed_runs(None, MANNERS, status="failed", route=None))
    assert len(stage.shown) == 130
    assert stage.requests()[1].query == (("status", "failed"), ("cursor", "a"), ("limit", "100"))
    stage = Stage(*pages)
    stage.play(listed_runs(120, MANNERS))
    assert len(stage.shown) == 120 and stage.requests()[1].query == (("cursor", "a"), ("limit", "20"))
    stage = Stage()
    stage.play(listed_runs(0, MANNERS))
    assert stage.acts == []
    with pytest.raises(ClientError):
        Stage(pages[0], pages[0]).play(listed_runs(None, MANNERS))


# ---------------------------------------------------------------------------------------------------------------- decisions

APPROVAL = {
    "approval": "a",
    "run_id": "r",
    "tenant": "t",
    "call": "t0.0",
    "tool": "refund",
    "digest": "d1",
    "requested_by": "x",
    "expires_at_us": 1,
    "status": "approved",
    "decided_by": "me",
    "reason": "fine",
    "consumed": False,
    "shown": None,
    "shown_text": None,
}


def approving(**options: Any) -> Flow[Any, Any]:
    return decided(**{"approval": "a", "approve": True, "reason": "fine", "digest": None, "manners": MANNERS, **options})


def test_a_decision_names_what_was_read() -> None:
    stage = Stage(ok(APPROVAL), ok(APPROVAL))
    stage.play(approving())
    assert ("if-match", '"d1"') in stage.requests()[1].headers
    stage = Stage(ok(APPROVAL))
    stage.play(approving(digest="seen"))
    assert [request.method for request in stage.requests()] == ["POST"]
    assert ("if-match", '"seen"') in stage.requests()[0].headers


def test_a_decision_whose_answer_was_lost_is_recognised() -> None:
    stage = Stage(ok(APPROVAL), BROKEN, problem(409, "approval.decided"), ok(APPROVAL))
    assert stage.play(approving()).status == "approved"


@pytest.mark.parametrize("other", [{"status": "rejected"}, {"reason": "another"}, {"digest": "d2"}])
def test_the_decision_of_somebody_else_is_not_taken_for_ours(other: dict[str, str]) -> None:
    stage = Stage(ok(APPROVAL), BROKEN, problem(409, "approval.decided"), ok({**APPROVAL, **other}))
    with pytest.raises(ClientError) as caught:
        stage.play(approving())
    assert caught.value.code == "approval.decided"


def test_a_decision_that_was_never_lost_is_simply_refused() -> None:
    stage = Stage(ok(APPROVAL), problem(409, "approval.decided"))
    with pytest.raises(ClientError):
        stage.play(approving())


# ---------------------------------------------------------------------------------------------------------------- streams


def test_a_stream_goes_on_after_the_last_event_that_was_shown() -> None:
    half = Chunk(_message(3, "c")[:-1])
    stage = Stage(
        STREAM, sse((1, "a"), (2, "b")), half, BROKEN, NEVER_SENT, STREAM, sse((3, "c"), (4, "run.finished")), Ended(), luck=0.0
    )
    stage.play(following())
    assert [event.seq for event in stage.shown] == [1, 2, 3, 4]
    assert [dict(request.headers)["last-event-id"] for request in stage.requests(Open)] == ["0", "2", "2"]


def test_a_repetition_is_dropped_and_what_runs_ahead_is_not_believed() -> None:
    stage = Stage(STREAM, sse((1, "a"), (1, "a"), (3, "c"), (2, "b")), STREAM, sse((2, "b"), (3, "c")), BROKEN, ok(None, 204))
    stage.play(following())
    assert [event.seq for event in stage.shown] == [1, 2, 3]
    assert any(isinstance(act, Shut) for act in stage.acts)


def test_a_gap_that_stays_is_an_error() -> None:
    stage = Stage(*[STREAM, sse((1, "a"), (3, "c"))], *[STREAM, (0.0, sse((3, "c")))] * 40)
    with pytest.raises(ClientError) as caught:
        stage.play(following())
    assert caught.value.code == "client.stream" and [event.seq for event in stage.shown] == [1]


def test_a_lost_cursor_is_shown_and_the_journal_follows_from_there() -> None:
    gap = Chunk(b'event: stream.gap\ndata: {"asked":"9","resumes_after":0}\n\n')
    stage = Stage(STREAM, gap, sse((1, "a")), BROKEN, STREAM, sse((2, "run.finished")), Ended())
    stage.play(following(9))
    assert [(event.seq, event.kind) for event in stage.shown] == [(0, "stream.gap"), (1, "a"), (2, "run.finished")]
    assert [dict(request.headers)["last-event-id"] for request in stage.requests(Open)] == ["9", "1"]


def test_a_stream_that_ends_before_its_run_is_opened_again_and_one_after_it_is_not() -> None:
    stage = Stage(STREAM, sse((1, "a")), Ended(), STREAM, sse((2, "run.finished")), BROKEN, ok(None, 204))
    stage.play(following())
    assert len(stage.requests(Open)) == 3
    stage = Stage(STREAM, sse((1, "a")), Ended())
    stage.play(following(live=False))
    assert stage.requests(Open)[0].query == (("follow", "false"),)
    stage = Stage(STREAM, sse((1, "a")), Chunk(b"id: 2\n"), Ended(), STREAM, sse((2, "b")), Ended())
    stage.play(following(live=False))
    assert [event.seq for event in stage.shown] == [1, 2]


def test_a_server_that_keeps_closing_is_given_up_and_one_that_keeps_speaking_is_not() -> None:
    closing = Chunk(b'event: stream.closing\ndata: {"code":"runtime.stopped","detail":"gone"}\n\n')
    stage = Stage(*[STREAM, closing, Ended()] * 99, luck=1.0)
    with pytest.raises(Unreachable) as caught:
        stage.play(following())
    assert (caught.value.code, stage.shown) == ("runtime.stopped", [])
    pulse = Chunk(b":\n\n")
    stage = Stage(*[STREAM, (50.0, pulse), BROKEN] * 50, ok(None, 204), luck=1.0)
    stage.play(following())
    assert len(stage.requests(Open)) == 51 and set(stage.pauses) == {1.0}
    quiet = [STREAM, (5.0, BROKEN)] * 50
    Stage(*quiet, ok(None, 204), luck=1.0).play(following())


@pytest.mark.parametrize(
    "chunk",
    [
        b"id: 1\ndata: {}\n\n",
        b"id: 1\ndata: nothing\n\n",
        b'id: 2\ndata: {"seq":1,"kind":"a","at_us":1,"body":{}}\n\n',
        b"data: []\n\n",
        b"event: stream.gap\ndata: {}\n\n",
        b'event: stream.gap\ndata: {"resumes_after":true}\n\n',
        b"data: \xff\n\n",
    ],
)
def test_what_is_no_stream_of_ours_is_an_error(chunk: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        Stage(STREAM, Chunk(chunk)).play(following())
    assert caught.value.code == "client.stream"


def test_a_stream_that_is_refused_is_an_error_or_asked_for_again() -> None:
    with pytest.raises(ClientError) as caught:
        Stage(STREAM, sse((1, "a")), BROKEN, problem(401, "auth.revoked")).play(following())
    assert caught.value.code == "auth.revoked"
    stage = Stage(problem(429, "http.streams", **{"retry-after": "5"}), ok(None, 204), luck=0.0)
    stage.play(following())
    assert stage.pauses == [5.0]
    with pytest.raises(ClientError) as other:
        Stage(Opened({"content-type": "text/html"})).play(following())
    assert other.value.code == "client.answer"


@pytest.mark.parametrize("after", [-1, 2**53])
def test_a_cursor_is_a_sequence(after: int) -> None:
    with pytest.raises(ClientError) as caught:
        following(after)
    assert caught.value.code == "client.cursor"


# ---------------------------------------------------------------------------------------------------------------- results

DONE = {**RUN, "status": "succeeded", "reason": "completed", "result": {"text": "well", "partial": False}}


def test_a_result_is_waited_for_on_the_stream_from_where_the_run_is() -> None:
    stage = Stage(ok(RUN), STREAM, (30.0, Chunk(b":\n\n")), sse((3, "run.finished")), Ended(), ok(DONE))
    result = stage.play(awaited("r", None, None, MANNERS))
    assert (str(result), result.ok, result.done) == ("well", True, True)
    [opened] = stage.requests(Open)
    assert dict(opened.headers)["last-event-id"] == "2" and opened.query == (("content", "false"),)
    assert stage.shown == []


def test_a_result_that_is_known_is_not_asked_for() -> None:
    known = calls.decoded(ok(DONE), calls.shapes.RunDetail)
    stage = Stage()
    assert stage.play(awaited("r", known, None, MANNERS)).text == "well"
    assert stage.acts == []


def test_time_that_is_up_is_said_whatever_the_run_does_meanwhile() -> None:
    pulse = (15.0, Chunk(b":\n\n"))
    stage = Stage(ok(RUN), STREAM, pulse, STREAM, pulse, STREAM, (10.0, SILENT), luck=0.0)
    with pytest.raises(TimeoutError):
        stage.play(awaited("r", None, 40.0, MANNERS))
    opened = [act for act in stage.acts if isinstance(act, Open)]
    assert [act.silence_s for act in opened] == [40.0, 25.0, 10.0]
    assert all(act.timeout_s <= 10.0 for act in opened)


def test_a_server_that_is_away_costs_no_more_than_the_time_given() -> None:
    stage = Stage(*[(3.0, NEVER_SENT)] * 99)
    with pytest.raises(TimeoutError):
        stage.play(awaited("r", None, 5.0, MANNERS))
    assert len(stage.requests()) == 2
    stage = Stage(ok(RUN), *[(3.0, NEVER_SENT)] * 99)
    with pytest.raises(TimeoutError):
        stage.play(awaited("r", None, 5.0, MANNERS))


def test_reading_stops_when_nothing_is_wanted_any_more() -> None:
    course = Course(following())
    for outcome in (Nothing(), STREAM, sse((1, "a"))):
        course.tell(Told(outcome, 0.0, 0.0, 0.0))
    assert isinstance(course.command, Show)
    course.close()
    assert not isinstance(course.command, Read)
