"""When the transcript nears what the context may hold, a summary takes the place of its older turns, through the gate."""

from __future__ import annotations

from pathlib import Path

from quarterdeck import Budget, Compaction, Quarterdeck, RunHandle, ToolContext
from quarterdeck.core import events as ev
from quarterdeck.core.fold import fold_all
from quarterdeck.engine import loading
from quarterdeck.ports.model import Message, ModelFailure, ModelReply, ModelRequest
from quarterdeck.testing import ScriptedModel

TURNS = 12
WORD = "x" * 400


class Clerk(ScriptedModel):
    """Calls a tool with every turn, then says what it can see; summarises when it is asked to."""

    def __init__(self, *, summaries: bool = True) -> None:
        super().__init__(self.turn)
        self.asked: list[ModelRequest] = []
        self.summaries = summaries

    def turn(self, messages: tuple[Message, ...]) -> object:
        return "unused"

    async def propose(self, request, emit) -> ModelReply:  # type: ignore[no-untyped-def]
        self.asked.append(request)
        if request.messages[0].content.startswith("Summarise"):
            if not self.summaries:
                raise ModelFailure("model.refused", "no", transient=False)
            return self._say(f"sum{sum(1 for one in self.asked if one.messages[0].content.startswith('Summarise'))}", request)
        if request.turn < TURNS:
            script = ScriptedModel(lambda _: [("look", {"n": request.turn})])
            return await script.propose(request, emit)
        return self._say("; ".join(one.content[:60] for one in request.messages), request)

    def _say(self, text: str, request: ModelRequest) -> ModelReply:
        from quarterdeck.ports.model import Usage

        return ModelReply(text, (), Usage(10, 10), "stop", "clerk")


async def worked(folder: Path, model: Clerk, **limits: int) -> tuple[RunHandle, list[ev.Event], object]:
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look(n: int, ctx: ToolContext) -> str:
        """Look."""
        return f"{n}: {WORD}"

    deck.agent(
        "clerk",
        model=model,
        instructions="Look.",
        tools=[look],
        budget=Budget(turns=40, tools=40, context=1_200, **limits),
        max_output_tokens=200,
        compaction=Compaction(at=0.7, keep=2, max_output_tokens=100),
    )
    async with deck.start(folder / "a.db") as runtime:
        run = await runtime.submit("clerk", "the task")
        await run.result(30)
        stored = list(runtime.insights.events(run.id))
        loaded = loading.load(runtime.parts.services, run.id, len(stored))[:2]
    return run, [ev.decode(one.body) for one in stored], loaded


async def test_the_working_set_goes_on_from_a_summary(tmp_path: Path) -> None:
    model = Clerk()
    _, events, (state, transcript) = await worked(tmp_path, model)
    compactions = [event for event in events if isinstance(event, ev.ContextCompacted)]
    assert len(compactions) >= 2
    assert [event.upto for event in compactions] == sorted({event.upto for event in compactions})
    seen = model.asked[-1].messages
    assert any(one.content.endswith(f"sum{len(compactions)}") for one in seen), "the newest summary alone is in sight"
    for request in model.asked:
        called = [call.call_id for message in request.messages for call in message.calls]
        answered = [message.call_id for message in request.messages if message.role == "tool"]
        assert called == answered, "a call and its answer are never parted"
    assert state == fold_all(events)
    assert transcript.summary == f"sum{len(compactions)}"


async def test_it_is_an_ordinary_proposal_with_a_line_of_its_own(tmp_path: Path) -> None:
    _, events, (state, _) = await worked(tmp_path, Clerk())
    closed = [event for event in events if isinstance(event, ev.ContextCompacted)]
    opened = {event.call: event for event in events if isinstance(event, ev.ModelOpened) and event.summarises}
    decided = {event.call: event for event in events if isinstance(event, ev.GateDecided) and event.call in opened}
    assert opened.keys() == decided.keys() == {event.call for event in closed}
    assert all(event.reserve["compactions"] == 1 and event.reserve["tokens"] > 0 for event in decided.values())
    assert state.spent["compactions"] == len(closed)
    assert state.spent["compaction_tokens"] == 20 * len(closed)
    assert state.spent["turns"] == TURNS + 1


async def test_its_limit_leaves_the_run_without_summaries_and_not_without_an_end(tmp_path: Path) -> None:
    _, events, (state, _) = await worked(tmp_path, Clerk(), compactions=1)
    assert (state.spent["compactions"], state.status, state.code) == (1, "succeeded", "completed")
    assert max(event.omitted for event in events if isinstance(event, ev.ModelOpened)) > 0


async def test_where_it_fails_the_oldest_turns_are_left_out(tmp_path: Path) -> None:
    model = Clerk(summaries=False)
    _, events, (state, _) = await worked(tmp_path, model)
    assert (state.status, state.code) == ("succeeded", "completed")
    assert not [event for event in events if isinstance(event, ev.ContextCompacted)]
    asked = [request.turn for request in model.asked if request.messages[0].content.startswith("Summarise")]
    assert len(asked) == len(set(asked)), "it is asked for once a turn"


async def test_it_costs_nothing_where_it_is_not_wanted(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    deck.agent("clerk", model=ScriptedModel(["hello"]))
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "x")
        await run.result(30)
        kinds = [event.kind for event in run.events()]
    assert kinds == [
        "run.admitted",
        "run.started",
        "gate.decided",
        "model.opened",
        "model.closed",
        "gate.decided",
        "budget.moved",
        "run.finished",
    ]
