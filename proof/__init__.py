"""The long suites: faults and attacks at a length that `make test` cannot afford, with planted bugs that must turn them red.

`python -m proof` runs every suite of every module in :data:`MODULES` and writes `build/proof.json`. A module joins by being named
here and by offering a tuple `SUITES` of :class:`~proof.result.Suite`.
"""

from __future__ import annotations

MODULES = (
    "proof.storage",
    "proof.steps",
    "proof.sharing",
    "proof.authority",
    "proof.simulation",
    "proof.programs",
    "proof.random_programs",
    "proof.openapi",
    "proof.walls",
    "proof.fleet",
    "proof.rolling",
    "proof.upgrades",
    "proof.stops",
    "proof.erased",
    "proof.restores",
    "proof.histories",
    "proof.cuts",
    "proof.crowds",
    "proof.halts",
    "proof.votes",
    "proof.binding",
    "proof.detours",
    "proof.cascade",
    "proof.tampering",
    "proof.leaks",
)
"""The modules that offer suites, in the order in which they run."""
