"""The storage suites of SQLite, registered at both lengths."""

from __future__ import annotations

from proof.fulldisk import full_disk
from proof.ioerr import ioerr
from proof.owners import owners
from proof.powercut import powercut
from proof.result import Suite
from proof.unknown import unknown_commit

SEED = 20_260_101

SUITES = (
    Suite("sqlite-powercut", lambda quick: powercut(250 if quick else 6_000, SEED)),
    Suite("sqlite-ioerr", lambda quick: ioerr(1, 25 if quick else 1, SEED)),
    Suite("sqlite-full-disk", lambda quick: full_disk(1 if quick else 20, SEED)),
    Suite("sqlite-unknown-commit", lambda quick: unknown_commit(2 if quick else 25, 5 if quick else 300, SEED)),
    Suite("sqlite-owner-kill", lambda quick: owners(3 if quick else 60, SEED)),
)
