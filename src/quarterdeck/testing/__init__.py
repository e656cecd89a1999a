"""Test tools as public interface: a scripted model, virtual clocks, an in-memory store, the conformance suites, the simulator.

Everything here is deterministic and labelled. The rest of Quarterdeck never imports it.
"""

from __future__ import annotations

from quarterdeck.testing.scripted import ScriptedModel

__all__ = ["ScriptedModel"]
