"""The guards of the test suite and of the Makefile hold."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.tidy import repository


def test_a_connection_beyond_this_machine_is_refused() -> None:
    with socket.socket() as client, pytest.raises(RuntimeError, match="tests stay on loopback"):
        client.connect(("192.0.2.1", 9))


def test_a_name_look_up_is_refused() -> None:
    with pytest.raises(RuntimeError, match="tests stay on loopback"):
        socket.getaddrinfo("quarterdeck.invalid", 443)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "localhost")])
def test_loopback_is_open(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect((host, server.getsockname()[1]))


def test_no_settings_of_this_machine_are_left() -> None:
    assert [name for name in os.environ if name.startswith("QUARTERDECK_")] == []


def test_every_target_of_the_makefile_is_listed_by_it() -> None:
    text = repository.text("Makefile")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    shown = subprocess.run(["make"], cwd=repository.ROOT, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"make (\w+) +\S", shown) == phony[1].split()


def test_ci_needs_no_input_and_runs_what_a_developer_runs() -> None:
    assert os.access(repository.ROOT / ".ci" / "run", os.X_OK) or sys.platform == "win32"
    assert re.findall(r"^stage (\w+)$", repository.text(".ci/run"), re.MULTILINE) == ["test", "check"]
