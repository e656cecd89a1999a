"""What a runtime says of itself to others, and the list of them all."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

from quarterdeck import __version__
from quarterdeck.ports.store import Insights, WorkerRow


class About(msgspec.Struct, frozen=True):
    """One runtime in its own words. ``programs`` is the code that it has (``None``: it takes any run), ``release`` a hash of its agents."""

    worker: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""
    release: str = ""
    state: str = "ready"
    active: int = 0
    max_active: int = 0
    programs: tuple[str, ...] | None = None
    started_at_us: int | None = None


class WorkerView(msgspec.Struct, frozen=True):
    """One runtime as lists show it: what it says, how many runs it holds, and its lease. ``status`` is ``lost`` once that is over."""

    worker: str
    status: str
    held: int
    active: int
    max_active: int
    version: str
    release: str
    host: str
    pid: int
    programs: tuple[str, ...] | None
    started_at_us: int | None
    beat_at_us: int | None
    lease_until_us: int | None


def about(worker: str, release: str, max_active: int, programs: tuple[str, ...] | None, started_at_us: int) -> About:
    """This process."""
    version = f"quarterdeck/{__version__}"
    host = socket.gethostname()[:100]
    return About(worker, host, os.getpid(), version, release, "ready", 0, max_active, programs, started_at_us)


def worker_views(insights: Insights) -> Sequence[WorkerView]:
    """Every runtime that may hold runs of this store."""
    return [_view(row) for row in insights.workers()]


def _view(row: WorkerRow) -> WorkerView:
    said = msgspec.json.decode(row.about, type=About)
    return WorkerView(
        said.worker or f"process {row.owner}",
        said.state if row.alive else "lost",
        row.held,
        said.active,
        said.max_active,
        said.version,
        said.release,
        said.host,
        said.pid,
        said.programs,
        said.started_at_us,
        row.beat_at_us,
        row.lease_until_us,
    )
