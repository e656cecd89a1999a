"""Suites of attacks that are drawn from a seed: how many attempts there were, how many succeeded, and whether planted holes let one in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter

from proof.result import Suite, SuiteResult
from quarterdeck.testing.patching import Plant

Tried = tuple[int, list[str]]
"""How many attempts there were, and those that succeeded."""
Trial = Callable[[int], Awaitable[Tried]]


def suite_of(name: str, trial: Trial, plants: Mapping[str, Plant], *, quick: int, whole: int, told: bool = False) -> Suite:
    """A suite of so many seeds, of which no attempt may succeed; with each planted hole some attempt of the ``quick`` ones must.

    ``told``: it looks at what the process logs, so that is not kept quiet.
    """

    def run(short: bool) -> SuiteResult:
        began_s = perf_counter()
        logging.disable(logging.NOTSET if told else logging.CRITICAL)  # what is attacked says so
        try:
            tried, wrong = 0, list[str]()
            for seed in range(quick if short else whole):
                attempts, found = asyncio.run(_awaited(trial, seed))
                tried += attempts
                wrong += [f"seed {seed}: {one}" for one in found]
            missed = [hole for hole, plant in plants.items() if not _let_in(plant, trial, quick)]
        finally:
            logging.disable(logging.NOTSET)
        detail: dict[str, object] = ({"wrong": wrong[:10]} if wrong else {}) | ({"missed": missed} if missed else {})
        minutes = (perf_counter() - began_s) / 60
        return SuiteResult(name, tried, len(wrong), len(plants), len(plants) - len(missed), minutes, detail)

    return Suite(name, run)


def _let_in(plant: Plant, trial: Trial, seeds: int) -> bool:
    with plant():
        return any(asyncio.run(_awaited(trial, seed))[1] for seed in range(seeds))


async def _awaited(trial: Trial, seed: int) -> Tried:
    return await trial(seed)
