"""The parts of the simulator: processes that stop and die, a sealed clock, a truthful world, an oracle that can be wrong-footed."""

import asyncio
from collections.abc import Callable
from importlib import import_module

import pytest

from quarterdeck.testing.clock import VirtualClock
from quarterdeck.testing.processes import Process, SimulatedLoop, current
from quarterdeck.testing.reached import Reached
from quarterdeck.testing.scenario import SWITCHES, draw
from quarterdeck.testing.sealed import Unsealed, sealed
from quarterdeck.testing.world import UNDO, tool_specs


def run(loop: SimulatedLoop, main: Callable[[SimulatedLoop], object]) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main(loop))  # type: ignore[arg-type]


def ticking(seen: list[float], clock: VirtualClock) -> Callable[[], object]:
    async def tick() -> None:
        while True:
            seen.append(clock.monotonic_s())
            await clock.sleep(1.0)

    return tick


def test_a_paused_process_does_nothing_and_goes_on_later() -> None:
    clock, seen = VirtualClock(), []
    process = Process("p")

    async def main(loop: SimulatedLoop) -> None:
        task = process.spawn(ticking(seen, clock)(), "tick")  # type: ignore[arg-type]
        await clock.sleep(2.5)
        process.frozen = True
        await clock.sleep(10.0)
        assert seen == [0.0, 1.0, 2.0]
        loop.thaw(process)
        await clock.sleep(1.1)
        task.cancel()

    run(SimulatedLoop(clock, 1, shuffle=True), main)
    assert seen == [0.0, 1.0, 2.0, 12.5, 13.5]


def test_a_dead_process_says_no_last_words() -> None:
    clock, said = VirtualClock(), []
    process = Process("p")

    async def talk() -> None:
        try:
            await clock.sleep(5.0)
        finally:
            said.append(current())

    async def main(loop: SimulatedLoop) -> None:
        process.spawn(talk(), "talk")
        await clock.sleep(1.0)
        process.die()
        await clock.sleep(100.0)
        assert said == []
        loop.thaw(process)  # so that the loop can be closed

    run(SimulatedLoop(clock, 1, shuffle=False), main)


def test_what_a_process_starts_belongs_to_it() -> None:
    clock, names = VirtualClock(), []
    process = Process("p")

    async def child() -> None:
        await clock.sleep(1.0)
        found = current()
        names.append(found.name if found is not None else None)

    async def parent() -> None:
        await asyncio.gather(child(), child())

    async def main(_: SimulatedLoop) -> None:
        await asyncio.gather(process.spawn(parent(), "parent"), child())

    run(SimulatedLoop(clock, 1, shuffle=True), main)
    assert sorted(names, key=str) == [None, "p", "p"]


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("time", "time", ()),
        ("time", "monotonic", ()),
        ("time", "time_ns", ()),
        ("os", "urandom", (4,)),
        ("secrets", "token_bytes", (4,)),
        ("random", "random", ()),
        ("uuid", "uuid4", ()),
    ],
)
def test_real_time_and_real_chance_are_errors_while_sealed(module: str, name: str, arguments: tuple[int, ...]) -> None:
    with sealed(), pytest.raises(Unsealed, match=name):
        getattr(import_module(module), name)(*arguments)
    getattr(import_module(module), name)(*arguments)


def test_an_undeclared_situation_is_an_error() -> None:
    with pytest.raises(KeyError, match="not declared"):
        Reached().sometimes("something.else")


def test_a_scenario_is_drawn_whole_from_its_seed() -> None:
    assert draw(11) == draw(11)
    drawn = [draw(seed) for seed in range(200)]
    assert {scenario.quiesced for scenario in drawn} == {True, False}
    assert {scenario.owners for scenario in drawn} == {1, 2, 3}
    assert {plan.name for scenario in drawn for plan in scenario.switches} == set(SWITCHES)
    assert all(1 <= len(scenario.orders) <= 12 and 1 <= len(scenario.agents) <= 3 for scenario in drawn)


def test_another_version_of_a_tool_has_another_hash() -> None:
    scenario = draw(1)
    for old, new in zip(tool_specs(scenario, 1), tool_specs(scenario, 2), strict=True):
        assert old.name == new.name
        assert (old.schema_hash != new.schema_hash) is not old.name.endswith(UNDO)
