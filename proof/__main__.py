"""`python -m proof [--only NAME] [--quick] [--list]`: run the suites, show progress, write `build/proof.json`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import msgspec

from proof import MODULES
from proof.result import Suite, SuiteResult

ROOT = Path(__file__).resolve().parents[1]


def suites(modules: Sequence[str] = MODULES) -> list[Suite]:
    """Every registered suite; two of one name are an error."""
    found: dict[str, Suite] = {}
    for name in modules:
        for suite in import_module(name).SUITES:
            if suite.name in found:
                raise ValueError(f"two suites are called {suite.name!r}")
            found[suite.name] = suite
    return list(found.values())


def commit() -> str:
    """The commit that is proved, with a plus sign if the tree differs from it; empty outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip()


def report(results: Sequence[SuiteResult]) -> bytes:
    """The contents of `proof.json`."""
    account = {"commit": commit(), "suites": results}
    return msgspec.json.format(msgspec.json.encode(account), indent=2)


def main(arguments: list[str], modules: Sequence[str] = MODULES) -> int:
    """Run; exit code 1 if a suite failed or a planted bug was not caught, 2 if no suite has that name."""
    parser = argparse.ArgumentParser(prog="python -m proof", description="Run the proof suites at length.")
    parser.add_argument("--only", action="append", metavar="NAME", help="run only this suite (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="the short length that the tests use")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "proof.json", help="where the account is written")
    options = parser.parse_args(arguments)
    chosen = [suite for suite in suites(modules) if not options.only or suite.name in options.only]
    if options.list or not chosen or len(chosen) < len(options.only or ()):
        print("\n".join(suite.name for suite in suites(modules)))
        return 0 if options.list else 2
    results: list[SuiteResult] = []
    for place, suite in enumerate(chosen, 1):
        print(f"[{place}/{len(chosen)}] {suite.name} ...", flush=True)
        result = suite.run(options.quick)
        results.append(result)
        print(
            f"    {'passed' if result.passed else 'FAILED'}: {result.trials} trials, {result.failures} failures, "
            f"{result.mutants_caught}/{result.mutants_planted} planted bugs caught, {result.minutes:.1f} min, {result.detail}",
            flush=True,
        )
        # Written after each suite, so that a long run that is broken off leaves what it had.
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(report(results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
