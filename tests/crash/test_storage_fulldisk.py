"""A really full disk under the real owner and writer."""

from __future__ import annotations

import pytest

from proof.fulldisk import cannot_mount, limited, mounted


@pytest.mark.parametrize("seed", [1, 2])
def test_a_limit_on_the_size_of_files_stops_the_store_and_loses_nothing(seed: int) -> None:
    assert limited(seed) == []


def test_a_full_file_system_stops_the_store_and_loses_nothing() -> None:
    if why := cannot_mount():
        pytest.skip(why)
    assert mounted(1) == []


def test_a_writer_that_hides_the_fault_is_found() -> None:
    assert limited(1, "quiet") != []
