"""R05: every state in which a power cut can leave the file, and the controls that show that this test can fail."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded

import pytest

from proof.powercut import CONTROLS, cut, recorded
from quarterdeck.testing.powercut import SECTOR, Cut, Fate, Mark, Named, Replay, Step, Synced, Written, images

SEED = 11


def after(*steps: Step) -> Replay:
    replay = Replay()
    for step in steps:
        replay.advance(step)
    return replay


def test_nothing_acknowledged_is_lost_wherever_the_power_goes() -> None:
    recording = recorded(SEED)
    tally = cut(recording, SEED, 0.07, 400)
    assert (tally.lost, tally.corrupt) == (0, 0), tally.first
    assert tally.images > 150
    assert set(tally.fates) == set(Fate)


def test_the_load_reaches_checkpoints_deletions_and_syncs() -> None:
    log = recorded(SEED).log
    main_file = next(step.file for step in log if isinstance(step, Named) and step.name == "store.db")
    begun = [step.begun for step in log if isinstance(step, Mark)]
    writes_to_file = [place for place, step in enumerate(log) if isinstance(step, Written) and step.file == main_file]
    assert any(isinstance(step, Named) and step.file is None for step in log)
    assert len(writes_to_file) > 50
    assert max(begun) > 20


@pytest.mark.parametrize("control", CONTROLS)
def test_weaker_settings_and_planted_bugs_lose(control: str) -> None:
    assert cut(CONTROLS[control](SEED), SEED, 0.05, 120).bad > 0


def test_the_same_seed_makes_the_same_images() -> None:
    log = recorded(SEED, batches=4).log
    first = [(fate, files) for _, fate, files in images(log, 3, 0.2)]
    assert first == [(fate, files) for _, fate, files in images(log, 3, 0.2)]
    assert first


def test_what_was_synced_is_there_and_what_was_not_may_be() -> None:
    replay = after(Named("f", 0, folder=True), Written(0, 0, b"old"), Synced(0, folder=False), Written(0, 0, b"new"))
    rng = Random(1)
    assert replay.image(Fate.ABSENT, rng) == {"f": b"old"}
    assert replay.image(Fate.PRESENT, rng) == {"f": b"new"}
    assert {replay.image(Fate.SUBSET, rng)["f"] for _ in range(50)} == {b"old", b"new"}


def test_a_name_is_certain_only_when_its_folder_was_synced() -> None:
    made = after(Named("f", 0), Written(0, 0, b"x"), Synced(0, folder=False))
    assert made.image(Fate.ABSENT, Random(1)) == {}
    made.advance(Synced(0, folder=True))
    assert made.image(Fate.ABSENT, Random(1)) == {"f": b"x"}
    made.advance(Named("f", None))
    assert made.image(Fate.ABSENT, Random(1)) == {"f": b"x"}
    assert made.image(Fate.PRESENT, Random(1)) == {}


def test_a_torn_write_ends_at_a_sector() -> None:
    replay = after(Named("f", 0, folder=True), Written(0, 0, b"a" * 4 * SECTOR))
    rng = Random(1)
    lengths = {len(replay.image(Fate.TORN, rng)["f"]) for _ in range(60)}
    assert lengths == {0, SECTOR, 2 * SECTOR, 3 * SECTOR}


def test_scattered_sectors_land_in_any_combination() -> None:
    replay = after(Named("f", 0, folder=True), Written(0, 0, b"a" * SECTOR + b"b" * SECTOR))
    rng = Random(1)
    found = {replay.image(Fate.SCATTERED, rng)["f"] for _ in range(60)}
    assert found == {b"", b"a" * SECTOR, bytes(SECTOR) + b"b" * SECTOR, b"a" * SECTOR + b"b" * SECTOR}


def test_a_cut_is_a_change_like_a_write() -> None:
    replay = after(Named("f", 0, folder=True), Written(0, 0, b"abcd"), Synced(0, folder=False), Cut(0, 2))
    assert replay.image(Fate.ABSENT, Random(1)) == {"f": b"abcd"}
    assert replay.image(Fate.PRESENT, Random(1)) == {"f": b"ab"}
