"""Random programs, crashed at random points, end as they would have without a crash: same result, same effects, each once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proof.random_programs import PROGRAM_BUGS, files, noticed
from quarterdeck.testing.drawn import FORMS, LEAVES, machine, wrong
from quarterdeck.testing.mortal import DatabaseHand, FileHand, lasting
from quarterdeck.testing.mutants_runtime import RuntimeMutant
from quarterdeck.testing.postgres import Server
from tests.workflows.stage import staged

leaves = st.tuples(st.sampled_from(LEAVES), st.integers(0, 9)).map(list)
programs = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from(FORMS), st.lists(inner, max_size=3)).map(list),
    max_leaves=7,
)
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(program=programs, crashes=st.sets(st.integers(1, 80), max_size=4))
def test_crashes_change_nothing(program: list[object], crashes: set[int]) -> None:
    payload = {"program": program}
    plain, world, _ = staged(machine, "interpret", payload)
    crashed, after, _ = staged(machine, "interpret", payload, crashes=crashes)
    assert wrong(crashed, after, plain, world) == []


@settings(SETTINGS, max_examples=12)
@given(program=programs, crashes=st.sets(st.integers(1, 60), min_size=1, max_size=3))
def test_crashes_change_nothing_on_a_file(
    tmp_path_factory: pytest.TempPathFactory, program: list[object], crashes: set[int]
) -> None:
    payload, path = {"program": program}, tmp_path_factory.mktemp("runs") / "a.db"
    plain, world, _ = staged(machine, "interpret", payload)
    crashed, after = lasting(machine, "interpret", payload, lambda: FileHand(path), crashes)
    assert wrong(crashed, after, plain, world) == []


def test_crashes_change_nothing_on_a_database(postgres: Server) -> None:
    numbers = itertools.count(1)
    with postgres.fresh() as dsn:

        @settings(SETTINGS, max_examples=30)
        @given(program=programs, crashes=st.sets(st.integers(1, 60), min_size=1, max_size=3))
        def check(program: list[object], crashes: set[int]) -> None:
            payload = {"program": program}
            plain, world, _ = staged(machine, "interpret", payload)
            crashed, after = lasting(machine, "interpret", payload, lambda: DatabaseHand(dsn), crashes, seed=next(numbers))
            assert wrong(crashed, after, plain, world) == []

        check()


@pytest.mark.parametrize("bug", PROGRAM_BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_shows_in_a_file(bug: RuntimeMutant) -> None:
    with files() as take:
        assert noticed(bug, take)
