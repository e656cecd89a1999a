"""What is installed is what was reviewed: every requirement is pinned to hashes, and the locks belong together."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.tidy import repository

PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; [^\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
NAME = re.compile(r"^[A-Za-z0-9._-]+")
LOCKS = ("runtime", "dev", "weights", "lock")


def pins_of(text: str) -> dict[str, str]:
    """Names and versions; raises ValueError at the first entry that is not pinned to a version and a hash."""
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    if rest := PINNED.sub("", entries).strip():
        raise ValueError(f"not pinned by version and hash: {rest.splitlines()[0]}")
    return {match[1]: match[2] for match in PINNED.finditer(entries)}


def lock(name: str) -> dict[str, str]:
    return pins_of(repository.text(f"requirements/{name}.txt"))


def canonical(requirement: str) -> str:
    found = NAME.match(requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_to_hashes(name: str) -> None:
    assert lock(name)


@pytest.mark.parametrize(
    "planted",
    [
        "one>=1.0 \\\n    --hash=sha256:" + "a" * 64,
        "one==1.0",
        "one==1.0 \\\n    --hash=md5:" + "a" * 32,
        "--index-url somewhere",
        "one @ file:///tmp/one.whl",
    ],
)
def test_a_loose_entry_is_found(planted: str) -> None:
    with pytest.raises(ValueError, match="not pinned"):
        pins_of("# made by a tool\ntwo==2.0 \\\n    --hash=sha256:" + "b" * 64 + "\n" + planted + "\n")


def test_the_developers_lock_contains_the_runtime_lock() -> None:
    assert lock("runtime").items() <= lock("dev").items()


def test_every_declared_dependency_is_locked() -> None:
    declared = tomllib.loads(repository.text("pyproject.toml"))["project"]
    extras = declared["optional-dependencies"]
    assert {canonical(item) for item in declared["dependencies"]} <= lock("runtime").keys()
    assert {canonical(item) for extra in extras.values() for item in extra} <= lock("dev").keys()


def test_the_engine_that_would_be_compiled_stays_out() -> None:
    assert "llama-cpp-python" not in {name for each in LOCKS for name in lock(each)}
