"""The two kinds of struct that go over the wire: what is asked refuses unknown fields, what is answered may grow."""

from __future__ import annotations

import msgspec


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that is asked: a body or a query."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is answered."""
