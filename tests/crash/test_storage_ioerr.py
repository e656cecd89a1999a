"""R06: the n-th call to the disk fails; the product stops cleanly and loses nothing that it acknowledged."""

from __future__ import annotations

import pytest

from proof.ioerr import MUTANTS, AutomaticCheckpoints, checkpoint_fault, faults
from quarterdeck.store.sqlite.applier import Applier
from quarterdeck.testing.faultdisk import Failing

SEED = 3


@pytest.mark.parametrize("failing", Failing)
def test_a_failing_call_stops_the_store_and_loses_nothing(failing: Failing) -> None:
    findings = list(faults(SEED, failing, 29))
    assert len(findings) > 10
    assert [finding for finding in findings if finding] == []


@pytest.mark.parametrize("mutant", MUTANTS)
def test_going_on_after_a_fault_is_found(mutant: type[Applier]) -> None:
    assert any(faults(SEED, Failing.EIO, 5, mutant))


def test_a_failing_checkpoint_is_not_kept_quiet() -> None:
    assert checkpoint_fault() == ""
    assert checkpoint_fault(AutomaticCheckpoints) != ""
