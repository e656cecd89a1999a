"""What holds for every test: repeatable by default, blind to this machine's settings, and never beyond loopback."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from quarterdeck.testing.postgres import SETTING, Server, available, serve

# Searching is for `pytest --hypothesis-profile=explore`; a plain run tries the same examples each time. No deadlines in
# either: no test asserts on wall time.
settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# A developer's own configuration and keys must not change an outcome; only a server to test on may be named.
for _name in [name for name in os.environ if name.startswith("QUARTERDECK_") or name.endswith("_API_KEY")]:
    if _name != SETTING:
        del os.environ[_name]


# A shell without job control starts what is in its background deaf to Ctrl-C; what tests start must hear it all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_local(host: object) -> bool:
    """Whether a host, as sockets and resolvers get it, stays on this machine."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _stay_on_this_machine(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse any connection or look-up that leaves this machine, in whatever library it starts.

    An audit hook sees what patching one class would miss. It raises RuntimeError, because an OSError would pass for an
    unreachable provider in the code under test.
    """
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _is_local(host):
        raise RuntimeError(f"a test tried to reach {host!r}; tests stay on loopback")


sys.addaudithook(_stay_on_this_machine)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for this session; skipped only where there are no binaries for the platform and none is named."""
    if not available():
        pytest.skip(f"no PostgreSQL for this platform; name a server in {SETTING}")
    server = serve()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The connection string of an empty database of this test."""
    with postgres.fresh() as dsn:
        yield dsn
