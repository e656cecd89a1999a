"""What a service that takes tasks in words promises about its models: small tasks to small models, retries by class, a breaker over a
window, messages within a budget. On virtual time; the task interface itself is tested over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import Quarterdeck, UsageError
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.limits import RatePolicy
from quarterdeck.core.specs import AgentSpec, ModelTier
from quarterdeck.core.tasks import INDICATORS, cheapest, classify
from quarterdeck.ports.model import ModelFailure, Price
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.clock import VirtualClock, run
from quarterdeck.testing.memory import MemoryStore
from tests.app.desk import starting

SIMPLE, LONG = "What is my balance?", "what is " + "really " * 20 + "going on"


class Priced(ScriptedModel):
    """A scripted model that costs something, and remembers what it was asked."""

    def __init__(self, turns: object, cents: int = 0) -> None:
        super().__init__(turns)  # type: ignore[arg-type]
        self.cents = cents
        self.asked: list[object] = []

    @property
    def price(self) -> Price:
        return Price(self.cents, self.cents)

    async def propose(self, request, emit):
        self.asked.append(request)
        return await super().propose(request, emit)


def tiered() -> tuple[Quarterdeck, dict[str, Priced]]:
    deck = Quarterdeck("desk")
    models = {name: Priced(lambda _, name=name: name, cents) for name, cents in (("small", 1), ("large", 9), ("other", 5))}
    for name, model in models.items():
        deck.model(name, model)
    deck.agent("task", model={"simple": "small", "standard": ["large", "other"]})
    deck.route("always", "task", task_class="standard")
    deck.route("risky", "task", risk="high")
    return deck, models


def serving(deck: Quarterdeck, work: Callable[[Runtime, VirtualClock], Awaitable[None]]) -> None:
    clock = VirtualClock()

    async def main() -> None:
        async with starting(deck, MemoryStore("w1"), clock) as runtime:
            await work(runtime, clock)

    run(main(), clock=clock)


def test_words_say_how_simple_a_task_is() -> None:
    assert [classify(text) for text in (SIMPLE, LONG, "Hello", "LIST my orders", "")] == [
        *("simple", "standard", "standard", "simple", "standard")
    ]


@given(st.sampled_from(INDICATORS), st.integers(0, 40))
def test_nothing_of_twenty_words_or_without_an_indicator_is_simple(indicator: str, more: int) -> None:
    text = " ".join([indicator, *["word"] * more])
    assert (classify(text) == "simple") == (len(text.split()) < 20)
    assert classify(" ".join(["word"] * more)) == "standard"


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=4), st.sets(st.sampled_from("abcd")))
def test_the_cheapest_that_serves_takes_it(costs: dict[str, int], unavailable: set[str]) -> None:
    agent = AgentSpec("x", "c", "", (), tiers=(ModelTier("simple", ("a", "b"), 400), ModelTier("standard", ("c", "d"), 800)))
    task_class, model = cheapest(agent, "simple", costs.__getitem__, unavailable)
    served = (
        [name for name in "ab" if name not in unavailable] or [name for name in "cd" if name not in unavailable] or ["a", "b"]
    )
    assert model in served and costs[model] == min(costs[name] for name in served)
    assert task_class == ("simple" if model in "ab" else "standard")


def test_a_simple_task_goes_to_the_small_model_with_a_short_answer_and_every_other_to_the_cheapest_usual_one() -> None:
    deck, models = tiered()

    async def work(runtime: Runtime, _: VirtualClock) -> None:
        cases = {
            ("task", SIMPLE): ("simple", "small", 400),
            ("task", LONG): ("standard", "other", 800),
            ("task", "Hello"): ("standard", "other", 800),
            ("always", SIMPLE): ("standard", "other", 800),
            ("risky", SIMPLE): ("standard", "other", 800),
        }
        for (route, text), (task_class, model, tokens) in cases.items():
            handle = await runtime.submit(route, text)
            assert str(await handle.result()) == model, (route, text)
            contract = runtime.show(handle.id).contract
            assert (contract["task_class"], contract["version_set"]["model"], contract["agent"]) == (task_class, model, "task")  # type: ignore[index]
            assert models[model].asked[-1].max_output_tokens == tokens  # type: ignore[attr-defined]
            opened = next(event.body for event in handle.events() if event.kind == "model.opened")
            assert (opened["model"], opened["max_output_tokens"]) == (model, tokens)

    serving(deck, work)


def test_a_model_that_is_blocked_or_broken_is_passed_over_until_it_serves_again() -> None:
    deck, _ = tiered()

    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        await runtime.switch("block_model:small")
        assert str(await (await runtime.submit("task", SIMPLE)).result()) == "other"
        await runtime.switch("block_model:other")
        assert str(await (await runtime.submit("task", SIMPLE)).result()) == "large"
        await runtime.switch("block_model:small", on=False)
        runtime.parts.dependencies.get("model:small").isolate()
        assert str(await (await runtime.submit("task", SIMPLE)).result()) == "large"

    serving(deck, work)


def test_a_function_of_the_deck_replaces_the_rule() -> None:
    deck, _ = tiered()
    deck.task_classes(lambda text: "simple" if "!" in text else "standard")

    async def work(runtime: Runtime, _: VirtualClock) -> None:
        assert str(await (await runtime.submit("task", "Hello!")).result()) == "small"
        assert str(await (await runtime.submit("task", SIMPLE)).result()) == "other"

    serving(deck, work)


def test_models_by_class_need_a_usual_one() -> None:
    for models in ({"simple": "small"}, {"standard": []}):
        with pytest.raises(UsageError, match="standard"):
            Quarterdeck("desk").agent("task", model=models)


def one(model: ScriptedModel, dependency: DependencyPolicy | None = None) -> Quarterdeck:
    deck = Quarterdeck("desk")
    deck.model("m", model, dependency)
    deck.agent("task", model="m")
    return deck


def closed(runtime: Runtime, run_id: str) -> list[tuple[str, str, int]]:
    events = runtime.handle(run_id).events()
    return [
        (str(event.body["status"]), str(event.body.get("code", "")), int(str(event.body.get("attempts", 1))))
        for event in events
        if event.kind == "model.closed"
    ]


@pytest.mark.parametrize("code", ["model.rate_limited", "model.connection", "model.unavailable"])
def test_what_passes_is_tried_five_times_with_growing_pauses(code: str) -> None:
    model = Healing(ModelFailure(code, "no", transient=True), failures=4)

    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        began_s = clock.monotonic_s()
        handle = await runtime.submit("task", "hello")
        assert (await handle.result()).ok
        assert closed(runtime, handle.id) == [("succeeded", "", 5)]
        assert 0.0 < clock.monotonic_s() - began_s <= 1 + 2 + 4 + 8 + 1

    serving(one(model), work)


@pytest.mark.parametrize("code", ["model.rejected", "model.authentication"])
def test_what_does_not_pass_is_tried_once_and_fails_the_task(code: str) -> None:
    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        handle = await runtime.submit("task", "hello")
        result = await handle.result()
        assert (result.status, result.code) == ("failed", code)
        assert {attempts for _, _, attempts in closed(runtime, handle.id)} == {1}

    serving(one(ScriptedModel([ModelFailure(code, "no", transient=False), "never"])), work)


def test_five_failed_calls_within_a_minute_open_the_breaker_and_one_good_probe_closes_it() -> None:
    model = Healing(ModelFailure("model.rate_limited", "down", transient=True))

    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        state = lambda: runtime.parts.dependencies.get("model:m").breaker_state.value  # noqa: E731
        for number in range(4):
            assert not (await (await runtime.submit("task", f"t{number}")).result()).ok
        await clock.sleep(120.0)
        for number in range(4):
            assert state() == "closed", "failures that are older than the window do not count"
            assert not (await (await runtime.submit("task", f"u{number}")).result()).ok
        assert not (await (await runtime.submit("task", "the fifth")).result()).ok
        assert state() == "open"
        calls = model.calls
        waiting = await runtime.submit("task", "turned away")
        rested = await waiting.rest()
        assert (rested.status, rested.code, model.calls) == ("waiting", "breaker.open", calls)
        model.well = True
        assert (await waiting.result(timeout_s=300.0)).ok, "it goes on by itself when the breaker lets it"
        assert state() == "closed"

    policy = DependencyPolicy.for_model()
    once = msgspec.structs.replace(policy, retry=msgspec.structs.replace(policy.retry, max_attempts=1))
    serving(one(model, once), work)


class Healing(ScriptedModel):
    """Fails so many times, by default until it is well."""

    def __init__(self, failure: ModelFailure, failures: int = 1_000) -> None:
        super().__init__(lambda _: "well")
        self.calls, self.well, self._failure, self._failures = 0, False, failure, failures

    async def propose(self, request, emit):
        self.calls += 1
        if not self.well and self.calls <= self._failures:
            raise self._failure
        return await super().propose(request, emit)


def test_a_provider_rate_of_one_model_holds_up_nobody_else() -> None:
    slow = msgspec.structs.replace(DependencyPolicy.for_model(), rate=RatePolicy(rate_per_s=0.1, burst=1, max_wait_s=60.0))
    deck = one(ScriptedModel(lambda _: "rated"), slow)
    deck.model("free", ScriptedModel(lambda _: "free"))
    deck.agent("other", model="free")

    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        began_s = clock.monotonic_s()
        rated = [await runtime.submit("task", f"t{number}") for number in range(3)]
        for number in range(3):
            assert (await (await runtime.submit("other", f"o{number}")).result()).ok
        assert clock.monotonic_s() - began_s < 10.0
        for handle in rated:
            assert (await handle.result()).ok
        assert 19.9 < clock.monotonic_s() - began_s < 60.0

    serving(deck, work)


def test_messages_stay_within_their_budget_and_what_alone_is_too_much_costs_nothing() -> None:
    model = Priced(lambda _: "done", 5)

    async def work(runtime: Runtime, clock: VirtualClock) -> None:
        fits = await (await runtime.submit("task", "x" * 4 * 5_100)).result()
        assert fits.ok
        too_long = await (await runtime.submit("task", "x" * 4 * 5_300)).result()
        assert (too_long.status, too_long.code, sum(too_long.spent.values())) == ("refused", "context.too_large", 0)
        assert len(model.asked) == 1

    serving(one(model), work)
