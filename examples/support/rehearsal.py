"""The same deck with a scripted stand-in in place of the local model; for tests, and for machines without the model's weights.

``quarterdeck serve examples.support.rehearsal:deck`` serves it.
"""

from __future__ import annotations

from examples.support.deck import deck
from examples.support.standin import stand_in

__all__ = ["deck"]

deck.models["local"] = stand_in()
