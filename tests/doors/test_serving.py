"""``quarterdeck serve``, ``dev`` and ``keys`` as their users meet them: real processes, real sockets, real signals."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quarterdeck.cli.keys import grant_of
from quarterdeck.cli.logs import log_settings
from quarterdeck.cli.serving import oidc_settings, server_settings
from quarterdeck.core.errors import UsageError
from tests.doors.cli_shop import Shop, error_of


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@contextmanager
def serving(shop: Shop, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A serving process, its address, and the admin key that it printed (empty if none)."""
    process = shop.start("serve", *arguments, "--port", "0")
    try:
        address, key = told(process)
        yield process, address, key
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a starting server says: where it is, and the key that it made."""
    assert process.stderr is not None
    key, said = "", ""
    for line in process.stderr:
        said += line
        if found := re.search(r"shown once: (\S+)", line):
            key = found[1]
        if found := re.search(r"on (http://[\w.:\[\]]+)", line):
            return found[1], key
    raise AssertionError(f"the server ended: {said}")


def asked(url: str, key: str = "", body: object = None) -> tuple[int, dict]:
    """Status and JSON body of one request."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as answer:  # noqa: S310 - our own server
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_first_start_prints_an_admin_key_once_and_serves_runs_with_it(shop: Shop) -> None:
    with serving(shop) as (process, address, key):
        assert asked(f"{address}/healthz/live")[0] == 200
        assert asked(f"{address}/v1/routes")[0] == 401
        status, run = asked(f"{address}/v1/runs", key, {"intent": "greet", "payload": "hi"})
        assert status in (200, 201, 202), run
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with serving(shop) as (process, address, again):
        assert again == ""
        status, listed = asked(f"{address}/v1/runs", key)
        assert (status, len(listed["runs"])) == (200, 1)


def test_keys_are_made_listed_and_revoked_beside_a_serving_process(shop: Shop) -> None:
    with serving(shop) as (_, address, _):
        made = shop.json("keys", "create", "robot", "--role", "viewer@default", "--lifetime", "1h")
        assert asked(f"{address}/v1/runs", made["key"])[0] == 200
        assert asked(f"{address}/v1/runs", made["key"], {"intent": "greet"})[0] == 403
        listed = shop.read("keys", "ls", "--json").stdout
        assert made["prefix"] in listed
        assert made["key"] not in listed
        assert shop.json("keys", "revoke", made["prefix"], "--reason", "test")["status"] == "revoked"
        for _ in range(20_000):
            status = asked(f"{address}/v1/runs", made["key"])[0]
            if status == 401:
                break
        assert status == 401, "a revocation reaches every process"


def test_nothing_is_served_beyond_loopback_without_authentication(shop: Shop) -> None:
    refused = shop.read("serve", "--host", "0.0.0.0", "--port", "0", "--insecure-loopback")  # noqa: S104 - it must not listen
    assert (refused.returncode, error_of(refused)) == (2, "auth.anonymous_exposed")


def test_an_address_that_is_taken_stops_the_start_before_the_store_is_touched(shop: Shop) -> None:
    with serving(shop) as (_, address, _):
        port = address.rpartition(":")[2]
        refused = shop.read("serve", "--store", "other.db", "--port", port)
    assert (refused.returncode, error_of(refused)) == (2, "server.address")
    assert not (shop.folder / "other.db").exists()


def test_settings_come_from_file_then_variables_then_flags() -> None:
    table = {"port": 1, "rate_per_s": 5.0}
    found = server_settings(table, {"QUARTERDECK_SERVER_PORT": "2", "QUARTERDECK_SERVER_BURST": "7"}, {"port": None})
    assert (found.port, found.rate_per_s, found.burst) == (2, 5.0, 7)
    assert server_settings(table, {"QUARTERDECK_SERVER_PORT": "2"}, {"port": 3}).port == 3
    assert log_settings({"level": "error"}, {"QUARTERDECK_LOG_FORMAT": "json"}).format == "json"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: server_settings({"prot": 1}, {}, {}),
        lambda: server_settings({"port": "eight"}, {}, {}),
        lambda: server_settings({}, {"QUARTERDECK_SERVER_PROT": "1"}, {}),
        lambda: server_settings({}, {"QUARTERDECK_SERVER_PORT": "many"}, {}),
        lambda: log_settings({"level": "loud"}, {}),
        lambda: oidc_settings({"issuer": 5}),
    ],
)
def test_a_setting_that_is_not_known_or_does_not_fit_is_an_error(wrong) -> None:
    with pytest.raises(UsageError) as caught:
        wrong()
    assert caught.value.code == "config.invalid"


def test_a_role_that_does_not_exist_is_named(shop: Shop) -> None:
    with pytest.raises(UsageError, match="superuser"):
        grant_of("superuser@acme")


def test_logs_can_be_json_lines(shop: Shop) -> None:
    (shop.folder / "quarterdeck.toml").write_text('[quarterdeck]\napp = "shop:deck"\n[log]\nformat = "json"\nlevel = "debug"\n')
    with serving(shop) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert lines
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


def test_a_changed_file_starts_the_server_again_on_the_same_store(shop: Shop) -> None:
    process = shop.start("dev", "--port", "0")
    try:
        address, key = told(process)
        assert asked(f"{address}/v1/runs", key)[0] == 200
        source = shop.folder / "shop.py"
        source.write_text(source.read_text() + "\n# changed\n")
        address, again = told(process)
        assert again == ""
        assert asked(f"{address}/v1/runs", key)[0] == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_what_dev_has_started_leaves_with_it_though_it_is_killed(shop: Shop) -> None:
    process = shop.start("dev", "--port", "0")
    told(process)
    process.kill()
    process.communicate(timeout=60)  # ends when nobody holds the other ends any more
    assert shop.read("runs", "ls").returncode == 0, "the store has been let go of"


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "quarterdeck.cli", "serve", "--port", "0", "--json", *sys.argv[1:]],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), end="", flush=True)
child.wait()
"""


def test_a_child_leaves_with_its_parent_though_that_is_killed(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    command = [sys.executable, "-c", PARENT, "--with-parent"]
    parent = subprocess.Popen(command, cwd=shop.folder, env=shop.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, _, ready = parent.stdout.readline().partition(" ")
    assert json.loads(ready)["url"]
    watch = os.pidfd_open(int(pid))
    try:
        parent.kill()
        parent.communicate()
        gone, _, _ = select.select([watch], [], [], 60)
        assert gone, "the child serves on, though nobody is there for it"
    finally:
        if not select.select([watch], [], [], 0)[0]:
            os.kill(int(pid), signal.SIGKILL)
        os.close(watch)
    assert shop.read("runs", "ls").returncode == 0, "it has let go of the store"
