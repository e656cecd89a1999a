"""The stage of these tests; it is public, so that suites elsewhere play on it as well."""

from __future__ import annotations

from quarterdeck.testing.programs import Scene, World, add, cached_policy, desk, opening, play, staged

__all__ = ["Scene", "World", "add", "cached_policy", "desk", "opening", "play", "staged"]
