"""The scripted model: word for word, stateless, and honest about what it is."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.ports.model import Message, ModelFailure, ModelReply, ModelRequest, Price, ToolCall
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.scripted import Turn

USER = Message("user", "hello")


def request(turn: int = 0, *messages: Message, limit: int = 100) -> ModelRequest:
    return ModelRequest(messages or (USER,), (), limit, turn=turn)


def quiet(_: str) -> None:
    return None


async def test_texts_calls_and_raw_text_word_for_word() -> None:
    model = ScriptedModel([[("a", {"id": 7}), ("b", '{"id": '), ("c", [1])], "done"])
    first = await model.propose(request(0), quiet)
    assert first.calls == (ToolCall("c0-0", "a", '{"id":7}'), ToolCall("c0-1", "b", '{"id": '), ToolCall("c0-2", "c", "[1]"))
    assert (first.text, first.finish, first.model) == ("", "calls", "scripted")
    deltas: list[str] = []
    second = await model.propose(request(1), deltas.append)
    assert (second.text, second.calls, second.finish) == ("done", (), "stop")
    assert deltas == ["done"]


async def test_the_turn_follows_from_the_request_alone() -> None:
    turns: list[Turn] = [[("a", {"turn": 0})], [("a", {"turn": 1})], "end"]
    used, fresh = ScriptedModel(turns), ScriptedModel(turns)
    for turn in (2, 0, 1, 1, 0, 2):  # many runs at once, in any order, in any process
        assert await used.propose(request(turn), quiet) == await fresh.propose(request(turn), quiet)


async def test_a_function_sees_the_messages() -> None:
    def answer(messages: tuple[Message, ...]) -> Turn:
        return f"you said {messages[-1].content}"

    assert (await ScriptedModel(answer).propose(request(0, USER), quiet)).text == "you said hello"


async def test_past_the_end_and_scripted_failures() -> None:
    busy = ModelFailure("model.rate_limited", "busy", transient=True)
    model = ScriptedModel([busy, "fine"])
    with pytest.raises(ModelFailure) as caught:
        await model.propose(request(0), quiet)
    assert caught.value is busy
    with pytest.raises(ModelFailure) as caught:
        await model.propose(request(2), quiet)
    assert (caught.value.code, caught.value.transient) == ("model.script_exhausted", False)
    with pytest.raises(asyncio.CancelledError):
        await ScriptedModel([asyncio.CancelledError()]).propose(request(0), quiet)


def test_without_latency_it_never_yields() -> None:
    coroutine = ScriptedModel(["done"]).propose(request(0), quiet)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert isinstance(ended.value.value, ModelReply)


async def test_latency_is_the_loops() -> None:
    task = asyncio.create_task(ScriptedModel(["done"], latency_s=0.001).propose(request(0), quiet))
    await asyncio.wait([task], timeout=0)
    assert not task.done()
    assert (await task).text == "done"


async def test_it_says_what_it_is() -> None:
    model = ScriptedModel(["x"], name="stand-in", price=Price(1, 2))
    assert (model.name, model.price, model.labelled) == ("stand-in", Price(1, 2), "scripted")
    await model.close()
    await model.close()


@given(st.text(max_size=400), st.text(max_size=400), st.integers(1, 60))
def test_usage_never_exceeds_the_worst_case(said: str, answer: str, limit: int) -> None:
    model = ScriptedModel([answer])
    asked = request(0, Message("user", said), limit=limit)
    worst = model.worst_case(asked)
    reply = asyncio.run(model.propose(asked, quiet))
    assert reply.text == answer, "never cut"
    assert reply.usage.input_tokens == worst.input_tokens
    assert reply.usage.output_tokens <= worst.output_tokens == limit
