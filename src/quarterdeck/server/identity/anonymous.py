"""Development without keys: whoever reaches a listener on this machine is one named person with every right."""

from __future__ import annotations

from ipaddress import ip_address

from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import EVERY_TENANT, Grant, Principal, Role, checked_subject
from quarterdeck.server.identity.bearer import malformed


def is_loopback(host: str) -> bool:
    """Whether a listener on ``host`` can be reached from this machine alone; a name other than ``localhost`` never counts.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", "example.com")]
    [True, True, True, False, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class LoopbackAnonymous:
    """Everybody is ``subject``, with every right. It exists only for a listener on a loopback address, and only by explicit choice.

    ``host`` is the address that the server binds; any other raises :class:`UsageError` (``auth.anonymous_exposed``). Who sends a
    credential all the same is refused rather than waved through: they expect it to be checked.
    """

    def __init__(self, host: str, subject: str = "developer") -> None:
        if not is_loopback(host):
            raise UsageError(
                "auth.anonymous_exposed",
                f"no keys are asked for on this machine alone, not on {host!r}; bind 127.0.0.1 or use keys",
            )
        self._principal = Principal(checked_subject(subject), "user", (Grant(EVERY_TENANT, Role.ADMIN),))

    async def authenticate(self, authorization: str | None) -> Principal:
        """The developer; raises :class:`Unauthenticated` if a credential was sent."""
        if authorization is not None:
            raise malformed()
        return self._principal
