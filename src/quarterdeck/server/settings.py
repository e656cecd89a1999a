"""What an operator can set about the HTTP door: where it listens, and every limit that it keeps."""

from __future__ import annotations

import msgspec

from quarterdeck.core.errors import UsageError
from quarterdeck.server.identity.anonymous import is_loopback


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the door listens and what it lets in. Raises :class:`UsageError` (``server.settings``) for what makes no sense.

    ``hosts`` are the names that a ``Host`` header may have; on a loopback address they are loopback's own names if none are given,
    elsewhere any name passes. ``task_route`` is where ``POST /tasks`` leads: by default the route ``task``, or the deck's only one.

    >>> Settings().loopback, Settings(host="0.0.0.0").loopback
    (True, False)
    """

    host: str = "127.0.0.1"
    port: int = 8321
    hosts: tuple[str, ...] = ()
    insecure_loopback: bool = False
    task_route: str | None = None
    max_body_bytes: int = 1_048_576
    max_head_bytes: int = 16_384
    max_headers: int = 64
    max_depth: int = 32
    head_deadline_s: float = 10.0
    body_deadline_s: float = 30.0
    write_deadline_s: float = 20.0
    idle_s: int = 30
    heartbeat_s: float = 15.0
    max_wait_s: float = 60.0
    max_connections: int = 1_024
    max_streams: int = 512
    max_streams_per_caller: int = 64
    rate_per_s: float = 500.0
    burst: int = 1_000
    drain_s: int = 30

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in self.__struct_fields__ if name != "port"}
        wrong = [
            name
            for name, value in numbers.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < 2**53
        ]
        if wrong or not 0 <= self.port < 65_536 or not 1_024 <= self.max_head_bytes <= 262_144:
            raise UsageError(
                "server.settings", f"out of range: {', '.join(wrong) or 'port or max_head_bytes'}; see docs/guide/http.md"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the door."""
        return is_loopback(self.host)

    @property
    def accepted_hosts(self) -> frozenset[str] | None:
        """The host names that requests may name; ``None``: any."""
        if self.hosts:
            return frozenset(name.casefold() for name in self.hosts)
        return frozenset({"localhost", "127.0.0.1", "[::1]", self.host.casefold()}) if self.loopback else None
