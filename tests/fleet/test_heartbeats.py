"""A tool that promises signs of life and gives none is abandoned as after a time-out; one that gives them may take long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from quarterdeck import Quarterdeck, ToolContext
from quarterdeck.engine.pulse import Pulse, Pulses, Silent
from quarterdeck.ports.clock import Entropy
from quarterdeck.ports.store import Insights, Journal
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing import clock as virtual
from quarterdeck.testing.memory import MemoryStore


def test_silence_is_noticed_and_beats_extend() -> None:
    async def main() -> tuple[float, float, dict[str, int]]:
        pulses, loop = Pulses(), asyncio.get_running_loop()

        async def beats(pulse: Pulse) -> str:
            for _ in range(10):
                await virtual.sleep(8.0)
                pulse.beat()
                assert pulses.silences()["crunch"] < 10.0
            return "done"

        pulse = Pulse("crunch", "r1", 10.0)
        assert await pulses.watch(pulse, beats(pulse)) == "done"
        lived_s = loop.time()
        silent = Pulse("crunch", "r1", 10.0)
        with pytest.raises(Silent):
            await pulses.watch(silent, virtual.sleep(1e6))
        assert pulses.silences() == {}
        silent.beat()  # from a thread that does not know yet
        return lived_s, loop.time() - lived_s, pulses.abandoned

    assert virtual.run(main()) == (80.0, 10.0, {"crunch": 1})


def test_a_time_out_of_the_tool_itself_is_not_taken_for_silence() -> None:
    async def main() -> None:
        async def impatient() -> None:
            async with asyncio.timeout(1.0):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError) as caught:
            await Pulse("crunch", "r1", 10.0).watch(impatient())
        assert not isinstance(caught.value, Silent)

    virtual.run(main())


async def test_a_run_goes_on_after_a_silent_tool() -> None:
    deck = Quarterdeck("mill")
    let_go = threading.Event()

    @deck.tool(effect="read", heartbeat_timeout=0.05)
    def crunch(silent: bool, ctx: ToolContext) -> str:
        """Crunch numbers in a thread."""
        ctx.heartbeat()
        if silent:
            let_go.wait(20)
        ctx.heartbeat()
        return "crunched"

    deck.agent(
        "cruncher", model=ScriptedModel([[("crunch", {"silent": True})], [("crunch", {"silent": False})], "ok"]), tools=[crunch]
    )

    async def opened(entropy: Entropy) -> tuple[Journal, Insights]:
        store = MemoryStore()
        return store, store

    async with asyncio.timeout(20), deck.start(open_store=opened) as rt:
        run = await rt.submit("cruncher")
        result = await run.result()
        let_go.set()
        closed = [event for event in run.events() if event.kind == "tool.closed"]
        assert result.ok
        assert [(event.body["status"], event.body.get("code", "")) for event in closed] == [
            ("failed", "tool.timeout"),
            ("succeeded", ""),
        ]
        assert rt.parts.services.pulses.abandoned["crunch"] >= 1
