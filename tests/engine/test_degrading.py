"""Where a model cannot serve, the next of the chain is proposed; near a limit the run does with less, and at it may wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck import Budget, Degrade, DependencyPolicy, Quarterdeck, RunHandle
from quarterdeck.core.breaker import BreakerPolicy
from quarterdeck.core.overrides import Change
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.ports.model import ModelFailure
from quarterdeck.testing import ScriptedModel


class Broken(ScriptedModel):
    """Fails, and counts how often it was asked."""

    def __init__(self, code: str = "model.server_error") -> None:
        super().__init__([])
        self.asked = 0
        self.code = code

    async def propose(self, request, emit):  # type: ignore[no-untyped-def]
        self.asked += 1
        raise ModelFailure(self.code, "no", transient=False)


def chained(broken: Broken, *models: object) -> Quarterdeck:
    deck = Quarterdeck("desk")
    once = DependencyPolicy(retry=RetryPolicy(max_attempts=1), breaker=BreakerPolicy(failures=2, open_s=600))
    deck.model("first", broken, once)
    names = []
    for number, model in enumerate(models):
        names.append(f"next{number}")
        deck.model(names[-1], model, once)  # type: ignore[arg-type]
    deck.agent("clerk", model="first", fallbacks=names)
    return deck


def decisions(run: RunHandle) -> list[tuple[object, object, object]]:
    found = [event.body for event in run.events() if event.kind == "gate.decided" and event.body["proposal"] == "model"]
    return [(one["name"], one["ruling"], (one.get("reasons") or [""])[0]) for one in found]  # type: ignore[index]


async def test_a_failing_model_is_followed_by_the_next_one_as_a_new_proposal(tmp_path: Path) -> None:
    broken = Broken()
    async with chained(broken, Broken(), ScriptedModel(["hello", "hello"])).start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("clerk", "x")
        result = await run.result(30)
        assert (result.text, broken.asked) == ("hello", 1)
        assert decisions(run) == [("first", "allow", ""), ("next0", "allow", ""), ("next1", "allow", "")]
        await (await runtime.submit("clerk", "x")).result(30)
        third = await runtime.submit("clerk", "x")
        assert (await third.result(30)).text == "hello"
        assert broken.asked == 2, "an open breaker is passed over"
        assert decisions(third) == [
            ("first", "degrade", "breaker.open"),
            ("next0", "degrade", "breaker.open"),
            ("next1", "allow", ""),
        ]


async def test_a_blocked_model_is_passed_over_and_a_chain_that_is_used_up_fails(tmp_path: Path) -> None:
    broken = Broken()
    async with chained(broken, ScriptedModel(["hello"])).start(tmp_path / "a.db") as runtime:
        await runtime.switch("block_model:first")
        run = await runtime.submit("clerk", "x")
        assert (await run.result(30)).text == "hello"
        assert (broken.asked, decisions(run)[0]) == (0, ("first", "deny", "switch.model_blocked"))
    async with chained(Broken(), Broken("model.other")).start(tmp_path / "b.db") as runtime:
        result = await (await runtime.submit("clerk", "x")).result(30)
        assert (result.status, result.code) == ("failed", "model.other")


def long_work(**route: object) -> Quarterdeck:
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look(n: int) -> str:
        return "x" * 40

    script = [[("look", {"n": n})] for n in range(6)]
    deck.model("large", ScriptedModel([*script, "done"]))
    deck.model("small", ScriptedModel([*script, "done in short"]))
    degrade = Degrade("small", at=0.5, max_output_tokens=50, context=500, skip=("look",))
    clerk = deck.agent("clerk", model="large", tools=[look], degrade=degrade, budget=Budget(turns=8, tools=6))
    deck.route("work", clerk, **route)  # type: ignore[arg-type]
    return deck


async def test_near_a_limit_a_run_does_with_less_and_skips_what_it_may(tmp_path: Path) -> None:
    async with long_work().start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("work", "x")
        result = await run.result(30)
        skipped = [
            event.body["reasons"] for event in run.events() if event.kind == "gate.decided" and event.body["ruling"] == "deny"
        ]
    assert result.text == "done in short"
    assert skipped == [["budget.near_tools"]] * 3


async def test_at_a_limit_a_run_waits_until_somebody_raises_it(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look(n: int) -> str:
        return "x"

    model = ScriptedModel([[("look", {"n": 1})], [("look", {"n": 2})], "done"])
    clerk = deck.agent("clerk", model=model, tools=[look], budget=Budget(turns=2, tools=9))
    deck.route("work", clerk, at_limit="pause")
    deck.route("stops", clerk)
    async with deck.start(tmp_path / "a.db") as runtime:
        run = await runtime.submit("work", "x")
        resting = await run.rest(30)
        assert (resting.status, resting.code, resting.waiting_on) == ("waiting", "budget.turns", ("budget",))
        await runtime.raise_budget(run.id, Budget(turns=5), by="ops", reason="worth it")
        result = await run.result(30)
        assert (result.status, result.code, result.text) == ("succeeded", "completed", "done")
        stopped = await (await runtime.submit("stops", "x")).result(30)
        assert (stopped.reason, stopped.code) == ("partial", "budget.turns")
        with pytest.raises(Exception, match=r"budget\.nothing"):
            await runtime.raise_budget(run.id, Budget())


async def test_a_read_that_fails_is_answered_with_its_last_good_answer(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")
    works = [True]

    @deck.tool(
        effect="read",
        stale="10m",
        dependency=DependencyPolicy(retry=RetryPolicy(max_attempts=1), breaker=BreakerPolicy(failures=1, open_s=600)),
    )
    async def rate(of: str) -> str:
        if not works[0]:
            raise ConnectionError("gone")
        return f"rate of {of}"

    deck.agent(
        "clerk",
        model=ScriptedModel(lambda said: said[-1].content if said[-1].role == "tool" else [("rate", {"of": said[0].content})]),
        tools=[rate],
    )

    async with deck.start(tmp_path / "a.db") as runtime:

        async def asked(of: str, user: str = "ada") -> tuple[str, list[object]]:
            run = await runtime.submit("clerk", of, user=user)
            result = await run.result(30)
            return result.text, [event.body.get("code", "") for event in run.events() if event.kind == "tool.closed"]

        assert await asked("gold") == ('"rate of gold"', [""])
        works[0] = False
        assert await asked("gold") == ('"rate of gold"', ["degraded.stale"])
        assert runtime.dependencies()[-1].breaker.state == "open"
        assert await asked("gold") == ('"rate of gold"', ["degraded.stale"]), "the breaker is open by now"
        assert (await asked("gold", "ben"))[1] == [], "another person's answer is not given"
        assert (await asked("iron"))[1] == []


def test_only_a_read_has_an_old_answer() -> None:
    with pytest.raises(Exception, match=r"tool\.stale"):
        Quarterdeck("desk").tool(effect="write", stale="1m")(len_of)


async def len_of(text: str) -> int:
    return len(text)


async def test_an_operator_changes_a_dependency_for_a_while(tmp_path: Path) -> None:
    deck = Quarterdeck("desk")

    @deck.tool(effect="read")
    async def look() -> str:
        return "seen"

    deck.agent(
        "clerk", model=ScriptedModel(lambda said: said[-1].content if said[-1].role == "tool" else [("look", {})]), tools=[look]
    )
    async with deck.start(tmp_path / "a.db") as runtime:
        before = dict(runtime.parts.gate.versions)
        await runtime.change_dependency("tool:look", Change(isolated=True), for_s=600, by="ops", reason="incident")
        assert runtime.parts.gate.versions["dependencies"] == before["dependencies"] + 1, "judged anew, as under a switch"
        assert "breaker.isolated" in (await (await runtime.submit("clerk", "x")).result(30)).text
        [view] = [one for one in runtime.dependencies() if one.name == "tool:look"]
        assert (view.breaker.state, view.override and view.override.by) == ("isolated", "ops")
        await runtime.change_dependency("tool:look", Change(slots=2, attempts=7, rate_per_s=3.0), for_s=600)
        [view] = [one for one in runtime.dependencies() if one.name == "tool:look"]
        assert (view.policy.concurrency.slots, view.policy.retry.max_attempts, view.policy.timeout_s) == (2, 7, 30.0)
        assert (await (await runtime.submit("clerk", "x")).result(30)).text == '"seen"'
        await runtime.change_dependency("tool:look", None)
        [view] = [one for one in runtime.dependencies() if one.name == "tool:look"]
        assert (view.override, view.policy) == (None, deck.dependencies["tool:look"])
        for name, change, code in (("tool:nope", Change(), "dependency.unknown"), ("tool:look", Change(slots=0), "bulkhead")):
            with pytest.raises(Exception, match=code):
                await runtime.change_dependency(name, change)
